/* Fused elementwise groups: straight-line code becomes steps over blocks of lanes, and the blocks are run.
 *
 * A block is so short that everything alive in it stays in a cache.  Values live in places: loads and stores that are
 * contiguous are read and written where they are, the rest has slots, shared by values that are not alive together.
 * The extent is cut into chunks whose size follows from the group alone, so the sums, which are put together chunk by
 * chunk in order, do not depend on the threads that share the chunks. */

#if !defined(_WIN32)
#define _DEFAULT_SOURCE /* sysconf under -std=c11 */
#include <unistd.h>
#endif
#include <math.h>
#include <stdatomic.h>
#include <time.h>
#include "instructions.h"
#include "fused_ops.h"
#include "threads.h"

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)0)
#endif

#define MOST_THREADS 64
#define MOST_CHUNKS 16384
#define MOST_PARTIALS (1 << 20)   /* numbers that all chunks together keep of a sum over rows */
#define CHUNK_COST 10000.0        /* about ns */
#define WORTH_THREADS 40000.0     /* about ns */
#define ALIVE_BYTES (512 * 1024)  /* of a block: in the second cache; what is read soon again stays in the first by itself */
#define NEAR_BYTES (32 * 1024)    /* of a block: in the first cache, with room for what comes and goes */
#define NEAR_LANES 192            /* of a block that is too large for it: shorter ones gain less than their start costs */
#define FEWEST_LANES 32
#define STREAM_BYTES (16 << 20)   /* traffic of a run that caches do not hold: stores go past them */
#define STREAM_LANES 128          /* of a block then: so few that the next one's lines arrive while it is worked on */
#define AHEAD_BYTES 2048          /* how far the lines of streams are asked for before they are read */
#define INTERRUPT_NS 20000000

/* ------------------------------------------------------------------------------------------------------ what is kept */

enum { PULL_DIVIDEND = FG_PULL + 3 * FG_DIVIDE }; /* reads g and y: g (1 / y) */
enum { STEP_VALUE, STEP_PULL, STEP_FUSED, STEP_CAST, STEP_GATHER };

typedef struct {
    uint8_t kind, from, to_type;
    int32_t in[5], to; /* places */
    union {
        fg_value_loop value;
        fg_pull_loop pull;
        fg_fused_loop fused;
        int32_t load; /* of STEP_GATHER: the number of its walk */
    } of;
} step;

/* A place that moves with the blocks: a contiguous load or a direct store. */
typedef struct {
    fg_place at;
    int32_t place;
    uint8_t item;
} stream;

typedef struct {
    fg_view view; /* the strides; `data` is found at the start of a run */
    fg_place at;
    int32_t place;
} walked;

typedef struct {
    fg_place at;
    int32_t place;
    uint8_t type, inverted; /* inverted: one over the number is what is kept */
} constant;

typedef struct {
    fg_result result;
    int32_t place;
    uint8_t type;
    size_t partials; /* where its totals start in the scratch, in bytes */
} sum;

struct fg_group {
    fg_extent extent;
    int32_t n_steps, n_places, n_slots, n_streams, n_walked, n_constants, n_copies, n_sums;
    int32_t first_slot;
    step *steps;
    stream *streams;
    walked *walked;
    constant *constants;
    stream *copies; /* stores that are copied when a block is done */
    sum *sums;
    ptrdiff_t *numbers; /* the extent's dims, then the strides of loads */
    ptrdiff_t lanes, chunk, n_chunks;
    double cost; /* about ns an element */
    int past_caches; /* whether stores go past the caches */
    int worth_threads;
    int max_threads;
    size_t slot_bytes, worker_bytes, partial_bytes;
};

/* A sum with its rounding errors (Neumaier). */
typedef struct {
    double sum, error;
} total;

static void total_add(total *t, double x) {
    double s = t->sum + x;
    t->error += fabs(t->sum) >= fabs(x) ? (t->sum - s) + x : (x - s) + t->sum;
    t->sum = s;
}

static void total_join(total *t, const total *more) {
    total_add(t, more->sum);
    t->error += more->error;
}

static double total_value(const total *t) { return isfinite(t->sum) ? t->sum + t->error : t->sum; }

/* ---------------------------------------------------------------------------------------------------------- building */

/* What building knows of a value. */
typedef struct {
    int32_t same;  /* the value that it is a copy of, or its own number */
    int32_t uses;  /* by instructions that are needed, stores and sums */
    int32_t last;  /* the instruction that reads it last; n_code: what follows a block does */
    int32_t place; /* below 0: -1 - the number of a walk; 0: none yet */
    uint8_t type;
} value;

typedef struct {
    const fg_group_spec *spec;
    fg_group *group;
    value *values;
    fg_operation *code;
    uint8_t *absorbed;   /* by the instruction that reads the result */
    uint8_t *inverted;   /* loads that are kept as one over what they are */
    int32_t *free_slots, n_free;
} builder;

static uint8_t result_type(const fg_operation *o) { return o->op < FG_PULL && fg_is_bool[o->op] ? FG_BOOL : o->type; }

static double weight(const fg_instruction *i) {
    double w = fg_is_pull(i->op) ? fg_weight[(i->op - FG_PULL) / 3][1 + (i->op - FG_PULL) % 3]
                                 : i->op < FG_PULL ? fg_weight[i->op][0] : 1;
    return 0.1 * w;
}

static int is_needed(const builder *b, int32_t k) {
    return b->code[k].op != FG_MOVE && b->values[b->spec->n_loads + k].uses > 0;
}

/* Reads the code; copies of values become the values themselves. */
static void read_code(builder *b) {
    const fg_group_spec *spec = b->spec;
    for (int32_t v = 0; v < spec->n_loads; v++) b->values[v] = (value){v, 0, -1, 0, spec->loads[v].type};
    for (int32_t k = 0; k < spec->n_code; k++) {
        int32_t v = spec->n_loads + k;
        fg_operation *o = b->code + k;
        *o = fg_read_instruction(spec->code + k);
        for (int j = 0; j < o->n; j++) o->in[j] = b->values[o->in[j]].same;
        if (o->op == FG_CAST && o->type == b->values[o->in[0]].type) o->op = FG_MOVE;
        b->values[v] = o->op == FG_MOVE ? b->values[o->in[0]] : (value){v, 0, -1, 0, result_type(o)};
    }
}

static void not_inverted(builder *b, int32_t number) {
    if (b->values[number].same < b->spec->n_loads) b->inverted[b->values[number].same] = 0;
}

/* Numbers that pullbacks divide by, and that nobody else reads, are inverted once: g (1 / y) becomes a product. */
static void invert_divisors(builder *b) {
    const fg_group_spec *spec = b->spec;
    for (int32_t v = 0; v < spec->n_loads; v++) b->inverted[v] = spec->loads[v].kind == FG_ONE;
    for (int32_t k = 0; k < spec->n_stores; k++) not_inverted(b, spec->stores[k].value);
    for (int32_t k = 0; k < spec->n_sums; k++) not_inverted(b, spec->sums[k].value);
    for (int32_t k = 0; k < spec->n_code; k++)
        for (int j = 0; j < b->code[k].n; j++)
            if (b->code[k].op != PULL_DIVIDEND || j == 0) not_inverted(b, b->code[k].in[j]);
    for (int32_t k = 0; k < spec->n_code; k++)
        if (b->code[k].op == PULL_DIVIDEND && b->code[k].in[1] < spec->n_loads && b->inverted[b->code[k].in[1]])
            b->code[k].op = FG_GUARDED_MULTIPLY;
}

/* Backwards, so that what only unneeded instructions read is not needed either. */
static void count_uses(builder *b) {
    const fg_group_spec *spec = b->spec;
    for (int32_t k = 0; k < spec->n_stores; k++) b->values[b->values[spec->stores[k].value].same].uses++;
    for (int32_t k = 0; k < spec->n_sums; k++) b->values[b->values[spec->sums[k].value].same].uses++;
    for (int32_t k = spec->n_code - 1; k >= 0; k--) {
        if (!is_needed(b, k)) continue;
        for (int j = 0; j < b->code[k].n; j++) b->values[b->code[k].in[j]].uses++;
    }
}

/* The instruction that computes operand j, where it can be an inner one of a fused loop; else -1. */
static int32_t inner(const builder *b, const fg_operation *o, int j) {
    int32_t k = o->in[j] - b->spec->n_loads;
    if (j >= o->n || k < 0 || b->values[o->in[j]].uses != 1) return -1;
    if (!fg_inner[b->code[k].op] || b->code[k].type != o->type) return -1;
    for (int i = 0; i < b->code[k].n; i++) {
        int32_t below = b->code[k].in[i] - b->spec->n_loads;
        if (below >= 0 && b->absorbed[below]) return -1;
    }
    return k;
}

static int fused_number(const fg_operation *o, int left, int right) { return fg_fused[fg_outer[o->op]][left][right]; }

/* Lets an instruction compute what only it reads, in the same loop. */
static void absorb(builder *b, int32_t k) {
    fg_operation *o = b->code + k;
    int32_t left = inner(b, o, 0), right = inner(b, o, 1);
    int l = left < 0 ? 0 : fg_inner[b->code[left].op], r = right < 0 ? 0 : fg_inner[b->code[right].op];
    if (r > l && (o->op == FG_ADD || o->op == FG_MULTIPLY)) { /* they commute, and the table has one order */
        int32_t first = o->in[0];
        o->in[0] = o->in[1];
        o->in[1] = first;
        absorb(b, k);
        return;
    }
    if (!fused_number(o, l, r)) right = -1;
    if (!fused_number(o, l, right < 0 ? 0 : r)) left = -1;
    if (left >= 0) b->absorbed[left] = 1;
    if (right >= 0) b->absorbed[right] = 1;
}

/* What a loop reads: the operands, or those of the inner instructions in their places.  Returns how many. */
static int leaves(const builder *b, int32_t k, int32_t in[5], int shape[2]) {
    const fg_operation *o = b->code + k;
    int n = 0;
    shape[0] = shape[1] = 0;
    for (int j = 0; j < o->n; j++) {
        int32_t below = o->in[j] - b->spec->n_loads;
        if (below >= 0 && b->absorbed[below]) {
            const fg_operation *i = b->code + below;
            for (int m = 0; m < i->n; m++) in[n++] = i->in[m];
            shape[j] = fg_inner[i->op];
        } else {
            in[n++] = o->in[j];
        }
    }
    return n;
}

static void plan(builder *b) {
    const fg_group_spec *spec = b->spec;
    int32_t in[5];
    int shape[2];
    read_code(b);
    invert_divisors(b);
    count_uses(b);
    for (int32_t k = 0; k < spec->n_code; k++)
        if (is_needed(b, k) && fg_outer[b->code[k].op]) absorb(b, k);
    for (int32_t k = 0; k < spec->n_code; k++) {
        if (!is_needed(b, k) || b->absorbed[k]) continue;
        for (int n = leaves(b, k, in, shape), j = 0; j < n; j++) b->values[in[j]].last = k;
    }
    for (int32_t k = 0; k < spec->n_sums; k++) b->values[b->values[spec->sums[k].value].same].last = spec->n_code;
}

static int32_t take_slot(builder *b) {
    return b->n_free ? b->free_slots[--b->n_free] : b->group->first_slot + b->group->n_slots++;
}

static void give_slot(builder *b, int32_t place) {
    if (place >= b->group->first_slot) b->free_slots[b->n_free++] = place;
}

/* Whether a store lies in memory that a load reads: then blocks are written when everything has been read. */
static int meets_a_load(const fg_group_spec *spec, const fg_result *store, size_t item) {
    for (int32_t k = 0; k < spec->n_loads; k++) {
        const fg_load *load = spec->loads + k;
        if (load->at.base != store->at.base) continue;
        if (load->kind != FG_CONTIGUOUS) return 1;
        if (load->at.offset < store->at.offset + spec->extent.size * (ptrdiff_t)item &&
            store->at.offset < load->at.offset + spec->extent.size * (ptrdiff_t)fg_type_size(load->type))
            return 1;
    }
    return 0;
}

static void add_stream(stream *streams, int32_t *n, fg_place at, int32_t place, size_t item) {
    streams[(*n)++] = (stream){at, place, (uint8_t)item};
}

/* Contiguous loads are streams; the others get slots: numbers for good, strided ones when they are first read. */
static void place_loads(builder *b) {
    const fg_group_spec *spec = b->spec;
    fg_group *g = b->group;
    ptrdiff_t *strides = g->numbers + spec->extent.ndim;
    for (int32_t v = 0; v < spec->n_loads; v++) {
        const fg_load *load = spec->loads + v;
        if (load->kind == FG_CONTIGUOUS) {
            b->values[v].place = g->n_places++;
            add_stream(g->streams, &g->n_streams, load->at, b->values[v].place, fg_type_size(load->type));
        } else if (load->kind == FG_STRIDED) {
            memcpy(strides, load->strides, (size_t)spec->extent.ndim * sizeof *strides);
            g->walked[g->n_walked] = (walked){{NULL, strides, 0, FG_STRIDED, load->type}, load->at, 0};
            b->values[v].place = -1 - g->n_walked++;
            strides += spec->extent.ndim;
        }
    }
}

/* Whether a run moves more than the caches hold. */
static int is_large(const builder *b) {
    const fg_group_spec *spec = b->spec;
    double item = 0;
    for (int32_t k = 0; k < spec->n_loads; k++)
        if (spec->loads[k].kind == FG_CONTIGUOUS) item += (double)fg_type_size(spec->loads[k].type);
    for (int32_t k = 0; k < spec->n_stores; k++) item += (double)fg_type_size(b->values[spec->stores[k].value].type);
    return item * (double)spec->extent.size > STREAM_BYTES;
}

/* The first store of a computed value is where the value lives, unless that memory is read, or is written past the
 * caches; the others are copies. */
static void place_stores(builder *b) {
    const fg_group_spec *spec = b->spec;
    fg_group *g = b->group;
    g->past_caches = is_large(b);
    for (int32_t k = 0; k < spec->n_stores; k++) {
        const fg_result *store = spec->stores + k;
        int32_t number = b->values[store->value].same;
        value *v = b->values + number;
        size_t item = fg_type_size(v->type);
        if (number >= spec->n_loads && !v->place && !g->past_caches && !meets_a_load(spec, store, item)) {
            v->place = g->n_places++;
            add_stream(g->streams, &g->n_streams, store->at, v->place, item);
        } else {
            v->last = spec->n_code;
        }
    }
}

static void place_constants(builder *b) {
    const fg_group_spec *spec = b->spec;
    fg_group *g = b->group;
    for (int32_t v = 0; v < spec->n_loads; v++) {
        if (spec->loads[v].kind != FG_ONE) continue;
        b->values[v].place = take_slot(b);
        b->values[v].last = spec->n_code;
        g->constants[g->n_constants++] = (constant){spec->loads[v].at, b->values[v].place, spec->loads[v].type,
                                                       b->inverted[v]};
    }
}

/* The place of a value that is about to be read, gathered if it is strided and not there yet. */
static int32_t place_read(builder *b, int32_t number) {
    fg_group *g = b->group;
    value *v = b->values + number;
    if (v->place < 0) {
        step *s = g->steps + g->n_steps++;
        s->kind = STEP_GATHER;
        s->of.load = -1 - v->place;
        s->from = v->type;
        v->place = s->to = g->walked[s->of.load].place = take_slot(b);
    }
    return v->place;
}

/* Slots of values that are read for the last time. */
static void give_last(builder *b, int32_t k, const int32_t *in, int n) {
    for (int j = 0; j < n; j++) {
        value *v = b->values + in[j];
        if (v->last != k) continue;
        v->last = -1; /* once, however often it is an operand */
        give_slot(b, v->place);
    }
}

/* Fills in what runs; returns whether the result may be in the memory of an operand. */
static int choose_loop(const builder *b, step *s, const fg_operation *o, const int shape[2]) {
    if (fg_outer[o->op]) {
        s->kind = STEP_FUSED;
        s->of.fused = fg_kernels->fused[fused_number(o, shape[0], shape[1]) - 1][o->type];
        return 1;
    }
    if (o->op == FG_CAST) {
        s->kind = STEP_CAST;
        s->from = b->values[o->in[0]].type;
        s->to_type = o->type;
    } else if (fg_is_pull(o->op)) {
        s->kind = STEP_PULL;
        s->of.pull = fg_kernels->pull[(o->op - FG_PULL) / 3][(o->op - FG_PULL) % 3][o->type];
    } else {
        s->kind = STEP_VALUE;
        s->of.value = fg_kernels->value[o->op][o->type];
    }
    return 0;
}

static void add_step(builder *b, int32_t k) {
    const fg_operation *o = b->code + k;
    value *result = b->values + b->spec->n_loads + k;
    int32_t in[5];
    int shape[2], n = leaves(b, k, in, shape), mask = fg_reads(o->op);
    for (int j = 0; j < n; j++) place_read(b, in[j]);
    step *s = b->group->steps + b->group->n_steps++;
    int in_place = choose_loop(b, s, o, shape);
    for (int j = 0, next = 0; j < 5 && next < n; j++)
        if (s->kind == STEP_FUSED || mask >> j & 1) s->in[j] = b->values[in[next++]].place;
    if (in_place) give_last(b, k, in, n);
    if (!result->place) result->place = take_slot(b);
    s->to = result->place;
    give_last(b, k, in, n);
}

static void add_results(builder *b) {
    const fg_group_spec *spec = b->spec;
    fg_group *g = b->group;
    for (int32_t k = 0; k < spec->n_stores; k++) {
        const fg_result *store = spec->stores + k;
        int32_t number = b->values[store->value].same, place = place_read(b, number);
        size_t item = fg_type_size(b->values[number].type);
        int direct = 0;
        for (int32_t j = 0; j < g->n_streams; j++)
            direct |= number >= spec->n_loads && g->streams[j].place == place &&
                      g->streams[j].at.base == store->at.base && g->streams[j].at.offset == store->at.offset;
        if (!direct) add_stream(g->copies, &g->n_copies, store->at, place, item);
    }
    for (int32_t k = 0; k < spec->n_sums; k++) {
        sum *s = g->sums + g->n_sums++;
        s->result = spec->sums[k];
        int32_t number = b->values[spec->sums[k].value].same;
        s->place = place_read(b, number);
        s->type = b->values[number].type;
        ptrdiff_t columns = s->result.columns;
        if (s->result.kind == FG_SUM_COLUMNS && columns == 1) s->result.kind = FG_SUM_ALL;
    }
}

/* -------------------------------------------------------------------------------------------------- sizes of a group */

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* As many lanes as keep everything alive in a near cache, but some blocks for every thread where threads pay. */
static ptrdiff_t choose_lanes(const fg_group *g) {
    size_t one = (size_t)(g->n_slots + g->n_streams + g->n_copies + 1) * sizeof(double);
    ptrdiff_t lanes = g->past_caches ? STREAM_LANES : FG_BLOCK, size = g->extent.size;
    if (lanes > NEAR_LANES && (size_t)lanes * one > NEAR_BYTES) lanes = NEAR_LANES;
    while (lanes > FEWEST_LANES && (size_t)lanes * one > ALIVE_BYTES) lanes /= 2;
    while (lanes > 2 * FEWEST_LANES && size < 4 * lanes && g->cost * (double)size > WORTH_THREADS) lanes /= 2;
    ptrdiff_t all = (ptrdiff_t)round_up((size_t)size, 16);
    return all < lanes ? (all ? all : 16) : lanes;
}

static ptrdiff_t choose_chunk(const fg_group *g) {
    ptrdiff_t size = g->extent.size, lanes = g->lanes;
    ptrdiff_t chunk = (ptrdiff_t)(CHUNK_COST / (g->cost + 0.1)), most = MOST_CHUNKS;
    for (int32_t k = 0; k < g->n_sums; k++)
        if (g->sums[k].result.kind == FG_SUM_COLUMNS && MOST_PARTIALS / (g->sums[k].result.columns + 1) < most)
            most = MOST_PARTIALS / (g->sums[k].result.columns + 1);
    if (most < 1) most = 1;
    if (chunk < size / most + 1) chunk = size / most + 1;
    return (chunk + lanes - 1) / lanes * lanes;
}

/* Doubles that a chunk keeps of a sum: a total, two totals (see sum_rows), or a number a column. */
static size_t kept(const sum *s) {
    return s->result.kind == FG_SUM_ALL ? 2 : s->result.kind == FG_SUM_ROWS ? 4 : (size_t)s->result.columns;
}

/* Bytes that all chunks keep of a sum; SIZE_MAX: too many. */
static size_t partial_bytes(const fg_group *g, const sum *s) {
    size_t each = kept(s), n = (size_t)g->n_chunks;
    return each && n > SIZE_MAX / 4 / sizeof(double) / each ? SIZE_MAX : round_up(n * each * sizeof(double), 64);
}

static size_t places_bytes(const fg_group *g) { return round_up((size_t)g->n_places * sizeof(char *), 64); }
static size_t walks_bytes(const fg_group *g) { return round_up((size_t)g->n_walked * sizeof(fg_walk), 64); }

/* Threads that a group's scratch is made for: as many as there are processors, or more if more were asked for. */
static int most_threads(void) {
    int n = fg_get_threads();
#if defined(_SC_NPROCESSORS_ONLN)
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (processors > n) n = processors < MOST_THREADS ? (int)processors : MOST_THREADS;
#endif
    return n < MOST_THREADS ? n : MOST_THREADS;
}


/* Returns 0 when sizes overflow. */
static int choose_sizes(fg_group *g) {
    g->lanes = choose_lanes(g);
    g->chunk = choose_chunk(g);
    g->n_chunks = (g->extent.size + g->chunk - 1) / g->chunk;
    g->slot_bytes = round_up((size_t)g->lanes * sizeof(double), 64);
    g->partial_bytes = 0;
    for (int32_t k = 0; k < g->n_sums; k++) {
        size_t bytes = partial_bytes(g, g->sums + k);
        if (bytes > SIZE_MAX / 4 - g->partial_bytes) return 0;
        g->sums[k].partials = g->partial_bytes;
        g->partial_bytes += bytes;
    }
    g->worth_threads = g->cost * (double)g->extent.size > WORTH_THREADS;
    g->max_threads = most_threads(); /* whatever the setting is now: it may change before the group runs */
    if (!g->worth_threads) g->max_threads = 1;
    if (g->max_threads > g->n_chunks) g->max_threads = g->n_chunks > 1 ? (int)g->n_chunks : 1;
    /* one slot more: the temporary of sums over rows */
    g->worker_bytes = places_bytes(g) + walks_bytes(g) + (size_t)(g->n_slots + 1) * g->slot_bytes;
    return g->worker_bytes < SIZE_MAX / 4 / MOST_THREADS;
}

static int make_room(builder *b) {
    const fg_group_spec *spec = b->spec;
    fg_group *g = b->group;
    size_t loads = (size_t)spec->n_loads, code = (size_t)spec->n_code, stores = (size_t)spec->n_stores;
    size_t ndim = (size_t)spec->extent.ndim;
    b->values = fg_room(loads + code, sizeof *b->values);
    b->code = fg_room(code, sizeof *b->code);
    b->absorbed = fg_room(code, sizeof *b->absorbed);
    b->inverted = fg_room(loads, sizeof *b->inverted);
    b->free_slots = fg_room(loads + code, sizeof *b->free_slots);
    g->steps = fg_room(loads + code, sizeof *g->steps);
    g->streams = fg_room(loads + stores, sizeof *g->streams);
    g->walked = fg_room(loads, sizeof *g->walked);
    g->constants = fg_room(loads, sizeof *g->constants);
    g->copies = fg_room(stores, sizeof *g->copies);
    g->sums = fg_room((size_t)spec->n_sums, sizeof *g->sums);
    g->numbers = fg_room(ndim * (loads + 1), sizeof *g->numbers);
    return b->values && b->code && b->absorbed && b->inverted && b->free_slots && g->steps && g->streams && g->walked &&
           g->constants && g->copies && g->sums && g->numbers;
}

static int build(builder *b) {
    const fg_group_spec *spec = b->spec;
    fg_group *g = b->group;
    if (!make_room(b)) return 0;
    memcpy(g->numbers, spec->extent.dims, (size_t)spec->extent.ndim * sizeof *g->numbers);
    g->extent = (fg_extent){spec->extent.ndim, g->numbers, spec->extent.size};
    g->n_places = 1; /* place 0: nothing */
    plan(b);
    place_loads(b);
    place_stores(b);
    g->first_slot = g->n_places;
    place_constants(b);
    for (int32_t k = 0; k < spec->n_code; k++) {
        if (!is_needed(b, k)) continue;
        if (!b->absorbed[k]) add_step(b, k);
        g->cost += weight(spec->code + k);
    }
    add_results(b);
    g->n_places += g->n_slots;
    return choose_sizes(g);
}

fg_group *fg_group_new(const fg_group_spec *spec) {
    builder b = {.spec = spec, .group = fg_room(1, sizeof(fg_group))};
    if (!b.group) return NULL;
    int built = build(&b);
    free(b.values);
    free(b.code);
    free(b.absorbed);
    free(b.inverted);
    free(b.free_slots);
    if (built) return b.group;
    fg_group_free(b.group);
    return NULL;
}

void fg_group_free(fg_group *group) {
    if (!group) return;
    free(group->steps);
    free(group->streams);
    free(group->walked);
    free(group->constants);
    free(group->copies);
    free(group->sums);
    free(group->numbers);
    free(group);
}

size_t fg_group_scratch(const fg_group *g) { return g->partial_bytes + (size_t)g->max_threads * g->worker_bytes; }

void fg_group_facts(const fg_group *g, int *instructions, int *lanes, int *slots) {
    *instructions = (int)g->n_steps;
    *lanes = (int)g->lanes;
    *slots = (int)g->n_slots;
}

/* ----------------------------------------------------------------------------------------------------------- running */

typedef struct {
    const fg_group *group;
    char *const *bases;
    char *partials, *workers;
    atomic_ptrdiff_t next; /* the first chunk that nobody has taken */
    atomic_int stop;
    const char *caller; /* tells the calling thread from others */
    fg_interrupt interrupt;
    void *context;
    int64_t asked;
} run;

/* What one thread works with. */
typedef struct {
    char **places;
    fg_walk *walks;
    char *slots;
} worker;

static _Thread_local char this_thread;

static int64_t now(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static char *at(const run *r, fg_place place) { return r->bases[place.base] + place.offset; }

static worker worker_start(run *r, ptrdiff_t number) {
    const fg_group *g = r->group;
    char *own = r->workers + (size_t)number * g->worker_bytes;
    worker w = {(char **)own, (fg_walk *)(own + places_bytes(g)), own + places_bytes(g) + walks_bytes(g)};
    w.places[0] = NULL;
    for (int32_t k = 0; k < g->n_slots; k++) w.places[g->first_slot + k] = w.slots + (size_t)k * g->slot_bytes;
    for (int32_t k = 0; k < g->n_constants; k++) {
        const constant *c = g->constants + k;
        char *to = w.places[c->place], *from = at(r, c->at);
        if (c->type == FG_BOOL) {
            memset(to, *from, (size_t)g->lanes);
            continue;
        }
        double number = c->type == FG_F64 ? *(double *)from : *(float *)from;
        if (c->inverted) number = c->type == FG_F64 ? 1 / number : 1 / (float)number;
        fg_kernels->fill[c->type](g->lanes, number, to);
    }
    return w;
}

/* A walk that stands at element `start`. */
static void walk_seek(fg_walk *w, ptrdiff_t start) {
    for (int d = w->ndim - 1; d >= 0; d--) {
        w->index[d] = d ? start % w->dims[d] : start;
        w->cursor += w->index[d] * w->strides[d];
        start /= w->dims[d];
    }
}

static void start_walks(const run *r, const worker *w, ptrdiff_t start) {
    const fg_group *g = r->group;
    for (int32_t k = 0; k < g->n_walked; k++) {
        fg_view view = g->walked[k].view;
        view.data = at(r, g->walked[k].at);
        fg_walk_start(w->walks + k, &view, &g->extent);
        walk_seek(w->walks + k, start);
    }
}

#define CAST(to_type, from_type, made)                                                        \
    do {                                                                                      \
        const from_type *from = from_;                                                        \
        to_type *to = to_;                                                                    \
        for (ptrdiff_t i = 0; i < n; i++) to[i] = (to_type)(made);                            \
    } while (0)

static void cast(ptrdiff_t n, int from_type, const void *from_, int to_type, void *to_) {
    switch (3 * to_type + from_type) {
    case 3 * FG_F64 + FG_F32: CAST(double, float, from[i]); break;
    case 3 * FG_F64 + FG_BOOL: CAST(double, uint8_t, from[i]); break;
    case 3 * FG_F32 + FG_F64: CAST(float, double, from[i]); break;
    case 3 * FG_F32 + FG_BOOL: CAST(float, uint8_t, from[i]); break;
    case 3 * FG_BOOL + FG_F64: CAST(uint8_t, double, from[i] != 0); break;
    case 3 * FG_BOOL + FG_F32: CAST(uint8_t, float, from[i] != 0); break;
    default: memcpy(to_, from_, (size_t)n * fg_type_size(to_type));
    }
}

static void run_steps(const fg_group *g, const worker *w, ptrdiff_t n) {
    char *const *p = w->places;
    for (const step *s = g->steps, *end = s + g->n_steps; s < end; s++) {
        switch (s->kind) {
        case STEP_VALUE: s->of.value(n, p[s->in[0]], p[s->in[1]], p[s->in[2]], p[s->to]); break;
        case STEP_PULL:
            s->of.pull(n, p[s->in[0]], p[s->in[1]], p[s->in[2]], p[s->in[3]], p[s->in[4]], p[s->to]);
            break;
        case STEP_FUSED: s->of.fused(n, p[s->in[0]], p[s->in[1]], p[s->in[2]], p[s->in[3]], p[s->to]); break;
        case STEP_CAST: cast(n, s->from, p[s->in[0]], s->to_type, p[s->to]); break;
        case STEP_GATHER: fg_walk_read(w->walks + s->of.load, n, s->from, p[s->to]); break;
        }
    }
}

/* -------------------------------------------------------------------------------------------------------------- sums */

static double *partials_of(const run *r, const sum *s, ptrdiff_t chunk) {
    return (double *)(r->partials + s->partials) + (size_t)chunk * kept(s);
}

static void store_number(char *to, int type, ptrdiff_t index, double x) {
    if (type == FG_F64)
        ((double *)to)[index] = x;
    else
        ((float *)to)[index] = (float)x;
}

/* A row, or part of one; sums over columns are kept in f64. */
static void add_row(double *restrict to, ptrdiff_t n, int type, const void *x) {
    if (type == FG_F64)
        for (ptrdiff_t i = 0; i < n; i++) to[i] += ((const double *)x)[i];
    else
        for (ptrdiff_t i = 0; i < n; i++) to[i] += ((const float *)x)[i];
}

/* Whole rows of a block are summed by the kernel first where there are some. */
static void sum_columns(const sum *s, double *to, ptrdiff_t start, ptrdiff_t n, const char *x, char *spare,
                        ptrdiff_t lanes) {
    ptrdiff_t columns = s->result.columns;
    size_t item = fg_type_size(s->type);
    while (n > 0) {
        ptrdiff_t column = start % columns, run = columns - column < n ? columns - column : n;
        if (column == 0 && n >= 2 * columns && columns <= lanes) {
            ptrdiff_t rows = n / columns;
            run = rows * columns;
            memset(spare, 0, (size_t)columns * item);
            fg_kernels->add_rows[s->type](rows, columns, x, spare);
            add_row(to, columns, s->type, spare);
        } else {
            add_row(to + column, run, s->type, x);
        }
        start += run;
        n -= run;
        x += (size_t)run * item;
    }
}

/* to[0] is the total of a row that began in an earlier chunk, to[1] of one that goes on behind this block. */
static void sum_rows(const run *r, const sum *s, total *to, ptrdiff_t chunk_start, ptrdiff_t start, ptrdiff_t n,
                     const char *x) {
    ptrdiff_t columns = s->result.columns;
    size_t item = fg_type_size(s->type);
    char *out = at(r, s->result.at);
    while (n > 0) {
        ptrdiff_t row = start / columns, left = (row + 1) * columns - start, run = left < n ? left : n;
        total *t = to + (row * columns >= chunk_start);
        total_add(t, fg_kernels->sum[s->type](run, x));
        if (run == left && t == to + 1) {
            store_number(out, s->type, row, total_value(t));
            *t = (total){0, 0};
        }
        start += run;
        n -= run;
        x += (size_t)run * item;
    }
}

static void sum_block(const run *r, const worker *w, ptrdiff_t chunk, ptrdiff_t start, ptrdiff_t n) {
    const fg_group *g = r->group;
    for (int32_t k = 0; k < g->n_sums; k++) {
        const sum *s = g->sums + k;
        double *to = partials_of(r, s, chunk);
        const char *x = w->places[s->place];
        if (s->result.kind == FG_SUM_ALL)
            total_add((total *)to, fg_kernels->sum[s->type](n, x));
        else if (s->result.kind == FG_SUM_COLUMNS)
            sum_columns(s, to, start, n, x, w->slots + (size_t)g->n_slots * g->slot_bytes, g->lanes);
        else
            sum_rows(r, s, (total *)to, chunk * g->chunk, start, n, x);
    }
}

static void clear_partials(const run *r, ptrdiff_t chunk) {
    const fg_group *g = r->group;
    for (int32_t k = 0; k < g->n_sums; k++) {
        double *from = partials_of(r, g->sums + k, chunk), *to = partials_of(r, g->sums + k, chunk + 1);
        while (from < to) *from++ = 0;
    }
}

/* The rows that no chunk saw whole: those in which a chunk ends. */
static void finish_rows(const run *r, const sum *s) {
    const fg_group *g = r->group;
    ptrdiff_t columns = s->result.columns;
    total row = {0, 0};
    for (ptrdiff_t c = 0; c < g->n_chunks; c++) {
        const total *t = (const total *)partials_of(r, s, c);
        ptrdiff_t start = c * g->chunk, end = start + g->chunk < g->extent.size ? start + g->chunk : g->extent.size;
        if (start % columns) {
            total_join(&row, t);
            ptrdiff_t row_end = (start / columns + 1) * columns;
            if (row_end > end) continue;
            store_number(at(r, s->result.at), s->type, start / columns, total_value(&row));
        }
        row = t[1];
    }
}

static void finish_sums(const run *r) {
    const fg_group *g = r->group;
    for (int32_t k = 0; k < g->n_sums; k++) {
        const sum *s = g->sums + k;
        if (s->result.kind == FG_SUM_ROWS) {
            finish_rows(r, s);
            continue;
        }
        int all = s->result.kind == FG_SUM_ALL;
        for (ptrdiff_t j = 0; j < (all ? 1 : s->result.columns); j++) {
            total t = {0, 0};
            for (ptrdiff_t c = 0; c < g->n_chunks; c++) {
                const double *part = partials_of(r, s, c);
                if (all)
                    total_join(&t, (const total *)part);
                else
                    total_add(&t, part[j]);
            }
            store_number(at(r, s->result.at), s->type, j, total_value(&t));
        }
    }
}

/* ------------------------------------------------------------------------------------------------------------ blocks */

static void run_block(const run *r, const worker *w, ptrdiff_t chunk, ptrdiff_t start, ptrdiff_t n) {
    const fg_group *g = r->group;
    for (int32_t k = 0; k < g->n_streams; k++) {
        const stream *s = g->streams + k;
        w->places[s->place] = at(r, s->at) + start * s->item;
        for (ptrdiff_t i = 0; g->past_caches && i < n * s->item; i += 64) PREFETCH(w->places[s->place] + i + AHEAD_BYTES);
    }
    run_steps(g, w, n);
    sum_block(r, w, chunk, start, n);
    for (int32_t k = 0; k < g->n_copies; k++) {
        const stream *s = g->copies + k;
        char *to = at(r, s->at) + start * s->item, *from = w->places[s->place];
        if (from == to) continue;
        if (g->past_caches)
            fg_kernels->stream((size_t)(n * s->item), from, to);
        else
            memcpy(to, from, (size_t)(n * s->item));
    }
}

static void run_chunk(const run *r, const worker *w, ptrdiff_t chunk) {
    const fg_group *g = r->group;
    ptrdiff_t start = chunk * g->chunk, end = start + g->chunk < g->extent.size ? start + g->chunk : g->extent.size;
    clear_partials(r, chunk);
    start_walks(r, w, start);
    for (; start < end; start += g->lanes) run_block(r, w, chunk, start, end - start < g->lanes ? end - start : g->lanes);
}

/* Not before the second chunk: the clock takes as long as a short run. */
static void ask(run *r) {
    if (!r->interrupt || r->caller != &this_thread) return;
    int64_t time = now();
    if (!r->asked) r->asked = time;
    if (time - r->asked < INTERRUPT_NS) return;
    int answer = r->interrupt(r->context);
    if (answer) atomic_store(&r->stop, answer);
    r->asked = now();
}

/* Once for all that a thread has stored past the caches: it waits for memory, longer than a chunk's stores take. */
static void finish_stores(const run *r) {
    if (r->group->past_caches) fg_kernels->stream(0, NULL, NULL);
}

/* Takes chunks until there are none; `number` says which part of the scratch to use. */
static void run_share(void *context, ptrdiff_t number, int thread) {
    run *r = context;
    (void)thread;
    ptrdiff_t chunk = atomic_fetch_add(&r->next, 1);
    if (chunk >= r->group->n_chunks) return;
    worker w = worker_start(r, number);
    for (; chunk < r->group->n_chunks && !atomic_load(&r->stop); chunk = atomic_fetch_add(&r->next, 1)) {
        run_chunk(r, &w, chunk);
        ask(r);
    }
    finish_stores(r);
}

/* The same on the caller's thread, without atomic operations. */
static void run_all(run *r) {
    const fg_group *g = r->group;
    if (!g->n_chunks) return;
    worker w = worker_start(r, 0);
    run_chunk(r, &w, 0);
    for (ptrdiff_t chunk = 1; chunk < g->n_chunks && !atomic_load_explicit(&r->stop, memory_order_relaxed); chunk++) {
        run_chunk(r, &w, chunk);
        ask(r);
    }
    finish_stores(r);
}

/* About 10 ns besides the steps. */
int fg_group_run(const fg_group *g, char *const *bases, char *scratch, fg_interrupt interrupt, void *context) {
    run r = {.group = g, .bases = bases, .partials = scratch, .workers = scratch + g->partial_bytes, .caller = &this_thread,
             .interrupt = interrupt, .context = context};
    int threads = 1;
    if (g->worth_threads) threads = fg_get_threads() < g->max_threads ? fg_get_threads() : g->max_threads;
    if (threads > 1)
        fg_parallel(threads, run_share, &r);
    else
        run_all(&r);
    int answer = atomic_load_explicit(&r.stop, memory_order_relaxed);
    if (!answer) finish_sums(&r);
    return answer;
}
