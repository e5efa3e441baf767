/* Dense float32 products over packed panels: one accumulator per output, inputs in order, a product
 * rounded before it is added. */

/* Vectors of one panel, and rows of the input that a pass over it serves: what the registers hold. */
#define ST_FLOAT_VECTORS (ST_PANEL / ST_FLOATS)
#if defined(__AVX512F__)
#define ST_FLOAT_TOKENS 6
#else
#define ST_FLOAT_TOKENS 1
#endif

static inline __attribute__((always_inline)) void
multiply_float_rows(const float *panel, ptrdiff_t inputs, const float *x, ptrdiff_t x_stride,
                    const int rows, float (*out)[ST_PANEL])
{
    st_floats acc[ST_FLOAT_TOKENS][ST_FLOAT_VECTORS];
    memset(acc, 0, sizeof acc);
    for (ptrdiff_t i = 0; i < inputs; i++) {
        st_floats w[ST_FLOAT_VECTORS];
        for (int v = 0; v < ST_FLOAT_VECTORS; v++) {
            w[v] = *(const st_floats *)(panel + i * ST_PANEL + v * ST_FLOATS);
            if (rows == 1) __builtin_prefetch(panel + (i + 16) * ST_PANEL + v * ST_FLOATS);
        }
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < ST_FLOAT_VECTORS; v++) {
                st_floats product = w[v] * x[r * x_stride + i];
                acc[r][v] = acc[r][v] + product;
            }
    }
    memcpy(out, acc, sizeof *out * (size_t)rows);
}

static void multiply_float32(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                             ptrdiff_t last, float *y, ptrdiff_t y_stride)
{
    float acc[ST_FLOAT_TOKENS][ST_PANEL];
    for (ptrdiff_t at = first; at < last; at += ST_PANEL) {
        const float *panel = (const float *)(m->panel + at / ST_PANEL * m->panel_stride);
        ptrdiff_t count = ST_MIN(ST_PANEL, last - at);
        for (ptrdiff_t t = 0; t < input->tokens;) {
            const float *x = input->x + t * input->x_stride;
            int rows = input->tokens - t < ST_FLOAT_TOKENS ? 1 : ST_FLOAT_TOKENS;
            if (rows == 1)
                multiply_float_rows(panel, m->inputs, x, input->x_stride, 1, acc);
            else
                multiply_float_rows(panel, m->inputs, x, input->x_stride, ST_FLOAT_TOKENS, acc);
            for (int r = 0; r < rows; r++)
                memcpy(y + (t + r) * y_stride + at, acc[r], (size_t)count * sizeof(float));
            t += rows;
        }
    }
}
