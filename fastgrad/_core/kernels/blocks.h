/* Applies contiguous loops to operands of any strides, shape and precision, block by block.
 *
 * A view says how an operand lies over the shape of the result: contiguous (read in place), one number, or strided
 * (a stride of 0 broadcasts).  What cannot be read in place is gathered into a block buffer.  A sink says where a
 * pulled-back cotangent goes; a strided sink adds, so that a stride of 0 sums over a broadcast axis.
 *
 * Knows nothing about Python, ownership or the tape.  Sizes and strides come checked from the caller. */
#ifndef FG_BLOCKS_H
#define FG_BLOCKS_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#include "kernels.h"

enum { FG_F64 = 0, FG_F32 = 1, FG_BOOL = 2 };
enum { FG_ABSENT = 0, FG_CONTIGUOUS, FG_ONE, FG_STRIDED };
enum { FG_TO_STORE = 0, FG_TO_ADD, FG_TO_SUM };
#define FG_MAX_NDIM 64

typedef struct {
    char *data;
    const ptrdiff_t *strides; /* bytes, over the result's shape; only for FG_STRIDED */
    double one;               /* only for FG_ONE */
    int kind;
    int type;
} fg_view;

typedef struct {
    int ndim;
    const ptrdiff_t *dims;
    ptrdiff_t size;
} fg_extent;

static inline size_t fg_type_size(int type) { return type == FG_F64 ? 8 : type == FG_F32 ? 4 : 1; }

/* ------------------------------------------------------------------ a position in a strided operand, in C order */

typedef struct {
    char *cursor;
    int type, ndim;
    ptrdiff_t dims[FG_MAX_NDIM], strides[FG_MAX_NDIM], index[FG_MAX_NDIM];
} fg_walk;

/* Merges neighbouring axes that lie behind each other in memory, so that inner runs are long. */
static inline void fg_walk_start(fg_walk *w, const fg_view *view, const fg_extent *extent) {
    int n = 0;
    w->cursor = view->data;
    w->type = view->type;
    for (int d = 0; d < extent->ndim; d++) {
        ptrdiff_t dim = extent->dims[d], stride = view->strides[d];
        if (dim == 1) continue;
        if (n > 0 && w->strides[n - 1] == stride * dim) {
            w->dims[n - 1] *= dim;
            w->strides[n - 1] = stride;
        } else {
            w->dims[n] = dim;
            w->strides[n] = stride;
            n++;
        }
    }
    if (n == 0) {
        w->dims[0] = 1;
        w->strides[0] = 0;
        n = 1;
    }
    for (int d = 0; d < n; d++) w->index[d] = 0;
    w->ndim = n;
}

/* Moves on by `run` elements, which must not pass the end of the innermost run. */
static inline void fg_walk_advance(fg_walk *w, ptrdiff_t run) {
    int d = w->ndim - 1;
    w->index[d] += run;
    w->cursor += run * w->strides[d];
    while (d > 0 && w->index[d] == w->dims[d]) {
        w->cursor += w->strides[d - 1] - w->dims[d] * w->strides[d];
        w->index[d] = 0;
        d--;
        w->index[d]++;
    }
}

#define FG_READ_RUN(to_type, from_type)                                                              \
    do {                                                                                             \
        to_type *to = (to_type *)buffer;                                                             \
        if (stride == (ptrdiff_t)sizeof(from_type)) {                                                \
            const from_type *from = (const from_type *)w->cursor;                                    \
            for (ptrdiff_t i = 0; i < run; i++) to[i] = (to_type)from[i];                            \
        } else if (stride == 0) {                                                                    \
            to_type value = (to_type) * (const from_type *)w->cursor;                                \
            for (ptrdiff_t i = 0; i < run; i++) to[i] = value;                                       \
        } else {                                                                                     \
            const char *from = w->cursor;                                                            \
            for (ptrdiff_t i = 0; i < run; i++) to[i] = (to_type) * (const from_type *)(from + i * stride); \
        }                                                                                            \
    } while (0)

static inline void fg_walk_read(fg_walk *w, ptrdiff_t n, int type, char *buffer) {
    while (n > 0) {
        int last = w->ndim - 1;
        ptrdiff_t left = w->dims[last] - w->index[last], run = n < left ? n : left, stride = w->strides[last];
        switch (3 * type + w->type) {
        case 3 * FG_F64 + FG_F64: FG_READ_RUN(double, double); break;
        case 3 * FG_F64 + FG_F32: FG_READ_RUN(double, float); break;
        case 3 * FG_F64 + FG_BOOL: FG_READ_RUN(double, uint8_t); break;
        case 3 * FG_F32 + FG_F64: FG_READ_RUN(float, double); break;
        case 3 * FG_F32 + FG_F32: FG_READ_RUN(float, float); break;
        case 3 * FG_F32 + FG_BOOL: FG_READ_RUN(float, uint8_t); break;
        default: FG_READ_RUN(uint8_t, uint8_t); break;
        }
        buffer += (size_t)run * fg_type_size(type);
        fg_walk_advance(w, run);
        n -= run;
    }
}

#define FG_ADD_RUN(to_type, from_type)                                                                \
    do {                                                                                              \
        const from_type *from = (const from_type *)buffer;                                            \
        if (stride == 0) {                                                                            \
            *(to_type *)w->cursor += (to_type)fg_kernels->sum[sizeof(from_type) == 4](run, from);     \
        } else if (stride == (ptrdiff_t)sizeof(to_type)) {                                            \
            to_type *to = (to_type *)w->cursor;                                                       \
            for (ptrdiff_t i = 0; i < run; i++) to[i] += (to_type)from[i];                            \
        } else {                                                                                      \
            char *to = w->cursor;                                                                     \
            for (ptrdiff_t i = 0; i < run; i++) *(to_type *)(to + i * stride) += (to_type)from[i];    \
        }                                                                                             \
    } while (0)

static inline void fg_walk_add(fg_walk *w, ptrdiff_t n, int type, const char *buffer) {
    while (n > 0) {
        int last = w->ndim - 1;
        ptrdiff_t left = w->dims[last] - w->index[last], run = n < left ? n : left, stride = w->strides[last];
        switch (2 * w->type + type) {
        case 2 * FG_F64 + FG_F64: FG_ADD_RUN(double, double); break;
        case 2 * FG_F64 + FG_F32: FG_ADD_RUN(double, float); break;
        case 2 * FG_F32 + FG_F64: FG_ADD_RUN(float, double); break;
        default: FG_ADD_RUN(float, float); break;
        }
        buffer += (size_t)run * fg_type_size(type);
        fg_walk_advance(w, run);
        n -= run;
    }
}

/* --------------------------------------------------------------------------------- an operand, block by block */

typedef struct {
    const char *direct; /* read in place from here, or NULL */
    char *buffer;
    size_t item;
    int walking;
    fg_walk walk;
} fg_reader;

static inline void fg_reader_start(fg_reader *r, const fg_view *view, const fg_extent *extent, int type, char *buffer) {
    r->direct = NULL;
    r->buffer = buffer;
    r->item = fg_type_size(type);
    r->walking = 0;
    if (view->kind == FG_CONTIGUOUS && view->type == type) {
        r->direct = view->data;
    } else if (view->kind == FG_ONE) {
        fg_kernels->fill[type](extent->size < FG_BLOCK ? extent->size : FG_BLOCK, view->one, buffer);
    } else if (view->kind == FG_CONTIGUOUS) {
        ptrdiff_t stride = (ptrdiff_t)fg_type_size(view->type);
        fg_extent flat = {1, &extent->size, extent->size};
        fg_view strided = *view;
        strided.strides = &stride;
        fg_walk_start(&r->walk, &strided, &flat);
        r->walking = 1;
    } else if (view->kind == FG_STRIDED) {
        fg_walk_start(&r->walk, view, extent);
        r->walking = 1;
    } else {
        r->buffer = NULL;
    }
}

static inline const char *fg_reader_next(fg_reader *r, ptrdiff_t start, ptrdiff_t n, int type) {
    if (r->direct) return r->direct + (size_t)start * r->item;
    if (r->walking) fg_walk_read(&r->walk, n, type, r->buffer);
    return r->buffer;
}

static inline int fg_in_place(const fg_view *view, int type) {
    return view->kind == FG_ABSENT || (view->kind == FG_CONTIGUOUS && view->type == type);
}

#define FG_BUFFER(name) _Alignas(64) char name[FG_BLOCK * sizeof(double)]

/* out = value(x, y, z), out contiguous; truth values are bytes. */
static inline void fg_run_value(int op, int type, const fg_extent *extent, const fg_view *in, char *out) {
    fg_value_loop loop = fg_kernels->value[op][type];
    if (fg_in_place(in, type) && fg_in_place(in + 1, type) && fg_in_place(in + 2, type)) {
        loop(extent->size, in[0].data, in[1].data, in[2].data, out);
        return;
    }
    FG_BUFFER(b0);
    FG_BUFFER(b1);
    FG_BUFFER(b2);
    fg_reader r0, r1, r2;
    size_t item = fg_is_bool[op] ? 1 : fg_type_size(type);
    fg_reader_start(&r0, in, extent, type, b0);
    fg_reader_start(&r1, in + 1, extent, type, b1);
    fg_reader_start(&r2, in + 2, extent, type, b2);
    for (ptrdiff_t start = 0; start < extent->size; start += FG_BLOCK) {
        ptrdiff_t n = extent->size - start < FG_BLOCK ? extent->size - start : FG_BLOCK;
        loop(n, fg_reader_next(&r0, start, n, type), fg_reader_next(&r1, start, n, type),
             fg_reader_next(&r2, start, n, type), out + (size_t)start * item);
    }
}

/* to (=, +=, += sum of) g * partial k.  in: g, x, y, z, out.  FG_TO_SUM writes to->one. */
static inline void fg_run_pull(int op, int k, int type, const fg_extent *extent, const fg_view *in, fg_view *to, int mode) {
    fg_pull_loop loop = fg_kernels->pull[op][k][type];
    int direct = 1;
    for (int i = 0; i < 5; i++) direct &= fg_in_place(in + i, type);
    int store = mode == FG_TO_STORE && to->kind == FG_CONTIGUOUS && to->type == type;
    if (direct && store) {
        loop(extent->size, in[0].data, in[1].data, in[2].data, in[3].data, in[4].data, to->data);
        return;
    }
    _Alignas(64) char buffers[6][FG_BLOCK * sizeof(double)];
    fg_reader readers[5];
    fg_walk walk;
    double total = 0, error = 0; /* of the additions of blocks, as in a sum */
    ptrdiff_t stride = (ptrdiff_t)fg_type_size(to->type);
    size_t item = fg_type_size(type);
    int walking = mode != FG_TO_SUM && !(to->kind == FG_CONTIGUOUS && to->type == type);
    for (int i = 0; i < 5; i++) fg_reader_start(readers + i, in + i, extent, type, buffers[i]);
    if (walking) {
        fg_view strided = *to;
        fg_extent flat = {1, &extent->size, extent->size};
        if (to->kind == FG_CONTIGUOUS) strided.strides = &stride;
        fg_walk_start(&walk, &strided, to->kind == FG_CONTIGUOUS ? &flat : extent);
    }
    for (ptrdiff_t start = 0; start < extent->size; start += FG_BLOCK) {
        ptrdiff_t n = extent->size - start < FG_BLOCK ? extent->size - start : FG_BLOCK;
        const char *p[5];
        for (int i = 0; i < 5; i++) p[i] = fg_reader_next(readers + i, start, n, type);
        char *result = store ? to->data + (size_t)start * item : buffers[5];
        loop(n, p[0], p[1], p[2], p[3], p[4], result);
        if (mode == FG_TO_SUM) {
            double block = fg_kernels->sum[type](n, result), sum = total + block;
            error += fabs(total) >= fabs(block) ? (total - sum) + block : (block - sum) + total;
            total = sum;
        } else if (walking) {
            fg_walk_add(&walk, n, type, result);
        } else if (mode == FG_TO_ADD) {
            fg_kernels->add[type](n, result, to->data + (size_t)start * item);
        }
    }
    if (mode == FG_TO_SUM) to->one += total - total == 0 ? total + error : total;
}

/* Copies or, with `add`, adds a strided view into another of the same extent. */
static inline void fg_run_copy(int type, const fg_extent *extent, const fg_view *from, char *to) {
    _Alignas(64) char buffer[FG_BLOCK * sizeof(double)];
    fg_reader reader;
    size_t item = fg_type_size(type);
    if (fg_in_place(from, type)) {
        memcpy(to, from->data, (size_t)extent->size * item);
        return;
    }
    fg_reader_start(&reader, from, extent, type, buffer);
    for (ptrdiff_t start = 0; start < extent->size; start += FG_BLOCK) {
        ptrdiff_t n = extent->size - start < FG_BLOCK ? extent->size - start : FG_BLOCK;
        memcpy(to + (size_t)start * item, fg_reader_next(&reader, start, n, type), (size_t)n * item);
    }
}

/* to += from, both over the same extent; to strided (0 sums). */
static inline void fg_run_add(int type, const fg_extent *extent, const fg_view *from, const fg_view *to) {
    _Alignas(64) char buffer[FG_BLOCK * sizeof(double)];
    fg_reader reader;
    fg_walk walk;
    if (fg_in_place(from, type) && to->kind == FG_CONTIGUOUS && to->type == type) {
        fg_kernels->add[type](extent->size, from->data, to->data);
        return;
    }
    ptrdiff_t stride = (ptrdiff_t)fg_type_size(to->type);
    fg_extent flat = {1, &extent->size, extent->size};
    fg_view strided = *to;
    if (to->kind == FG_CONTIGUOUS) strided.strides = &stride;
    fg_reader_start(&reader, from, extent, type, buffer);
    fg_walk_start(&walk, &strided, to->kind == FG_CONTIGUOUS ? &flat : extent);
    for (ptrdiff_t start = 0; start < extent->size; start += FG_BLOCK) {
        ptrdiff_t n = extent->size - start < FG_BLOCK ? extent->size - start : FG_BLOCK;
        fg_walk_add(&walk, n, type, fg_reader_next(&reader, start, n, type));
    }
}

#endif
