"""The required numbers, measured and judged: `python benches/ratios.py` prints them as Markdown.

All contestants of a row run in one process, in turn, round after round; a ratio is the median of the rounds'
ratios, so whatever slows the machine for a while slows both sides. One core, to which the process is pinned
(one_thread.py); rows of two threads run in a process of their own, with two cores for everybody. Answers are checked first.

    python benches/ratios.py                     everything (some minutes)
    python benches/ratios.py --only chain,unary  some rows
    python benches/ratios.py --only program      rows of fg.compile, and so for any beginning of a name
    python benches/ratios.py --quick             fewer rounds
"""

import one_thread  # isort: skip: before NumPy

import argparse
import functools
import json
import math
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import memory
import numpy as np
import program_workloads
from program_workloads import HAS_PROGRAMS, PROGRAM_WORKLOADS, TWO_THREADS
from workloads import UNARY_DTYPES, UNARY_SIZES, WORKLOADS, load, record_sweep_free, unary, unary_operations

import fastgrad as fg


@dataclass(frozen=True)
class Limit:
    """`slow` takes at most, or at least, `ratio` times as long as `fast`."""

    slow: str
    fast: str
    ratio: float
    at_most: bool = True


LIMITS = {
    "chain": [
        Limit("fastgrad", "Python floats, forward only", 2.2),
        Limit("micrograd", "fastgrad", 50, at_most=False),
        Limit("XAD", "fastgrad", 15, at_most=False),
    ],
    "net-4-8-3": [
        Limit("fastgrad", "NumPy, forward only", 0.5),
        Limit("PyTorch", "fastgrad", 20, at_most=False),
        Limit("autograd", "fastgrad", 50, at_most=False),
    ],
    "net-64-64-10": [Limit("fastgrad", "NumPy, forward only", 0.9)],
    "net-784-512-10": [Limit("fastgrad", "NumPy, backward by hand", 1.0)],
    "net-784-512-10-float32": [Limit("fastgrad", "NumPy, backward by hand", 1.0)],
    "product": [
        Limit("fastgrad, recorded", "ndarray", 0.5),
        Limit("fastgrad, recorded and swept", "ndarray", 0.9),
    ],
    "program-chain": [
        Limit("fastgrad Program", "CasADi", 0.8),
        Limit("JAX jit", "fastgrad Program", 5, at_most=False),
        Limit("fastgrad Program", "C by hand, fastgrad's functions", 1.6),
    ],
    "program-chain-100000": [Limit("fastgrad Program", "JAX jit(vmap)", 0.5)],
    "program-chain-100000-2-threads": [
        Limit("fastgrad Program, 2 threads", "JAX jit(vmap), 2 threads", 0.5),
        Limit("fastgrad Program", "fastgrad Program, 2 threads", 1.8, at_most=False),
    ],
    "program-net-4-8-3": [
        Limit("fastgrad Program", "NumPy, forward only", 0.12),
        Limit("JAX jit", "fastgrad Program", 8, at_most=False),
    ],
    "program-adam": [Limit("PyTorch", "fastgrad Program", 50, at_most=False)],
    "program-wave-10000": [Limit("fastgrad Program", "NumPy, forward only", 0.6)],
    "program-wave-1000000": [
        Limit("fastgrad Program", "NumPy, forward only", 0.4),
        Limit("JAX jit", "fastgrad Program", 3, at_most=False),
    ],
    "program-net-784-512-10": [
        Limit("fastgrad Program", "matrix products alone", 1.08),
        Limit("fastgrad Program", "JAX jit", 1.0),
    ],
    "program-net-784-512-10-float32": [
        Limit("fastgrad Program", "matrix products alone", 1.08),
        Limit("fastgrad Program", "JAX jit", 1.0),
    ],
    "program-model": [Limit("JAX jit", "fastgrad Program", 5, at_most=False)],
}
MEMORY_NOISE = 512 * 1024  # what counts as flat: the allocator's own coming and going


def in_turn(contestants, rounds, slice_seconds, times=1):
    """Seconds of one piece of work: {name: [one number a round]}."""
    calls = {}
    for name, contestant in contestants.items():
        contestant.run()
        seconds = timed(contestant.run, 1)
        calls[name] = max(1, int(slice_seconds / max(seconds, 1e-9)))
    names = list(contestants)
    seconds = {name: [] for name in names}
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            seconds[name].append(timed(contestants[name].run, calls[name]) / calls[name] / times)
    return seconds


def timed(run, calls):
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - begin


def ratio(seconds, over, under):
    return statistics.median(a / b for a, b in zip(seconds[over], seconds[under]))


class Report:
    """Rows of the table of required numbers, printed as they come."""

    def __init__(self):
        self.failed = 0
        print("| work | required | measured | |\n|---|---|---|---|", flush=True)

    def row(self, work, required, measured, passed):
        passed = passed if passed is None else bool(passed)
        self.failed += passed is False
        verdict = {True: "pass", False: "FAIL", None: "not measured"}[passed]
        print(f"| {work} | {required} | {measured} | {verdict} |", flush=True)


def first_line(error):
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def rate(seconds):
    for unit, factor in (("ns", 1e9), ("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def times_of(key, quick):
    """(name of a workload, the times of all its contestants), after their answers were checked."""
    workload = (load if key in WORKLOADS else program_workloads.load)(key)
    for name in workload.contestants:
        workload.check(name)
    return workload.name, in_turn(workload.contestants, 7 if quick else 31, 0.01 if quick else 0.03, workload.times)


def times_on_two_threads(key, quick):
    """The same, from a process that has two threads and two cores."""
    if len(one_thread.CORES) == 1:
        raise RuntimeError("this row needs two cores, and this process has one: run it without taskset")
    command = [sys.executable, __file__, "--times-of", key, *(["--quick"] if quick else [])]
    done = subprocess.run(command, env=one_thread.environment(2), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{key} failed: {done.stderr[-1000:]}")
    return json.loads(done.stdout)


def measure_workload(key, report, quick):
    """One workload: a line for each of its limits; returns the times of all contestants."""
    work, seconds = (times_on_two_threads if key in TWO_THREADS else times_of)(key, quick)
    for limit in LIMITS[key]:
        sign = "<=" if limit.at_most else ">="
        required = f"{limit.slow} {sign} {limit.ratio:g} x {limit.fast}"
        missing = [name for name in (limit.slow, limit.fast) if name not in seconds]
        if missing:
            report.row(work, required, f"{missing[0]} is not there", None)
            continue
        measured = ratio(seconds, limit.slow, limit.fast)
        times = ", ".join(rate(statistics.median(seconds[name])) for name in (limit.slow, limit.fast))
        passed = measured <= limit.ratio if limit.at_most else measured >= limit.ratio
        report.row(work, required, f"{measured:.3g} x ({times})", passed)
    return work, seconds


def measure_unary(report, quick):
    """Each unary operation against NumPy. Returns rows of all ratios, for the second table."""
    rounds, slice_seconds = (5, 0.0005) if quick else (21, 0.001)
    everything = {}
    with fg.no_grad():
        for dtype in UNARY_DTYPES:
            for n in UNARY_SIZES:
                ratios, wrong = {}, []
                for op in unary_operations():
                    try:
                        workload = unary(op, n, dtype)
                        workload.check("fastgrad")
                    except Exception as error:
                        wrong.append(f"{op.name}: {first_line(error)}")
                        continue
                    seconds = in_turn(workload.contestants, rounds, slice_seconds)
                    ratios[op.name] = ratio(seconds, "fastgrad", "NumPy")
                    if ratios[op.name] > 0.95:  # too near to call: again, longer
                        seconds = in_turn(workload.contestants, 3 * rounds, 3 * slice_seconds)
                        ratios[op.name] = ratio(seconds, "fastgrad", "NumPy")
                everything[n, np.dtype(dtype).name] = ratios
                slower = sorted(((value, name) for name, value in ratios.items() if value > 1.0), reverse=True)
                measured = [f"worst {max(ratios.values(), default=math.nan):.2f} x"]
                if slower:
                    measured.append("slower: " + ", ".join(f"{name} {value:.2f}" for value, name in slower))
                report.row(
                    f"{len(ratios)} unary operations, n = {n}, {np.dtype(dtype).name}",
                    "each <= 1 x NumPy",
                    "; ".join(measured + wrong),
                    not slower and not wrong,
                )
    for name in ("sin", "cos"):
        faster = 1 / everything[1000, "float64"].get(name, math.inf)
        report.row(f"{name}, n = 1000, float64", "NumPy >= 3 x fastgrad", f"{faster:.3g} x", faster >= 3)
    return everything


def measure_nodes(report, quick):
    """A million scalar nodes: time and memory of each."""
    x, y = fg.tensor(0.5, requires_grad=True), fg.tensor(0.3, requires_grad=True)
    record_sweep_free(x, y, 10**6)
    seconds = [timed(lambda: record_sweep_free(x, y, 10**6), 1) for _ in range(3 if quick else 11)]
    nanoseconds = statistics.median(seconds) * 1e3
    report.row("10**6 scalar nodes: record, sweep, free", "<= 60 ns a node", f"{nanoseconds:.3g} ns", nanoseconds <= 60)
    size = memory.measure("nodes")
    report.row("10**6 scalar nodes, alive", "<= 64 bytes a node", f"{size:.3g} bytes", size <= 64)


def measure_graphs(report, quick):
    """20000 graphs, two thirds never swept: does resident memory grow?"""
    growth = memory.measure("graphs")
    measured = f"{growth / 1024:+.0f} KiB"
    report.row("20000 graphs, two thirds never swept", "resident memory flat", measured, growth <= MEMORY_NOISE)


def median_seconds(call, times):
    return statistics.median(timed(call, 1) for _ in range(times))


def measure_first_call(report, quick):
    """From a Python function to its first value and gradient: recording and planning, against compiling."""
    calls = program_workloads.first_calls_of_model()
    work, required = "log density of a hierarchical model, first call", "JAX jit >= 50 x fastgrad Program"
    seconds = {name: median_seconds(call, 1 if quick or "JAX" in name else 7) for name, call in calls.items()}
    measured = ", ".join(f"{name} {rate(value)}" for name, value in seconds.items())
    if {"JAX jit", "fastgrad Program"} <= set(seconds):
        times = seconds["JAX jit"] / seconds["fastgrad Program"]
        report.row(work, required, f"{times:.3g} x ({measured})", times >= 50)
    else:
        report.row(work, required, measured, None)


def measure_recording(report, quick):
    """The first call by the number of operations of the function; with a gradient, its operations count in time alone."""
    chain, nodes = program_workloads.long_chain, 100_000
    model = functools.partial(program_workloads.log_density, fg.numpy, program_workloads.model_data())
    start = program_workloads.MODEL_START
    rows = [
        ("chain of 200, value and gradient", fg.value_and_grad(chain(200)), chain(200), (0.5, 0.3), None),
        ("hierarchical model, value and gradient", fg.value_and_grad(model), model, (start,), None),
        ("chain of 100000, value", chain(nodes), chain(nodes), (0.5, 0.3), 1.5),
        ("chain of 100000, value and gradient", fg.value_and_grad(chain(nodes)), chain(nodes), (0.5, 0.3), 1.5),
    ]
    for name, function, counted, arguments, most in rows:
        required = "<= 10 us an operation" + (f", < {most:g} s" if most else "")
        count = program_workloads.operations(counted, *arguments)
        if not HAS_PROGRAMS:
            report.row(f"record and plan: {name}", required, f"{count} operations, no fg.compile", None)
            continue
        seconds = median_seconds(lambda f=function, a=arguments: fg.compile(f)(*a), 3 if quick else 11)
        each = seconds / count
        passed = each <= 10e-6 and (most is None or seconds < most)
        report.row(f"record and plan: {name}", required, f"{rate(each)}, {count} operations in {rate(seconds)}", passed)


def measure_determinant(report, quick):
    """A recording of 1.2 million operations, nearly all of them repeated."""
    work, required = "determinant of 9 x 9 by minors, 1.27e6 operations as written", "< 5000 instructions"
    if not HAS_PROGRAMS:
        report.row(work, required, "no fg.compile", None)
        return
    a = np.random.default_rng(0).normal(size=(9, 9))
    compiled = fg.compile(program_workloads.determinant_of_array)
    first = timed(lambda: compiled(a), 1)
    np.testing.assert_allclose(compiled(a), np.linalg.det(a), rtol=1e-9)
    count = len(compiled.program(a))
    report.row(work, required, f"{count} instructions, first call {rate(first)}", count < 5000)


def measure_arena(report, quick):
    """What a replay holds, against the most that is alive at one time."""
    if not HAS_PROGRAMS:
        report.row("replay memory", "arena <= 1.2 x the largest live set", "no fg.compile", None)
        return
    for name, program in program_workloads.programs_to_look_at():
        arena, live = program.arena_bytes, program.live_bytes
        passed = arena <= 1.2 * live
        required, measured = "arena <= 1.2 x the largest live set", f"{arena / max(live, 1):.3g} x ({arena}, {live} bytes)"
        report.row(f"replay memory: {name}", required, measured, passed)


SPECIAL = {
    "unary": measure_unary,
    "nodes": measure_nodes,
    "graphs": measure_graphs,
    "program-first-call": measure_first_call,
    "program-recording": measure_recording,
    "program-determinant": measure_determinant,
    "program-arena": measure_arena,
}


def print_times(name, seconds):
    """All contestants of a workload, fastest first, and their ratio to fastgrad."""
    ours = next((name for name in ("fastgrad Program", "fastgrad") if name in seconds), None)
    ours = ours or next((name for name in seconds if name.startswith("fastgrad")), next(iter(seconds)))
    print(f"\n| {name} | time | x {ours} |\n|---|---|---|")
    for contestant in sorted(seconds, key=lambda contestant: statistics.median(seconds[contestant])):
        median = statistics.median(seconds[contestant])
        print(f"| {contestant} | {rate(median)} | {ratio(seconds, contestant, ours):.3g} |")


def print_unary(everything):
    """Time of each unary operation in NumPy's."""
    print("\n| time / NumPy's | " + " | ".join(f"{n}, {dtype}" for n, dtype in everything) + " |")
    print("|---" * (1 + len(everything)) + "|")
    for name in (op.name for op in unary_operations()):
        print(f"| {name} | " + " | ".join(f"{ratios.get(name, math.nan):.2f}" for ratios in everything.values()) + " |")


def chosen(rows, text):
    """The rows that a list of names, or of beginnings of names, asks for; KeyError with what is none."""
    found = []
    for name in text.split(","):
        matches = [name] if name in rows else [row for row in rows if row.startswith(name)]
        if not matches:
            raise KeyError(name)
        found += [row for row in matches if row not in found]
    return found


def main():
    rows = [*WORKLOADS, "unary", "nodes", "graphs", *PROGRAM_WORKLOADS, *TWO_THREADS]
    rows += [row for row in SPECIAL if row not in rows]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=f"rows: {', '.join(rows)}")
    parser.add_argument("--only", metavar="ROW,ROW", help="some rows, by name or by its beginning")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--times-of", metavar="ROW", help=argparse.SUPPRESS)  # for the process with two threads
    options = parser.parse_args()
    if options.times_of:
        print(json.dumps(times_of(options.times_of, options.quick)))
        return 0
    try:
        wanted = chosen(rows, options.only) if options.only else rows
    except KeyError as error:
        parser.error(f"no such row: {error.args[0]}; there are {', '.join(rows)}")
    report = Report()
    details = []
    for row in wanted:
        try:
            found = SPECIAL[row](report, options.quick) if row in SPECIAL else measure_workload(row, report, options.quick)
        except Exception as error:  # one broken row must not hide the others
            report.row(row, "the right answer", first_line(error), False)
            continue
        if row == "unary":
            details.append((print_unary, (found,)))
        elif row not in SPECIAL:
            details.append((print_times, found))
    for print_details, arguments in details:
        print_details(*arguments)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
