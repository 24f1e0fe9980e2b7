"""Arranging elements: another order or shape, padding, parts, picking, diagonals; CONTRACT 19-23, 25, 27, 47.

Every case of CASES goes through everything that fastgrad offers (``everywhere.check``); values are compared with NumPy's in
float32 and on integers, too, by the names of fastgrad.numpy and by NumPy's.
"""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

sys.path.insert(0, str(Path(__file__).resolve().parent))

from everywhere import check, lowered  # noqa: E402

CASES = {}


def case(name, function, *shapes):
    assert name not in CASES
    CASES[name] = (function, shapes)


def added(parts):
    """The sum of several results, each with its own weights, so that no two can be exchanged."""
    total = 0.0
    for k, part in enumerate(parts):
        total = total + (1.25 + 0.5 * k) * (part * part).sum()
    return total


def changed(xp, change, x, *more):
    """What an operation that changes its argument makes of a copy."""
    y = xp.copy(x)
    change(y, *more)
    return y * y


for shape, axes in [((), (None, ())), ((4,), (None, 0, -1)), ((2, 3), (None, 0, 1, (0, 1), (-1,))), ((2, 3, 4), (1, (0, 2))),
                    ((0, 3), (None, 0))]:
    for axis in axes:
        case(f"flip {shape} axis={axis}", lambda xp, x, a=axis: xp.flip(x, a), shape)
for shape in [(2, 3), (3, 2, 2), (0, 3)]:
    case(f"fliplr {shape}", lambda xp, x: xp.fliplr(x), shape)
    case(f"flipud {shape}", lambda xp, x: xp.flipud(x), shape)
case("flipud (3,)", lambda xp, x: xp.flipud(x), (3,))
for shape, shift, axis in [((), 1, None), ((5,), 2, None), ((5,), -7, 0), ((2, 3), 1, None), ((2, 3), 1, 1), ((2, 3), (1, 2), (0, 1)),
                           ((2, 3), 1, (0, 1)), ((2, 3), (1, 1), (1, 1)), ((2, 3), (1, 2), 1), ((0, 3), 1, 0), ((2, 3), 3, -1),
                           ((2, 3), (1, 2), None), ((4,), 0, 0)]:
    case(f"roll {shape} {shift} axis={axis}", lambda xp, x, s=shift, a=axis: xp.roll(x, s, a), shape)
for axis, start in [(2, 0), (0, 3), (0, 2), (1, 1), (-1, 1), (1, -1), (0, 0)]:
    case(f"rollaxis {axis} {start}", lambda xp, x, a=axis, s=start: xp.rollaxis(x, a, s), (2, 3, 4))
for k in (-1, 0, 1, 2, 3, 6):
    case(f"rot90 {k}", lambda xp, x, k=k: xp.rot90(x, k), (2, 3))
    case(f"rot90 {k} (2, 1)", lambda xp, x, k=k: xp.rot90(x, k, (2, 1)), (2, 3, 2))
for shape, repeats, axis in [((), 3, None), ((3,), 2, None), ((3,), [2, 0, 3], 0), ((2, 3), 2, None), ((2, 3), 2, 0), ((2, 3), 3, -1),
                             ((2, 3), [1, 2], 0), ((2, 3), [3], 1), ((2, 3), 0, 1), ((2, 3), 1, 1), ((0, 3), 2, 0), ((0, 3), 2, 1),
                             ((2,), [0, 0], 0)]:
    case(f"repeat {shape} {repeats} axis={axis}", lambda xp, x, r=repeats, a=axis: xp.repeat(x, r, a), shape)
for shape, reps in [((), 3), ((), (2, 2)), ((3,), 2), ((3,), (2, 1)), ((3,), (2, 2)), ((2, 3), 2), ((2, 3), (2, 1)), ((2, 3), (2, 1, 3)),
                    ((2, 3), (1, 1)), ((2, 3), 0), ((0, 3), (2, 2)), ((2, 3), ()), ((2, 3), (1, 1, 1))]:
    case(f"tile {shape} {reps}", lambda xp, x, r=reps: xp.tile(x, r), shape)
for shape, new in [((3,), 7), ((3,), 2), ((3,), (2, 2)), ((2, 3), (3, 3)), ((2, 3), (6,)), ((), (2, 2)), ((2, 3), (0, 2)), ((3,), ()),
                   ((3,), (2, 3))]:
    case(f"resize {shape} {new}", lambda xp, x, n=new: xp.resize(x, n), shape)
case("resize of nothing", lambda xp, x: xp.resize(x, (2, 2)) + 0 * x.sum(), (0,))

WIDTHS = [((2,), (19, 25)), ((4,), 2), ((4,), (0, 3)), ((4,), ((7, 11),)), ((3, 4), 1), ((3, 4), ((2, 0), (1, 5))),
          ((2, 3, 4), ((0, 0), (1, 2), (0, 0))),
          ((3, 4), (2, 1)), ((3, 1), 2), ((3, 4), 0)]
OPTIONS = [("constant", {}), ("constant", {"constant_values": 1.5}), ("constant", {"constant_values": (1.5, -2.0)}), ("edge", {}),
           ("reflect", {}), ("symmetric", {}), ("wrap", {}), ("reflect", {"reflect_type": "odd"}),
           ("symmetric", {"reflect_type": "odd"}), ("linear_ramp", {}), ("linear_ramp", {"end_values": (1.5, -2.0)}), ("maximum", {}),
           ("minimum", {}), ("mean", {}), ("median", {}), ("maximum", {"stat_length": 2}), ("minimum", {"stat_length": (1, 9)}),
           ("mean", {"stat_length": 2}), ("median", {"stat_length": (2, 3)})]
for shape, width in WIDTHS:
    for mode, options in OPTIONS:
        case(f"pad {shape} {width} {mode} {options}", lambda xp, x, w=width, m=mode, o=options: xp.pad(x, w, m, **o), shape)
case("pad {-1: (1, 2)}", lambda xp, x: xp.pad(x, {-1: (1, 2)}), (2, 3))
case("pad {0: 2} edge", lambda xp, x: xp.pad(x, {0: 2}, "edge"), (2, 3))
case("pad ()", lambda xp, x: xp.pad(x, 1), ())
case("pad nothing", lambda xp, x: xp.pad(x, 1) + 0 * x.sum(), (0, 2))
case("pad nothing edge", lambda xp, x: xp.pad(x, ((0, 0), (1, 1)), "edge"), (0, 2))
case("pad constants of each axis", lambda xp, x: xp.pad(x, 1, constant_values=((1.0, 2.0), (3.0, 4.0))), (2, 3))

for shape in [(), (3,), (2, 3), (2, 3, 4), (0,), (2, 1, 3, 2)]:
    for name in ("atleast_1d", "atleast_2d", "atleast_3d"):
        case(f"{name} {shape}", lambda xp, x, f=name: getattr(xp, f)(x), shape)
case("atleast_2d of several", lambda xp, x, y: added(xp.atleast_2d(x, y)), (), (3,))
for shapes in [((2, 1), (3,)), ((), (2, 3)), ((2, 3), (2, 3)), ((0, 1), (3,))]:
    case(f"broadcast_arrays {shapes}", lambda xp, *xs: added(xp.broadcast_arrays(*xs)), *shapes)
for indexing in ("xy", "ij"):
    for sparse in (False, True):
        for shapes in [((2,), (3,)), ((2,), (3,), (4,)), ((2,),), ((), (3,)), ((0,), (3,))]:
            case(f"meshgrid {shapes} {indexing} sparse={sparse}",
                 lambda xp, *xs, i=indexing, s=sparse: added(xp.meshgrid(*xs, indexing=i, sparse=s)), *shapes)
case("matrix_transpose", lambda xp, x: xp.matrix_transpose(x), (2, 3, 4))

for name, shapes in [("vstack", ((3,), (2, 3))), ("vstack", ((), ())), ("vstack", ((0, 3), (3,))), ("hstack", ((2,), (3,))),
                     ("hstack", ((), (2,))), ("hstack", ((2, 3), (2, 1))), ("dstack", ((2, 3), (2, 3))), ("dstack", ((3,), (3,))),
                     ("dstack", ((2, 3, 1), (2, 3, 2))), ("column_stack", ((2,), (2, 3))), ("column_stack", ((2,), (2,), (2,))),
                     ("column_stack", ((), ()))]:
    case(f"{name} {shapes}", lambda xp, *xs, f=name: getattr(xp, f)(xs), *shapes)
case("vstack of a matrix", lambda xp, x: xp.vstack(x), (3, 2))
case("block", lambda xp, a, b, c, d: xp.block([[a, b], [c, d]]), (2, 2), (2, 1), (1, 2), (1, 1))
case("block of lists and numbers", lambda xp, a, b: xp.block([[a, b], [b, a]]), (), (2,))
case("block in a row", lambda xp, a, b: xp.block([a, b]), (2,), (3,))
case("block of one", lambda xp, a: xp.block(a), (2, 3))
case("block of three axes", lambda xp, a, b: xp.block([[[a, b]], [[b, a]]]), (2, 1), (2, 3))
case("block of three axes and rows", lambda xp, a, b: xp.block([[a], [b]]), (2, 2, 3), (2, 1, 3))
for name, shape, where, axis in [("split", (6,), 3, 0), ("split", (6,), [1, 4], 0), ("split", (2, 4), 2, 1), ("split", (2, 4), [3, 9], -1),
                                 ("split", (4,), [3, 1], 0), ("array_split", (7,), 3, 0), ("array_split", (2,), 3, 0),
                                 ("array_split", (2, 5), [2], 1), ("split", (0, 2), 2, 0), ("split", (4,), [-1], 0)]:
    case(f"{name} {shape} {where} axis={axis}", lambda xp, x, f=name, w=where, a=axis: added(getattr(xp, f)(x, w, a)), shape)
for name, shape in [("hsplit", (4,)), ("hsplit", (3, 4)), ("vsplit", (4, 2)), ("dsplit", (1, 2, 4))]:
    case(f"{name} {shape} 2", lambda xp, x, f=name: added(getattr(xp, f)(x, 2)), shape)
    case(f"{name} {shape} [1, 2]", lambda xp, x, f=name: added(getattr(xp, f)(x, [1, 2])), shape)
for shape, axis in [((3,), 0), ((2, 3), 1), ((2, 3, 2), -1)]:
    case(f"unstack {shape} axis={axis}", lambda xp, x, a=axis: added(xp.unstack(x, axis=a)), shape)
for shapes, axis in [(((3,), (2,)), None), (((2, 3), (1, 2)), None), (((2, 3), (1, 3)), 0), (((2, 3), (2, 2)), -1), (((), ()), None)]:
    case(f"append {shapes} axis={axis}", lambda xp, x, y, a=axis: xp.append(x, y, a), *shapes)
for shape, obj, values, axis in [
        ((4,), 1, (), None), ((4,), -1, (), None), ((4,), 4, (), 0), ((4,), [1, 3], (), None), ((4,), [1, 1, 4], (3,), None),
        ((4,), [3, 0], (2,), 0), ((4,), 2, (3,), None), ((4,), [2], (3,), None), ((4,), slice(1, 4, 2), (), None), ((2, 3), 1, (), None),
        ((2, 3), 1, (), 1), ((2, 3), 1, (3,), 0), ((2, 3), 1, (2,), 1), ((2, 3), 1, (2, 2), 1), ((2, 3), [1], (2, 2), 1),
        ((2, 3), [0, 2], (2, 2), 1), ((2, 3), [0, 2], (2,), 1), ((2, 3), [], (), 1),
        ((4,), np.array([True, False, True, False]), (), None),
        ((2, 3), [1], (2, 1), 1), ((0,), 0, (2,), None), ((2, 3), -1, (), -1)]:
    case(f"insert {shape} {obj} {values} axis={axis}", lambda xp, x, v, o=obj, a=axis: xp.insert(x, o, v, a), shape, values)
for shape, obj, axis in [((40,), slice(None, None, 2), 0), ((9, 2), [1, 4, 5], 0), ((4,), 1, None),
                         ((4,), -1, 0), ((4,), [0, 2], None), ((4,), slice(None, None, 2), None),
                         ((2, 3), 1, 1),
                         ((2, 3), [0, 0], 0), ((2, 3), 4, None), ((4,), [True, False, True, False], 0), ((4,), [], 0),
                         ((2, 3), slice(2, 0, -1), 1)]:
    case(f"delete {shape} {obj} axis={axis}", lambda xp, x, o=obj, a=axis: xp.delete(x, o, a), shape)

for shape, indices, axis, mode in [((4,), [3, 0, 3], None, "raise"), ((2, 3), [[5, 0], [1, 1]], None, "raise"), ((2, 3), [2, -1], 1, "raise"),
                                   ((2, 3), 1, 0, "raise"), ((2, 3), [7, -4, 2], 1, "wrap"), ((2, 3), [7, -4, 2], 1, "clip"),
                                   ((2, 3), [], 1, "raise"), ((), 0, None, "raise"), ((2, 3, 4), [[0, 1]], 1, "raise")]:
    case(f"take {shape} {indices} axis={axis} {mode}", lambda xp, x, i=indices, a=axis, m=mode: xp.take(x, i, a, mode=m), shape)
for shape, indices, axis in [((4,), [3, 0, 3], 0), ((2, 3), [[2, 0], [1, 1]], 1), ((2, 3), [[1, 0, 1]], 0), ((2, 3), [[2, -1]], 1),
                             ((2, 3), [5, 0, 5], None), ((1, 3), [[2, 0], [1, 1]], 1), ((2, 3, 2), [[[0], [1], [0]]], 2),
                             ((2, 3), np.zeros((2, 0), int), 1)]:
    case(f"take_along_axis {shape} {np.shape(indices)} axis={axis}",
         lambda xp, x, i=indices, a=axis: xp.take_along_axis(x, np.array(i), a), shape)
for shape, indices, values, axis in [((4,), [3, 0], (2,), 0), ((2, 3), [[2], [1]], (2, 1), 1), ((2, 3), [[2, 0], [1, 2]], (), 1),
                                     ((2, 3), [[1, 0, 1]], (3,), 0), ((2, 3), [5, 0], (2,), None)]:
    case(f"put_along_axis {shape} {indices} axis={axis}",
         lambda xp, x, v, i=indices, a=axis: changed(xp, lambda y: xp.put_along_axis(y, np.array(i), v, a), x), shape, values)
for a, shapes, mode in [([0, 1, 0], ((3,), (3,)), "raise"), ([[1], [0]], ((3,), ()), "raise"), (1, ((2, 3), (3,)), "raise"),
                        ([3, -1, 2], ((3,), (3,)), "wrap"), ([3, -1, 2], ((3,), (3,)), "clip"), ([0, 2, 1], ((2, 1), (3,), (2, 3)), "raise")]:
    case(f"choose {a} {shapes} {mode}", lambda xp, *xs, a=a, m=mode: xp.choose(np.array(a), xs, mode=m), *shapes)
case("choose rows", lambda xp, x: xp.choose(np.array([1, 0, 1]), x), (2, 3))
case("select", lambda xp, x, y: xp.select([x > 0.5, x > -0.5], [x * y, y * y], x), (2, 3), (2, 3))
case("select of numbers", lambda xp, x: xp.select([x > 0.5, x > -0.5], [x * x, 2.0]), (5,))
case("select broadcasts", lambda xp, x, y: xp.select([np.array([[True], [False]]), np.array([True, False, True])], [x, y], 3.0), (3,), (2, 1))
for condition, axis in [([True, False, True], 1), ([False, True], 0), ([0, 1, 1, 0, 1], None), ([True], 1), ([False, False], 0)]:
    case(f"compress {condition} axis={axis}", lambda xp, x, c=condition, a=axis: xp.compress(c, x, a), (2, 3))
case("extract", lambda xp, x: xp.extract([[True, False, True], [False, True, True]], x), (2, 3))
case("piecewise", lambda xp, x: xp.piecewise(x, [x < -0.3, x > 0.4], [lambda x: x * x, lambda x: x**3 + 1]), (2, 4))
case("piecewise with the rest", lambda xp, x: xp.piecewise(x, [x < -0.3, x > 0.4], [lambda x: x * x, 2.0, lambda x: x**3]), (2, 4))
case("piecewise, the last holds", lambda xp, x: xp.piecewise(x, [x > -0.3, x > 0.4], [lambda x: x * x, lambda x: x**3]), (6,))
case("piecewise of one condition", lambda xp, x: xp.piecewise(x, x > 0.4, [lambda x: x * x, lambda x: x**3]), (6,))
case("piecewise of a number", lambda xp, x: xp.piecewise(x, [x > 0.4], [lambda x: x * x, lambda x: x**3]), ())
case("piecewise with arguments", lambda xp, x: xp.piecewise(x, [x > 0.4], [lambda x, a, b: a * x + b], 3.0, b=2.0), (6,))
case("copyto", lambda xp, x, y: changed(xp, lambda z: xp.copyto(z, y), x), (2, 3), (3,))
case("copyto where", lambda xp, x, y: changed(xp, lambda z: xp.copyto(z, y, where=np.array([True, False, True])), x), (2, 3), (2, 1))

for shape in [(3, 3), (2, 4), (4, 2), (1, 3), (0, 2)]:
    for k in (-1, 0, 1, 2):
        for name in ("diag", "diagonal", "trace", "tril", "triu"):
            case(f"{name} {shape} {k}", lambda xp, x, f=name, k=k: getattr(xp, f)(x, k), shape)
for k in (-2, 0, 1):
    case(f"diag (3,) {k}", lambda xp, x, k=k: xp.diag(x, k), (3,))
    case(f"diag (0,) {k}", lambda xp, x, k=k: xp.diag(x, k) + 0 * x.sum(), (0,))
    case(f"diagflat {k}", lambda xp, x, k=k: xp.diagflat(x, k), (2, 2))
    case(f"tril (3,) {k}", lambda xp, x, k=k: xp.tril(x, k), (3,))
    case(f"triu of a stack {k}", lambda xp, x, k=k: xp.triu(x, k), (2, 3, 2))
    for axes in [(0, 1), (2, 0), (-2, -1)]:
        case(f"diagonal (2, 3, 4) {k} {axes}", lambda xp, x, k=k, a=axes: xp.diagonal(x, k, *a), (2, 3, 4))
        case(f"trace (2, 3, 4) {k} {axes}", lambda xp, x, k=k, a=axes: xp.trace(x, k, *a), (2, 3, 4))
case("diagflat ()", lambda xp, x: xp.diagflat(x), ())
for shape, values, wrap in [((3, 3), (), False), ((2, 4), (), False), ((5, 2), (), False), ((5, 2), (), True), ((3, 3), (3,), False),
                            ((3, 3), (2,), False), ((3, 3), (2, 2), False), ((2, 2, 2), (2,), False)]:
    case(f"fill_diagonal {shape} {values} wrap={wrap}",
         lambda xp, x, v, w=wrap: changed(xp, lambda y: xp.fill_diagonal(y, v, w), x), shape, values)


def numbers(shapes, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize("name", CASES)
def test_everywhere(name):
    function, shapes = CASES[name]
    check(lambda *xs: function(fnp, *xs), lambda *xs: function(np, *xs), *numbers(shapes))


@pytest.mark.parametrize("name", CASES)
def test_contract_27_float32_stays_and_numpy_leads_to_the_same(name):
    function, shapes = CASES[name]
    arrays = [a.astype(np.float32) for a in numbers(shapes)]
    expected = np.asarray(function(np, *arrays))
    for xp in (fnp, np):
        leaves = [fg.tensor(a, requires_grad=True) for a in arrays]
        out = function(xp, *leaves)
        assert out.requires_grad
        assert out.dtype == expected.dtype == np.float32
        np.testing.assert_allclose(lowered(out), expected, rtol=1e-5, atol=1e-5)
        fnp.sum(out * out).backward()
        assert all(leaf.grad.dtype == np.float32 for leaf in leaves)


@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith(("pad", "copyto", "fill", "put", "select", "piecewise", "added"))])
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_integers_as_numpy(name, dtype):
    function, shapes = CASES[name]
    arrays = [np.round(10 * a).astype(dtype) for a in numbers(shapes)]
    expected = np.asarray(function(np, *arrays))
    for given in (arrays, list(map(fg.tensor, arrays))):
        out = function(fnp, *given)
        assert lowered(out).dtype == expected.dtype
        np.testing.assert_array_equal(lowered(out), expected)


INTEGERS = np.array([[3, -1, 4], [1, -5, 9]])


@pytest.mark.parametrize("name, call", [
    (f"pad {mode} {options}", lambda xp, x, m=mode, o=options: xp.pad(x, ((1, 2), (3, 1)), m, **o)) for mode, options in OPTIONS
] + [
    ("fill_diagonal", lambda xp, x: changed(xp, lambda y: xp.fill_diagonal(y, 7), x)),
    ("select", lambda xp, x: xp.select([x > 1, x < 0], [x, -x])),
    ("piecewise", lambda xp, x: xp.piecewise(x, [x > 1, x < 0], [lambda x: x * 1.5, 2.7])),
    ("choose", lambda xp, x: xp.choose([0, 1, 0], [x, -x])),
    ("choose of bool", lambda xp, x: xp.choose(x > 1, [x, -x])),
    ("nonzero", lambda xp, x: xp.stack(xp.nonzero(x > 1))),
    ("flatnonzero", lambda xp, x: xp.flatnonzero(x > 1)),
    ("argwhere", lambda xp, x: xp.argwhere(x > 1)),
    ("vstack dtype", lambda xp, x: xp.vstack([x, x], dtype="float64")),
    ("hstack casting", lambda xp, x: xp.hstack([x, x + 0.5], dtype="int64", casting="unsafe")),
    ("concatenate dtype", lambda xp, x: xp.concatenate([x, x], dtype="float32")),
    ("trace dtype", lambda xp, x: xp.trace(x, dtype="float64")),
    ("full_like", lambda xp, x: xp.full_like(x, 2.5)),
    ("full_like shape", lambda xp, x: xp.full_like(x, 2.5, dtype=float, shape=(4,))),
    ("zeros_like", lambda xp, x: xp.zeros_like(x)),
    ("tri", lambda xp, x: xp.tri(3, 4, 1)),
    ("tril of bool", lambda xp, x: xp.tril(x > 0)),
    ("triu of bool", lambda xp, x: xp.triu(x > 0)),
    ("diag of bool", lambda xp, x: xp.diag(x[0] > 0)),
    ("flip of bool", lambda xp, x: xp.flip(x > 0)),
    ("pad of bool", lambda xp, x: xp.pad(x > 0, 1)),
], ids=lambda v: v if isinstance(v, str) else "")
def test_integers_and_bool_as_numpy(name, call):
    expected = np.asarray(call(np, INTEGERS))
    for out in (call(fnp, fg.tensor(INTEGERS)), call(np, fg.tensor(INTEGERS)) if name not in ("tri",) else expected):
        assert lowered(out).dtype == expected.dtype
        np.testing.assert_array_equal(lowered(out), expected)


@pytest.mark.parametrize("dtype, default, expected", [("float32", 0, "float32"), ("float32", 0.5, "float32"),
                                                      ("float32", np.float64(0.5), "float64"), ("float64", 0, "float64")])
def test_select_promotes_as_numpy(dtype, default, expected):
    x = np.linspace(-1, 1, 5).astype(dtype)
    out = fnp.select([x > 0.5, x < -0.5], [fg.tensor(x), 1], default)
    assert out.dtype == np.select([x > 0.5, x < -0.5], [x, 1], default).dtype == expected


def test_a_part_that_is_not_taken_gets_no_gradient_whatever_its_slope():
    x = np.array([0.0, 4.0])
    for f in (lambda x: fnp.select([x > 1], [fnp.sqrt(x)], 2.0), lambda x: fnp.piecewise(x, [x > 1], [fnp.sqrt, 2.0])):
        assert fg.grad(lambda x: f(x).sum())(x).tolist() == [0.0, 0.25]
    m = np.array([[1.0, np.inf], [np.nan, 2.0]])
    assert fg.grad(lambda m: fnp.trace(m))(m).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert fnp.tril(m).tolist()[0] == [1.0, 0.0]
    assert fg.grad(lambda m: fnp.triu(m, 1).sum())(m).tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_the_padding_gets_gradients():
    f = lambda x, c: fnp.sum(fnp.pad(x, (1, 2), constant_values=c) ** 2)
    dx, dc = fg.grad(f, argnums=(0, 1))(np.array([1.0, 2.0]), 3.0)
    assert dx.tolist() == [2.0, 4.0] and dc == 18.0
    check(lambda x, e: fnp.pad(x, (3, 2), "linear_ramp", end_values=e), lambda x, e: np.pad(x, (3, 2), "linear_ramp", end_values=e),
          np.array([1.0, 2.0]), np.array([[0.5, -1.0]]))


def test_the_median_of_nan_is_nan_as_numpy():
    x = np.array([1.0, np.nan, 3.0])
    np.testing.assert_array_equal(lowered(fnp.pad(fg.tensor(x), 1, "median")), np.pad(x, 1, "median"))


@pytest.mark.parametrize("layout", [lambda a: np.asfortranarray(a), lambda a: np.repeat(a, 2, 1)[:, ::2], lambda a: a[::-1, ::-1],
                                    lambda a: np.ascontiguousarray(a.T).T])
def test_contract_24_layouts(layout):
    a = np.arange(12.0).reshape(3, 4)
    for f in (lambda xp, x: xp.diagonal(x, 1), lambda xp, x: xp.roll(x, 5), lambda xp, x: xp.tile(x, 2), lambda xp, x: xp.pad(x, 1, "edge"),
              lambda xp, x: xp.rot90(x), lambda xp, x: xp.tril(x), lambda xp, x: xp.resize(x, (5, 4)), lambda xp, x: xp.diagflat(x)):
        given = layout(a)
        np.testing.assert_array_equal(lowered(f(fnp, fg.tensor(given))), f(np, given))
        leaf = fg.tensor(given, requires_grad=True)
        out = f(fnp, leaf)
        w = np.random.default_rng(0).normal(size=out.shape)
        (out * w).sum().backward()
        plain = fg.tensor(np.array(given, order="C"), requires_grad=True)
        (f(fnp, plain) * w).sum().backward()
        np.testing.assert_array_equal(lowered(leaf.grad), lowered(plain.grad))


def test_indices_that_are_computed_in_a_program_and_differ_over_a_batch():
    x = np.random.default_rng(3).normal(size=(4, 5))

    def sorted_rows(x):
        return fnp.take_along_axis(x, fnp.array(x).detach().argsort(-1), -1)

    def loss(x):
        return (sorted_rows(x) * np.arange(5.0)).sum()

    expected = np.argsort(np.argsort(x, -1), -1)
    np.testing.assert_array_equal(lowered(sorted_rows(fg.tensor(x))), np.sort(x, -1))
    program = fg.compile(fg.grad(loss))
    for a in (x, -x, x):
        np.testing.assert_array_equal(program(a), np.argsort(np.argsort(a, -1), -1))
    np.testing.assert_array_equal(fg.vmap(fg.grad(loss))(x), expected)
    np.testing.assert_array_equal(fg.vmap(lambda x, i: fnp.take(x, i, mode="wrap"))(x, np.array([7, -1, 0, 3])), x[range(4), [2, 4, 0, 3]])
    np.testing.assert_array_equal(fg.vmap(lambda i, x: fnp.choose(i, [x, -x, 2 * x]))(np.array([0, 1, 2, 1]), x),
                                  x * np.array([[1], [-1], [2], [-1]]))
    chosen = fg.compile(lambda i, x: fnp.choose(i, [x, -x]))
    for which in ([0, 1, 0, 1, 1], [1, 1, 0, 0, 0]):
        np.testing.assert_array_equal(chosen(np.array(which), x), np.choose(which, [x, -x]))


def test_what_changes_its_argument_changes_it_and_returns_none():
    for change in (lambda xp, y: xp.fill_diagonal(y, 7.0), lambda xp, y: xp.put_along_axis(y, np.array([[1], [0]]), 7.0, 1),
                   lambda xp, y: xp.copyto(y, 7.0, where=np.eye(2, 3, dtype=bool)), lambda xp, y: xp.copyto(y, np.arange(3))):
        for xp in (fnp, np):
            theirs, ours = np.arange(6.0).reshape(2, 3), fg.tensor(np.arange(6.0).reshape(2, 3))
            assert change(xp, ours) is None
            change(np, theirs)
            np.testing.assert_array_equal(lowered(ours), theirs)
    array = np.zeros((2, 2))
    fnp.fill_diagonal(array, fg.tensor(3.0))
    fnp.put_along_axis(array, [[1], [0]], fg.tensor(2.0), 1)
    assert array.tolist() == [[3.0, 2.0], [2.0, 3.0]]
    fnp.copyto(array, fg.tensor([1.0, 2.0]))
    assert array.tolist() == [[1.0, 2.0], [1.0, 2.0]]
    with pytest.raises(TypeError, match="copyto"):
        fnp.copyto(array, fg.tensor([1.0, 2.0], requires_grad=True))


def test_out_gets_the_result():
    x = fg.tensor(np.arange(6.0).reshape(2, 3))
    for call, shape in [(lambda o: fnp.trace(x, out=o), ()), (lambda o: fnp.take(x, [1, 2], 1, out=o), (2, 2)),
                        (lambda o: fnp.compress([True, False], x, 0, out=o), (1, 3)), (lambda o: fnp.choose([0, 1, 0], x, out=o), (3,))]:
        out = fnp.zeros(shape)
        assert call(out) is out
        np.testing.assert_array_equal(lowered(out), lowered(call(None)))


MATRIX = np.arange(6.0).reshape(2, 3)
WRONG = [
    (lambda xp, x: xp.flip(x, 2), "flip"),
    (lambda xp, x: xp.flip(x, (0, 0)), "repeated axis"),
    (lambda xp, x: xp.fliplr(x[0]), "fliplr"),
    (lambda xp, x: xp.flipud(x[0, 0]), "flipud"),
    (lambda xp, x: xp.roll(x, 1, 3), "roll"),
    (lambda xp, x: xp.roll(x, (1, 2, 3), (0, 1)), "roll"),
    (lambda xp, x: xp.rollaxis(x, 2), "rollaxis"),
    (lambda xp, x: xp.rollaxis(x, 0, 5), "start"),
    (lambda xp, x: xp.rot90(x[0]), "rot90"),
    (lambda xp, x: xp.rot90(x, 1, (0, 0)), "different"),
    (lambda xp, x: xp.rot90(x, 1, (0, 1, 2)), "2"),
    (lambda xp, x: xp.repeat(x, [1, 2], 1), r"repeat.*\(2,\).*\(2, 3\)"),
    (lambda xp, x: xp.repeat(x, -1), "negative"),
    (lambda xp, x: xp.repeat(x, 1.5), "repeat"),
    (lambda xp, x: xp.tile(x, -1), "negative"),
    (lambda xp, x: xp.resize(x, -2), "non-negative"),
    (lambda xp, x: xp.pad(x, -1), "negative"),
    (lambda xp, x: xp.pad(x, 1.0), "integral"),
    (lambda xp, x: xp.pad(x, (1, 2, 3)), r"pad.*\(2, 3\)"),
    (lambda xp, x: xp.pad(x, 1, "edges"), "edges"),
    (lambda xp, x: xp.pad(x, 1, "edge", end_values=1), "end_values"),
    (lambda xp, x: xp.pad(x[:0], 1, "edge"), "empty axis 0"),
    (lambda xp, x: xp.pad(x, 1, "maximum", stat_length=0), "stat_length"),
    (lambda xp, x: xp.pad(x, 1, constant_values=(1, 2, 3)), "constant_values"),
    (lambda xp, x: xp.broadcast_arrays(x, x[:, :2]), r"\(2, 3\).*\(2, 2\)"),
    (lambda xp, x: xp.meshgrid(x, indexing="ji"), "indexing"),
    (lambda xp, x: xp.matrix_transpose(x[0]), r"\(3,\)"),
    (lambda xp, x: xp.vstack([x, x[:, :2]]), r"vstack.*\(2, 2\)"),
    (lambda xp, x: xp.hstack([x, x[:1]]), "hstack"),
    (lambda xp, x: xp.vstack([]), "vstack"),
    (lambda xp, x: xp.dstack([x, x[:1]]), "dstack"),
    (lambda xp, x: xp.column_stack([x, x[0]]), "column_stack"),
    (lambda xp, x: xp.block([[x], x]), "depth"),
    (lambda xp, x: xp.block([x, []]), "empty|depth"),
    (lambda xp, x: xp.block([(x, x)]), "tuple"),
    (lambda xp, x: xp.block([x, x[:1]]), "block"),
    (lambda xp, x: xp.split(x, 4, 1), "array_split"),
    (lambda xp, x: xp.array_split(x, 0), "array_split"),
    (lambda xp, x: xp.split(x, 2, 2), "split"),
    (lambda xp, x: xp.hsplit(x[0, 0], 1), "hsplit"),
    (lambda xp, x: xp.vsplit(x[0], 1), "vsplit"),
    (lambda xp, x: xp.dsplit(x, 1), "dsplit"),
    (lambda xp, x: xp.unstack(x[0, 0]), "unstack"),
    (lambda xp, x: xp.append(x, x[:, :2], 0), "append"),
    (lambda xp, x: xp.insert(x, 9, 0.0, 1), r"insert.*9.*\(2, 3\)"),
    (lambda xp, x: xp.insert(x, [0, 1], [1.0, 2.0, 3.0], 1), "insert"),
    (lambda xp, x: xp.delete(x, 9, 0), r"delete.*9.*\(2, 3\)"),
    (lambda xp, x: xp.delete(x, 0, 4), "delete"),
    (lambda xp, x: xp.delete(x, np.array([True]), 1), "delete"),
    (lambda xp, x: xp.take(x, 1, 2), "take"),
    (lambda xp, x: xp.take(x, 9, 1), "9|index"),
    (lambda xp, x: xp.take(x, 1, mode="near"), "near"),
    (lambda xp, x: xp.take_along_axis(x, np.array([0]), 0), "number of dimensions|same number"),
    (lambda xp, x: xp.take_along_axis(x, np.array([[0.0]]), 0), "integer"),
    (lambda xp, x: xp.take_along_axis(x, np.array([[0], [1], [0]]), 1), "take_along_axis"),
    (lambda xp, x: xp.choose(np.array([0, 2, 0]), x), "choose"),
    (lambda xp, x: xp.choose(np.array([0, 1]), x), "choose"),
    (lambda xp, x: xp.choose(x, [x]), "choose"),
    (lambda xp, x: xp.select([x > 1], [x, x]), "select"),
    (lambda xp, x: xp.select([], []), "select"),
    (lambda xp, x: xp.select([x], [x]), "boolean"),
    (lambda xp, x: xp.compress([[True]], x), "compress"),
    (lambda xp, x: xp.compress([True] * 4, x, 1), "compress"),
    (lambda xp, x: xp.piecewise(x, [x > 1], [1, 2, 3]), "piecewise"),
    (lambda xp, x: xp.copyto(x, np.ones(2)), "copyto"),
    (lambda xp, x: xp.diag(x[0, 0]), "diag"),
    (lambda xp, x: xp.diag(x[None]), "diagonal"),
    (lambda xp, x: xp.diagonal(x[0]), r"diagonal.*\(3,\)"),
    (lambda xp, x: xp.diagonal(x, 0, 0, 2), "diagonal"),
    (lambda xp, x: xp.trace(x, 0, 1, 1), "trace"),
    (lambda xp, x: xp.tril(x[0, 0]), "tril"),
    (lambda xp, x: xp.fill_diagonal(x[0], 1), "fill_diagonal"),
    (lambda xp, x: xp.fill_diagonal(x[None], 1), "fill_diagonal"),
    (lambda xp, x: xp.flip(None), "flip"),
]


@pytest.mark.parametrize("k", range(len(WRONG)))
def test_contract_47_errors_as_numpy_with_the_way_out(k):
    call, match = WRONG[k]
    try:
        call(np, MATRIX.copy())
    except Exception as error:
        theirs = type(error)
    else:
        theirs = None
    with pytest.raises(Exception, match=match) as caught:
        call(fnp, fg.tensor(MATRIX))
    assert theirs is None or isinstance(caught.value, theirs), (theirs, caught.type)


HOST = ("median", "put_along_axis")     # sorts, or looks for duplicates, at each replay


@pytest.mark.parametrize("name", [n for n, (_, shapes) in CASES.items() if not any(word in n for word in HOST)])
def test_a_program_of_it_is_saved_and_loads(name):
    function, shapes = CASES[name]
    arrays = numbers(shapes)
    program = fg.compile(fg.value_and_grad(lambda *xs: fnp.sum(function(fnp, *xs) ** 2), argnums=tuple(range(len(shapes)))))
    program = program.program(*arrays)
    loaded = pickle.loads(pickle.dumps(program))
    (value, gradients), (expected, wanted) = loaded(*arrays), program(*arrays)
    assert value == expected
    for g, w in zip(gradients, wanted):
        np.testing.assert_array_equal(g, w)


def test_pad_with_nothing_in_particular_and_with_a_function():
    x = np.arange(6.0).reshape(2, 3)
    assert fnp.pad(fg.tensor(x), 1, "empty").shape == (4, 5)
    np.testing.assert_array_equal(lowered(fnp.pad(fg.tensor(x), 1, "empty"))[1:-1, 1:-1], x)

    def sevens(row, width, axis, keywords):
        row[: width[0]] = row[len(row) - width[1] :] = keywords.get("fill", 7.0)

    np.testing.assert_array_equal(lowered(fnp.pad(fg.tensor(x), 1, sevens, fill=3.0)), np.pad(x, 1, sevens, fill=3.0))
    with pytest.raises(TypeError, match="function as mode"):
        fnp.pad(fg.tensor(x, requires_grad=True), 1, sevens)
