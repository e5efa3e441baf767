/* Dense products with float32 or bfloat16 weights over packed panels: one accumulator per output,
 * inputs in order, a product rounded before it is added. A bfloat16 is the float32 of its bits. */

/* Vectors of one panel, and rows of the input that a pass over it serves: what the registers hold.
 */
#define ST_FLOAT_VECTORS (ST_PANEL / ST_FLOATS)
#if defined(__AVX512F__)
#define ST_FLOAT_TOKENS 6
#else
#define ST_FLOAT_TOKENS 1
#endif

/* Vector v of the weights of input i. */
static inline __attribute__((always_inline)) st_floats
load_weights(const uint8_t *panel, ptrdiff_t i, int v, const int bf16)
{
    return load_floats(panel, i * ST_PANEL + v * ST_FLOATS, bf16);
}

static inline __attribute__((always_inline)) void
multiply_float_rows(const uint8_t *panel, ptrdiff_t inputs, const float *x, ptrdiff_t x_stride,
                    const int rows, const int bf16, float (*out)[ST_PANEL])
{
    st_floats acc[ST_FLOAT_TOKENS][ST_FLOAT_VECTORS];
    const ptrdiff_t bytes = bf16 ? 2 : 4;
    memset(acc, 0, sizeof acc);
    for (ptrdiff_t i = 0; i < inputs; i++) {
        st_floats w[ST_FLOAT_VECTORS];
        for (int v = 0; v < ST_FLOAT_VECTORS; v++) {
            w[v] = load_weights(panel, i, v, bf16);
            if (rows == 1)
                __builtin_prefetch(panel + ((i + 16) * ST_PANEL + v * ST_FLOATS) * bytes);
        }
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < ST_FLOAT_VECTORS; v++) {
                st_floats product = w[v] * x[r * x_stride + i];
                acc[r][v] = acc[r][v] + product;
            }
    }
    memcpy(out, acc, sizeof *out * (size_t)rows);
}

static inline __attribute__((always_inline)) void
multiply_floats(const st_dense *m, const st_dense_input *input, ptrdiff_t first, ptrdiff_t last,
                float *y, ptrdiff_t y_stride, const int bf16)
{
    float acc[ST_FLOAT_TOKENS][ST_PANEL];
    for (ptrdiff_t at = first; at < last; at += ST_PANEL) {
        const uint8_t *panel = m->panel + at / ST_PANEL * m->panel_stride;
        ptrdiff_t count = ST_MIN(ST_PANEL, last - at);
        for (ptrdiff_t t = 0; t < input->tokens;) {
            const float *x = input->x + t * input->x_stride;
            int rows = input->tokens - t < ST_FLOAT_TOKENS ? 1 : ST_FLOAT_TOKENS;
            if (rows == 1)
                multiply_float_rows(panel, m->inputs, x, input->x_stride, 1, bf16, acc);
            else
                multiply_float_rows(panel, m->inputs, x, input->x_stride, ST_FLOAT_TOKENS, bf16,
                                    acc);
            for (int r = 0; r < rows; r++)
                memcpy(y + (t + r) * y_stride + at, acc[r], (size_t)count * sizeof(float));
            t += rows;
        }
    }
}

static void multiply_float32(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                             ptrdiff_t last, float *y, ptrdiff_t y_stride)
{
    multiply_floats(m, input, first, last, y, y_stride, 0);
}

static void multiply_bfloat16(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                              ptrdiff_t last, float *y, ptrdiff_t y_stride)
{
    multiply_floats(m, input, first, last, y, y_stride, 1);
}
