/* Tests lanes.h: groups and scalar code against the table's own loops applied one after the other, bit for bit.
 *
 *     lanes_test [rounds] [seed]
 *
 * Prints the first difference and exits with 1. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lanes.h"
#include "threads.h"

#define MOST_VALUES 400

static uint64_t state = 1;

static uint64_t draw(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}
static int below(int n) { return (int)((draw() >> 20) % (uint64_t)n); }

static double number(void) {
    static const double special[] = {0.0, -0.0, 1.0, -1.0, 0.5, 2.0, INFINITY, -INFINITY, NAN, 1e-300, -1e300, 1e7,
                                     5e-324};
    double u = (double)(draw() >> 11) / 9007199254740992.0;
    int kind = below(20);
    if (kind == 0) return special[below((int)(sizeof special / sizeof *special))];
    if (kind == 1) return (u - 0.5) * 1e3;
    return (u - 0.4) * 4;
}

static void fail(const char *what) {
    printf("FAILED: %s (level %s)\n", what, fg_kernels->level);
    exit(1);
}

static void *zeros(size_t n) {
    void *p = NULL;
    size_t bytes = (n + 127) / 64 * 64;
    p = aligned_alloc(64, bytes);
    if (!p) fail("no memory");
    memset(p, 0, bytes);
    return p;
}

static void fill(char *to, int type, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double x = number();
        if (type == FG_F64) ((double *)to)[i] = x;
        else if (type == FG_F32) ((float *)to)[i] = (float)x;
        else ((uint8_t *)to)[i] = (uint8_t)(x > 0.5);
    }
}

static double get(const char *x, int type, ptrdiff_t i) {
    return type == FG_F64 ? ((const double *)x)[i] : type == FG_F32 ? ((const float *)x)[i] : ((const uint8_t *)x)[i];
}

static int same(double a, double b) { return (a != a && b != b) || memcmp(&a, &b, sizeof a) == 0; }

static int is_pull(int op) { return op >= FG_PULL && op < FG_CAST; }

/* --------------------------------------------------------------------------------------------------- random programs */

/* A random operation that the table has; cheap ones more often, so that they are fused. */
static int random_op(void) {
    static const int cheap[] = {FG_ADD, FG_SUBTRACT, FG_MULTIPLY, FG_GUARDED_MULTIPLY, FG_NEGATIVE, FG_SQUARE, FG_DIVIDE,
                                FG_TANH,
                                FG_PULL + 3 * FG_MULTIPLY, FG_PULL + 3 * FG_MULTIPLY + 1, FG_PULL + 3 * FG_TANH,
                                FG_PULL + 3 * FG_SQUARE, FG_PULL + 3 * FG_EXP, FG_PULL + 3 * FG_NEGATIVE,
                                FG_PULL + 3 * FG_SUBTRACT + 1, FG_RELU, FG_MAXIMUM, FG_EXP, FG_SQRT};
    if (below(3)) return cheap[below((int)(sizeof cheap / sizeof *cheap))];
    for (;;) {
        int op = 1 + below(FG_N_ELEMENTARY - 1), k = below(4);
        if (op == FG_GAMMALN || op == FG_DIGAMMA || op == FG_POLYGAMMA) continue; /* slow */
        if (op == FG_COPYSIGN) continue; /* shows the sign of a NaN, which nobody promises */
        if (k == 3) return op;
        if (fg_needs[op][k] & 16) return FG_PULL + 3 * op + k;
    }
}

static int reads(int op, int j) {
    if (is_pull(op)) return j == 0 || (j < 5 && fg_needs[(op - FG_PULL) / 3][(op - FG_PULL) % 3] & (1 << (j - 1)));
    return j < (op < FG_PULL ? fg_arity[op] : 1);
}

/* A value of the type, recent ones more often; -1: none. */
static int32_t random_value(const uint8_t *types, int n, int type) {
    for (int tries = 0; tries < 50; tries++) {
        int v = below(2) && n > 4 ? n - 1 - below(4) : below(n);
        if (types[v] == type) return v;
    }
    return -1;
}

static fg_instruction random_instruction(const uint8_t *types, int n, int only_f64) {
    for (;;) {
        fg_instruction i = {0, (uint8_t)(only_f64 ? FG_F64 : below(3) ? FG_F64 : FG_F32), {-1, -1, -1, -1, -1}};
        int good = 1, what = below(12);
        if (what == 0) {
            i.op = (uint16_t)(below(2) ? FG_CAST : FG_MOVE);
            i.operand[0] = below(n);
            i.type = i.op == FG_MOVE && !only_f64 ? types[i.operand[0]] : (uint8_t)below(3);
            return i;
        }
        i.op = (uint16_t)random_op();
        for (int j = 0; j < 5; j++)
            if (reads(i.op, j)) good &= (i.operand[j] = random_value(types, n, i.type)) >= 0;
        if (good) return i;
    }
}

/* ------------------------------------------------------------------------------------------------------------- groups */

typedef struct {
    fg_group_spec spec;
    ptrdiff_t dims[4], strides[64][4];
    fg_load loads[64];
    fg_instruction code[MOST_VALUES];
    fg_result stores[64], sums[32];
    uint8_t types[MOST_VALUES];
    char *values[MOST_VALUES];
    char *memory[64], *out[64], *summed[32], *bases[200];
} program;

static ptrdiff_t element(const program *p, int load, ptrdiff_t i) {
    ptrdiff_t at = 0;
    for (int d = p->spec.extent.ndim - 1; d >= 0; d--) {
        at += i % p->dims[d] * p->strides[load][d];
        i /= p->dims[d];
    }
    return at;
}

static void random_extent(program *p, int size) {
    fg_extent *e = &p->spec.extent;
    e->ndim = 1 + below(3);
    e->dims = p->dims;
    e->size = 1;
    for (int d = e->ndim - 1; d >= 0; d--) {
        ptrdiff_t left = size > e->size ? size / e->size : 1;
        p->dims[d] = d == 0 ? left : 1 + below(below(3) ? 5 : (int)(left < 300 ? left : 300));
        if (size == 0 && d == 0) p->dims[d] = 0;
        e->size *= p->dims[d];
    }
}

static void random_loads(program *p, int n) {
    const fg_extent *e = &p->spec.extent;
    p->spec.n_loads = n;
    p->spec.loads = p->loads;
    for (int v = 0; v < n; v++) {
        fg_load *load = p->loads + v;
        load->kind = (uint8_t)(v == 0 ? FG_CONTIGUOUS : FG_CONTIGUOUS + below(3));
        load->type = (uint8_t)(v == 0 ? FG_F64 : v == 1 ? FG_F32 : below(6) == 0 ? FG_BOOL : below(2));
        load->strides = p->strides[v];
        ptrdiff_t item = (ptrdiff_t)fg_type_size(load->type), step = item, extra = below(8) ? 0 : item * below(9);
        if (load->kind == FG_STRIDED)
            for (int d = e->ndim - 1; d >= 0; d--) {
                p->strides[v][d] = below(2) ? 0 : step * (1 + below(2));
                if (p->strides[v][d]) step = p->strides[v][d] * p->dims[d];
            }
        else
            step = item * (e->size + 1);
        p->memory[v] = zeros((size_t)(step * 2 + extra + 64));
        fill(p->memory[v], load->type, (size_t)((step * 2 + extra) / item));
        load->at.base = v;
        load->at.offset = extra;
        p->bases[v] = p->memory[v];
        p->types[v] = load->type;
        p->values[v] = zeros((size_t)(e->size * item));
        const char *from = p->memory[v] + extra;
        for (ptrdiff_t i = 0; i < e->size; i++)
            memcpy(p->values[v] + i * item,
                   from + (load->kind == FG_ONE ? 0 : load->kind == FG_CONTIGUOUS ? i * item : element(p, v, i)),
                   (size_t)item);
    }
}

/* What the table's own loops give. */
static void evaluate(program *p, int k) {
    const fg_instruction *c = p->code + k;
    int v = p->spec.n_loads + k;
    ptrdiff_t n = p->spec.extent.size;
    const char *in[5];
    for (int j = 0; j < 5; j++) in[j] = c->operand[j] < 0 ? NULL : p->values[c->operand[j]];
    p->types[v] = c->op < FG_PULL && fg_is_bool[c->op] ? FG_BOOL : c->type;
    p->values[v] = zeros((size_t)(n * 8));
    if (c->op == FG_CAST || c->op == FG_MOVE) {
        for (ptrdiff_t i = 0; i < n; i++) {
            double x = get(in[0], p->types[c->operand[0]], i);
            if (c->type == FG_F64) ((double *)p->values[v])[i] = x;
            else if (c->type == FG_F32) ((float *)p->values[v])[i] = (float)x;
            else ((uint8_t *)p->values[v])[i] = x != 0;
        }
    } else if (is_pull(c->op)) {
        int op = (c->op - FG_PULL) / 3, which = (c->op - FG_PULL) % 3;
        fg_kernels->pull[op][which][c->type](n, in[0], in[1], in[2], in[3], in[4], p->values[v]);
    } else {
        fg_kernels->value[c->op][c->type](n, in[0], in[1], in[2], p->values[v]);
    }
}

static ptrdiff_t random_divisor(ptrdiff_t n) {
    if (n == 0) return 1 + below(4);
    for (int tries = 0; tries < 200; tries++) {
        ptrdiff_t d = 1 + below((int)(n < 1000 ? n : 1000));
        if (n % d == 0) return d;
    }
    return below(2) ? 1 : n;
}

static void random_results(program *p, int n_values, int n_stores, int n_sums) {
    ptrdiff_t n = p->spec.extent.size;
    p->spec.stores = p->stores;
    p->spec.sums = p->sums;
    p->spec.n_stores = n_stores;
    for (int k = 0; k < n_stores; k++) {
        fg_result *r = p->stores + k;
        r->value = k == 0 ? n_values - 1 : below(n_values);
        r->at.base = 64 + k;
        r->at.offset = below(4) ? 0 : 8;
        p->bases[64 + k] = p->out[k] = zeros((size_t)(n * 8 + 64));
    }
    for (int k = 0; k < n_sums; k++) {
        int v = random_value(p->types, n_values, below(2));
        if (v < 0) continue;
        fg_result *r = p->sums + p->spec.n_sums;
        r->value = v;
        r->kind = (uint8_t)below(3);
        r->columns = random_divisor(n);
        r->at.base = 128 + p->spec.n_sums;
        r->at.offset = 8;
        p->bases[128 + p->spec.n_sums] = p->summed[p->spec.n_sums] = zeros((size_t)((n + r->columns) * 8 + 64));
        p->spec.n_sums++;
    }
}

static void check_stores(const program *p) {
    for (int k = 0; k < p->spec.n_stores; k++) {
        const fg_result *r = p->stores + k;
        for (ptrdiff_t i = 0; i < p->spec.extent.size; i++) {
            int type = p->types[r->value];
            double a = get(p->out[k] + r->at.offset, type, i), b = get(p->values[r->value], type, i);
            if (same(a, b)) continue;
            printf("store %d, value %d of %d loads and %d instructions, element %td of %td: %.17g, not %.17g\n", k, r->value,
                   p->spec.n_loads, p->spec.n_code, i, p->spec.extent.size, a, b);
            fail("store");
        }
    }
}

static void check_sums(const program *p) {
    ptrdiff_t n = p->spec.extent.size;
    for (int k = 0; k < p->spec.n_sums; k++) {
        const fg_result *r = p->sums + k;
        int type = p->types[r->value];
        ptrdiff_t results = r->kind == FG_SUM_ALL ? 1 : r->kind == FG_SUM_COLUMNS ? r->columns : n / r->columns;
        long double *sums = zeros((size_t)(results * 16)), *sizes = zeros((size_t)(results * 16));
        for (ptrdiff_t i = 0; i < n; i++) {
            ptrdiff_t j = r->kind == FG_SUM_ALL ? 0 : r->kind == FG_SUM_COLUMNS ? i % r->columns : i / r->columns;
            sums[j] += get(p->values[r->value], type, i);
            sizes[j] += fabs(get(p->values[r->value], type, i));
        }
        for (ptrdiff_t j = 0; j < results; j++) {
            double a = get(p->summed[k] + r->at.offset, type, j), most = type == FG_F64 ? 1e300 : 1e36;
            double eps = type == FG_F64 ? 1e-15 : 5e-6;
            if (!isfinite((double)sums[j]) && sizes[j] == INFINITY && sums[j] == sums[j]) {
                if (a != (double)sums[j]) fail("an infinite sum");
            } else if (sums[j] != sums[j]) {
                if (a == a) fail("a sum with NaN");
            } else if (!(sizes[j] > most) && !(fabsl(a - sums[j]) <= eps * 16 * sizes[j])) {
                printf("sum %d of kind %d, %td columns of %td, result %td: %.17g, not %.17Lg\n", k, r->kind, r->columns, n, j,
                       a, sums[j]);
                fail("sum");
            }
        }
        free(sums);
        free(sizes);
    }
}

static int never(void *context) { return context != NULL; }

static void run_group(program *p, const fg_group *g) {
    char *scratch = zeros(fg_group_scratch(g));
    memset(scratch, 0xff, fg_group_scratch(g));
    if (fg_group_run(g, p->bases, scratch, never, NULL)) fail("interrupted");
    free(scratch);
}

/* Runs with one thread and with three; all results have the same bits. */
static void check_group(program *p) {
    fg_set_threads(3);
    fg_group *g = fg_group_new(&p->spec);
    if (!g) fail("no group");
    fg_set_threads(1);
    run_group(p, g);
    check_stores(p);
    check_sums(p);
    char *before[32];
    for (int k = 0; k < p->spec.n_sums; k++) {
        size_t bytes = (size_t)((p->spec.extent.size + p->sums[k].columns) * 8 + 64);
        before[k] = zeros(bytes);
        memcpy(before[k], p->summed[k], bytes);
    }
    for (int threads = 2; threads < 6; threads += 3) {
        fg_set_threads(threads);
        run_group(p, g);
        check_stores(p);
        for (int k = 0; k < p->spec.n_sums; k++)
            if (memcmp(before[k], p->summed[k], (size_t)((p->spec.extent.size + p->sums[k].columns) * 8 + 64)))
                fail("the threads changed a sum");
    }
    for (int k = 0; k < p->spec.n_sums; k++) free(before[k]);
    fg_group_free(g);
}

static void free_program(program *p) {
    for (int v = 0; v < p->spec.n_loads; v++) free(p->memory[v]);
    for (int v = 0; v < p->spec.n_loads + p->spec.n_code; v++) free(p->values[v]);
    for (int k = 0; k < p->spec.n_stores; k++) free(p->out[k]);
    for (int k = 0; k < p->spec.n_sums; k++) free(p->summed[k]);
    free(p);
}

static void random_group(void) {
    static const int sizes[] = {0, 1, 2, 7, 16, 100, 511, 512, 513, 1000, 3001, 20000};
    program *p = zeros(sizeof *p);
    int n_loads = 2 + below(10), n_code = below(4) ? below(40) : below(300);
    random_extent(p, n_code > 100 ? 1 + below(600) : sizes[below((int)(sizeof sizes / sizeof *sizes))]);
    random_loads(p, n_loads);
    p->spec.code = p->code;
    for (int k = 0; k < n_code; k++) {
        p->code[k] = random_instruction(p->types, n_loads + k, 0);
        p->spec.n_code++;
        evaluate(p, k);
    }
    random_results(p, n_loads + n_code, 1 + below(8), below(4));
    check_group(p);
    free_program(p);
}

/* Every operation and pullback by itself, at every alignment of the last block. */
static void each_operation(void) {
    for (int what = 1; what < FG_CAST; what++) {
        if (what < FG_PULL ? what >= FG_N_ELEMENTARY : (what - FG_PULL) / 3 >= FG_N_ELEMENTARY) continue;
        if (is_pull(what) && !(fg_needs[(what - FG_PULL) / 3][(what - FG_PULL) % 3] & 16)) continue;
        for (int type = 0; type < 2; type++) {
            program *p = zeros(sizeof *p);
            p->spec.extent = (fg_extent){1, p->dims, 700};
            p->dims[0] = 700;
            random_loads(p, 1);
            for (int v = 0; v < 5; v++) {
                p->loads[v] = p->loads[0];
                p->loads[v].at.base = v;
                p->loads[v].type = p->types[v] = (uint8_t)type;
                if (v == 0) free(p->memory[0]);
                if (v == 0) free(p->values[0]);
                p->bases[v] = p->memory[v] = zeros(700 * 8 + 64);
                p->values[v] = zeros(700 * 8);
                fill(p->memory[v], type, 700);
                memcpy(p->values[v], p->memory[v], 700 * 8);
                p->loads[v].at.offset = 0;
            }
            p->spec.n_loads = 5;
            p->spec.code = p->code;
            p->spec.n_code = 1;
            p->code[0] = (fg_instruction){(uint16_t)what, (uint8_t)type, {-1, -1, -1, -1, -1}};
            for (int j = 0; j < 5; j++)
                if (reads(what, j)) p->code[0].operand[j] = j;
            evaluate(p, 0);
            random_results(p, 6, 1, 0);
            check_group(p);
            free_program(p);
        }
    }
}

/* The new value of an operand in its own memory. */
static void in_place(void) {
    enum { N = 5000 };
    double *x = zeros(N * 8), *y = zeros(N * 8), *expected = zeros(N * 8);
    fill((char *)x, FG_F64, N);
    fill((char *)y, FG_F64, N);
    for (int i = 0; i < N; i++) expected[i] = (x[i] + y[i]) * x[i];
    ptrdiff_t dims = N;
    fg_load loads[2] = {{{0, 0}, NULL, FG_CONTIGUOUS, FG_F64}, {{1, 0}, NULL, FG_CONTIGUOUS, FG_F64}};
    fg_instruction code[2] = {{FG_ADD, FG_F64, {0, 1, -1, -1, -1}}, {FG_MULTIPLY, FG_F64, {2, 0, -1, -1, -1}}};
    fg_result store = {3, {0, 0}, 0, 0}, both = {2, {1, 0}, 0, 0};
    fg_result stores[2] = {store, both};
    fg_group_spec spec = {{1, &dims, N}, 2, 2, 2, 0, loads, code, stores, NULL};
    fg_group *g = fg_group_new(&spec);
    char *bases[2] = {(char *)x, (char *)y}, *scratch = zeros(fg_group_scratch(g));
    fg_group_run(g, bases, scratch, NULL, NULL);
    for (int i = 0; i < N; i++)
        if (!same(x[i], expected[i])) fail("in place");
    fg_group_free(g);
    free(scratch);
    free(x);
    free(y);
    free(expected);
}

/* More than caches hold: stores go past them, also where the memory is not aligned to a line. */
static void large(void) {
    enum { N = (1 << 20) + 37 };
    double *x = zeros(N * 8), *y = zeros(N * 8 + 64);
    fill((char *)x, FG_F64, N);
    ptrdiff_t dims = N;
    fg_load load = {{0, 0}, NULL, FG_CONTIGUOUS, FG_F64};
    fg_instruction code = {FG_SQUARE, FG_F64, {0, -1, -1, -1, -1}};
    fg_result stores[2] = {{1, {1, 8}, 0, 0}, {0, {2, 8}, 0, 0}};
    double *z = zeros(N * 8 + 64);
    fg_group_spec spec = {{1, &dims, N}, 1, 1, 2, 0, &load, &code, stores, NULL};
    char *bases[3] = {(char *)x, (char *)y, (char *)z};
    fg_set_threads(2);
    fg_group *g = fg_group_new(&spec);
    char *scratch = zeros(fg_group_scratch(g));
    fg_group_run(g, bases, scratch, NULL, NULL);
    for (int i = 0; i < N; i++)
        if (!same(y[i + 1], x[i] * x[i]) || !same(z[i + 1], x[i])) fail("large");
    if (y[0] != 0 || y[N + 1] != 0) fail("large: beyond the ends");
    fg_group_free(g);
    free(scratch);
    free(x);
    free(y);
    free(z);
}

/* A run stops when it is asked to. */
static int stop(void *context) { return ++*(int *)context == 1 ? 7 : 0; }

static void interrupted(void) {
    enum { N = 1 << 20 };
    double *x = zeros(N * 8), *y = zeros(N * 8);
    ptrdiff_t dims = N;
    fg_load load = {{0, 0}, NULL, FG_CONTIGUOUS, FG_F64};
    fg_instruction code[80] = {{FG_SIN, FG_F64, {0, -1, -1, -1, -1}}};
    for (int k = 1; k < 80; k++) code[k] = (fg_instruction){FG_ARCSINH, FG_F64, {k, -1, -1, -1, -1}};
    fg_result store = {80, {1, 0}, 0, 0};
    fg_group_spec spec = {{1, &dims, N}, 1, 80, 1, 0, &load, code, &store, NULL};
    char *bases[2] = {(char *)x, (char *)y};
    fg_set_threads(1);
    fg_group *g = fg_group_new(&spec);
    char *scratch = zeros(fg_group_scratch(g));
    int asked = 0;
    if (fg_group_run(g, bases, scratch, stop, &asked) != 7 || asked != 1) fail("interrupt");
    fg_group_free(g);
    free(scratch);
    free(x);
    free(y);
}

/* -------------------------------------------------------------------------------------------------------- scalar code */

static double scalar_one(const fg_instruction *c, const double *in) {
    if (c->op == FG_MOVE || c->op == FG_CAST)
        return c->op == FG_MOVE || c->type == FG_F64 ? in[0] : c->type == FG_F32 ? (double)(float)in[0] : in[0] != 0;
    if (!is_pull(c->op)) return fg_kernels->value_one[c->op](in[0], in[1], in[2]);
    return fg_kernels->pull_one[(c->op - FG_PULL) / 3][(c->op - FG_PULL) % 3](in[0], in[1], in[2], in[3], in[4]);
}

static void check_scalars(const fg_scalars_spec *spec, double *cells, int64_t n_cells, const double *values) {
    fg_scalars *s = fg_scalars_new(spec);
    if (!s) fail("no scalars");
    int64_t temporaries = fg_scalars_temporaries(s);
    double *memory = zeros((size_t)(spec->first_temporary + temporaries) * 8);
    memcpy(memory, cells, (size_t)n_cells * 8);
    for (int again = 0; again < 2; again++) {
        fg_scalars_run(s, memory);
        for (int v = 0; v < spec->n_given + spec->n_code; v++)
            if (spec->cells[v] != FG_NO_VALUE && !same(memory[spec->cells[v]], values[v])) {
                printf("value %d of %d given, %d instructions, op %d: %.17g, not %.17g\n", v, spec->n_given, spec->n_code,
                       v >= spec->n_given ? spec->code[v - spec->n_given].op : -1, memory[spec->cells[v]], values[v]);
                fail("scalar code");
            }
    }
    free(memory);
    fg_scalars_free(s);
}

static void random_scalars(void) {
    fg_instruction code[MOST_VALUES];
    int64_t cells[MOST_VALUES];
    double values[MOST_VALUES], memory[MOST_VALUES] = {0};
    uint8_t types[MOST_VALUES] = {0};
    int n_given = 1 + below(8), n_code = below(300), dense = below(3);
    int64_t n_cells = 0;
    for (int v = 0; v < n_given; v++) {
        cells[v] = n_cells++;
        memory[cells[v]] = values[v] = number();
    }
    for (int k = 0; k < n_code; k++) {
        int v = n_given + k;
        code[k] = random_instruction(types, v, 1);
        double in[5];
        for (int j = 0; j < 5; j++) in[j] = code[k].operand[j] < 0 ? 0 : values[code[k].operand[j]];
        values[v] = scalar_one(code + k, in);
        cells[v] = below(4) < dense || k == n_code - 1 ? n_cells++ : FG_NO_VALUE;
    }
    fg_scalars_spec spec = {n_given, n_code, cells, code, n_cells};
    check_scalars(&spec, memory, n_cells, values);
}

static void each_scalar_operation(void) {
    for (int what = 1; what < FG_N_LANE_OPS; what++) {
        if (what < FG_PULL ? what >= FG_N_ELEMENTARY : is_pull(what) && (what - FG_PULL) / 3 >= FG_N_ELEMENTARY) continue;
        if (is_pull(what) && !(fg_needs[(what - FG_PULL) / 3][(what - FG_PULL) % 3] & 16)) continue;
        for (int round = 0; round < 30; round++) {
            fg_instruction code = {(uint16_t)what, (uint8_t)(what >= FG_CAST ? round % 3 : 0), {-1, -1, -1, -1, -1}};
            double values[6], in[5];
            int64_t cells[6] = {0, 1, 2, 3, 4, 5};
            for (int j = 0; j < 5; j++) {
                in[j] = values[j] = number();
                if (reads(what, j)) code.operand[j] = j;
                else in[j] = 0;
            }
            if (what == FG_POLYGAMMA) in[0] = values[0] = 1 + round % 3;
            values[5] = scalar_one(&code, in);
            fg_scalars_spec spec = {5, 1, cells, &code, 6};
            double memory[6];
            memcpy(memory, values, sizeof memory);
            memory[5] = 0;
            check_scalars(&spec, memory, 6, values);
        }
    }
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 300;
    const char *levels[] = {"baseline", "avx2", "avx512"};
    for (int l = 0; l < 3; l++) {
        if (!fg_use_level(levels[l])) continue;
        state = argc > 2 ? (uint64_t)atoll(argv[2]) * 7919 + 1 : 88172645463325252u;
        each_operation();
        in_place();
        large();
        interrupted();
        each_scalar_operation();
        for (int k = 0; k < rounds; k++) {
            random_scalars();
            random_group();
        }
        printf("%s: all equal\n", levels[l]);
    }
    return 0;
}
