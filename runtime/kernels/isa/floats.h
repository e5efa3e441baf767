/* How a thread rounds floats. Another library may have told it to take denormals for zeros, or to
 * round otherwise; results must not depend on that. */
#ifndef ST_FLOATS_H
#define ST_FLOATS_H

#if defined(__x86_64__)

#include <xmmintrin.h>

typedef unsigned st_rounding;

/* To nearest, with denormals; returns what was before. */
static inline st_rounding st_plain_rounding(void)
{
    st_rounding before = _mm_getcsr();
    _mm_setcsr(_MM_MASK_MASK); /* no traps, and nothing else */
    return before;
}

static inline void st_set_rounding(st_rounding rounding)
{
    _mm_setcsr(rounding);
}

#else

#include <fenv.h>

typedef fenv_t st_rounding;

static inline st_rounding st_plain_rounding(void)
{
    st_rounding before;
    fegetenv(&before);
    fesetenv(FE_DFL_ENV);
    return before;
}

static inline void st_set_rounding(st_rounding rounding)
{
    fesetenv(&rounding);
}

#endif

#endif
