/* What the networks of all families share: a pass over a batch, its split over threads, embedding
 * rows, products with their counting, scratch, the dial, records of spikes.
 *
 * A family's network begins with an st_core, so that a pass leads to it by a cast. */
#ifndef ST_CORE_H
#define ST_CORE_H

#include "dense.h"
#include "events.h"
#include "kernels.h"
#include "pool.h"

/* Counters of one part of a network: runtime/activity.py. */
typedef struct {
    int64_t neurons, events, silent_rows, bytes_touched, bytes_dense, macs_dense, macs_effective,
        acs_effective;
} st_counters;

/* What one sequence did in a call. */
typedef struct {
    int64_t events, neurons, bytes_touched;
} st_sequence_counters;

/* Where passes over a single token write the spike counts of each site, one after another; `next`
 * is NULL while nobody records. */
typedef struct {
    int32_t *next;
    ptrdiff_t room;
} st_record;

/* Rows of embeddings beside those of the weight formats: eight elements a byte, the first in the
 * lowest bit. */
enum { ST_BITS = ST_FORMATS };

/* Element i of token v is at rows[v * stride + i * step], in elements; of int8 times scale[v]. */
typedef struct {
    int format;
    const void *rows;
    const float *scale;
    ptrdiff_t stride, step;
} st_embedding;

typedef struct {
    const st_kernels *kernels;
    st_pool *pool;
    int pieces; /* most of a split */
    ptrdiff_t width, vocabulary;
    st_embedding embedding;
    ptrdiff_t dial; /* bytes from the start of a state; -1 for a dial of 1 */
    st_record record;
    st_counters *head_counters;
    int64_t *fired; /* of each token, for one site at a time */
    void **scratch;
    int scratches, is_short; /* of memory */
} st_core;

/* What a pass works on. state[i] belongs to token i, or state[0] to all tokens of a scan, which are
 * consecutive. */
typedef struct {
    st_core *core;
    char *const *state;
    ptrdiff_t tokens;
    int scan;
    st_sequence_counters *sequence; /* one a state */
} st_pass;

/* Logits that a pass writes: none, those after the last token alone (into row 0), or all. */
enum { ST_NO_LOGITS, ST_LAST_LOGITS, ST_ALL_LOGITS };

static inline char *st_state_of(const st_pass *pass, ptrdiff_t token)
{
    return pass->state[pass->scan ? 0 : token];
}

static inline st_sequence_counters *st_sequence_of(const st_pass *pass, ptrdiff_t token)
{
    return &pass->sequence[pass->scan ? 0 : token];
}

/* The tokens of a pass from `first` on, which stay lanes of the same states. */
st_pass st_pass_from(const st_pass *pass, ptrdiff_t first);
/* What counts of a token's sequence have to reach. */
float st_dial_of(const st_pass *pass, ptrdiff_t token);

/* --- memory ----------------------------------------------------------------------------------- */

/* Sets what depends on kernels and threads; -1 where memory is short. Everything else is zero. */
int st_core_init(st_core *core, const st_kernels *kernels, int threads);
void st_core_free(st_core *core);
/* Memory on a cache line that st_core_free gives back; NULL, and core->is_short, without. */
void *st_scratch(st_core *core, ptrdiff_t bytes);

/* --- the split over threads ------------------------------------------------------------------- */

typedef void (*st_range)(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                         ptrdiff_t last);
/* function(pass, subject, piece, first, last) over [0, size) in pieces of multiples of `step`,
 * split over the threads if there are about `values` to compute. piece < core->pieces. */
void st_split(const st_pass *pass, const void *subject, st_range function, ptrdiff_t size,
              ptrdiff_t step, ptrdiff_t values);
/* The same over all tokens, or over all channels, for work of core->width values a token. */
void st_over_tokens(const st_pass *pass, const void *subject, st_range function);
void st_over_channels(const st_pass *pass, const void *subject, st_range function);

/* --- what goes in ----------------------------------------------------------------------------- */

/* Writes the core->width values of a token. */
void st_embed(const st_core *core, int64_t token, float *row);

/* --- products and their counters -------------------------------------------------------------- */

/* Dense products of all tokens of a pass, counted as one part's. */
void st_run_dense(const st_pass *pass, st_counters *counters, const st_dense_product *product,
                  int count);
/* Products of events that stand for all tokens of a pass, at most two, counted as one part's. */
void st_run_events(const st_pass *pass, st_counters *counters, const st_event_product *product,
                   int count);
/* Counts a product that read all weights for `tokens` tokens from `first` on. */
void st_count_whole(const st_pass *pass, st_counters *counters, int64_t bytes, int64_t macs,
                    ptrdiff_t first, ptrdiff_t tokens);
/* Counts a product of the events of tokens from `first` on, after its run. `matrices` lie side by
 * side in `m`. */
void st_count_rows(const st_pass *pass, st_counters *counters, const st_rows *m, ptrdiff_t matrices,
                   st_events *events, ptrdiff_t first);
/* Counts `units` neurons a token, of which fired[t] fired. Neurons before the head are none of a
 * sequence's own: how often the head runs depends on how a prompt is cut. */
void st_count_neurons(const st_pass *pass, st_counters *counters, ptrdiff_t units,
                      const int64_t *fired);
/* Where the spike counts of a site of `size` inputs are recorded, or NULL. */
int32_t *st_record_site(st_core *core, ptrdiff_t size);

#endif
