/* Gated linear attention. Sums over channels of a state go in ascending order with one accumulator
 * per output. */

/* Value channels that stay in registers while all rows of a state pass. */
#define ST_STRIP 64
#define ST_STRIP_VECTORS (ST_STRIP / ST_FLOATS)

/* Rows times one strip of value channels; a strip shorter than ST_STRIP is element by element. */
static void gla_strip(float *restrict state, const float *restrict decay, const float *restrict k,
                      const float *restrict v, const float *restrict q, ptrdiff_t heads,
                      ptrdiff_t size, ptrdiff_t count, float *restrict out)
{
    for (ptrdiff_t i = 0; i < size; i++) {
        float *row = state + i * size;
        if (count == ST_STRIP) {
            st_floats now[ST_STRIP_VECTORS];
            for (int c = 0; c < ST_STRIP_VECTORS; c++) {
                st_floats kept = ((const st_floats *)row)[c] * decay[i];
                st_floats added = ((const st_floats *)v)[c] * k[i];
                now[c] = kept + added;
                ((st_floats *)row)[c] = now[c];
            }
            for (ptrdiff_t h = 0; h < heads; h++) {
                float query = q[h * size + i];
                if (query == 0.0f) continue;
                st_floats *sum = (st_floats *)(out + h * size);
                for (int c = 0; c < ST_STRIP_VECTORS; c++) {
                    st_floats product = now[c] * query;
                    sum[c] = sum[c] + product;
                }
            }
            continue;
        }
        for (ptrdiff_t c = 0; c < count; c++) {
            float kept = row[c] * decay[i], added = v[c] * k[i];
            row[c] = kept + added;
            for (ptrdiff_t h = 0; h < heads; h++) {
                float query = q[h * size + i], product = row[c] * query;
                if (query != 0.0f) out[h * size + c] = out[h * size + c] + product;
            }
        }
    }
}

static void gla(const float *decay, const float *k, const float *v, const float *q, ptrdiff_t heads,
                ptrdiff_t size, float *state, float *out)
{
    memset(out, 0, (size_t)(heads * size) * sizeof *out);
    for (ptrdiff_t c = 0; c < size; c += ST_STRIP)
        gla_strip(state + c, decay, k, v + c, q, heads, size, ST_MIN(ST_STRIP, size - c), out + c);
}
