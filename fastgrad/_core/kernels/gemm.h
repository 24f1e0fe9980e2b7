/* Matrix products of small and middle size, where a call of BLAS costs more than it gives.
 *
 * The second operand is packed once into panels of PANEL columns, contiguous and padded with zeros; tiles of TILE rows
 * by one panel then accumulate in registers.  The first operand is read where it lies, by any strides, one number at a
 * time.  Included once a precision, after reductions.h, with T and SUFFIX defined; VECTOR is the bytes of a register.
 * Knows nothing about BLAS: `product` in structured.pxi chooses. */

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define NAME(stem) PASTE(stem, SUFFIX)

#if defined(__GNUC__)
typedef T NAME(vec) __attribute__((vector_size(VECTOR), aligned(sizeof(T))));
#define PER_VECTOR (VECTOR / (ptrdiff_t)sizeof(T))
#define INLINE static inline __attribute__((always_inline))
#else
typedef T NAME(vec);
#define PER_VECTOR 1
#define INLINE static inline
#endif
#define PANEL (2 * PER_VECTOR)
#define DEPTH 256 /* rows of b in a packed panel: 32 KiB at most */

/* `rows` rows (a constant where this is inlined) of one panel: to = or += a b over the first `columns` columns. */
INLINE void NAME(tile)(const int rows, ptrdiff_t k, const T *a, ptrdiff_t a_row, ptrdiff_t a_column,
                       const T *restrict panel, T *restrict to, ptrdiff_t to_row, ptrdiff_t columns, int add) {
    NAME(vec) sum[TILE][2];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = (NAME(vec)){0};
    for (ptrdiff_t l = 0; l < k; l++) {
        NAME(vec) b0 = *(const NAME(vec) *)(panel + l * PANEL);
        NAME(vec) b1 = *(const NAME(vec) *)(panel + l * PANEL + PER_VECTOR);
        const T *column = a + l * a_column;
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            T s = column[i * a_row];
            sum[i][0] += s * b0;
            sum[i][1] += s * b1;
        }
    }
    if (columns == PANEL) {
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            NAME(vec) *row = (NAME(vec) *)(to + i * to_row);
            row[0] = add ? row[0] + sum[i][0] : sum[i][0];
            row[1] = add ? row[1] + sum[i][1] : sum[i][1];
        }
    } else {
        T part[PANEL];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            *(NAME(vec) *)part = sum[i][0];
            *(NAME(vec) *)(part + PER_VECTOR) = sum[i][1];
            for (ptrdiff_t j = 0; j < columns; j++) to[i * to_row + j] = add ? to[i * to_row + j] + part[j] : part[j];
        }
    }
}

/* One panel of b: k rows of PANEL columns, zeros beyond `columns`. */
static void NAME(pack)(ptrdiff_t k, ptrdiff_t columns, const T *b, ptrdiff_t b_row, ptrdiff_t b_column, T *restrict panel) {
    if (columns == PANEL && b_column == 1) {
        for (ptrdiff_t l = 0; l < k; l++, b += b_row, panel += PANEL)
            for (int j = 0; j < PANEL; j++) panel[j] = b[j];
        return;
    }
    for (ptrdiff_t l = 0; l < k; l++, b += b_row, panel += PANEL) {
        for (ptrdiff_t j = 0; j < columns; j++) panel[j] = b[j * b_column];
        for (ptrdiff_t j = columns; j < PANEL; j++) panel[j] = 0;
    }
}

/* to = a b with element strides, to contiguous; k >= 1. */
static void NAME(gemm)(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a_, ptrdiff_t a_row, ptrdiff_t a_column,
                       const void *b_, ptrdiff_t b_row, ptrdiff_t b_column, void *to_) {
    const T *a = a_, *b = b_;
    T *to = to_;
    _Alignas(64) T panel[DEPTH * PANEL];
    for (ptrdiff_t l = 0; l < k; l += DEPTH, a += DEPTH * a_column, b += DEPTH * b_row) {
        ptrdiff_t depth = k - l < DEPTH ? k - l : DEPTH;
        for (ptrdiff_t j = 0; j < n; j += PANEL) {
            ptrdiff_t columns = n - j < PANEL ? n - j : PANEL, i = 0;
            NAME(pack)(depth, columns, b + j * b_column, b_row, b_column, panel);
            for (; i + TILE <= m; i += TILE)
                NAME(tile)(TILE, depth, a + i * a_row, a_row, a_column, panel, to + i * n + j, n, columns, l > 0);
            for (; i + 4 <= m && TILE > 4; i += 4)
                NAME(tile)(4, depth, a + i * a_row, a_row, a_column, panel, to + i * n + j, n, columns, l > 0);
            for (; i < m; i++)
                NAME(tile)(1, depth, a + i * a_row, a_row, a_column, panel, to + i * n + j, n, columns, l > 0);
        }
    }
}

#undef PASTE_
#undef PASTE
#undef NAME
#undef PER_VECTOR
#undef INLINE
#undef PANEL
#undef DEPTH
