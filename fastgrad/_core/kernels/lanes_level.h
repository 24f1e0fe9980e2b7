/* What lanes.c and scalars.c run at an instruction-set level.  Included by level.h. */

#if defined(__GNUC__)
#define FG_NOINLINE __attribute__((noinline))
#else
#define FG_NOINLINE
#endif

/* The loops may write to the memory of an operand, to the very element that they read. */
#if defined(__clang__)
#define SAME_ELEMENTS_ONLY _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define SAME_ELEMENTS_ONLY _Pragma("GCC ivdep")
#else
#define SAME_ELEMENTS_ONLY
#endif
#include "fused.h"
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

/* Copies past the caches, which saves reading the target's lines first; of 0 bytes: waits until all such copies are
 * visible to other threads. */
#if defined(__AVX512F__)
#include <immintrin.h>
#define STREAM_LINE(to, from) _mm512_stream_si512((void *)(to), _mm512_loadu_si512(from))
#elif defined(__SSE2__)
#include <emmintrin.h>
#define STREAM_LINE(to, from)                                                                            \
    for (int i = 0; i < 64; i += 16)                                                                     \
        _mm_stream_si128((__m128i *)((to) + i), _mm_loadu_si128((const __m128i *)((from) + i)))
#endif

static void stream(size_t bytes, const char *from, char *to) {
#if defined(STREAM_LINE)
    if (bytes == 0) {
        _mm_sfence();
        return;
    }
    size_t head = -(uintptr_t)to & 63;
    if (head > bytes) head = bytes;
    memcpy(to, from, head);
    for (from += head, to += head, bytes -= head; bytes >= 64; from += 64, to += 64, bytes -= 64) STREAM_LINE(to, from);
#endif
    if (bytes) memcpy(to, from, bytes);
}
