/* Which builds there are, and which of them this machine can run. */
#include "kernels.h"

#include <string.h>

extern const st_kernels st_kernels_generic;
#if defined(ST_X86_BUILDS)
extern const st_kernels st_kernels_avx2, st_kernels_avx512;
const char *const st_build_names[] = {"avx512", "avx2", "generic", NULL};
#else
const char *const st_build_names[] = {"generic", NULL};
#endif

const st_kernels *st_find_kernels(const char *name)
{
    if (!strcmp(name, "generic")) return &st_kernels_generic;
#if defined(ST_X86_BUILDS)
    if (!strcmp(name, "avx2")) return &st_kernels_avx2;
    if (!strcmp(name, "avx512")) return &st_kernels_avx512;
#endif
    return NULL;
}

/* The compiler's tests also ask whether the operating system saves the wide registers. */
int st_can_run(const char *name)
{
    if (!strcmp(name, "generic")) return 1;
#if defined(ST_X86_BUILDS)
    __builtin_cpu_init();
    if (!strcmp(name, "avx2")) return !!__builtin_cpu_supports("avx2");
    if (!strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vnni");
#endif
    return 0;
}
