/* Weights into the panels that dense products read (dense.h). */
#include <string.h>

#include "dense.h"

static ptrdiff_t divide_up(ptrdiff_t a, ptrdiff_t b)
{
    return (a + b - 1) / b;
}

ptrdiff_t st_panels(ptrdiff_t outputs)
{
    return divide_up(outputs, ST_PANEL);
}

ptrdiff_t st_panel_bytes(int format, ptrdiff_t inputs, ptrdiff_t group)
{
    const st_format *f = &st_formats[format];
    ptrdiff_t together = f->panel_inputs ? f->panel_inputs : group;
    return divide_up(inputs, together) * (together * f->bits / 8 + f->panel_scale) * ST_PANEL;
}

int64_t st_dense_bytes(const st_dense *m)
{
    const st_format *f = &st_formats[m->format];
    int64_t groups = f->panel_inputs ? 0 : divide_up(m->inputs, m->group);
    return ((int64_t)m->inputs * m->outputs * f->bits + 7) / 8 +
           groups * f->panel_scale * m->outputs;
}

/* Rows of floats of so many `bytes` each as they are. */
static void pack_floats(const st_dense *m, const uint8_t *weight, ptrdiff_t stride, uint8_t *panel)
{
    const ptrdiff_t bytes = st_formats[m->format].bits / 8;
    for (ptrdiff_t p = 0; p < st_panels(m->outputs); p++) {
        uint8_t *to = panel + p * m->panel_stride;
        ptrdiff_t first = p * ST_PANEL, count = ST_MIN(ST_PANEL, m->outputs - first);
        memset(to, 0, (size_t)st_panel_bytes(m->format, m->inputs, 0));
        for (ptrdiff_t i = 0; i < m->inputs; i++)
            memcpy(to + i * ST_PANEL * bytes, weight + (i * stride + first) * bytes,
                   (size_t)(count * bytes));
    }
}

static void pack_int8(const st_dense *m, const int8_t *weight, ptrdiff_t stride, uint8_t *panel)
{
    for (ptrdiff_t p = 0; p < st_panels(m->outputs); p++) {
        uint8_t *to = panel + p * m->panel_stride;
        ptrdiff_t count = ST_MIN(ST_PANEL, m->outputs - p * ST_PANEL);
        memset(to, 128, (size_t)st_panel_bytes(ST_INT8, m->inputs, 0));
        for (ptrdiff_t i = 0; i < m->inputs; i++) {
            const int8_t *from = weight + i * stride + p * ST_PANEL;
            uint8_t *quad = to + i / 4 * 4 * ST_PANEL + i % 4;
            for (ptrdiff_t j = 0; j < count; j++) quad[4 * j] = (uint8_t)(from[j] + 128);
        }
    }
}

/* The upper half of a float32 that has nothing in the lower one. */
static uint16_t to_bfloat16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static void pack_int4(const st_dense *m, const uint8_t *weight, ptrdiff_t stride,
                      const float *scale, uint8_t *panel)
{
    ptrdiff_t group_bytes = (m->group / 2 + 2) * ST_PANEL;
    for (ptrdiff_t p = 0; p < st_panels(m->outputs); p++) {
        ptrdiff_t first = p * ST_PANEL, count = ST_MIN(ST_PANEL, m->outputs - first);
        memset(panel + p * m->panel_stride, 0x88,
               (size_t)st_panel_bytes(ST_INT4, m->inputs, m->group));
        for (ptrdiff_t g = 0; g * m->group < m->inputs; g++) {
            uint16_t *to = (uint16_t *)(panel + p * m->panel_stride + g * group_bytes);
            memset(to, 0, ST_PANEL * sizeof *to);
            for (ptrdiff_t j = 0; j < count; j++)
                to[j] = to_bfloat16(scale[g * m->outputs + first + j]);
        }
        for (ptrdiff_t i = 0; i < m->inputs; i++) {
            uint8_t *codes = panel + p * m->panel_stride + i / m->group * group_bytes;
            uint8_t *eight = codes + 2 * ST_PANEL + i % m->group / 8 * 4 * ST_PANEL + i % 4;
            for (ptrdiff_t j = 0; j < count; j++) {
                ptrdiff_t o = first + j;
                uint8_t code = weight[i * stride + o / 2] >> (o % 2 * 4) & 15;
                uint8_t *byte = eight + 4 * j;
                *byte = i % 8 < 4 ? (*byte & 0xf0) | code : (*byte & 0x0f) | (uint8_t)(code << 4);
            }
        }
    }
}

void st_pack(const st_dense *m, const void *weight, ptrdiff_t stride, const float *scale,
             uint8_t *panel)
{
    if (st_is_float(m->format))
        pack_floats(m, weight, stride, panel);
    else if (m->format == ST_INT8)
        pack_int8(m, weight, stride, panel);
    else
        pack_int4(m, weight, stride, scale, panel);
}
