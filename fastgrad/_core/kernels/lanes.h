/* What a Program runs most of: fused elementwise groups, block by block, and runs of scalar operations.
 *
 * The planner hands over straight-line code in single-assignment form; this side chooses superinstructions, assigns
 * registers and runs it.  Values are numbered: first what is given (loads, or cells), then one value an instruction.
 * Knows nothing about Python, shapes of results or who owns memory.  Sizes and strides come checked from the planner. */
#ifndef FG_LANES_H
#define FG_LANES_H

#include "blocks.h"

/* Operations of this code beyond those of the table (FG_ADD, ...). */
enum {
    FG_PULL = 256,               /* FG_PULL + 3 * op + k: g times the partial of op by operand k; operands g, x, y, z, out */
    FG_CAST = FG_PULL + 3 * 256, /* the operand's number in the type of the instruction (f64, f32, bool bytes) */
    FG_MOVE,                     /* the operand itself */
    FG_N_LANE_OPS
};

/* Where something lies: an offset in bytes from one of the pointers that a run is given. */
typedef struct {
    int32_t base;
    ptrdiff_t offset;
} fg_place;

#define FG_NO_VALUE (-1)

typedef struct {
    uint16_t op;
    uint8_t type;        /* FG_F64, FG_F32: the loop that runs; of FG_CAST and FG_MOVE the result's type.  Results of the
                            table's truth-value operations are FG_BOOL bytes whatever this says. */
    int32_t operand[5];  /* value numbers, FG_NO_VALUE where the operation does not read it.  Operands have the type of the
                            instruction, except those of FG_CAST. */
} fg_instruction;

/* ------------------------------------------------------------------------------------------------------------ groups */

typedef struct {
    fg_place at;
    const ptrdiff_t *strides; /* bytes, over the extent; only for FG_STRIDED */
    uint8_t kind;             /* FG_CONTIGUOUS, FG_ONE (one element at `at`), FG_STRIDED */
    uint8_t type;             /* FG_F64, FG_F32, FG_BOOL: of the memory and of the value */
} fg_load;

/* Whole sums: one element.  Column sums: the extent seen as (rows, columns), summed over rows.  Row sums: over columns.
   The sum has the type of its value (f64 or f32); f32 is summed in f32 pairwise or better. */
enum { FG_SUM_ALL = 0, FG_SUM_COLUMNS, FG_SUM_ROWS };

typedef struct {
    int32_t value;
    fg_place at;              /* contiguous, in the value's type */
    uint8_t kind;             /* of a sum */
    ptrdiff_t columns;        /* of FG_SUM_COLUMNS and FG_SUM_ROWS: extent.size is a multiple */
} fg_result;

typedef struct {
    fg_extent extent;
    int32_t n_loads, n_code, n_stores, n_sums;
    const fg_load *loads;         /* values 0 .. n_loads - 1 */
    const fg_instruction *code;   /* values n_loads .. */
    const fg_result *stores;      /* values written out, contiguous over the extent; several may have one value, and a
                                     load may be stored */
    const fg_result *sums;
} fg_group_spec;

typedef struct fg_group fg_group;

/* Called now and then during a long run; non-zero asks it to stop. */
typedef int (*fg_interrupt)(void *context);

/* A group ready to run; copies everything from the spec.  NULL: no memory.  Optimises: superinstructions, registers. */
fg_group *fg_group_new(const fg_group_spec *spec);
void fg_group_free(fg_group *group);
/* Bytes of scratch a run needs (for all threads it may use), 64-byte aligned. */
size_t fg_group_scratch(const fg_group *group);
/* Instructions after fusion, lanes of a block: for explain. */
void fg_group_facts(const fg_group *group, int *instructions, int *lanes, int *slots);
/* Returns 0, or what the interrupt answered.  The same bits whatever the number of threads. */
int fg_group_run(const fg_group *group, char *const *bases, char *scratch, fg_interrupt interrupt, void *context);

/* ----------------------------------------------------------------------------------------------------- scalar code */

/* Runs over an array of doubles, the cells; truth values are 0.0 and 1.0 there.  All types are f64. */
typedef struct {
    int32_t n_given, n_code;
    const int64_t *cells;         /* for each value (given and computed) the cell it lives in, or FG_NO_VALUE: a
                                     temporary, to be given one of the cells from `first_temporary` on */
    const fg_instruction *code;
    int64_t first_temporary;
} fg_scalars_spec;

typedef struct fg_scalars fg_scalars;

fg_scalars *fg_scalars_new(const fg_scalars_spec *spec);   /* NULL: no memory */
void fg_scalars_free(fg_scalars *code);
int64_t fg_scalars_temporaries(const fg_scalars *code);    /* cells used from first_temporary on */
int32_t fg_scalars_length(const fg_scalars *code);         /* instructions after fusion */
void fg_scalars_run(const fg_scalars *code, double *cells);

#endif
