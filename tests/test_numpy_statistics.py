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
        case(f"{name} with NaN axis={axis}", lambda xp, x, n=name, a=axis: getattr(xp, n)(x + HOLES.astype(x.dtype), axis=a), (3, 4))

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
         (4, 2), (4,), explained=edge == 1)      # too long to be told in full
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
@pytest.mark.parametrize("name", [n for n, c in CASES.items() if "NaN" not in n and n != "bincount" and len(c[1]) == 1])
def test_integers_give_what_numpy_gives(name):
    f, shapes, theirs, keywords = CASES[name]
    x = (10 * numbers(shapes[0])).astype(int)
    expected = np.asarray((theirs or (lambda *a: f(np, *a)))(x))
    ours = f(fnp, fg.tensor(x))
    assert ours.dtype == expected.dtype
    if "part" not in name:
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c[3].get("order") == 0 and "nonzero" != n[:7] and "where" not in n[-5:]])
def test_an_answer_for_each_of_a_batch(name):
    f, shapes, _, _ = CASES[name]
    batches = [np.stack([numbers(shape, k), numbers(shape, k)[::-1] if shape else -numbers(shape, k)]) for k, shape in enumerate(shapes)]
    if name in ("flatnonzero", "argwhere"):
        batches = [np.stack([b[0], b[0]]) for b in batches]
    ours = fg.vmap(lambda *a: f(fnp, *a))(*batches)
    same(ours, np.stack([f(np, *(b[i] for b in batches)) for i in range(2)]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n, c in CASES.items() if 0 not in c[1][0]])
def test_numpys_name_leads_to_the_same(name):
    f, shapes, theirs, keywords = CASES[name]
    leaves = [fg.tensor(numbers(shape, k), requires_grad=True) for k, shape in enumerate(shapes)]
    ours, same = f(fnp, *leaves), f(np, *leaves)
    assert isinstance(same, fg.Tensor) and same.requires_grad == ours.requires_grad
    np.testing.assert_array_equal(same.detach().numpy(), ours.detach().numpy())


# ------------------------------------------------------------------------------------- where calculus or NumPy is silent

def gradient_of(f, x):
    return fg.grad(lambda x: fnp.sum(f(x)))(np.array(x, float))


def same(a, b):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("f", [fnp.std, fnp.nanstd, lambda x: fnp.std(x, axis=-1), lambda x: fnp.std(x, ddof=1),
                               lambda x: fnp.std(x, where=np.array([True, True, True, False, True, True]))])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e300, -1e-300])
def test_contract_09_no_spread(f, value):
    x = np.full(6, value)
    assert float(f(x)) == 0
    same(gradient_of(f, x), np.zeros(6))
    same(fg.jvp(f, (x,), (np.arange(6.0),))[1], 0.0)
    same(fg.hessian(lambda x: fnp.sum(f(x)))(x), np.zeros((6, 6)))
    same(fg.compile(fg.grad(lambda x: fnp.sum(f(x))))(x), np.zeros(6))
    same(fg.vmap(fg.grad(lambda x: fnp.sum(f(x))))(np.stack([x, x])), np.zeros((2, 6)))


def test_contract_09_a_row_without_spread_leaves_the_others_alone():
    x = np.array([[0.1, 0.1, 0.1], [1.0, 2.0, 4.0]])
    g = gradient_of(lambda x: fnp.std(x, axis=1), x)
    same(g[0], np.zeros(3))
    np.testing.assert_allclose(g[1], gradient_of(fnp.std, x[1]), rtol=1e-14)
    assert np.isnan(float(fnp.std([inf, inf]))) and np.isnan(float(fnp.std([nan, 1.0])))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n, ddof", [(1, 1), (2, 2), (2, 3), (1, 2)])
@pytest.mark.parametrize("name", ["var", "std", "nanvar", "nanstd"])
def test_contract_09_too_few_elements(name, n, ddof):
    x = np.arange(1.0, 1 + n)
    same(getattr(fnp, name)(x, ddof=ddof).numpy(), getattr(np, name)(x, ddof=ddof))


def test_contract_04_ties():
    same(gradient_of(fnp.ptp, [1.0, 3.0, 1.0, 3.0]), [-0.5, 0.5, -0.5, 0.5])
    same(gradient_of(fnp.ptp, [2.0, 2.0]), [0.0, 0.0])
    same(gradient_of(fnp.nanmax, [3.0, nan, 3.0, 1.0]), [0.5, 0.0, 0.5, 0.0])
    same(gradient_of(fnp.nanmin, [3.0, nan, 3.0, 5.0]), [0.5, 0.0, 0.5, 0.0])
    same(gradient_of(lambda x: fnp.sort(x) * np.array([1.0, 2.0, 3.0, 4.0]), [1.0, 0.0, 1.0, 0.0]), [3.0, 1.0, 4.0, 2.0])
    same(gradient_of(lambda x: fnp.unique(x) * np.array([1.0, 2.0]), [1.0, 0.0, 1.0, 0.0]), [2.0, 1.0, 0.0, 0.0])
    assert gradient_of(fnp.median, [1.0, 1.0, 1.0, 1.0]).sum() == 1


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("axis, shape", [(None, (5000,)), (0, (700, 3)), (1, (3, 700)), (None, (30, 200))])
def test_contract_09_no_spread_in_large_arrays(axis, shape, dtype):
    rng = np.random.default_rng(3)
    spread = rng.normal(size=shape).astype(dtype)
    for x in (spread, np.full(shape, 0.1, dtype), np.full(shape, 1e30, dtype)):
        ours = fnp.std(x, axis=axis)
        assert ours.dtype == dtype
        if x is spread:
            np.testing.assert_allclose(ours.numpy(), np.std(x, axis=axis), rtol=1e-5 if dtype == np.float32 else 1e-13)
        else:
            same(ours.numpy(), np.zeros(ours.shape))
            same(fg.grad(lambda x: fnp.sum(fnp.std(x, axis=axis)))(x), np.zeros(shape))


@pytest.mark.parametrize("size", [10, 101, 5000])
def test_contract_04_sorting_is_stable(size):
    rng = np.random.default_rng(5)
    for x in (rng.normal(size=size), rng.integers(0, 20, size) / 4, np.where(rng.random(size) < 0.3, nan, rng.normal(size=size)),
              np.where(rng.random(size) < 0.5, 0.0, -0.0)):
        order = np.argsort(x, kind="stable")
        weights = rng.normal(size=size)
        expected = np.zeros(size)
        expected[order] = weights
        same(gradient_of(lambda x: fnp.sort(x) * weights, x), expected)
        with fg.Tape():
            recorded = fnp.sort(fg.tensor(x, requires_grad=True)).detach().numpy()
        for ours in (recorded, fnp.sort(x).numpy(), np.asarray(fg.compile(fnp.sort)(x))):
            same(ours, x[order])
            same(np.signbit(ours), np.signbit(x[order]))


@pytest.mark.parametrize("name", ["cumprod", "nancumprod"])
@pytest.mark.parametrize("x", [[2.0, 0.0, 3.0, 4.0], [0.0, 0.0, 3.0, 2.0], [1.0, 0.0, 2.0, 0.0]])
def test_contract_13_a_running_product_of_zeros(name, x):
    x = np.array(x)
    expected = np.array([[np.prod(np.delete(x[:i + 1], k)) if k <= i else 0.0 for k in range(4)] for i in range(4)])
    for jacobian in (fg.jacrev, fg.jacfwd):
        same(jacobian(getattr(fnp, name))(x), expected)
    second = [[np.prod(np.delete(x, [j, k])) if j != k else 0.0 for j in range(4)] for k in range(4)]
    same(fg.hessian(lambda x: getattr(fnp, name)(x)[-1])(x), second)


def test_contract_16_nan_in_one_element():
    x = [3.0, nan, 1.0, 2.0]
    assert all(np.isnan(float(f(x))) for f in (fnp.median, fnp.var, fnp.std, lambda x: fnp.quantile(x, 0.2), fnp.ptp))
    same(gradient_of(fnp.median, x), [0.0, 1.0, 0.0, 0.0])
    same(fnp.median([x, [1.0, 2.0, 3.0, 4.0]], axis=1).numpy(), [nan, 2.5])
    same(fnp.sort(x).numpy(), [1.0, 2.0, 3.0, nan])
    for name in ("nansum", "nanprod", "nanmean", "nanmax", "nanmin", "nanvar", "nanstd", "nancumsum", "nancumprod"):
        g = gradient_of(getattr(fnp, name), x)
        assert g[1] == 0 and np.isfinite(g).all(), name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["nansum", "nanprod", "nanmean", "nanmax", "nanmin", "nanvar", "nanstd", "nancumsum"])
def test_rows_of_nothing_but_nan(name):
    x = np.array([[nan, nan], [1.0, 2.0]])
    same(getattr(fnp, name)(x, axis=1).numpy(), getattr(np, name)(x, axis=1))
    g = gradient_of(lambda x: getattr(fnp, name)(x, axis=1), x)
    same(g[0], [0.0, 0.0])
    assert np.isfinite(g[1]).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["var", "std", "median", "nansum", "nanmean", "nanvar", "nanstd", "nanprod", "cumsum",
                                  "cumprod", "sort", "argsort", "unique", "diff", "nonzero", "count_nonzero", "any", "all"])
def test_contract_22_of_nothing(name):
    for x, keywords in [(np.zeros(0), {}), (np.zeros((0, 3)), {"axis": 1}), (np.zeros((0, 3)), {"axis": 0})]:
        if keywords and name in ("nonzero", "unique") or name == "cumprod" and keywords == {"axis": 0}:
            continue
        expected, ours = getattr(np, name)(x, **keywords), getattr(fnp, name)(x, **keywords)
        if isinstance(expected, tuple):
            (expected,), (ours,) = expected, ours
        same(ours.numpy(), expected)
        if ours.dtype == np.float64:
            assert gradient_of(lambda x: getattr(fnp, name)(x, **keywords), x).shape == x.shape


@pytest.mark.parametrize("name", ["ptp", "nanmax", "nanmin", "argmax", "nanargmin"])
def test_contract_22_of_nothing_is_an_error(name):
    for namespace in (np, fnp):
        with pytest.raises(ValueError):
            getattr(namespace, name)(np.zeros(0))


def test_quantiles_beside_infinity():
    same(fnp.quantile([0.0, inf], [0.0, 0.5, 1.0]).numpy(), [0.0, inf, inf])
    same(fnp.quantile([-inf, 1.0, 2.0], [0.0, 0.75]).numpy(), [-inf, 1.5])
    same(gradient_of(lambda x: fnp.quantile(x, [0.0, 1.0]), [1.0, 5.0, 3.0]), [1.0, 1.0, 0.0])


def test_gradients_flow_through_lists_of_tensors():
    def f(x):
        return fnp.var([x, x * 2, x * 3]) + fnp.median([x, 5 * x, 2 * x]) + fnp.sort([x, 0.0])[-1] + fnp.cumsum([x, x])[1]

    np.testing.assert_allclose(fg.grad(f)(2.0), 2 * 2 * 2 / 3 + 2 + 1 + 2)


def test_results_go_into_out():
    x = fg.tensor([3.0, 1.0, 2.0], requires_grad=True)
    for name in ("var", "std", "median", "ptp", "nansum", "nanmax"):
        out = fg.tensor(0.0)
        assert getattr(fnp, name)(x, out=out) is out and out.requires_grad
        assert float(out.detach()) == float(getattr(np, name)(x.detach().numpy()))
    plain = np.zeros(3)
    assert fnp.cumsum([1.0, 2.0, 3.0], out=plain) is plain
    same(plain, [1.0, 3.0, 6.0])
    with pytest.raises(TypeError, match="lose its gradient"):
        fnp.cumsum(x, out=plain)


def test_answers_without_gradient_of_what_is_being_differentiated():
    def f(x):
        y = x * 2
        assert not fnp.any(np.isnan(y)) and fnp.all(y > 0) and int(fnp.argmax(y)) == 0 and int(np.argmin(y)) == 1
        assert int(np.count_nonzero(y)) == 3 and np.searchsorted([0.0, 3.0], y).tolist() == [2, 1, 2]
        assert not fnp.argsort(y).requires_grad and not fnp.histogram(y, 2)[0].requires_grad
        return fnp.sum(y * (fnp.digitize(y, [3.0]) + fnp.isin(y, [2.0])))

    same(fg.grad(f)(np.array([3.0, 1.0, 2.0])), [2.0, 2.0, 2.0])


def test_a_program_finds_other_places_for_other_numbers():
    f = fg.compile(fg.grad(lambda x: fnp.median(x) + fnp.sort(x)[0] * 2 + x[fnp.argmax(x)] * 3))
    for x in ([1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [2.0, 3.0, 1.0]):
        x = np.array(x)
        same(f(x), np.select([x == 1, x == 2, x == 3], [2.0, 1.0, 3.0]))
    assert f.recordings == 1


def test_bincount_by_weights():
    places = np.array([0, 2, 2])
    check(lambda w: fnp.bincount(places, w), lambda w: np.bincount(places, w), np.array([1.0, 2.0, 4.0]))
    with pytest.raises(TypeError, match="bincount: .* make x outside"):
        fg.compile(lambda x, w: fnp.bincount(x, w))(places, np.ones(3))
    with pytest.raises(ValueError, match="bincount: x has shape"):
        fg.grad(lambda w: fnp.bincount(places, w).sum())(np.ones(4))


@pytest.mark.parametrize("call, error, text", [
    (lambda x: fnp.var(x, axis=2), ValueError, "var: axis 2 is out of bounds"),
    (lambda x: fnp.std(x, axis=(0, 0)), ValueError, "std: repeated axis|repeated axis"),
    (lambda x: fnp.var(x, ddof=1, correction=1), ValueError, "var: ddof and correction"),
    (lambda x: fnp.var(x, where=np.ones((2, 3), bool)), ValueError, r"var: where= of shape \(2, 3\)"),
    (lambda x: fnp.nansum(x, where=[1.0, 2.0, 3.0]), TypeError, "nansum: where= has to be bool"),
    (lambda x: fnp.sort(x, axis=1), ValueError, "sort: axis 1 is out of bounds"),
    (lambda x: fnp.sort(x, order="a"), TypeError, "sort: order="),
    (lambda x: fnp.partition(x, 3), ValueError, r"partition: kth=3 is out of bounds for axis 0 of shape \(3,\)"),
    (lambda x: fnp.quantile(x, 1.5), ValueError, "quantile: q must be from 0 to 1"),
    (lambda x: fnp.percentile(x, -1), ValueError, "percentile: q must be from 0 to 100"),
    (lambda x: fnp.quantile(x, 0.5, method="hazen"), ValueError, "quantile: method 'hazen' is not supported"),
    (lambda x: fnp.quantile(x, x[0]), TypeError, "quantile: q "),
    (lambda x: fnp.average(x, weights=[1.0, 2.0]), TypeError, "average: .*axis="),
    (lambda x: fnp.average(x, 0, [1.0, 2.0]), ValueError, r"average: weights of shape \(2,\)"),
    (lambda x: fnp.average(x, weights=[1.0, -1.0, 0.0]), ZeroDivisionError, "average: the weights sum to 0"),
    (lambda x: fnp.diff(x, -1), ValueError, "diff: n "),
    (lambda x: fnp.diff(x[0]), ValueError, "diff: a has to have"),
    (lambda x: fnp.diff(x, prepend=[[1.0]]), ValueError, r"diff: .*\(1, 1\)"),
    (lambda x: fnp.gradient(x[:1]), ValueError, "gradient: axis 0 of shape"),
    (lambda x: fnp.gradient(x, edge_order=3), ValueError, "gradient: edge_order"),
    (lambda x: fnp.gradient(x, [1.0, 2.0]), ValueError, "gradient: coordinates of shape"),
    (lambda x: fnp.gradient(x, 1.0, 2.0), TypeError, "gradient: there are 1 axes and 2"),
    (lambda x: fnp.trapezoid(x, [1.0, 2.0]), ValueError, r"trapezoid: x of shape \(2,\)"),
    (lambda x: fnp.cumulative_sum(fnp.stack([x, x])), ValueError, "cumulative_sum: axis="),
    (lambda x: fnp.ediff1d(np.arange(3), 0.5), TypeError, "ediff1d: to_begin and to_end"),
    (lambda x: fnp.nanargmax(x * nan), ValueError, r"nanargmax of shape \(3,\)"),
    (lambda x: fnp.digitize(x, [1.0, 0.0, 2.0]), ValueError, "digitize of shape"),
    (lambda x: fnp.nonzero(x[0]), ValueError, "nonzero"),
    (lambda x: fnp.histogram(x, weights=x), TypeError, "numpy.histogram with weights="),
    (lambda x: fnp.var(np.ones(2, complex)), TypeError, "complex128"),
])
def test_contract_47_errors_name_the_operation(call, error, text):
    with pytest.raises(error, match=text):
        call(fg.tensor([1.0, 2.0, 4.0], requires_grad=True))
