"""Import this before NumPy: it holds the process to one core, so that ratios compare work, not cores.

Every library is asked for one thread, and the process is pinned to one of the cores it may use, because asking is not
enough: with these XLA flags JAX still used up to 1.5 cores (process time / wall time, net 784-512-10). `taskset -c 1
python ...` says which core. Where the system cannot pin (not Linux) JAX is not on equal terms. `environment(n)` is for
a child that has n threads and n cores.
"""

import os

THREADS = int(os.environ.get("FASTGRAD_BENCH_THREADS", "1"))
LIBRARIES = ("OPENBLAS", "OMP", "MKL", "BLIS", "VECLIB_MAXIMUM", "NUMEXPR")

for name in LIBRARIES:
    os.environ.setdefault(f"{name}_NUM_THREADS", str(THREADS))
if THREADS == 1:
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

CORES = []  # what the process may use
if hasattr(os, "sched_setaffinity"):
    given = os.environ.get("FASTGRAD_BENCH_CORES")
    CORES = [int(core) for core in given.split(",")] if given else sorted(os.sched_getaffinity(0))
    first = os.getpid() % len(CORES)  # benches that run at the same time do not all choose one core
    os.sched_setaffinity(0, (CORES[first:] + CORES[:first])[:THREADS])


def environment(threads):
    """Environment variables for a child process whose libraries have so many threads, on as many cores."""
    child = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    child.update({f"{name}_NUM_THREADS": str(threads) for name in LIBRARIES})
    child.update(FASTGRAD_BENCH_THREADS=str(threads), FASTGRAD_BENCH_CORES=",".join(map(str, CORES)))
    return child
