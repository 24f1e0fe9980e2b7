/* Products of matrices: chooses the way, cuts long ones into chunks for threads, finishes each chunk while it is in cache.
 *
 * Everything is decided from the fg_product alone, so that what fg_product_scratch promises is what fg_product_run uses;
 * the number of threads only decides the size of chunks.  k is never cut between threads. */

#include <stdint.h>
#include <string.h>
#include "blocks.h"
#include "products.h"
#include "threads.h"

#define SMALL 20000           /* multiplications that are not worth a plan: about a microsecond */
#define THREADS_FROM 40000.0  /* nanoseconds of work from which a thread pays that takes 45 us to wake up, or none after a loop */
#define CHUNK_ROWS 256        /* rows of a chunk: so many use a packed panel while it is in L2 */
#define CHUNK_COLUMNS 512
#define NARROW 64             /* columns of the narrowest chunk: a multiple of every panel */
#define FEW 16                /* columns up to which a product may be computed transposed, by way of the stack */
#define TURNED_CHUNK 256      /* and how many of them a chunk has */
#define GROUP_BYTES (8 << 20) /* of the packed operand at a time, unless the columns of one chunk are more */
#define ALIGNMENT 64

typedef enum { IN_PLACE, PACKED, DOTS } fg_way;

/* A product as it is computed.  Where `turned`, m, n and the operands are exchanged: the transpose is computed chunk by
 * chunk on the stack.  A chunk is chunk_rows by chunk_columns of the product as it is computed. */
typedef struct {
    fg_way way;
    int turned, type;
    ptrdiff_t m, k, n;
    ptrdiff_t a_row, a_column, b_row, b_column;
    ptrdiff_t group; /* columns of b that are packed at a time */
    double cost;     /* nanoseconds on one thread, roughly */
} fg_plan;

typedef struct {
    const fg_product *p;
    const fg_plan *plan;
    const char *a, *b;
    const char *bias;
    char *pre, *to;
    const char *panels;             /* the packed columns of b; of DOTS `width` is the stride between columns */
    ptrdiff_t from, columns, width; /* the group of columns at work, and its padded width */
    ptrdiff_t chunk_rows, chunk_columns, across; /* `across`: chunks side by side */
} fg_run;

static ptrdiff_t smaller(ptrdiff_t x, ptrdiff_t y) { return x < y ? x : y; }

static ptrdiff_t item_size(int type) { return type == FG_F64 ? sizeof(double) : sizeof(float); }

static ptrdiff_t rounded_up(ptrdiff_t n, ptrdiff_t unit) { return (n + unit - 1) / unit * unit; }

static ptrdiff_t pieces(ptrdiff_t n, ptrdiff_t unit) { return (n + unit - 1) / unit; }

/* ---------------------------------------------------------------------------------------------------------- the plan */

static void turn(fg_plan *plan) {
    fg_plan old = *plan;
    plan->turned = !old.turned;
    plan->m = old.n;
    plan->n = old.m;
    plan->a_row = old.b_column;
    plan->a_column = old.b_row;
    plan->b_row = old.a_column;
    plan->b_column = old.a_row;
}

/* Few rows and columns of b that lie along k, or few columns and rows of a that do not: the transposed product reads both
 * operands along their memory. */
static int better_turned(const fg_plan *plan) {
    if (plan->m <= FEW && plan->b_column != 1 && plan->n > plan->m) return 1;
    return plan->n <= FEW && plan->a_row == 1 && plan->a_column != 1 && plan->m > plan->n;
}

/* Few columns, which would leave much of a register unused; four at a time are the dots' own unit.  A product of one row by one
 * column has no use for them, and they start sums at 0. */
static int better_dots(const fg_plan *plan) {
    ptrdiff_t in_register = fg_kernels->panel[plan->type] / 2;
    if (plan->a_column != 1 || plan->k == 1) return 0;
    if (plan->n == 1) return 1;
    if (plan->n > FEW || plan->k < 32 * in_register) return 0;
    return 5 * rounded_up(plan->n, 4) < 4 * rounded_up(plan->n, in_register);
}

static double cost_of(const fg_product *p) {
    double m = (double)p->m, k = (double)p->k, n = (double)p->n, item = (double)item_size(p->type);
    return m * k * n * item / 400 + (m * k + k * n + 2 * m * n) * item / 40 + (p->activation ? m * n : 0);
}

static fg_plan plan_of(const fg_product *p) {
    fg_plan plan = {.type = p->type, .m = p->m, .k = p->k, .n = p->n, .a_row = p->a_row, .a_column = p->a_column,
                    .b_row = p->b_row, .b_column = p->b_column, .cost = cost_of(p)};
    if (better_turned(&plan)) turn(&plan);
    if (better_dots(&plan)) {
        plan.way = DOTS;
        return plan;
    }
    plan.way = plan.b_column == 1 && plan.m <= FG_ROWS_IN_PLACE ? IN_PLACE : PACKED;
    plan.group = plan.n;
    if (plan.way == PACKED) {
        ptrdiff_t group = rounded_up(GROUP_BYTES / item_size(plan.type) / plan.k, CHUNK_COLUMNS);
        plan.group = smaller(plan.n, group ? group : CHUNK_COLUMNS);
    }
    return plan;
}

static int is_small(const fg_product *p) { return (double)p->m * (double)p->k * (double)p->n <= SMALL; }

size_t fg_product_scratch(const fg_product *p) {
    if (p->k <= 0 || p->m <= 0 || p->n <= 0 || is_small(p)) return 0;
    fg_plan plan = plan_of(p);
    size_t columns = 0, item = (size_t)item_size(p->type);
    if (plan.way == PACKED) columns = (size_t)rounded_up(plan.group, fg_kernels->panel[plan.type]);
    if (plan.way == DOTS && plan.b_row != 1) columns = (size_t)plan.n;
    if (!columns) return 0;
    return (size_t)p->k > (SIZE_MAX - ALIGNMENT) / columns / item ? SIZE_MAX : columns * item * (size_t)p->k + ALIGNMENT;
}

/* --------------------------------------------------------------------------------------- what follows the product */

/* In place by way of the stack: the loops of the table write elsewhere than they read. */
static void activate(int type, int op, ptrdiff_t n, const char *x, char *to) {
    _Alignas(64) char block[FG_BLOCK * sizeof(double)];
    ptrdiff_t item = item_size(type);
    if (x != to) {
        fg_kernels->value[op][type](n, x, NULL, NULL, to);
        return;
    }
    for (; n > 0; n -= FG_BLOCK, to += FG_BLOCK * item) {
        ptrdiff_t some = smaller(n, FG_BLOCK);
        memcpy(block, to, some * item);
        fg_kernels->value[op][type](some, block, NULL, NULL, to);
    }
}

/* Bias, copy before the activation, and activation of a rectangle of the result; short rows that lie end to end are
 * finished some at a time, with as many copies of the bias. */
static void finish(const fg_run *run, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t column, ptrdiff_t columns) {
    const fg_product *p = run->p;
    if (!p->bias && !p->activation && !run->pre) return;
    ptrdiff_t item = item_size(p->type), step = p->to_row * item;
    ptrdiff_t at_once = columns == p->to_row && columns < FG_BLOCK ? FG_BLOCK / columns : 1;
    _Alignas(64) char copies[FG_BLOCK * sizeof(double)];
    const char *bias = run->bias + column * item;
    if (at_once > rows) at_once = rows;
    if (p->bias && at_once > 1) {
        for (ptrdiff_t r = 0; r < at_once; r++) memcpy(copies + r * columns * item, bias, columns * item);
        bias = copies;
    }
    for (ptrdiff_t i = 0; i < rows; i += at_once) {
        ptrdiff_t some = smaller(at_once, rows - i), at = (row + i) * step + column * item;
        char *to = run->to + at;
        if (p->bias) fg_kernels->add[p->type](some * columns, bias, to);
        if (run->pre) memcpy(run->pre + at, to, some * columns * item);
        if (p->activation) activate(p->type, p->activation, some * columns, run->pre ? run->pre + at : to, to);
    }
}

/* -------------------------------------------------------------------------------------------------------- the chunks */

/* rows by columns of the product as it is computed, from `row` and `column` of the whole on. */
static void multiply(const fg_run *run, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t column, ptrdiff_t columns, char *to,
                     ptrdiff_t to_row, int add) {
    const fg_plan *plan = run->plan;
    ptrdiff_t item = item_size(plan->type);
    const char *a = run->a + row * plan->a_row * item;
    if (plan->way == PACKED)
        fg_kernels->multiply_packed[plan->type](rows, plan->k, columns, a, plan->a_row, plan->a_column, run->panels,
                                                run->width, column - run->from, to, to_row, add);
    else
        fg_kernels->multiply[plan->type](rows, plan->k, columns, a, plan->a_row, plan->a_column,
                                         run->b + column * plan->b_column * item, plan->b_row, plan->b_column, to, to_row,
                                         add);
}

#define SCATTER(T)                                                                        \
    for (ptrdiff_t j = 0; j < columns; j++)                                               \
        for (ptrdiff_t i = 0; i < rows; i++) {                                            \
            T *at = (T *)to + j * to_row + i, value = ((const T *)part)[i * columns + j]; \
            *at = add ? *at + value : value;                                              \
        }

/* The transpose of a chunk (rows, columns) into the result. */
static void scatter(int type, const char *part, ptrdiff_t rows, ptrdiff_t columns, char *to, ptrdiff_t to_row, int add) {
    if (type == FG_F64) {
        SCATTER(double)
    } else {
        SCATTER(float)
    }
}

static void turned_chunk(const fg_run *run, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t column, ptrdiff_t columns) {
    _Alignas(64) char part[FEW * TURNED_CHUNK * sizeof(double)];
    const fg_product *p = run->p;
    multiply(run, row, rows, column, columns, part, columns, smaller(p->accumulate, 0));
    scatter(p->type, part, rows, columns, run->to + (column * p->to_row + row) * item_size(p->type), p->to_row,
            p->accumulate > 0);
    finish(run, column, columns, row, rows);
}

static void run_chunk(void *context, ptrdiff_t chunk, int worker) {
    (void)worker;
    const fg_run *run = context;
    const fg_product *p = run->p;
    ptrdiff_t row = chunk / run->across * run->chunk_rows, column = chunk % run->across * run->chunk_columns;
    ptrdiff_t rows = smaller(run->chunk_rows, run->plan->m - row);
    ptrdiff_t columns = smaller(run->chunk_columns, run->columns - column);
    column += run->from;
    if (run->plan->turned) {
        turned_chunk(run, row, rows, column, columns);
        return;
    }
    multiply(run, row, rows, column, columns, run->to + (row * p->to_row + column) * item_size(p->type), p->to_row,
             p->accumulate);
    finish(run, row, rows, column, columns);
}

/* One stretch of FG_DEPTH rows of one chunk's columns of b. */
static void pack_chunk(void *context, ptrdiff_t chunk, int worker) {
    (void)worker;
    const fg_run *run = context;
    const fg_plan *plan = run->plan;
    ptrdiff_t across = pieces(run->columns, CHUNK_COLUMNS), item = item_size(plan->type);
    ptrdiff_t l = chunk / across * FG_DEPTH, column = chunk % across * CHUNK_COLUMNS;
    ptrdiff_t depth = smaller(FG_DEPTH, plan->k - l), columns = smaller(CHUNK_COLUMNS, run->columns - column);
    const char *b = run->b + (l * plan->b_row + (run->from + column) * plan->b_column) * item;
    char *panels = (char *)run->panels + (l * run->width + column * depth) * item;
    fg_kernels->pack[plan->type](depth, columns, b, plan->b_row, plan->b_column, panels);
}

/* Rows of a times a few columns. */
static void dots_chunk(void *context, ptrdiff_t chunk, int worker) {
    (void)worker;
    const fg_run *run = context;
    const fg_plan *plan = run->plan;
    ptrdiff_t item = item_size(plan->type), row = chunk * run->chunk_rows, rows = smaller(run->chunk_rows, plan->m - row);
    ptrdiff_t to_row = plan->turned ? 1 : run->p->to_row, to_column = plan->turned ? run->p->to_row : 1;
    fg_kernels->dots[plan->type](rows, plan->k, plan->n, run->a + row * plan->a_row * item, plan->a_row, run->panels,
                                 run->width, run->to + row * to_row * item, to_row, to_column, run->p->accumulate > 0);
    if (plan->turned)
        finish(run, 0, plan->n, row, rows);
    else
        finish(run, row, rows, 0, plan->n);
}

/* ----------------------------------------------------------------------------------------------------------- the run */

/* All chunks, by threads if that pays. */
static void share(const fg_run *run, ptrdiff_t n_chunks, fg_body body, int threads) {
    if (threads > 1)
        fg_parallel(n_chunks, body, (void *)run);
    else
        for (ptrdiff_t chunk = 0; chunk < n_chunks; chunk++) body((void *)run, chunk, 0);
}

/* Chunks small enough that each thread gets some; columns are halved before rows, which share the packed operand. */
static void cut(fg_run *run, int threads) {
    const fg_plan *plan = run->plan;
    ptrdiff_t rows = plan->turned && plan->n <= FEW ? TURNED_CHUNK : CHUNK_ROWS;
    ptrdiff_t columns = plan->turned && plan->n > FEW ? TURNED_CHUNK : CHUNK_COLUMNS;
    while (threads > 1 && pieces(plan->m, rows) * pieces(run->columns, columns) < 4 * threads) {
        if (columns > NARROW && columns > rows && run->columns > NARROW)
            columns /= 2;
        else if (rows > FEW && plan->m > FEW)
            rows /= 2;
        else
            break;
    }
    run->chunk_rows = rows;
    run->chunk_columns = columns;
    run->across = pieces(run->columns, columns);
}

static void run_groups(fg_run *run, int threads) {
    const fg_plan *plan = run->plan;
    for (run->from = 0; run->from < plan->n; run->from += plan->group) {
        run->columns = smaller(plan->group, plan->n - run->from);
        run->width = rounded_up(run->columns, fg_kernels->panel[plan->type]);
        if (plan->way == PACKED)
            share(run, pieces(plan->k, FG_DEPTH) * pieces(run->columns, CHUNK_COLUMNS), pack_chunk, threads);
        cut(run, threads);
        share(run, pieces(plan->m, run->chunk_rows) * run->across, run_chunk, threads);
    }
}

static void run_dots(fg_run *run, char *scratch, int threads) {
    const fg_plan *plan = run->plan;
    ptrdiff_t item = item_size(plan->type);
    if (plan->b_row == 1) {
        run->panels = run->b;
        run->width = plan->b_column;
    } else {
        for (ptrdiff_t l = 0; l < plan->k; l++)
            for (ptrdiff_t j = 0; j < plan->n; j++)
                memcpy(scratch + (j * plan->k + l) * item, run->b + (l * plan->b_row + j * plan->b_column) * item, item);
        run->panels = scratch;
        run->width = plan->k;
    }
    run->chunk_rows = threads > 1 ? rounded_up(pieces(plan->m, 4 * threads), 4) : plan->m;
    share(run, pieces(plan->m, run->chunk_rows), dots_chunk, threads);
}

static void run_small(const fg_product *p, const void *a, const void *b, void *to) {
    int sums = p->k > 1;
    if (sums && p->n == 1 && p->a_column == 1 && p->b_row == 1)
        fg_kernels->dots[p->type](p->m, p->k, 1, a, p->a_row, b, 1, to, p->to_row, 1, p->accumulate);
    else if (sums && p->m == 1 && p->a_column == 1 && p->b_row == 1)
        fg_kernels->dots[p->type](p->n, p->k, 1, b, p->b_column, a, 1, to, 1, 1, p->accumulate);
    else
        fg_kernels->multiply[p->type](p->m, p->k, p->n, a, p->a_row, p->a_column, b, p->b_row, p->b_column, to, p->to_row,
                                      p->accumulate);
}

/* The empty sum. */
static void run_nothing(const fg_run *run) {
    const fg_product *p = run->p;
    for (ptrdiff_t i = 0; i < p->m && p->accumulate <= 0; i++)
        fg_kernels->fill[p->type](p->n, 0, run->to + i * p->to_row * item_size(p->type));
}

static void run_planned(fg_run *run, char *scratch) {
    fg_plan plan = plan_of(run->p);
    int threads = plan.cost > THREADS_FROM ? fg_get_threads() : 1;
    run->plan = &plan;
    if (scratch) scratch += (ALIGNMENT - (uintptr_t)scratch % ALIGNMENT) % ALIGNMENT;
    run->panels = scratch;
    if (plan.turned) {
        const char *a = run->a;
        run->a = run->b;
        run->b = a;
    }
    if (plan.way == DOTS)
        run_dots(run, scratch, threads);
    else
        run_groups(run, threads);
}

void fg_product_run(const fg_product *p, const void *a, const void *b, const void *bias, void *pre, void *to,
                    void *scratch) {
    if (p->m <= 0 || p->n <= 0) return;
    if (p->k > 0 && is_small(p)) {
        run_small(p, a, b, to);
        if (!bias && !p->activation && !pre) return; /* a step of a Program: no struct to fill */
    }
    fg_run run = {.p = p, .a = a, .b = b, .bias = bias, .pre = pre, .to = to};
    if (p->k > 0 && !is_small(p)) {
        run_planned(&run, scratch);
        return;
    }
    if (p->k <= 0) run_nothing(&run);
    finish(&run, 0, p->m, 0, p->n);
}
