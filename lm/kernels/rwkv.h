/* What lies between the matrix products of an RWKV-4 style model, with gradients, for training.
 *
 * Arrays are time-major (steps, batch, width).  Each function exists for three kinds of data:
 * f32 and bf16 (uint16_t) with float32 state, f64 with float64 state.  No allocation, no threads,
 * no Python. */
#ifndef SPIKETRAIN_LM_RWKV_H
#define SPIKETRAIN_LM_RWKV_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    ptrdiff_t steps, batch, width;
} rwkv_shape;

#define DECLARE_RWKV(NAME, REAL, ACC)                                                              \
    /* out[m] = y mu[m] + before (1 - mu[m]), before = y one step earlier, prev at first. */       \
    void mix_forward_##NAME(rwkv_shape s, ptrdiff_t mixes, const ACC *y, const ACC *prev,          \
                            const ACC *mu, REAL *out);                                             \
    /* dy and dmu (mixes, width) are written. */                                                   \
    void mix_backward_##NAME(rwkv_shape s, ptrdiff_t mixes, const ACC *y, const ACC *prev,         \
                             const ACC *mu, const REAL *dout, ACC *dy, ACC *dmu);                  \
    /* out = sigmoid(r) wkv; state p, q, o (batch, width) in and out; saved, unless NULL, gets     \
     * (steps, 3, batch, width): p, q, o before each step. */                                      \
    void wkv_forward_##NAME(rwkv_shape s, const REAL *k, const REAL *v, const REAL *r,             \
                            const ACC *w, const ACC *u, ACC *p, ACC *q, ACC *o, ACC *saved,        \
                            REAL *out);                                                            \
    /* scratch (2, batch, width); dw, du (width) are written. */                                   \
    void wkv_backward_##NAME(rwkv_shape s, const REAL *k, const REAL *v, const REAL *r,            \
                             const ACC *w, const ACC *u, const ACC *saved, const REAL *dout,       \
                             ACC *scratch, REAL *dk, REAL *dv, REAL *dr, ACC *dw, ACC *du);        \
    /* Spikes 0 or 1 of leaky units; v (batch, width) in and out; h, unless NULL, gets the         \
     * membranes before reset. */                                                                  \
    void lif_forward_##NAME(rwkv_shape s, ACC tau, const REAL *x, const ACC *scale,                \
                            const ACC *threshold, ACC *v, ACC *h, ACC *spikes);                    \
    /* cost (width): gradient of each spike from activity regularisation; dv (batch, width) is     \
     * zero on entry; dscale, dthreshold (width) are written. */                                   \
    void lif_backward_##NAME(rwkv_shape s, ACC tau, const REAL *x, const ACC *scale,               \
                             const ACC *threshold, const ACC *h, const ACC *cost,                  \
                             const ACC *dspikes, ACC *dv, REAL *dx, ACC *dscale, ACC *dthreshold); \
    /* out = count * unit per value, unit = theta mean|x| of its row; rows = steps * batch. */     \
    void counts_forward_##NAME(rwkv_shape s, ACC theta, const REAL *x, REAL *out);                 \
    /* dx is written; returns the gradient of theta divided by width. */                           \
    double counts_backward_##NAME(rwkv_shape s, ACC theta, const REAL *x, const ACC *cost,         \
                                  const REAL *dout, REAL *dx);                                     \
    void relu2_forward_##NAME(ptrdiff_t n, const REAL *x, REAL *out);                              \
    void relu2_backward_##NAME(ptrdiff_t n, const REAL *x, const REAL *dout, REAL *dx);

DECLARE_RWKV(f32, float, float)
DECLARE_RWKV(bf16, uint16_t, float)
DECLARE_RWKV(f64, double, double)

#endif
