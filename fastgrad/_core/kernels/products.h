/* The product of two matrices, with what often follows it: a bias, an activation.
 *
 * Chooses between the loops of gemm.h by shape and strides, and shares long products among threads.  The bits of the
 * result do not depend on how many threads there are.  Knows nothing about Python; callers need no GIL. */
#ifndef FG_PRODUCTS_H
#define FG_PRODUCTS_H

#include <stddef.h>

typedef struct {
    int type; /* FG_F64, FG_F32 */
    ptrdiff_t m, k, n;
    ptrdiff_t a_row, a_column, b_row, b_column; /* strides in elements, of any sign */
    ptrdiff_t to_row;                           /* elements; columns of `to` are contiguous */
    int accumulate; /* 1: to += instead of to =.  -1: to =, and where k is 1 a times b to the sign of a zero, not 0 + a b */
    int bias;                                   /* adds bias[n] to each row of the (accumulated) product */
    int activation; /* 0, or an operation of the table with one operand, applied after the bias */
} fg_product;

/* Bytes that `scratch` needs, for any number of threads; often 0 (NULL will do), SIZE_MAX if the size overflows. */
size_t fg_product_scratch(const fg_product *p);

/* `to` overlaps no operand.  `pre`, if not NULL, gets the values before the activation, in the layout of `to`. */
void fg_product_run(const fg_product *p, const void *a, const void *b, const void *bias, void *pre, void *to, void *scratch);

#endif
