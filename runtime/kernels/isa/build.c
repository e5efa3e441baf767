/* One instruction-set build of all kernels: compiled once per level with its own ST_BUILD. */
#include "kernels.h"

#include <string.h>

#include "functions.h"

#define ST_JOIN_(a, b) a##b
#define ST_JOIN(a, b) ST_JOIN_(a, b)
#define ST_TEXT_(a) #a
#define ST_TEXT(a) ST_TEXT_(a)

/* Outputs whose accumulators a kernel holds at a time: 40 KB. Long pieces of rows stream best. */
#define ST_TILE 10240

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Each of these may use what stands above. */
#include "elementwise.h"

#include "lists.h"
#include "norms.h"
#include "rows_float.h"
#include "sums.h"

#include "dense_float.h"
#include "drawing.h"
#include "egru_units.h"
#include "gla.h"
#include "rows_int8.h"
#include "softmax.h"
#include "spikes.h"
#include "wkv.h"

#include "counts_int8.h"
#include "dense_int8.h"
#include "window.h"

#include "counts_int8_groups.h"
#include "dense_int4.h"
#include "rows_int4.h"
#include "shared_lists.h"

#include "shared_bytes.h"

const st_kernels ST_JOIN(st_kernels_, ST_BUILD) = {
    .name = ST_TEXT(ST_BUILD),
#define ST_KERNEL(result, name, arguments) .name = name,
#include "kernels.def"
#undef ST_KERNEL
};
