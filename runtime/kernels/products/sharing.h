/* The one policy of sharing: whether the tokens of a block read a row once for all, and in what
 * form their events are then. It pays where so many inputs are active that the tokens' rows are
 * mostly the same. */
#ifndef ST_SHARING_H
#define ST_SHARING_H

#include "events.h"

/* Most parts of the list of a single token that threads sum, and most outputs that are summed so:
 * longer rows are cut instead. */
#define ST_PARTS 8
#define ST_PART_OUTPUTS 8192

/* Memory of `events` for all that sharing needs; 0 on success. */
int st_sharing_init(st_events *events, ptrdiff_t size, ptrdiff_t tokens);
void st_sharing_free(st_events *events);
/* Fills row, offset and rows_read from the codes, or from the lists where `code` is NULL. */
void st_find_rows(st_events *events, const int16_t *code, st_pool *pool);
/* Whether a block of squares has codes in place of lists. */
int st_has_codes(const st_events *events, const st_kernels *kernels);
/* Decides how the tokens read rows of `m`, sets events->sharing, and brings the events into the
 * form that this needs. */
void st_share_rows(const st_rows *m, st_events *events, const st_kernels *kernels, st_pool *pool);
/* Outputs of which the rows that tokens read in turn fit the caches. */
ptrdiff_t st_strip_outputs(const st_rows *m, const st_events *events);
/* Outputs of one block of a product that threads split, and the multiple that a block has to be. */
ptrdiff_t st_block_outputs(const st_events *events);
ptrdiff_t st_block_step(const st_events *events);

#endif
