/* Dense int4 products over packed panels: exact sums over groups of inputs, added in float32. */

static inline float from_bfloat16(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Bytes of one group in a panel: scales, then codes. */
static ptrdiff_t group_bytes(const st_dense *m)
{
    return (m->group / 2 + 2) * ST_PANEL;
}

/* acc += (sum over one group) * scale. */
static void add_group(const uint8_t *packed, ptrdiff_t group, const int8_t *x, float *acc)
{
    const uint16_t *scale = (const uint16_t *)packed;
    int32_t sum[ST_PANEL] = {0};
    for (ptrdiff_t e = 0; e < group / 8; e++) {
        const uint8_t *w = packed + 2 * ST_PANEL + e * 4 * ST_PANEL;
        for (int j = 0; j < ST_PANEL; j++)
            for (int k = 0; k < 4; k++)
                sum[j] += ((w[4 * j + k] & 15) - 8) * x[8 * e + k] +
                          ((w[4 * j + k] >> 4) - 8) * x[8 * e + 4 + k];
    }
    for (int j = 0; j < ST_PANEL; j++) {
        float product = (float)sum[j] * from_bfloat16(scale[j]);
        acc[j] = acc[j] + product;
    }
}

static void multiply_int4(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                          ptrdiff_t last, float *y, ptrdiff_t y_stride)
{
    ptrdiff_t groups = (m->inputs + m->group - 1) / m->group;
    for (ptrdiff_t at = first; at < last; at += ST_PANEL) {
        const uint8_t *panel = m->panel + at / ST_PANEL * m->panel_stride;
        ptrdiff_t count = ST_MIN(ST_PANEL, last - at);
        for (ptrdiff_t t = 0; t < input->tokens; t++) {
            const int8_t *x = input->codes + t * input->stride;
            float acc[ST_PANEL] = {0}, *to = y + t * y_stride + at;
            for (ptrdiff_t g = 0; g < groups; g++)
                add_group(panel + g * group_bytes(m), m->group, x + g * m->group, acc);
            for (ptrdiff_t j = 0; j < count; j++) to[j] = acc[j] * input->scale[t];
        }
    }
}
