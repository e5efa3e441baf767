/* Elementwise parts of EGRU training, one time step over a batch, and softmax cross-entropy.
 *
 * Matrix products stay with torch; everything between two of them is one pass here.
 * bfloat16 arrays travel as uint16_t.  No allocation, no threads, no Python. */
#ifndef SPIKETRAIN_LM_FUSED_H
#define SPIKETRAIN_LM_FUSED_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    ptrdiff_t batch, hidden;
    float damp, support; /* pseudo-derivative: damp * max(0, 1 - support * |v|) */
    float floor;         /* the value of an event is at least this to the surrogate */
} egru_shape;

/* xk: x K + b and yr: y R, both (batch, 3 hidden), blocks z | r | g; d: recurrent bias (3 hidden).
 */
void egru_forward_f32(egru_shape s, const float *xk, const float *yr, const float *d,
                      const float *theta, const float *c_prev, float *z, float *r, float *g,
                      float *q, float *c_tilde, float *c, float *y);
void egru_forward_bf16(egru_shape s, const uint16_t *xk, const uint16_t *yr, const float *d,
                       const float *theta, const float *c_prev, float *z, float *r, float *g,
                       float *q, float *c_tilde, float *c, uint16_t *y);

/* dy: gradient of y (outer + recurrent, two addends); dc: in gradient of c, out gradient of c_prev.
 * event_cost: per unit, added to the gradient of the event o (activity regularisation).
 * dxk, dyr (batch, 3 hidden) out; dtheta (hidden) accumulated. */
void egru_backward_f32(egru_shape s, const float *dy_out, const float *dy_rec,
                       const float *event_cost, const float *theta, const float *c_prev,
                       const float *z, const float *r, const float *g, const float *q,
                       const float *c_tilde, float *dc, float *dxk, float *dyr, float *dtheta);
void egru_backward_bf16(egru_shape s, const uint16_t *dy_out, const uint16_t *dy_rec,
                        const float *event_cost, const float *theta, const float *c_prev,
                        const float *z, const float *r, const float *g, const float *q,
                        const float *c_tilde, float *dc, uint16_t *dxk, uint16_t *dyr,
                        float *dtheta);

/* logits (rows, vocab) become d loss / d logits * scale in place; nll (rows) in nats. */
void softmax_xent_f32(ptrdiff_t rows, ptrdiff_t vocab, float scale, const int64_t *target,
                      float *logits, float *nll);
void softmax_xent_bf16(ptrdiff_t rows, ptrdiff_t vocab, float scale, const int64_t *target,
                       uint16_t *logits, float *nll);

#endif
