"""Memory of graphs, measured in a process of its own: `python benches/memory.py nodes|graphs` prints a number.

nodes : bytes a scalar node, of a graph of a million that is alive.
graphs : bytes by which resident memory grows while 20000 graphs are recorded, a third of them swept.
"""

import one_thread  # noqa: F401  isort: skip: before NumPy

import gc
import os
import subprocess
import sys

import numpy as np

import fastgrad as fg
import fastgrad.numpy as fnp


def resident():
    """Bytes of resident memory now (Linux), or the most there ever were (elsewhere)."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def nodes(count=10**6):
    x, y = fg.tensor(0.5, requires_grad=True), fg.tensor(0.3, requires_grad=True)
    before = resident()
    for _ in range(count // 4):
        y = fnp.tanh(x * y + x) + 0.1
    recorded = resident()
    y.backward()
    return (max(recorded, resident()) - before) / count


def graphs(count=20_000):
    rng = np.random.default_rng(0)
    weights = [fg.tensor(rng.normal(size=shape), requires_grad=True) for shape in ((4, 8), (8, 3))]
    x = rng.normal(size=(5, 4))
    gc.disable()

    def record(times):
        for k in range(times):
            loss = fnp.sum(fnp.exp(fnp.tanh(x @ weights[0]) @ weights[1]))
            scalar = loss * 2.0 + 1.0
            if k % 3 == 0:
                scalar.backward()

    record(count // 10)
    before = resident()
    record(count)
    return resident() - before


def measure(what):
    """Run one of the two measurements in a fresh process."""
    done = subprocess.run([sys.executable, __file__, what], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"benches/memory.py {what} failed:\n{done.stderr}")
    return float(done.stdout)


if __name__ == "__main__":
    print({"nodes": nodes, "graphs": graphs}[sys.argv[1]]())
