/* Instructions of lanes.h, read in a simpler form: only the operands that are read, and no two names for one thing. */
#ifndef FG_INSTRUCTIONS_H
#define FG_INSTRUCTIONS_H

#include <stdlib.h>
#include "lanes.h"
#include "machine_ops.h"

typedef struct {
    uint16_t op; /* FG_MOVE: the value is its operand */
    uint8_t type, n;
    int32_t in[5];
} fg_operation;

static inline int fg_is_pull(int op) { return op >= FG_PULL && op < FG_CAST; }

/* Bits of the operands that an instruction reads. */
static inline int fg_reads(int op) {
    if (fg_is_pull(op)) return 1 | (fg_needs[(op - FG_PULL) / 3][(op - FG_PULL) % 3] & 15) << 1;
    return op < FG_PULL ? (1 << fg_arity[op]) - 1 : 1;
}

/* Pullbacks that only multiply become products, x * x a square; the results have the same bits. */
static inline fg_operation fg_read_instruction(const fg_instruction *code) {
    fg_operation o = {.op = code->op, .type = code->type};
    int mask = fg_reads(o.op);
    for (int j = 0; j < 5; j++)
        if (mask >> j & 1) o.in[o.n++] = code->operand[j];
    if (fg_is_pull(o.op) && fg_simpler[(o.op - FG_PULL) / 3][(o.op - FG_PULL) % 3])
        o.op = fg_simpler[(o.op - FG_PULL) / 3][(o.op - FG_PULL) % 3];
    if (o.op == FG_POSITIVE) o.op = FG_MOVE;
    if (o.op == FG_MULTIPLY && o.in[0] == o.in[1]) {
        o.op = FG_SQUARE;
        o.n = 1;
    }
    return o;
}

/* Zeroed room for n elements, never of 0 bytes; NULL where there is none. */
static inline void *fg_room(size_t n, size_t item) { return n > SIZE_MAX / item - 1 ? NULL : calloc(n + 1, item); }

#endif
