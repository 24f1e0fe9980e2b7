"""Every workload by every contestant, grouped by workload: read the ratios off each table.

`pytest benches`; add `--benchmark-columns=median,ops` for less. The required numbers, with their limits, are
measured more carefully by `python benches/ratios.py`.
"""

import one_thread  # noqa: F401  isort: skip: before NumPy

import gc

import program_workloads
import pytest
from program_workloads import PROGRAM_WORKLOADS
from workloads import UNARY_DTYPES, UNARY_SIZES, WORKLOADS, load, record_sweep_free, unary, unary_operations

import fastgrad as fg
from fastgrad import reference


def pairs():
    for key in (*WORKLOADS, *PROGRAM_WORKLOADS):
        for name in workload_of(key).contestants:
            yield pytest.param(key, name, id=f"{key}: {name}")


def workload_of(key):
    return (load if key in WORKLOADS else program_workloads.load)(key)


@pytest.mark.benchmark(max_time=0.5, min_rounds=3)
@pytest.mark.parametrize(("key", "name"), list(pairs()))
def test_workload(benchmark, key, name):
    workload = workload_of(key)
    benchmark.group = workload.name + (f" ({workload.times} times)" if workload.times > 1 else "")
    benchmark.name = name
    workload.check(name)
    benchmark(workload.contestants[name].run)


@pytest.mark.benchmark(max_time=0.02, min_rounds=3)
@pytest.mark.parametrize("name", ["NumPy", "fastgrad"])
@pytest.mark.parametrize("dtype", UNARY_DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("n", UNARY_SIZES)
@pytest.mark.parametrize("op", unary_operations(), ids=lambda op: op.name)
def test_unary(benchmark, op, n, dtype, name):
    workload = unary(op, n, dtype)
    benchmark.group = workload.name
    benchmark.name = name
    with fg.no_grad():
        workload.check(name)
        benchmark(workload.contestants[name].run)


@pytest.mark.benchmark(group="a million scalar nodes: record, sweep, free")
def test_a_million_nodes(benchmark):
    x, y = fg.tensor(0.5, requires_grad=True), fg.tensor(0.3, requires_grad=True)
    record_sweep_free(x, y, 2000)
    expected = reference.value_and_grad(lambda x, y: steps(x, y, 500))(0.5, 0.3)[1]
    assert (x.grad.item(), y.grad.item()) == pytest.approx(expected, rel=1e-10)
    gc.collect()
    benchmark.pedantic(record_sweep_free, (x, y, 10**6), rounds=5, warmup_rounds=1)


def steps(x, y, count):
    for _ in range(count):
        y = reference.tanh(x * y + x) + 0.1
    return y
