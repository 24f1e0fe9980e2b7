/* Runs of scalar operations: straight-line code over an array of doubles becomes code for the machine of lanes_level.h.
 *
 * An instruction takes an operand from the one before where it can, and two instructions become one where the machine
 * has a case for both.  Every result is written to its cell, in the order of the code, so cells may be shared. */

#include <string.h>
#include "instructions.h"

enum { N_OPS = FG_N_LANE_OPS, MOST_WORDS = 7 };

struct fg_scalars {
    int32_t n;
    int64_t temporaries;
    const int32_t *(*machine)(const uint32_t *code, double *cells);
    uint32_t *words;
};

typedef struct {
    const fg_scalars_spec *spec;
    int64_t *cells;
    const int32_t *labels;
    uint32_t *words;
    int16_t first_pair[N_OPS];
    int32_t last; /* the value that the instruction before has made, or FG_NO_VALUE */
} writer;

static int case_of(const fg_operation *o) {
    if (o->op != FG_CAST || o->type == FG_F64) return fg_case[o->op == FG_CAST ? FG_MOVE : o->op];
    return o->type == FG_F32 ? FG_CASE_CAST_F32 : FG_CASE_CAST_BOOL;
}

/* The operand that is this value, or -1. */
static int which(const fg_operation *o, int32_t value) {
    for (int j = 0; j < o->n; j++)
        if (o->in[j] == value) return j;
    return -1;
}

/* The cells of an operation: its result's, then the operands' but the one that is at hand. */
static void write_cells(writer *w, const fg_operation *o, int32_t value, int at_hand) {
    *w->words++ = (uint32_t)w->cells[value];
    for (int j = 0; j < o->n; j++)
        if (j != at_hand) *w->words++ = (uint32_t)w->cells[o->in[j]];
    w->last = value;
}

static void write_case(writer *w, int number) { *w->words++ = w->labels ? (uint32_t)w->labels[number] : (uint32_t)number; }

/* Sums and products are the same in either order: the value at hand comes first, where pairs look for it. */
static void put_first(fg_operation *o, int32_t at_hand) {
    if ((o->op != FG_ADD && o->op != FG_MULTIPLY) || o->in[1] != at_hand) return;
    o->in[1] = o->in[0];
    o->in[0] = at_hand;
}

static void write_single(writer *w, const fg_operation *o, int32_t value) {
    int at_hand = which(o, w->last);
    write_case(w, case_of(o) + 1 + at_hand);
    write_cells(w, o, value, at_hand);
}

/* Returns 0 when there is no case for the two. */
static int write_pair(writer *w, const fg_operation *a, const fg_operation *b, int32_t value) {
    if (w->first_pair[a->op] < 0) return 0;
    for (size_t p = (size_t)w->first_pair[a->op]; p < sizeof fg_pairs / sizeof *fg_pairs && fg_pairs[p].first == a->op; p++) {
        if (fg_pairs[p].second != b->op || b->in[fg_pairs[p].operand] != value) continue;
        int after = a->in[0] == w->last;
        write_case(w, fg_pairs[p].number + after);
        write_cells(w, a, value, after - 1);
        write_cells(w, b, value + 1, fg_pairs[p].operand);
        return 1;
    }
    return 0;
}

static int32_t write_code(writer *w) {
    const fg_scalars_spec *spec = w->spec;
    int32_t n = 0;
    memset(w->first_pair, -1, sizeof w->first_pair);
    for (int p = sizeof fg_pairs / sizeof *fg_pairs - 1; p >= 0; p--) w->first_pair[fg_pairs[p].first] = (int16_t)p;
    for (int32_t k = 0; k < spec->n_code; k++, n++) {
        fg_operation a = fg_read_instruction(spec->code + k);
        put_first(&a, w->last);
        if (k + 1 < spec->n_code) {
            fg_operation b = fg_read_instruction(spec->code + k + 1);
            if (write_pair(w, &a, &b, spec->n_given + k)) {
                k++;
                continue;
            }
        }
        write_single(w, &a, spec->n_given + k);
    }
    write_case(w, FG_N_CASES);
    return n;
}

/* cells[v] for every value: temporaries share theirs when they are not alive together.  Returns how many there are. */
static int64_t place_temporaries(const fg_scalars_spec *spec, int64_t *cells, int32_t *last, int64_t *free_cells) {
    int64_t n_free = 0, used = 0;
    for (int32_t v = 0; v < spec->n_given + spec->n_code; v++) last[v] = -1;
    for (int32_t k = 0; k < spec->n_code; k++) {
        fg_operation o = fg_read_instruction(spec->code + k);
        for (int j = 0; j < o.n; j++) last[o.in[j]] = k;
    }
    for (int32_t v = 0; v < spec->n_given; v++) cells[v] = spec->cells[v];
    for (int32_t k = 0; k < spec->n_code; k++) {
        fg_operation o = fg_read_instruction(spec->code + k);
        for (int j = 0; j < o.n; j++) {
            int32_t from = o.in[j];
            if (from < spec->n_given || spec->cells[from] != FG_NO_VALUE || last[from] != k) continue;
            last[from] = -1; /* once, however often it is an operand */
            free_cells[n_free++] = cells[from];
        }
        int32_t v = spec->n_given + k;
        cells[v] = spec->cells[v];
        if (cells[v] != FG_NO_VALUE) continue;
        cells[v] = n_free ? free_cells[--n_free] : spec->first_temporary + used++;
        if (last[v] < 0) free_cells[n_free++] = cells[v];
    }
    return used;
}

static int cells_fit(const int64_t *cells, size_t n) {
    for (size_t v = 0; v < n; v++)
        if (cells[v] > UINT32_MAX) return 0;
    return 1;
}

fg_scalars *fg_scalars_new(const fg_scalars_spec *spec) {
    size_t n_values = (size_t)spec->n_given + (size_t)spec->n_code;
    fg_scalars *s = fg_room(1, sizeof *s);
    int64_t *cells = fg_room(n_values, sizeof *cells), *free_cells = fg_room(n_values, sizeof *free_cells);
    int32_t *last = fg_room(n_values, sizeof *last);
    if (s) s->words = fg_room((size_t)spec->n_code + 1, MOST_WORDS * sizeof *s->words);
    int good = s && s->words && cells && free_cells && last;
    if (good) {
        s->temporaries = place_temporaries(spec, cells, last, free_cells);
        s->machine = fg_kernels->machine;
        writer w = {.spec = spec, .cells = cells, .words = s->words, .labels = s->machine(NULL, NULL), .last = FG_NO_VALUE};
        good = cells_fit(cells, n_values);
        if (good) s->n = write_code(&w);
    }
    free(cells);
    free(free_cells);
    free(last);
    if (good) return s;
    fg_scalars_free(s);
    return NULL;
}

void fg_scalars_free(fg_scalars *s) {
    if (s) free(s->words);
    free(s);
}

int64_t fg_scalars_temporaries(const fg_scalars *s) { return s->temporaries; }
int32_t fg_scalars_length(const fg_scalars *s) { return s->n; }
void fg_scalars_run(const fg_scalars *s, double *cells) { s->machine(s->words, cells); }
