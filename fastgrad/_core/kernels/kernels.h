/* What a set of kernels offers: loops over contiguous memory at one instruction-set level.
 *
 * Everything here is plain C on raw pointers: no Python objects, no shapes, no strides but where a name says so.
 * Precision is an index: 0 is f64, 1 is f32. */
#ifndef FG_KERNELS_H
#define FG_KERNELS_H

#include <stddef.h>
#include <stdint.h>
#include "ops.h"

/* Elements a block holds where a loop works block by block: 4 KiB of doubles, so that six blocks fit L1. */
#define FG_BLOCK 512

/* Rows of the second operand of a product that are worked on together: a tile's share of the first stays in L1. */
#define FG_DEPTH 256
/* Rows of the first operand for which packing the second does not pay if its rows are contiguous. */
#define FG_ROWS_IN_PLACE 64

/* out = value(x, y, z) and to = g * partial(x, y, z, out); operands that a row does not read may be NULL. */
typedef void (*fg_value_loop)(ptrdiff_t n, const void *x, const void *y, const void *z, void *out);
typedef void (*fg_pull_loop)(ptrdiff_t n, const void *g, const void *x, const void *y, const void *z, const void *out,
                             void *to);

/* Cheap operations of cheap operations, of up to four operands; `to` may be one of them. */
typedef void (*fg_fused_loop)(ptrdiff_t n, const void *a, const void *b, const void *c, const void *d, void *to);

typedef struct {
    const char *level;
    fg_value_loop value[FG_N_ELEMENTARY][2];
    fg_pull_loop pull[FG_N_ELEMENTARY][3][2];
    double (*value_one[FG_N_ELEMENTARY])(double x, double y, double z);
    double (*pull_one[FG_N_ELEMENTARY][3])(double g, double x, double y, double z, double out);

    void (*add[2])(ptrdiff_t n, const void *x, void *to);        /* to += x */
    void (*fill[2])(ptrdiff_t n, double value, void *to);        /* to = value */
    double (*sum[2])(ptrdiff_t n, const void *x);                /* pairwise over blocks */
    double (*max[2])(ptrdiff_t n, const void *x);                /* NaN if any is; n >= 1 */
    double (*min[2])(ptrdiff_t n, const void *x);
    /* to_j += sum_i x_ij over the rows of a matrix. */
    void (*add_rows[2])(ptrdiff_t rows, ptrdiff_t columns, const void *x, void *to);
    /* to += or = the product of (m, k) and (k, n) with element strides; for small sizes. */
    void (*matmul[2])(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a, ptrdiff_t a_row, ptrdiff_t a_column,
                      const void *b, ptrdiff_t b_row, ptrdiff_t b_column, void *to, int accumulate);
    /* The same without accumulation for middle sizes, k >= 1; `to` contiguous. */
    void (*gemm[2])(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a, ptrdiff_t a_row, ptrdiff_t a_column,
                    const void *b, ptrdiff_t b_row, ptrdiff_t b_column, void *to);
    /* What products.c is made of: the same with any rows of `to` and accumulation, k >= 1; the same with b packed before in
       stretches of FG_DEPTH rows and panels of `panel` columns; dot products of rows with a
       few columns x, contiguous along k.  See gemm.h. */
    void (*multiply[2])(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a, ptrdiff_t a_row, ptrdiff_t a_column,
                        const void *b, ptrdiff_t b_row, ptrdiff_t b_column, void *to, ptrdiff_t to_row, int add);
    void (*multiply_packed[2])(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a, ptrdiff_t a_row, ptrdiff_t a_column,
                               const void *panels, ptrdiff_t width, ptrdiff_t first, void *to, ptrdiff_t to_row, int add);
    void (*pack[2])(ptrdiff_t k, ptrdiff_t n, const void *b, ptrdiff_t b_row, ptrdiff_t b_column, void *panels);
    ptrdiff_t panel[2];
    void (*dots[2])(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a, ptrdiff_t a_row, const void *x, ptrdiff_t x_column,
                    void *to, ptrdiff_t to_row, ptrdiff_t to_column, int add);
    /* Row-wise over (rows, n): the value and, given g and the value, the pulled-back cotangent. */
    void (*logsumexp[2])(ptrdiff_t rows, ptrdiff_t n, const void *x, void *out);
    void (*softmax[2])(ptrdiff_t rows, ptrdiff_t n, const void *x, void *out);
    void (*log_softmax[2])(ptrdiff_t rows, ptrdiff_t n, const void *x, void *out);
    void (*softmax_pull[2])(ptrdiff_t rows, ptrdiff_t n, const void *g, const void *out, void *to);
    void (*log_softmax_pull[2])(ptrdiff_t rows, ptrdiff_t n, const void *g, const void *out, void *to);
    void (*logsumexp_pull[2])(ptrdiff_t rows, ptrdiff_t n, const void *g, const void *x, const void *out, void *to);
    void (*cross_entropy[2])(ptrdiff_t rows, ptrdiff_t n, const void *x, const int64_t *labels, void *out);
    void (*cross_entropy_pull[2])(ptrdiff_t rows, ptrdiff_t n, const void *g, const void *x, const int64_t *labels, void *to);
    void (*extreme_pull[2])(ptrdiff_t rows, ptrdiff_t n, const void *g, const void *x, const void *out, void *to);

    /* What lanes.h runs: see lanes_level.h. */
    const int32_t *(*machine)(const uint32_t *code, double *cells);
    fg_fused_loop fused[FG_N_FUSED][2];
    void (*stream)(size_t bytes, const char *from, char *to);
} fg_kernel_table;

/* The kernels in use, and how they are chosen: the best level that this CPU runs, or one by name (0: it cannot run). */
extern fg_kernel_table *const fg_kernels;
int fg_use_level(const char *wanted);

#endif
