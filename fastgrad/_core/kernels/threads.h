/* The threads that share long loops: a pool that sleeps until there is work.
 *
 * Knows nothing about Python: callers run without the GIL.  One loop runs on the pool at a time; a loop that finds the
 * pool busy (another caller, or a loop inside a loop) runs on its own thread alone. */
#ifndef FG_THREADS_H
#define FG_THREADS_H

#include <stddef.h>

/* How many threads loops may use, the caller's included; at least 1.  Takes effect with the next loop. */
void fg_set_threads(int n);
int fg_get_threads(void);

/* body(context, chunk, worker) for every chunk from 0 to n_chunks - 1, in any order; worker is below fg_get_threads(), and
   no two threads have the same one at a time.  Returns when all are done. */
typedef void (*fg_body)(void *context, ptrdiff_t chunk, int worker);
void fg_parallel(ptrdiff_t n_chunks, fg_body body, void *context);

#endif
