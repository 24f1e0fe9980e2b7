/* What lanes.c and scalars.c run at an instruction-set level.  Included by level.h. */

#define FG_NOINLINE __attribute__((noinline))

#include "machine.h"

/* The scalar machine: runs code (written by scalars.c) over the cells.  A word of the code says where the case is,
 * the next ones the cell of the result and those of the operands.  The last result is at hand in `result`, which spares
 * a chain of operations the way through memory.  Without code: returns the words for the cases, by number.
 * About 1 ns a case (benches: chain). */
#if defined(__GNUC__)
#define LABEL(name) (int32_t)((char *)&&at_##name - (char *)&&at_negative)
#define CASE(name, number) at_##name:
#define NEXT(words)                                                    \
    code += words;                                                     \
    goto *(void *)((char *)&&at_negative + (int32_t)*code);

static const int32_t *machine(const uint32_t *code, double *cells) {
    static const int32_t labels[] = {MACHINE_LABELS LABEL(end)};
    double result = 0;
    if (!code) return labels;
    NEXT(0)
#define MACHINE_CASES
#include "machine.h"
at_end:
    return NULL;
}
#else
#define CASE(name, number) case number:
#define NEXT(words)                                                    \
    code += words;                                                     \
    continue;

static const int32_t *machine(const uint32_t *code, double *cells) {
    double result = 0;
    while (code) switch (*code) {
#define MACHINE_CASES
#include "machine.h"
        default: return NULL;
        }
    return NULL;
}
#endif
#undef CASE
#undef NEXT
