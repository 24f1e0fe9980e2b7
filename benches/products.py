"""Where our matrix products beat a call of BLAS: ``python benches/products.py``.

Times one product by the simple loop, by gemm.h and by the loop of np.matmul, all single-threaded, and prints GFLOP/s;
the limits in ``product`` (structured.pxi) are read off this.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import time  # noqa: E402

from fastgrad._core import engine  # noqa: E402

SIZES = [(1, 4, 8), (1, 64, 64), (4, 4, 4), (8, 8, 8), (16, 16, 16), (32, 64, 10), (32, 64, 64), (64, 64, 64),
         (128, 128, 128), (1024, 10, 512), (512, 1024, 10), (256, 256, 256)]

if __name__ == "__main__":
    print(f"{'m, k, n':>16} {'b':>10} {'simple':>8} {'gemm':>8} {'BLAS':>8}   GFLOP/s")
    for m, k, n in SIZES:
        for turned in (False, True):
            work, rates = m * k * n, []
            repeat = max(1, int(3e6 / (work + 200)))
            for way in range(3):
                best = float("inf")
                for _ in range(9):
                    start = time.perf_counter()
                    engine._time_products(m, k, n, way, repeat, turned)
                    best = min(best, (time.perf_counter() - start) / repeat)
                rates.append(2 * work / best / 1e9)
            print(f"{f'{m}, {k}, {n}':>16} {'transposed' if turned else 'plain':>10} " + " ".join(f"{r:8.1f}" for r in rates))
