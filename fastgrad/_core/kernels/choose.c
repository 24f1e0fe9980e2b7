/* Chooses the instruction-set level once. */

#include <string.h>
#include "kernels.h"

extern const fg_kernel_table fg_kernels_baseline;
#ifdef FG_X86_LEVELS
extern const fg_kernel_table fg_kernels_avx2, fg_kernels_avx512;
#endif

static fg_kernel_table in_use;
fg_kernel_table *const fg_kernels = &in_use;

int fg_use_level(const char *wanted) {
#ifdef FG_X86_LEVELS
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    if (avx512 && (!wanted || !strcmp(wanted, "avx512"))) {
        in_use = fg_kernels_avx512;
        return 1;
    }
    if (avx2 && (!wanted || !strcmp(wanted, "avx2"))) {
        in_use = fg_kernels_avx2;
        return 1;
    }
#endif
    if (wanted && strcmp(wanted, "baseline")) return 0;
    in_use = fg_kernels_baseline;
    return 1;
}
