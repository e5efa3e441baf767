/* What networks count. */
#ifndef ST_WORK_H
#define ST_WORK_H

#include <stddef.h>
#include <stdint.h>

/* Counters of one part of a network: runtime/activity.py. */
typedef struct {
    int64_t neurons, events, silent_rows, bytes_touched, bytes_dense, macs_dense, macs_effective,
        acs_effective;
} st_work;

/* What one sequence did in a call. */
typedef struct {
    int64_t events, neurons, bytes_touched;
} st_sequence_work;

/* Where passes over a single token write the spike counts of each place, one after another; `next`
 * is NULL where nobody asks. */
typedef struct {
    int32_t *next;
    ptrdiff_t room;
} st_record;

#endif
