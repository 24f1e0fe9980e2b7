/* Hand-written loops that a row of the table cannot state: reductions, small matrix products, row-wise softmax.
 * Included once a precision with T and SUFFIX defined.  Sums keep eight partial sums a block (the order of additions
 * is fixed: the same input gives the same bits) and add the blocks in double precision, with their rounding errors. */

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define NAME(stem) PASTE(stem, SUFFIX)
#define LANES 16

static void NAME(add)(ptrdiff_t n, const void *x_, void *to_) {
    const T *restrict x = x_;
    T *restrict to = to_;
    for (ptrdiff_t i = 0; i < n; i++) to[i] += x[i];
}

static void NAME(fill)(ptrdiff_t n, double value, void *to_) {
    T *restrict to = to_;
    for (ptrdiff_t i = 0; i < n; i++) to[i] = (T)value;
}

static double NAME(sum)(ptrdiff_t n, const void *x_) {
    const T *restrict x = x_;
    double total = 0;
    if (n <= LANES) {
        for (ptrdiff_t i = 0; i < n; i++) total += x[i];
        return total;
    }
    double error = 0; /* of the additions of blocks (Neumaier) */
    while (n > 0) {
        ptrdiff_t m = n < FG_BLOCK ? n : FG_BLOCK, i = 0;
        T part[LANES] = {0};
        for (; i + LANES <= m; i += LANES)
            for (int j = 0; j < LANES; j++) part[j] += x[i + j];
        for (int j = 0; i < m; i++, j++) part[j] += x[i];
        for (int half = LANES / 2; half > 0; half /= 2)
            for (int j = 0; j < half; j++) part[j] += part[j + half];
        double block = part[0], sum = total + block;
        error += fg_fabs_f64(total) >= fg_fabs_f64(block) ? (total - sum) + block : (block - sum) + total;
        total = sum;
        x += m;
        n -= m;
    }
    return total - total == 0 ? total + error : total;
}

static double NAME(dot)(ptrdiff_t n, const void *x_, const void *y_) {
    const T *restrict x = x_, *restrict y = y_;
    double total = 0;
    while (n > 0) {
        ptrdiff_t m = n < FG_BLOCK ? n : FG_BLOCK, i = 0;
        T part[LANES] = {0};
        for (; i + LANES <= m; i += LANES)
            for (int j = 0; j < LANES; j++) part[j] += x[i + j] * y[i + j];
        for (int j = 0; i < m; i++, j++) part[j] += x[i] * y[i];
        for (int half = LANES / 2; half > 0; half /= 2)
            for (int j = 0; j < half; j++) part[j] += part[j + half];
        total += part[0];
        x += m;
        y += m;
        n -= m;
    }
    return total;
}

/* The larger of a and b, NaN if either is. */
#define EXTREME(name, better)                                                       \
    static double NAME(name)(ptrdiff_t n, const void *x_) {                         \
        const T *restrict x = x_;                                                   \
        T best = x[0];                                                              \
        ptrdiff_t i = 0;                                                            \
        if (n >= LANES) {                                                           \
            T part[LANES];                                                          \
            T broken[LANES] = {0};                                                  \
            for (int j = 0; j < LANES; j++) part[j] = x[j];                         \
            for (; i + LANES <= n; i += LANES)                                      \
                for (int j = 0; j < LANES; j++) {                                   \
                    T v = x[i + j];                                                 \
                    part[j] = v better part[j] ? v : part[j];                       \
                    broken[j] = v != v ? v : broken[j];                             \
                }                                                                   \
            for (int j = 0; j < LANES; j++) {                                       \
                best = part[j] better best ? part[j] : best;                        \
                if (broken[j] != broken[j]) return (double)broken[j];               \
            }                                                                       \
        }                                                                           \
        for (; i < n; i++) {                                                        \
            if (x[i] != x[i]) return (double)x[i];                                  \
            best = x[i] better best ? x[i] : best;                                  \
        }                                                                           \
        return (double)best;                                                        \
    }
EXTREME(max, >)
EXTREME(min, <)
#undef EXTREME

static void NAME(add_rows)(ptrdiff_t rows, ptrdiff_t columns, const void *x_, void *to_) {
    const T *restrict x = x_;
    T *restrict to = to_;
    ptrdiff_t i = 0;
    for (; i + 4 <= rows; i += 4, x += 4 * columns)
        for (ptrdiff_t j = 0; j < columns; j++)
            to[j] += (x[j] + x[j + columns]) + (x[j + 2 * columns] + x[j + 3 * columns]);
    for (; i < rows; i++, x += columns)
        for (ptrdiff_t j = 0; j < columns; j++) to[j] += x[j];
}

static void NAME(matmul)(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a_, ptrdiff_t a_row, ptrdiff_t a_column,
                         const void *b_, ptrdiff_t b_row, ptrdiff_t b_column, void *to_, int accumulate) {
    const T *restrict a = a_, *restrict b = b_;
    T *restrict to = to_;
    if (b_column == 1) {
        for (ptrdiff_t i = 0; i < m; i++, to += n, a += a_row) {
            ptrdiff_t start = 0;
            if (!accumulate) {
                if (k == 0) {
                    for (ptrdiff_t j = 0; j < n; j++) to[j] = 0;
                    continue;
                }
                T s = a[0];
                for (ptrdiff_t j = 0; j < n; j++) to[j] = s * b[j];
                start = 1;
            }
            for (ptrdiff_t l = start; l < k; l++) {
                T s = a[l * a_column];
                const T *restrict row = b + l * b_row;
                for (ptrdiff_t j = 0; j < n; j++) to[j] += s * row[j];
            }
        }
    } else {
        for (ptrdiff_t i = 0; i < m; i++, to += n, a += a_row)
            for (ptrdiff_t j = 0; j < n; j++) {
                T s = 0;
                const T *column = b + j * b_column;
                for (ptrdiff_t l = 0; l < k; l++) s += a[l * a_column] * column[l * b_row];
                to[j] = accumulate ? to[j] + s : s;
            }
    }
}

/* exp(x - m) into to, and their sum; m is finite or the row is handled by the caller. */
static double NAME(exp_shifted)(ptrdiff_t n, const T *restrict x, T m, T *restrict to) {
    T shifted[FG_BLOCK];
    double total = 0;
    while (n > 0) {
        ptrdiff_t b = n < FG_BLOCK ? n : FG_BLOCK;
        for (ptrdiff_t i = 0; i < b; i++) shifted[i] = x[i] - m;
        NAME(loop_fg_value_exp)(b, shifted, NULL, NULL, to);
        total += NAME(sum)(b, to);
        x += b;
        to += b;
        n -= b;
    }
    return total;
}

/* log of the sum of exp(x - m), m the finite maximum: as log1p of all terms but one that is exactly 1, so that a sum
 * near 1 keeps its digits. */
static double NAME(log_of_sum)(ptrdiff_t n, const T *x, T m) {
    T shifted[FG_BLOCK], terms[FG_BLOCK];
    double rest = 0;
    int left_out = 0;
    for (ptrdiff_t start = 0; start < n; start += FG_BLOCK, x += FG_BLOCK) {
        ptrdiff_t b = n - start < FG_BLOCK ? n - start : FG_BLOCK;
        for (ptrdiff_t i = 0; i < b; i++) shifted[i] = x[i] - m;
        NAME(loop_fg_value_exp)(b, shifted, NULL, NULL, terms);
        for (ptrdiff_t i = 0; i < b && !left_out; i++)
            if (x[i] == m) {
                terms[i] = 0;
                left_out = 1;
            }
        rest += NAME(sum)(b, terms);
    }
    return log1p(rest);
}

static double NAME(logsumexp_row)(ptrdiff_t n, const T *x) {
    T m = (T)NAME(max)(n, x);
    if (!(fg_fabs_f64(m) < INFINITY)) return m; /* all -inf, one +inf, or NaN */
    return (double)m + NAME(log_of_sum)(n, x, m);
}

static void NAME(logsumexp)(ptrdiff_t rows, ptrdiff_t n, const void *x_, void *out_) {
    const T *x = x_;
    T *out = out_;
    for (ptrdiff_t i = 0; i < rows; i++) out[i] = (T)NAME(logsumexp_row)(n, x + i * n);
}

static void NAME(softmax)(ptrdiff_t rows, ptrdiff_t n, const void *x_, void *out_) {
    const T *x = x_;
    T *out = out_;
    for (ptrdiff_t i = 0; i < rows; i++, x += n, out += n) {
        T m = (T)NAME(max)(n, x);
        if (m == -INFINITY) m = 0; /* exp(-inf) / 0 is NaN: nothing to choose from */
        T scale = (T)(1 / NAME(exp_shifted)(n, x, m, out));
        for (ptrdiff_t j = 0; j < n; j++) out[j] *= scale;
    }
}

static void NAME(log_softmax)(ptrdiff_t rows, ptrdiff_t n, const void *x_, void *out_) {
    const T *x = x_;
    T *out = out_;
    for (ptrdiff_t i = 0; i < rows; i++, x += n, out += n) {
        T m = (T)NAME(max)(n, x);
        if (!(fg_fabs_f64(m) < INFINITY)) {
            for (ptrdiff_t j = 0; j < n; j++) out[j] = x[j] - m;
            continue;
        }
        T lift = (T)NAME(log_of_sum)(n, x, m);
        for (ptrdiff_t j = 0; j < n; j++) out[j] = (x[j] - m) - lift;
    }
}

/* to = out * (g - sum(g * out)) */
static void NAME(softmax_pull)(ptrdiff_t rows, ptrdiff_t n, const void *g_, const void *out_, void *to_) {
    const T *g = g_, *out = out_;
    T *to = to_;
    for (ptrdiff_t i = 0; i < rows; i++, g += n, out += n, to += n) {
        T s = (T)NAME(dot)(n, g, out);
        for (ptrdiff_t j = 0; j < n; j++) to[j] = out[j] == 0 ? 0 : out[j] * (g[j] - s);
    }
}

/* to = g - exp(out) * sum(g) */
static void NAME(log_softmax_pull)(ptrdiff_t rows, ptrdiff_t n, const void *g_, const void *out_, void *to_) {
    const T *g = g_, *out = out_;
    T *to = to_;
    for (ptrdiff_t i = 0; i < rows; i++, g += n, out += n, to += n) {
        T s = (T)NAME(sum)(n, g);
        NAME(loop_fg_value_exp)(n, out, NULL, NULL, to);
        for (ptrdiff_t j = 0; j < n; j++) to[j] = to[j] == 0 ? g[j] : g[j] - to[j] * s;
    }
}

/* to = g * exp(x - out); where out is infinite, ties share g evenly */
static void NAME(logsumexp_pull)(ptrdiff_t rows, ptrdiff_t n, const void *g_, const void *x_, const void *out_, void *to_) {
    const T *g = g_, *x = x_, *out = out_;
    T *to = to_;
    for (ptrdiff_t i = 0; i < rows; i++, x += n, to += n) {
        T gi = g[i], oi = out[i];
        if (gi == 0) {
            for (ptrdiff_t j = 0; j < n; j++) to[j] = 0;
        } else if (oi == INFINITY || oi == -INFINITY) {
            ptrdiff_t ties = 0;
            for (ptrdiff_t j = 0; j < n; j++) ties += x[j] == oi;
            for (ptrdiff_t j = 0; j < n; j++) to[j] = x[j] == oi ? gi / (T)ties : 0;
        } else {
            NAME(exp_shifted)(n, x, oi, to);
            for (ptrdiff_t j = 0; j < n; j++) to[j] *= gi;
        }
    }
}

/* logsumexp(x_i) - x_i[label_i] a row, taking the maximum away first. */
static void NAME(cross_entropy)(ptrdiff_t rows, ptrdiff_t n, const void *x_, const int64_t *labels, void *out_) {
    const T *x = x_;
    T *out = out_;
    for (ptrdiff_t i = 0; i < rows; i++, x += n) {
        T m = (T)NAME(max)(n, x);
        double gap = (double)m - (double)x[labels[i]];
        out[i] = (T)(fg_fabs_f64(m) < INFINITY ? gap + NAME(log_of_sum)(n, x, m) : gap);
    }
}

/* to = g_i * (softmax(x_i) - [j is label_i]) */
static void NAME(cross_entropy_pull)(ptrdiff_t rows, ptrdiff_t n, const void *g_, const void *x_, const int64_t *labels,
                                     void *to_) {
    const T *g = g_;
    T *to = to_;
    NAME(softmax)(rows, n, x_, to_);
    for (ptrdiff_t i = 0; i < rows; i++, to += n) {
        T gi = g[i];
        to[labels[i]] -= 1;
        for (ptrdiff_t j = 0; j < n; j++) to[j] = gi == 0 ? 0 : to[j] * gi;
    }
}

/* The largest or smallest of a row, pulled back: ties share g evenly; a NaN's gradient is NaN, its row's others 0. */
static void NAME(extreme_pull)(ptrdiff_t rows, ptrdiff_t n, const void *g_, const void *x_, const void *out_, void *to_) {
    const T *g = g_, *x = x_, *out = out_;
    T *to = to_;
    for (ptrdiff_t i = 0; i < rows; i++, x += n, to += n) {
        T gi = g[i], oi = out[i];
        if (oi != oi) {
            for (ptrdiff_t j = 0; j < n; j++) to[j] = x[j] != x[j] && gi != 0 ? x[j] : 0;
            continue;
        }
        ptrdiff_t ties = 0;
        for (ptrdiff_t j = 0; j < n; j++) ties += x[j] == oi;
        gi /= (T)ties;
        for (ptrdiff_t j = 0; j < n; j++) to[j] = x[j] == oi ? gi : 0;
    }
}

#undef PASTE_
#undef PASTE
#undef NAME
#undef LANES
