/* Dense float32 products over packed panels: one accumulator per output, inputs in order, a product
 * rounded before it is added. */

static void multiply_float32(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                             ptrdiff_t last, float *y, ptrdiff_t y_stride)
{
    for (ptrdiff_t at = first; at < last; at += ST_PANEL) {
        const float *panel = (const float *)(m->panel + at / ST_PANEL * m->panel_stride);
        ptrdiff_t count = ST_MIN(ST_PANEL, last - at);
        for (ptrdiff_t t = 0; t < input->tokens; t++) {
            const float *x = input->x + t * input->x_stride;
            float acc[ST_PANEL] = {0};
            for (ptrdiff_t i = 0; i < m->inputs; i++) {
                const float *w = panel + i * ST_PANEL;
                for (int j = 0; j < ST_PANEL; j++) {
                    float product = w[j] * x[i];
                    acc[j] = acc[j] + product;
                }
            }
            memcpy(y + t * y_stride + at, acc, (size_t)count * sizeof *acc);
        }
    }
}
