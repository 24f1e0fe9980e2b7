/* Matrix products: tiles of TILE rows by two registers of columns that accumulate in registers.
 *
 * The first operand is read one number at a time, by any strides; the second a register at a time: where it lies if its
 * rows are contiguous, else from packed panels of PANEL columns, padded with zeros.  A number of the product is always the
 * sum in order of k, by stretches of DEPTH, so that its bits do not depend on which tile it falls in.  Where few columns
 * would leave registers unused, `dots` runs along k instead.  Included once a precision, after reductions.h, with T and
 * SUFFIX defined; VECTOR is the bytes of a register, TILE the rows of a tile.
 * Knows nothing about threads or how to choose: that is products.c. */

#include "registers.h"

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define NAME(stem) PASTE(stem, SUFFIX)

#if defined(__GNUC__)
typedef T NAME(vec) __attribute__((vector_size(VECTOR), aligned(sizeof(T)), may_alias));
typedef T NAME(whole) __attribute__((vector_size(VECTOR))); /* the same in registers */
#define PER_VECTOR (VECTOR / (ptrdiff_t)sizeof(T))
#define INLINE static inline __attribute__((always_inline))
#define BROADCAST(x) ((x) - (NAME(vec)){0}) /* not +: that would turn -0 into 0 */
#else
typedef T NAME(vec);
#define PER_VECTOR 1
#define INLINE static inline
#define BROADCAST(x) (x)
#endif
#define FUSED PASTE(FUSED, SUFFIX)
#define PANEL (2 * PER_VECTOR)
#define DEPTH FG_DEPTH
#define DOT_ROWS (VECTOR == 64 ? 4 : 2) /* times four columns: as many sums as there are registers for */
#define AT_ONCE (65536 / (TILE * DEPTH * (ptrdiff_t)sizeof(T))) /* tiles gathered together */

/* `rows` by `vectors` registers of the product of k columns of a and k rows of b: stored to `to`, or added.  Of the last
 * register only `last` columns exist if it is `partial`.  Where `add` is -1 sums start at -0, so that the sum of one product
 * is this product, to the sign of a zero.  The first three are constants where this is inlined. */
INLINE void NAME(tile)(const int rows, const int vectors, const int partial, ptrdiff_t k, const T *a, ptrdiff_t a_row,
                       ptrdiff_t a_column, const T *b, ptrdiff_t b_row, T *to, ptrdiff_t to_row, ptrdiff_t last, int add) {
    NAME(vec) sum[8][8], right[8], nothing = BROADCAST(add < 0 ? (T)-0.0 : (T)0);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sum[i][v] = nothing;
    for (ptrdiff_t l = 0; l < k; l++, a += a_column, b += b_row) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++)
#if FG_MASKS
            right[v] = partial && v == vectors - 1 ? PASTE(LOAD, SUFFIX)(b + v * PER_VECTOR, last)
                                                   : *(const NAME(vec) *)(b + v * PER_VECTOR);
#else
            right[v] = *(const NAME(vec) *)(b + v * PER_VECTOR); /* padded: multiply sees to it */
#endif
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            NAME(vec) left = BROADCAST(a[i * a_row]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) sum[i][v] = FUSED(left, right[v], sum[i][v]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            T *at = to + i * to_row + v * PER_VECTOR;
            if (!partial || v < vectors - 1) {
                if (add > 0) sum[i][v] += *(NAME(vec) *)at;
                *(NAME(vec) *)at = sum[i][v];
            } else {
#if FG_MASKS
                if (add > 0) sum[i][v] += PASTE(LOAD, SUFFIX)(at, last);
                PASTE(STORE, SUFFIX)(at, sum[i][v], last);
#else
                const T *part = (const T *)&sum[i][v];
                for (ptrdiff_t j = 0; j < last; j++) at[j] = add > 0 ? at[j] + part[j] : part[j];
#endif
            }
        }
}

/* One stripe of `rows` rows and n columns.  Panel j of b starts at b + j * panel_step; 1 where b is not packed: then
 * short stripes are `wide` registers wide, for as many sums in flight. */
INLINE void NAME(stripe)(const int rows, const int wide, ptrdiff_t k, ptrdiff_t n, const T *a, ptrdiff_t a_row,
                         ptrdiff_t a_column, const T *b, ptrdiff_t b_row, ptrdiff_t panel_step, T *to, ptrdiff_t to_row,
                         int add) {
    ptrdiff_t j = 0, rest;
    if (wide > 2 && panel_step == 1)
        for (; n - j >= wide * PER_VECTOR; j += wide * PER_VECTOR)
            NAME(tile)(rows, wide, 0, k, a, a_row, a_column, b + j, b_row, to + j, to_row, 0, add);
    for (; n - j >= PANEL; j += PANEL)
        NAME(tile)(rows, 2, 0, k, a, a_row, a_column, b + j * panel_step, b_row, to + j, to_row, 0, add);
    rest = n - j;
    b += j * panel_step;
    to += j;
    if (rest > PER_VECTOR)
        NAME(tile)(rows, 2, 1, k, a, a_row, a_column, b, b_row, to, to_row, rest - PER_VECTOR, add);
    else if (rest == PER_VECTOR)
        NAME(tile)(rows, 1, 0, k, a, a_row, a_column, b, b_row, to, to_row, 0, add);
    else if (rest > 0)
        NAME(tile)(rows, 1, 1, k, a, a_row, a_column, b, b_row, to, to_row, rest, add);
}

/* Tiles of a into contiguous memory, each column after column or, where its rows are contiguous, row after row: strides of
 * pages would miss the TLB, and evict each other from the cache, once a panel. */
static void NAME(gather)(ptrdiff_t tiles, ptrdiff_t k, const T *a, ptrdiff_t a_row, ptrdiff_t a_column, T *restrict to) {
    if (a_column == 1) {
        for (ptrdiff_t i = 0; i < tiles * TILE; i++) memcpy(to + i * k, a + i * a_row, k * sizeof(T));
    } else if (a_row == 1) {
        for (ptrdiff_t l = 0; l < k; l++)
            for (ptrdiff_t t = 0; t < tiles; t++)
                for (int i = 0; i < TILE; i++) to[(t * k + l) * TILE + i] = a[l * a_column + t * TILE + i];
    } else {
        for (ptrdiff_t t = 0; t < tiles; t++)
            for (ptrdiff_t l = 0; l < k; l++)
                for (int i = 0; i < TILE; i++) to[(t * k + l) * TILE + i] = a[l * a_column + (t * TILE + i) * a_row];
    }
}

/* As many rows as make whole tiles, gathered some tiles at a time; returns how many rows were done. */
static ptrdiff_t NAME(gathered_tiles)(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const T *a, ptrdiff_t a_row, ptrdiff_t a_column,
                                      const T *b, ptrdiff_t b_row, ptrdiff_t panel_step, T *to, ptrdiff_t to_row, int add) {
    _Alignas(64) T gathered[AT_ONCE * TILE * DEPTH];
    ptrdiff_t row = a_column == 1 ? k : 1, column = a_column == 1 ? 1 : TILE, done = 0;
    while (m - done >= TILE) {
        ptrdiff_t tiles = (m - done) / TILE < AT_ONCE ? (m - done) / TILE : AT_ONCE;
        NAME(gather)(tiles, k, a + done * a_row, a_row, a_column, gathered);
        for (ptrdiff_t t = 0; t < tiles; t++, done += TILE)
            NAME(stripe)(TILE, 2, k, n, gathered + t * TILE * k, row, column, b, b_row, panel_step, to + done * to_row,
                         to_row, add);
    }
    return done;
}

/* All rows by n columns over one stretch of k, DEPTH at most. */
static void NAME(stretch)(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const T *a, ptrdiff_t a_row, ptrdiff_t a_column, const T *b,
                          ptrdiff_t b_row, ptrdiff_t panel_step, T *to, ptrdiff_t to_row, int add) {
#define STRIPE(rows, wide)                                                                          \
    do {                                                                                            \
        NAME(stripe)(rows, wide, k, n, a, a_row, a_column, b, b_row, panel_step, to, to_row, add);  \
        m -= rows;                                                                                  \
        a += rows * a_row;                                                                          \
        to += rows * to_row;                                                                        \
    } while (0)
    if (n > (a_column == 1 ? 4 : 2) * PANEL && k > 32) { /* each tile is read often enough */
        ptrdiff_t done = NAME(gathered_tiles)(m, k, n, a, a_row, a_column, b, b_row, panel_step, to, to_row, add);
        m -= done;
        a += done * a_row;
        to += done * to_row;
    }
    while (m >= TILE) STRIPE(TILE, 2);
#if TILE > 4
    if (m >= 4) STRIPE(4, TILE > 6 ? 4 : 2);
#endif
    if (m >= 2) STRIPE(2, 4);
    if (m >= 1) STRIPE(1, 8);
#undef STRIPE
}

#if FG_SHUFFLES && defined(__GNUC__)
/* The transpose of a square of registers: each step mixes the halves. */
INLINE void NAME(transpose)(const T *from, ptrdiff_t from_row, T *restrict to, ptrdiff_t to_row) {
    NAME(whole) x[PER_VECTOR], y[PER_VECTOR];
#pragma GCC unroll 16
    for (int i = 0; i < PER_VECTOR; i++) x[i] = *(const NAME(vec) *)(from + i * from_row);
#pragma GCC unroll 4
    for (int step = PER_VECTOR; step > 1; step /= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < PER_VECTOR / 2; i++) {
            y[2 * i] = PASTE(LOW, SUFFIX)(x[i], x[i + PER_VECTOR / 2]);
            y[2 * i + 1] = PASTE(HIGH, SUFFIX)(x[i], x[i + PER_VECTOR / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < PER_VECTOR; i++) x[i] = y[i];
    }
#pragma GCC unroll 16
    for (int i = 0; i < PER_VECTOR; i++) *(NAME(vec) *)(to + i * to_row) = x[i];
}

/* Rows of a panel whose columns are contiguous in b, as many as make whole squares; returns how many. */
static ptrdiff_t NAME(pack_turned)(ptrdiff_t k, const T *b, ptrdiff_t b_column, T *restrict panel) {
    ptrdiff_t l = 0;
    for (; l + PER_VECTOR <= k; l += PER_VECTOR) {
        NAME(transpose)(b + l, b_column, panel + l * PANEL, PANEL);
        NAME(transpose)(b + l + PER_VECTOR * b_column, b_column, panel + l * PANEL + PER_VECTOR, PANEL);
    }
    return l;
}
#else
static ptrdiff_t NAME(pack_turned)(ptrdiff_t k, const T *b, ptrdiff_t b_column, T *restrict panel) {
    (void)k, (void)b, (void)b_column, (void)panel;
    return 0;
}
#endif

/* One panel: k rows of PANEL columns of b, zeros beyond `columns`. */
static void NAME(pack_panel)(ptrdiff_t k, ptrdiff_t columns, const T *b, ptrdiff_t b_row, ptrdiff_t b_column,
                             T *restrict panel) {
    ptrdiff_t l = 0;
    if (columns == PANEL && b_column == 1) {
        for (; l < k; l++)
            for (int j = 0; j < PANEL; j++) panel[l * PANEL + j] = b[l * b_row + j];
        return;
    }
    if (columns == PANEL && b_row == 1) l = NAME(pack_turned)(k, b, b_column, panel);
    for (; l < k; l++) {
        for (ptrdiff_t j = 0; j < columns; j++) panel[l * PANEL + j] = b[l * b_row + j * b_column];
        for (ptrdiff_t j = columns; j < PANEL; j++) panel[l * PANEL + j] = 0;
    }
}

/* Panels of n columns of a stretch of b, one after the other. */
static void NAME(pack)(ptrdiff_t k, ptrdiff_t n, const void *b_, ptrdiff_t b_row, ptrdiff_t b_column, void *panels_) {
    const T *b = b_;
    T *panels = panels_;
    for (ptrdiff_t j = 0; j < n; j += PANEL, panels += k * PANEL)
        NAME(pack_panel)(k, n - j < PANEL ? n - j : PANEL, b + j * b_column, b_row, b_column, panels);
}

/* to = or += a b where b is packed: `panels` holds its stretches of DEPTH rows by `width` padded columns, each by `pack`.
 * The n columns start with column `first`, a multiple of PANEL. */
static void NAME(multiply_packed)(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a_, ptrdiff_t a_row, ptrdiff_t a_column,
                                  const void *panels_, ptrdiff_t width, ptrdiff_t first, void *to, ptrdiff_t to_row,
                                  int add) {
    const T *a = a_, *panels = panels_;
    for (ptrdiff_t l = 0; l < k; l += DEPTH) {
        ptrdiff_t depth = k - l < DEPTH ? k - l : DEPTH;
        NAME(stretch)(m, depth, n, a + l * a_column, a_row, a_column, panels + l * width + first * depth, PANEL, depth, to,
                      to_row, l > 0 ? 1 : add);
    }
}

/* to = or += a b by the caller's memory alone: b is read in place if its rows are contiguous and few rows of a read it,
 * else it is packed panel by panel. */
static void NAME(multiply)(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a_, ptrdiff_t a_row, ptrdiff_t a_column,
                           const void *b_, ptrdiff_t b_row, ptrdiff_t b_column, void *to_, ptrdiff_t to_row, int add) {
    const T *a = a_, *b = b_;
    T *to = to_;
    ptrdiff_t in_place = b_column != 1 || m > FG_ROWS_IN_PLACE ? 0 : FG_MASKS ? n : n - n % PANEL;
    _Alignas(64) T panel[DEPTH * PANEL];
    for (ptrdiff_t l = 0; l < k; l += DEPTH, a += DEPTH * a_column, b += DEPTH * b_row, add = 1) {
        ptrdiff_t depth = k - l < DEPTH ? k - l : DEPTH;
        if (in_place) NAME(stretch)(m, depth, in_place, a, a_row, a_column, b, b_row, 1, to, to_row, add);
        for (ptrdiff_t j = in_place; j < n; j += PANEL) {
            ptrdiff_t columns = n - j < PANEL ? n - j : PANEL;
            NAME(pack_panel)(depth, columns, b + j * b_column, b_row, b_column, panel);
            NAME(stretch)(m, depth, columns, a, a_row, a_column, panel, PANEL, depth, to + j, to_row, add);
        }
    }
}

static void NAME(gemm)(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a, ptrdiff_t a_row, ptrdiff_t a_column,
                       const void *b, ptrdiff_t b_row, ptrdiff_t b_column, void *to) {
    NAME(multiply)(m, k, n, a, a_row, a_column, b, b_row, b_column, to, n, 0);
}

/* Dot products of `rows` rows with x, both contiguous along k; the order of additions does not depend on `rows`. */
INLINE void NAME(dot_rows)(const int rows, ptrdiff_t k, const T *a, ptrdiff_t a_row, const T *x, T *to, ptrdiff_t step,
                           int add) {
    NAME(vec) sum[4][2];
    T tail[4];
    ptrdiff_t l = 0;
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = (NAME(vec)){0}, tail[i] = 0;
    for (; l + PANEL <= k; l += PANEL) {
        NAME(vec) x0 = *(const NAME(vec) *)(x + l), x1 = *(const NAME(vec) *)(x + l + PER_VECTOR);
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            const T *row = a + i * a_row + l;
            sum[i][0] = FUSED(*(const NAME(vec) *)row, x0, sum[i][0]);
            sum[i][1] = FUSED(*(const NAME(vec) *)(row + PER_VECTOR), x1, sum[i][1]);
        }
    }
    for (; l < k; l++)
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) tail[i] += a[i * a_row + l] * x[l];
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) {
        NAME(vec) both = sum[i][0] + sum[i][1];
        T part[PER_VECTOR];
        memcpy(part, &both, sizeof part);
        for (int half = PER_VECTOR / 2; half > 0; half /= 2)
            for (int j = 0; j < half; j++) part[j] += part[j + half];
        to[i * step] = (add ? to[i * step] : 0) + (part[0] + tail[i]);
    }
}

/* The sums of four registers. */
INLINE void NAME(sums_of_four)(const NAME(whole) *x, T *to) {
    T part[4 * PER_VECTOR];
#if FG_SHUFFLES && defined(__GNUC__)
    NAME(whole) even = PASTE(LOW, SUFFIX)(x[0], x[2]) + PASTE(HIGH, SUFFIX)(x[0], x[2]);
    NAME(whole) odd = PASTE(LOW, SUFFIX)(x[1], x[3]) + PASTE(HIGH, SUFFIX)(x[1], x[3]);
    NAME(whole) low = PASTE(LOW, SUFFIX)(even, odd), high = PASTE(HIGH, SUFFIX)(even, odd);
    memcpy(part, &low, sizeof low); /* x0 x1 x2 x3 and so on, as often as a register has numbers */
    memcpy(part + PER_VECTOR, &high, sizeof high);
    for (int half = PER_VECTOR; half >= 4; half /= 2)
        for (int j = 0; j < half; j++) part[j] += part[j + half];
    memcpy(to, part, 4 * sizeof(T));
#else
    memcpy(part, x, sizeof part);
    for (int c = 0; c < 4; c++) {
        to[c] = 0;
        for (int j = 0; j < PER_VECTOR; j++) to[c] += part[c * PER_VECTOR + j];
    }
#endif
}

/* Dot products of `rows` rows with the first `columns` of four columns, all contiguous along k. */
INLINE void NAME(dot_tile)(const int rows, ptrdiff_t k, const T *a, ptrdiff_t a_row, const T *const *x, int columns, T *to,
                           ptrdiff_t to_row, ptrdiff_t to_column, int add) {
    const T *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
    NAME(whole) sum[4][4];
    ptrdiff_t l = 0;
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = (NAME(whole)){0};
    for (; l + PER_VECTOR <= k; l += PER_VECTOR) {
        NAME(vec) y0 = *(const NAME(vec) *)(x0 + l), y1 = *(const NAME(vec) *)(x1 + l);
        NAME(vec) y2 = *(const NAME(vec) *)(x2 + l), y3 = *(const NAME(vec) *)(x3 + l);
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            NAME(vec) left = *(const NAME(vec) *)(a + i * a_row + l);
            sum[i][0] = FUSED(left, y0, sum[i][0]);
            sum[i][1] = FUSED(left, y1, sum[i][1]);
            sum[i][2] = FUSED(left, y2, sum[i][2]);
            sum[i][3] = FUSED(left, y3, sum[i][3]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) {
        T total[4];
        NAME(sums_of_four)(sum[i], total);
        for (ptrdiff_t j = l; j < k; j++)
            for (int c = 0; c < 4; c++) total[c] += a[i * a_row + j] * x[c][j];
        for (int c = 0; c < columns; c++) {
            T *at = to + i * to_row + c * to_column;
            *at = add ? *at + total[c] : total[c];
        }
    }
}

/* to_ij = or += the dot product of row i of a with column j of x, both contiguous along k. */
static void NAME(dots)(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a_, ptrdiff_t a_row, const void *x_,
                       ptrdiff_t x_column, void *to_, ptrdiff_t to_row, ptrdiff_t to_column, int add) {
    const T *a = a_, *x = x_;
    T *to = to_;
    ptrdiff_t i = 0;
    if (n == 1) {
        for (; i + 4 <= m; i += 4) NAME(dot_rows)(4, k, a + i * a_row, a_row, x, to + i * to_row, to_row, add);
        for (; i < m; i++) NAME(dot_rows)(1, k, a + i * a_row, a_row, x, to + i * to_row, to_row, add);
        return;
    }
    for (; i < m; i += DOT_ROWS)
        for (ptrdiff_t j = 0; j < n; j += 4) {
            const T *four[4]; /* one that does not exist is computed as the one before it */
            int columns = n - j < 4 ? (int)(n - j) : 4;
            for (int c = 0; c < 4; c++) four[c] = x + (j + (c < columns ? c : columns - 1)) * x_column;
            T *at = to + i * to_row + j * to_column;
            if (m - i >= DOT_ROWS)
                NAME(dot_tile)(DOT_ROWS, k, a + i * a_row, a_row, four, columns, at, to_row, to_column, add);
            else
                for (ptrdiff_t r = i; r < m; r++, at += to_row)
                    NAME(dot_tile)(1, k, a + r * a_row, a_row, four, columns, at, to_row, to_column, add);
        }
}

#undef PASTE_
#undef PASTE
#undef NAME
#undef PER_VECTOR
#undef INLINE
#undef BROADCAST
#undef FUSED
#undef PANEL
#undef DEPTH
#undef AT_ONCE
#undef DOT_ROWS
