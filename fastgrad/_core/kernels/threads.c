/* The pool of threads.h: workers that are called by name, spin a little, then sleep.
 *
 * A loop is open while its caller still hands out chunks.  A called worker enters an open loop, takes chunks from a
 * counter until there are none, and leaves; the caller does the same, closes the loop and waits for those inside.  So a
 * worker that wakes up late delays nobody: it finds the loop closed.  Nothing is ever freed: workers end with the
 * process, and a child of fork starts with none. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "threads.h"

#if defined(_WIN32) /* no pthreads: everything runs on the caller's thread */

void fg_set_threads(int n) { (void)n; }
int fg_get_threads(void) { return 1; }

void fg_parallel(ptrdiff_t n_chunks, fg_body body, void *context) {
    for (ptrdiff_t chunk = 0; chunk < n_chunks; chunk++) body(context, chunk, 0);
}

#else

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define MOST_THREADS 256
#define SPIN_NS 50000         /* a sleeper takes about as long to arrive: loops that follow each other find it awake */
#define STACK_BYTES (1 << 20) /* for the blocks that kernels keep on the stack; musl's default is too small */
#define OPEN (1 << 30)        /* the bit of `inside` that says workers may enter */

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ __volatile__("yield")
#else
#define PAUSE() ((void)0)
#endif

/* One who sleeps until somebody has changed what it watches. */
typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_int asleep;
} sleeper;

typedef struct {
    _Alignas(128) sleeper sleeper;
    atomic_uint calls; /* how often it was called */
    unsigned answered; /* the call it has answered last; its thread alone reads this */
} worker_state;

static atomic_int threads_wanted; /* 0: nobody has asked yet */

static struct {
    _Alignas(128) atomic_int busy;       /* a caller owns the pool */
    _Alignas(128) atomic_int inside;     /* workers inside the loop, and OPEN */
    _Alignas(128) atomic_ptrdiff_t next; /* the first chunk that nobody has taken */
    _Alignas(128) ptrdiff_t n_chunks;    /* these four are written while nobody is inside */
    fg_body body;
    void *context;
    int threads;   /* that may work on the loop, the caller's included */
    int n_workers; /* started; written by the owner */
    sleeper caller;
    worker_state workers[MOST_THREADS];
} pool;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int positive(const char *name) {
    const char *text = getenv(name);
    if (!text || !*text) return 0;
    char *end;
    long n = strtol(text, &end, 10);
    return *end || n <= 0 ? 0 : n > MOST_THREADS ? MOST_THREADS : (int)n;
}

/* The CPUs that this process may use, or fewer if the environment says so. */
static int default_threads(void) {
    long n = 0;
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
#endif
    if (n < 1) n = sysconf(_SC_NPROCESSORS_ONLN);
    if (n < 1) n = 1;
    int limit = positive("FASTGRAD_NUM_THREADS");
    if (!limit) limit = positive("OMP_NUM_THREADS");
    if (limit && n > limit) n = limit;
    return n > MOST_THREADS ? MOST_THREADS : (int)n;
}

static void sleeper_init(sleeper *s) {
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    atomic_store(&s->asleep, 0);
}

/* To be called after the change that the sleeper watches for.  Both sides are sequentially consistent: either this sees
 * it asleep, or it sees the change before it sleeps. */
static void sleeper_wake(sleeper *s) {
    if (!atomic_load(&s->asleep)) return;
    pthread_mutex_lock(&s->lock);
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

/* Returns when ready(what): spins first, then sleeps. */
static void sleeper_wait(sleeper *s, int (*ready)(const void *), const void *what) {
    int64_t start = 0;
    for (int round = 0;; round++) {
        for (int i = 0; i < 32; i++) {
            if (ready(what)) return;
            PAUSE();
        }
        int64_t t = now();
        if (round == 0)
            start = t;
        else if (t - start > SPIN_NS)
            break;
    }
    pthread_mutex_lock(&s->lock);
    atomic_store(&s->asleep, 1);
    while (!ready(what)) pthread_cond_wait(&s->wake, &s->lock);
    atomic_store(&s->asleep, 0);
    pthread_mutex_unlock(&s->lock);
}

static int worker_is_called(const void *worker) {
    const worker_state *w = worker;
    return atomic_load(&w->calls) != w->answered;
}

static int nobody_is_inside(const void *unused) {
    (void)unused;
    return atomic_load(&pool.inside) == 0;
}

static void take_chunks(int worker) {
    for (;;) {
        ptrdiff_t chunk = atomic_fetch_add(&pool.next, 1);
        if (chunk >= pool.n_chunks) return;
        pool.body(pool.context, chunk, worker);
    }
}

/* One more inside, if the loop is open. */
static int enter(void) {
    int inside = atomic_load(&pool.inside);
    while (inside & OPEN)
        if (atomic_compare_exchange_weak(&pool.inside, &inside, inside + 1)) return 1;
    return 0;
}

static void *work(void *state) {
    worker_state *w = state;
    int me = 1 + (int)(w - pool.workers);
    for (;;) {
        sleeper_wait(&w->sleeper, worker_is_called, w);
        w->answered = atomic_load(&w->calls);
        if (!enter()) continue;
        if (me < pool.threads) take_chunks(me); /* else it was called for an earlier loop, of more threads */
        if (atomic_fetch_sub(&pool.inside, 1) == 1) sleeper_wake(&pool.caller);
    }
    return NULL;
}

/* In the child of fork there are no workers, and locks may have been copied while held. */
static void forget_all(void) {
    pool.n_workers = 0;
    atomic_store(&pool.inside, 0);
    sleeper_init(&pool.caller);
    atomic_store(&pool.busy, 0);
}

static void prepare_once(void) {
    sleeper_init(&pool.caller);
    pthread_atfork(NULL, NULL, forget_all);
}

/* One worker more, with all signals blocked so that Ctrl-C goes to the main thread; 0 when the system refuses. */
static int start_worker(void) {
    worker_state *w = &pool.workers[pool.n_workers];
    sleeper_init(&w->sleeper);
    w->answered = atomic_load(&w->calls);
    pthread_attr_t how;
    if (pthread_attr_init(&how)) return 0;
    pthread_attr_setstacksize(&how, STACK_BYTES);
    pthread_attr_setdetachstate(&how, PTHREAD_CREATE_DETACHED);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    int failed = pthread_create(&thread, &how, work, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&how);
    pool.n_workers += !failed;
    return !failed;
}

/* At least n workers, or as many as the system gives; returns how many of them there are, n at most. */
static int workers_ready(int n) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare_once);
    while (pool.n_workers < n && start_worker()) {}
    return pool.n_workers < n ? pool.n_workers : n;
}

static void run_alone(ptrdiff_t n_chunks, fg_body body, void *context) {
    for (ptrdiff_t chunk = 0; chunk < n_chunks; chunk++) body(context, chunk, 0);
}

/* Costs about 0.2 us while the workers still spin, 5 us when they have to be woken; they arrive 45 us later then. */
void fg_parallel(ptrdiff_t n_chunks, fg_body body, void *context) {
    int threads = fg_get_threads();
    if (threads > n_chunks) threads = (int)n_chunks;
    if (threads < 2 || atomic_exchange(&pool.busy, 1)) {
        run_alone(n_chunks, body, context);
        return;
    }
    int workers = workers_ready(threads - 1);
    pool.n_chunks = n_chunks;
    pool.body = body;
    pool.context = context;
    pool.threads = 1 + workers;
    atomic_store(&pool.next, 0);
    atomic_store(&pool.inside, OPEN);
    for (int i = 0; i < workers; i++) {
        atomic_fetch_add(&pool.workers[i].calls, 1);
        sleeper_wake(&pool.workers[i].sleeper);
    }
    take_chunks(0);
    atomic_fetch_and(&pool.inside, ~OPEN);
    sleeper_wait(&pool.caller, nobody_is_inside, NULL);
    atomic_store(&pool.busy, 0);
}

void fg_set_threads(int n) { atomic_store(&threads_wanted, n < 1 ? 1 : n > MOST_THREADS ? MOST_THREADS : n); }

int fg_get_threads(void) {
    int n = atomic_load(&threads_wanted), none = 0;
    if (n) return n;
    n = default_threads();
    return atomic_compare_exchange_strong(&threads_wanted, &none, n) ? n : none;
}

#endif
