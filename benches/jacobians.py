"""When Jacobians pay as one batched sweep: ``python benches/jacobians.py``.

Microseconds of jacrev, jacfwd and hessian with the sweeps one by one, as one batch, and as ``_pays`` chooses; its costs
(transforms/__init__.py) are read off this.
"""

import time

import numpy as np

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import transforms


def numbers(m, depth):
    def f(x):
        values = [x[i] for i in range(m)]
        for _ in range(depth):
            values = [fnp.sin(v) * values[(i + 1) % m] + 0.1 for i, v in enumerate(values)]
        return fnp.stack(values)
    return f


def layers(m, depth):
    w = np.random.default_rng(0).normal(size=(m, m)) / m**0.5

    def f(x):
        for _ in range(depth):
            x = fnp.tanh(w @ x)
        return x
    return f


def elementwise(m, depth):
    def f(x):
        for _ in range(depth):
            x = fnp.sin(x) * x + 0.5
        return x
    return f


def best(function, seconds=0.02):
    function()
    times = []
    for _ in range(3):
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            function()
            calls += 1
        times.append((time.perf_counter() - start) / calls)
    return 1e6 * min(times)


if __name__ == "__main__":
    choose = transforms._pays
    ways = (lambda *a: False, lambda *a: True, choose)
    print(f"{'':>16} {'m':>4} {'depth':>5}" + "".join(f"{name:>30}" for name in ("jacrev", "jacfwd", "hessian")))
    for kind in (numbers, layers, elementwise):
        for m in (2, 5, 20, 100):
            for depth in (2, 10):
                if kind is numbers and m > 20:
                    continue
                f, x, found = kind(m, depth), np.random.default_rng(1).normal(size=m), []
                for of in (fg.jacrev, fg.jacfwd, lambda f: fg.hessian(lambda x: f(x).sum())):
                    for transforms._pays in ways:
                        found.append(best(lambda: of(f)(x)))  # noqa: B023
                print(f"{kind.__name__:>16} {m:4} {depth:5}" + "".join(f"{t:10.0f}" for t in found), flush=True)
