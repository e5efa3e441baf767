/* One token from one row of logits (draw.c). */
#ifndef ST_DRAW_H
#define ST_DRAW_H

#include "kernels.h"

/* How to choose, as runtime.sampling.SamplingParams has it; `random` in [0, 1). */
typedef struct {
    double temperature, top_p, min_p, typical_p, random;
    int64_t top_k;
} st_choice;

/* Memory for rows of `size` logits, one row at a time. */
typedef struct {
    ptrdiff_t size;
    double *weight;
    double *key;
    float *value;
    int32_t *index;
    int32_t *order;
} st_draw_memory;

/* Output 0 of Philox4x64-10 with this key and the counter (1, position, 0, 0), as a number. */
double st_uniform(uint64_t seed, uint64_t position, uint64_t index);

/* The token, or -1 if the greatest logit is not finite. */
ptrdiff_t st_draw(const st_kernels *kernels, const float *logits, ptrdiff_t size,
                  const st_choice *choice, st_draw_memory *memory);

#endif
