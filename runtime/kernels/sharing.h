/* Lists of a block of tokens as bytes, so that a row is read once for all of them (sparse_shared.h).
 * That pays where so many inputs are active that the tokens' rows are mostly the same. */
#ifndef ST_SHARING_H
#define ST_SHARING_H

#include "kernels.h"
#include "pool.h"

enum { ST_SQUARES, ST_COUNTS };

/* The events of one token: values are float for float32 weights, else int16_t. */
typedef struct {
    int32_t *index;
    void *value;
    ptrdiff_t count;
    float unit;
} st_sparse_list;

typedef struct {
    st_shared shared;
    int kind;
    int32_t *row, *place, *sum;
    uint8_t *bytes;
    float *unit;
} st_sharing;

/* Room for `tokens` lists about vectors of `size` elements; 0 on success. */
int st_sharing_init(st_sharing *sharing, int kind, ptrdiff_t size, ptrdiff_t tokens);
void st_sharing_free(st_sharing *sharing);
/* Whether so many tokens might share rows at all. */
int st_sharing_possible(ptrdiff_t tokens, const st_kernels *kernels);
/* Whether `tokens` lists about `size` inputs should share rows of `m`, and can. */
int st_sharing_pays(const st_sparse *m, int kind, const st_sparse_list *list, ptrdiff_t tokens,
                    const st_kernels *kernels);
/* Fills sharing->shared from the lists, or from their units and `code` (tokens, size) where that is
 * not NULL; -1 where a count fits no byte, so that only lists will do. */
int st_sharing_set(st_sharing *sharing, const int16_t *code, const st_sparse_list *list,
                   ptrdiff_t tokens, ptrdiff_t size, st_pool *pool);

#endif
