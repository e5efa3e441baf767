/* Dense int8 products over packed panels: exact int32 sums. */

static void finish_panel(const int32_t *restrict acc, float row_scale, const float *restrict scale,
                         ptrdiff_t n, float *restrict y)
{
    for (ptrdiff_t j = 0; j < n; j++) {
        float value = (float)acc[j] * row_scale;
        y[j] = value * scale[j];
    }
}

static void multiply_int8(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                          ptrdiff_t last, float *y, ptrdiff_t y_stride)
{
    ptrdiff_t quads = (m->inputs + 3) / 4;
    for (ptrdiff_t at = first; at < last; at += ST_PANEL) {
        const uint8_t *panel = m->panel + at / ST_PANEL * m->panel_stride;
        ptrdiff_t count = ST_MIN(ST_PANEL, last - at);
        for (ptrdiff_t t = 0; t < input->tokens; t++) {
            const int8_t *x = input->codes + t * input->stride;
            int32_t acc[ST_PANEL] = {0};
            for (ptrdiff_t q = 0; q < quads; q++) {
                const uint8_t *w = panel + q * 4 * ST_PANEL;
                for (int j = 0; j < ST_PANEL; j++)
                    for (int k = 0; k < 4; k++) acc[j] += (w[4 * j + k] - 128) * x[4 * q + k];
            }
            finish_panel(acc, input->scale[t], m->scale + at, count, y + t * y_stride + at);
        }
    }
}
