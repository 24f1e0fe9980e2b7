"""fastgrad.numpy's statistics, scans, sorting and counting: CONTRACT 4, 9, 13, 16, 22, 23, 27.

Each function passes ``check`` of everywhere.py over shapes and axes; what calculus does not say follows below.
"""

import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

sys.path.insert(0, str(Path(__file__).parent))
from everywhere import check  # noqa: E402

inf, nan = np.inf, np.nan
SHAPES = [((5,), None), ((5,), 0), ((1,), -1), ((3, 4), None), ((3, 4), 0), ((3, 4), -1), ((3, 4), (0, 1)), ((2, 3, 4), (0, 2)),
          ((2, 3, 4), 1), ((), None)]
ONE_AXIS = [(shape, axis) for shape, axis in SHAPES if axis is not None and not isinstance(axis, tuple)]


def numbers(shape, name=""):
    """Numbers of which no two are near each other."""
    rng = np.random.default_rng(zlib.crc32(f"{shape}{name}".encode()))
    size = int(np.prod(shape))
    return rng.permutation(np.linspace(-2, 2.3, size) + rng.uniform(-0.1, 0.1, size) / max(size, 1)).reshape(shape)


CASES = {}


def case(name, f, *shapes, theirs=None, **keywords):
    """f takes the namespace and the arrays."""
    assert name not in CASES, name
    CASES[name] = (f, shapes, theirs, keywords)


def reduction(name, shapes=SHAPES, label="", order=2, **given):
    for shape, axis in shapes:
        for keepdims in (False, True):
            case(f"{name}{label} {shape} axis={axis}{' keepdims' if keepdims else ''}",
                 lambda xp, x, a=axis, k=keepdims: getattr(xp, name)(x, axis=a, keepdims=k, **given), shape, order=order,
                 explained=not keepdims)


SPREAD = [(shape, axis) for shape, axis in SHAPES if shape not in ((), (1,))]
reduction("var")
reduction("var", SPREAD, " ddof=1", ddof=1)
reduction("std", SPREAD)
reduction("std", SPREAD, " ddof=1", ddof=1)
reduction("std", SPREAD[:1], " correction", correction=1)
reduction("average")
reduction("ptp", [s for s in SHAPES if s[0] != (1,)])
reduction("median")
for q in (0.0, 0.3, 1.0, [0.1, 0.5], [[0.25], [1.0]]):
    reduction("quantile", SHAPES if q == 0.3 else SHAPES[3:8], f" {q}", q=q)
reduction("percentile", SHAPES[:6], " 40", q=40)
for method in ("lower", "higher", "nearest", "midpoint"):
    reduction("quantile", [((6,), None), ((3, 6), 1)], " " + method, q=[0.0, 0.27, 0.4, 0.73], method=method)
for name in ("nansum", "nanprod", "nanmean", "nanmax", "nanmin", "nanvar"):
    reduction(name, SHAPES if name in ("nansum", "nanmean") else SHAPES[:8])
reduction("nanstd", SPREAD)

for name in ("any", "all", "count_nonzero"):
    reduction(name, order=0)
for name in ("argmax", "argmin", "nanargmax", "nanargmin"):
    reduction(name, [((5,), None), *ONE_AXIS, ((3, 4), None)], order=0)
CASES.pop("count_nonzero () axis=None keepdims", None)

MASK = np.array([[True, False, True, True], [True, True, False, True], [True, False, True, True]])
for name in ("var", "std", "nansum", "nanmean", "nanvar", "nanstd", "nanprod"):
    case(f"{name} where", lambda xp, x, n=name: getattr(xp, n)(x, axis=1, where=MASK), (3, 4))
    case(f"{name} where broadcast", lambda xp, x, n=name: getattr(xp, n)(x, where=MASK[0]), (3, 4))
for name in ("nanmax", "nanmin"):
    case(f"{name} where", lambda xp, x, n=name: getattr(xp, n)(x, axis=1, where=MASK), (3, 4),
         theirs=lambda x, n=name: getattr(np, n)(np.where(MASK, x, nan), axis=1))
for name in ("any", "all"):
    case(f"{name} where", lambda xp, x, n=name: getattr(xp, n)(x, axis=1, where=MASK), (3, 4), order=0)
HOLES = np.where(MASK, 0.0, nan)
for name in ("nansum", "nanprod", "nanmean", "nanmax", "nanmin", "nanvar", "nanstd", "nancumsum", "nancumprod"):
    for axis in (None, 0, 1):
        case(f"{name} with NaN axis={axis}", lambda xp, x, n=name, a=axis: getattr(xp, n)(x + HOLES, axis=a), (3, 4))

case("var of a known mean", lambda xp, x, m: xp.var(x, axis=1, mean=m), (3, 4), (3, 1))
case("std of a known mean", lambda xp, x, m: xp.std(x, axis=1, mean=m), (3, 4), (3, 1))
case("average weights", lambda xp, x, w: xp.average(x, weights=w + 3), (5,), (5,))
case("average weights of one axis", lambda xp, x, w: xp.average(x, axis=1, weights=w + 3), (3, 4), (4,))
case("average weights axis 0", lambda xp, x, w: xp.average(x, 0, w + 3, keepdims=True), (3, 4), (3,))
case("average weights of two axes", lambda xp, x, w: xp.average(x, (2, 0), w + 3), (2, 3, 4), (4, 2))
case("average weights of all", lambda xp, x, w: xp.average(x, 0, w + 3), (3, 4), (3, 4))
case("average returned", lambda xp, x, w: xp.average(x, 0, w + 3, returned=True)[1] + 0 * x.sum(), (3, 4), (3, 4))
case("average plain weights", lambda xp, x: xp.average(x, 1, [1, 2, 3, 4]), (3, 4))

for name in ("cumsum", "cumprod", "nancumsum", "nancumprod"):
    for shape, axis in [*ONE_AXIS, ((3, 4), None), ((), None), ((7, 1), 0), ((3, 1), 1), ((0,), 0), ((0, 3), 1)]:
        case(f"{name} {shape} axis={axis}", lambda xp, x, n=name, a=axis: getattr(xp, n)(x, axis=a), shape, explained=0 not in shape)
for name in ("cumulative_sum", "cumulative_prod"):
    for shape, axis in ONE_AXIS:
        case(f"{name} {shape} axis={axis}",
             lambda xp, x, n=name, a=axis: getattr(xp, n)(x, axis=a, include_initial=True), shape)
    case(f"{name} of one axis", lambda xp, x, n=name: getattr(xp, n)(x), (4,))

for n in (0, 1, 2, 5):
    case(f"diff n={n}", lambda xp, x, n=n: xp.diff(x, n), (4,), explained=n < 4, order=2 if n < 4 else 0)
case("diff axis=0", lambda xp, x: xp.diff(x, axis=0), (3, 4))
case("diff prepend append", lambda xp, x, p: xp.diff(x, 2, 1, prepend=p, append=7.0), (3, 4), (3, 2))
case("diff prepend number", lambda xp, x: xp.diff(x, axis=0, prepend=1.0), (3, 4))
case("ediff1d", lambda xp, x: xp.ediff1d(x), (3, 4))
case("ediff1d with ends", lambda xp, x, a, b: xp.ediff1d(x, a, b), (5,), (2,), (1, 2))
case("ediff1d of one", lambda xp, x, a: xp.ediff1d(x, a), (1,), (2,))
for edge in (1, 2):
    case(f"gradient {edge}", lambda xp, x, e=edge: xp.gradient(x, edge_order=e), (5,))
    case(f"gradient {edge} short", lambda xp, x, e=edge: xp.gradient(x, edge_order=e), (1 + edge,))
    case(f"gradient {edge} dx", lambda xp, x, e=edge: xp.gradient(x, 0.5, axis=-1, edge_order=e), (3, 4))
    case(f"gradient {edge} of two axes", lambda xp, x, e=edge: xp.gradient(x, 0.5, 2, edge_order=e)[1], (3, 4))
    case(f"gradient {edge} coordinates", lambda xp, x, e=edge: xp.gradient(x, [0.0, 1.0, 3.0, 3.5], axis=1, edge_order=e), (3, 4))
    case(f"gradient {edge} by coordinates", lambda xp, x, t, e=edge: xp.gradient(x, xp.cumsum(t * t + 1), axis=0, edge_order=e),
         (4, 2), (4,))
case("gradient by dx", lambda xp, x, h: xp.gradient(x, h), (5,), ())
case("trapezoid", lambda xp, x: xp.trapezoid(x), (5,))
case("trapezoid dx axis", lambda xp, x: xp.trapezoid(x, dx=0.25, axis=0), (3, 4))
case("trapezoid x", lambda xp, y, x: xp.trapezoid(y, x), (3, 4), (4,))
case("trapezoid x axis=0", lambda xp, y, x: xp.trapezoid(y, x, axis=0), (3, 4), (3,))
case("trapezoid x of the shape", lambda xp, y, x: xp.trapezoid(y, x, axis=0), (3, 4), (3, 4))
case("trapezoid of one", lambda xp, x: xp.trapezoid(x), (1,), order=0)

for shape, axis in [*ONE_AXIS, ((3, 4), None), ((0,), 0), ((0, 3), 1), ((3, 0), 0)]:
    known = dict(explained=0 not in shape)
    case(f"sort {shape} axis={axis}", lambda xp, x, a=axis: xp.sort(x, axis=a), shape, **known)
    if 0 not in shape:
        case(f"partition {shape} axis={axis}", lambda xp, x, a=axis: xp.sort(xp.partition(x, 0, axis=a), axis=a), shape)
        case(f"argpartition {shape} axis={axis}", lambda xp, x, a=axis: xp.argpartition(x, 0, axis=a), shape, order=0)
    case(f"argsort {shape} axis={axis}", lambda xp, x, a=axis: xp.argsort(x, axis=a), shape, order=0)
case("partition", lambda xp, x: xp.partition(x, [1, 3], axis=0)[[1, 3]], (5, 2))
case("unique", lambda xp, x: xp.unique(x), (3, 4), batched=True)
case("unique of repeated", lambda xp, x: xp.unique(xp.concatenate([x, x])), (4,),
     theirs=lambda x: np.sort(x))
case("unique axis", lambda xp, x: xp.unique(x, axis=1), (3, 4))
for part in range(1, 4):
    case(f"unique part {part}", lambda xp, x, k=part: xp.unique(x, True, True, True)[k], (5,), order=0)
case("searchsorted", lambda xp, a, v: xp.searchsorted(xp.sort(a), v), (5,), (2, 3), order=0)
case("searchsorted right sorter", lambda xp, a, v: xp.searchsorted(a, v, "right", xp.argsort(a)), (5,), (2, 3), order=0)
case("digitize", lambda xp, x: xp.digitize(x, [-1.0, 0.0, 1.0], right=True), (3, 4), order=0)
case("nonzero", lambda xp, x: xp.nonzero(x > 0)[1], (3, 4), order=0)
case("flatnonzero", lambda xp, x: xp.flatnonzero(x > 0), (3, 4), order=0)
case("argwhere", lambda xp, x: xp.argwhere(x > 0), (3, 4), order=0)
case("isin", lambda xp, x: xp.isin(x, x[0], invert=True), (3, 4), order=0)
case("bincount", lambda xp, x: xp.bincount((x + 3).astype(int), minlength=9), (5,), order=0)
case("bincount weights", lambda xp, w: xp.bincount(np.array([0, 3, 3, 1]), w, 6), (4,))
case("histogram", lambda xp, x: xp.histogram(x, 4, (-1.0, 2.0))[0], (3, 4), order=0)
case("histogram density", lambda xp, x: xp.histogram(x, [-1.0, 0.0, 2.0], density=True)[0], (3, 4), order=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(CASES))
def test_an_operation_in_every_way(name):
    f, shapes, theirs, keywords = CASES[name]
    arrays = [numbers(shape, k) for k, shape in enumerate(shapes)]
    theirs = theirs or (lambda *a: f(np, *a))
    check(lambda *a: f(fnp, *a), theirs, *arrays, **keywords)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(CASES))
def test_contract_27_float32_stays(name):
    f, shapes, theirs, keywords = CASES[name]
    arrays = [numbers(shape, k).astype(np.float32) for k, shape in enumerate(shapes)]
    expected = (theirs or (lambda *a: f(np, *a)))(*arrays)
    ours = f(fnp, *map(fg.tensor, arrays))
    if keywords.get("order") == 0 or "weights" in name:
        assert ours.dtype == expected.dtype
    else:
        assert ours.dtype == np.float32
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n, c in CASES.items() if "NaN" not in n and len(c[1]) == 1])
def test_integers_give_what_numpy_gives(name):
    f, shapes, theirs, keywords = CASES[name]
    x = (10 * numbers(shapes[0])).astype(int)
    expected = np.asarray((theirs or (lambda *a: f(np, *a)))(x))
    ours = f(fnp, fg.tensor(x))
    assert ours.dtype == expected.dtype
    if "part" not in name:
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12, atol=1e-12)
