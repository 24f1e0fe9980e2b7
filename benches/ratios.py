"""The required numbers, measured and judged: `python benches/ratios.py` prints them as Markdown.

All contestants of a row run in one process, in turn, round after round; a ratio is the median of the rounds'
ratios, so whatever slows the machine for a while slows both sides. One thread. Answers are checked first.

    python benches/ratios.py                     everything (some minutes)
    python benches/ratios.py --only chain,unary  some rows
    python benches/ratios.py --quick             fewer rounds
"""

import one_thread  # noqa: F401  isort: skip: before NumPy

import argparse
import math
import statistics
import sys
import time
from dataclasses import dataclass

import memory
import numpy as np
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


def measure_workload(key, report, quick):
    """One workload: a line for each of its limits; returns the times of all contestants."""
    workload = load(key)
    for name in workload.contestants:
        workload.check(name)
    seconds = in_turn(workload.contestants, 7 if quick else 31, 0.01 if quick else 0.03, workload.times)
    for limit in LIMITS[key]:
        sign = "<=" if limit.at_most else ">="
        required = f"{limit.slow} {sign} {limit.ratio:g} x {limit.fast}"
        if limit.slow not in seconds:
            report.row(workload.name, required, "not installed", None)
            continue
        measured = ratio(seconds, limit.slow, limit.fast)
        times = ", ".join(rate(statistics.median(seconds[name])) for name in (limit.slow, limit.fast))
        passed = measured <= limit.ratio if limit.at_most else measured >= limit.ratio
        report.row(workload.name, required, f"{measured:.3g} x ({times})", passed)
    return workload.name, seconds


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


def print_times(name, seconds):
    """All contestants of a workload, fastest first, and their ratio to fastgrad."""
    print(f"\n| {name} | time | x fastgrad |\n|---|---|---|")
    ours = next(contestant for contestant in seconds if contestant.startswith("fastgrad"))
    for contestant in sorted(seconds, key=lambda contestant: statistics.median(seconds[contestant])):
        median = statistics.median(seconds[contestant])
        print(f"| {contestant} | {rate(median)} | {ratio(seconds, contestant, ours):.3g} |")


def print_unary(everything):
    """Time of each unary operation in NumPy's."""
    print("\n| time / NumPy's | " + " | ".join(f"{n}, {dtype}" for n, dtype in everything) + " |")
    print("|---" * (1 + len(everything)) + "|")
    for name in (op.name for op in unary_operations()):
        print(f"| {name} | " + " | ".join(f"{ratios.get(name, math.nan):.2f}" for ratios in everything.values()) + " |")


def main():
    rows = [*WORKLOADS, "unary", "nodes", "graphs"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=f"rows: {', '.join(rows)}")
    parser.add_argument("--only", metavar="ROW,ROW", type=lambda text: text.split(","), default=rows, help="some rows")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    options = parser.parse_args()
    unknown = [row for row in options.only if row not in rows]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(rows)}")
    report = Report()
    details = []
    for row in options.only:
        try:
            if row in WORKLOADS:
                details.append((print_times, measure_workload(row, report, options.quick)))
            elif row == "unary":
                details.append((print_unary, (measure_unary(report, options.quick),)))
            else:
                {"nodes": measure_nodes, "graphs": measure_graphs}[row](report, options.quick)
        except Exception as error:  # one broken row must not hide the others
            report.row(row, "the right answer", first_line(error), False)
    for print_details, arguments in details:
        print_details(*arguments)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
