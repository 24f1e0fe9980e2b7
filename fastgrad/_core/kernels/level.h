/* One instruction-set level: includes the one implementation of every loop and fills the table of them.
 * A level is a file that defines FG_LEVEL and FG_LEVEL_NAME and includes this; the build gives it its flags. */

#include <math.h>
#include <stdint.h>
#include <string.h>
#include "kernels.h"
#include "vecmath_f64.h"
#include "vecmath_f32.h"
#include "vecmath_avx512.h"
#include "polygamma.h"

static inline double fg_fabs_f64(double x) { return fabs(x); }
static inline float fg_fabs_f32(float x) { return fabsf(x); }
static inline double fg_copysign_f64(double x, double y) { return copysign(x, y); }
static inline float fg_copysign_f32(float x, float y) { return copysignf(x, y); }

#include "rows.h"
#include "loops.h"

#if defined(__AVX512F__)
#define VECTOR 64
#define TILE 8
#elif defined(__AVX2__)
#define VECTOR 32
#define TILE 6
#else
#define VECTOR 16
#define TILE 4
#endif

#define T double
#define SUFFIX f64
#include "reductions.h"
#include "gemm.h"
#undef T
#undef SUFFIX
#define T float
#define SUFFIX f32
#include "reductions.h"
#include "gemm.h"
#undef T
#undef SUFFIX

#include "lanes_level.h"

const fg_kernel_table FG_LEVEL = {
    .level = FG_LEVEL_NAME,
    .value = FG_VALUE_LOOPS,
    .pull = FG_PULL_LOOPS,
    .value_one = FG_VALUE_ONES,
    .pull_one = FG_PULL_ONES,
    .add = {add_f64, add_f32},
    .fill = {fill_f64, fill_f32},
    .sum = {sum_f64, sum_f32},
    .max = {max_f64, max_f32},
    .min = {min_f64, min_f32},
    .add_rows = {add_rows_f64, add_rows_f32},
    .matmul = {matmul_f64, matmul_f32},
    .gemm = {gemm_f64, gemm_f32},
    .multiply = {multiply_f64, multiply_f32},
    .multiply_packed = {multiply_packed_f64, multiply_packed_f32},
    .pack = {pack_f64, pack_f32},
    .panel = {2 * VECTOR / sizeof(double), 2 * VECTOR / sizeof(float)},
    .dots = {dots_f64, dots_f32},
    .logsumexp = {logsumexp_f64, logsumexp_f32},
    .softmax = {softmax_f64, softmax_f32},
    .log_softmax = {log_softmax_f64, log_softmax_f32},
    .softmax_pull = {softmax_pull_f64, softmax_pull_f32},
    .log_softmax_pull = {log_softmax_pull_f64, log_softmax_pull_f32},
    .logsumexp_pull = {logsumexp_pull_f64, logsumexp_pull_f32},
    .cross_entropy = {cross_entropy_f64, cross_entropy_f32},
    .cross_entropy_pull = {cross_entropy_pull_f64, cross_entropy_pull_f32},
    .extreme_pull = {extreme_pull_f64, extreme_pull_f32},
    .machine = machine,
    .fused = FG_FUSED_LOOPS,
    .stream = stream,
};
