"""fg.compile: what it replays is what the function would have said, recorded or replayed, whatever changes between calls.

Every comparison is made twice: on the call that is recorded, and on calls with other data that are replayed.  A value
that was frozen while recording shows on the second.
"""

import itertools

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import engine, ops
from fastgrad.tree import tree_flatten

F64, F32 = np.float64, np.float32
ROWS = {op.name: op for op in ops.OPS}
LONG = 1300             # more than a block of elements, and no multiple of one

each_row = pytest.mark.parametrize("name", list(ROWS))
each_differentiable_row = pytest.mark.parametrize("name", [op.name for op in ops.OPS if op.differentiable])
each_dtype = pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:numpy")


# ------------------------------------------------------------------------------------------------------ the comparison


def plain(leaf):
    return leaf.detach().numpy() if isinstance(leaf, fg.Tensor) else np.asarray(leaf)


def check(ours, theirs, ulps=0.0, whole=False):
    """Equal trees: shapes, dtypes, NaNs, infinities; numbers to some ulps of each one, or of the largest with ``whole``."""
    a, structure = tree_flatten(ours)
    b, expected = tree_flatten(theirs)
    assert structure == expected
    for x, y in zip(a, b):
        x, y = plain(x), plain(y)
        assert x.shape == y.shape, (x.shape, y.shape)
        assert x.dtype == y.dtype, (x.dtype, y.dtype)
        if x.dtype.kind != "f":
            assert np.array_equal(x, y), (x, y)
            continue
        with np.errstate(all="ignore"):
            size = np.maximum(np.abs(x), np.abs(y))
            if whole:
                size = np.broadcast_to(np.max(size, initial=0, where=np.isfinite(size)), x.shape)
            near = np.abs(x - y) <= ulps * np.spacing(size)
        right = (x == y) | near | (np.isnan(x) & np.isnan(y))
        assert right.all(), [(tuple(int(k) for k in i), float(x[tuple(i)]), float(y[tuple(i)])) for i in np.argwhere(~right)[:4]]


def same(f, *calls, ulps=0.0, whole=False, recordings=1, times=2):
    """Holds the compiled f against f on each tuple of arguments, the first of which is recorded; returns the compiled f."""
    compiled = fg.compile(f)
    with np.errstate(all="ignore"):
        for arguments in calls:
            for _ in range(times):
                check(compiled(*arguments), f(*arguments), ulps, whole)
    if recordings is not None:
        assert compiled.recordings == recordings
    return compiled


# -------------------------------------------------------------------------------------------------------- the operations


def points(name, n, dtype, turn=0):
    """Operands of a row: n points of its domain, others at each turn."""
    rng = np.random.default_rng(sum(map(ord, name)) + 1000 * turn)
    return [rng.uniform(low, high, n).astype(dtype) if name != "polygamma" or k else rng.integers(0, 4, n).astype(dtype)
            for k, (low, high) in enumerate(ROWS[name].domain)]


def special_points(name, dtype, turn=0):
    """Its special points, and its domain's ends, in another order at each turn."""
    row = ROWS[name]
    found = [p if isinstance(p, tuple) else (p,) for p in row.special]
    found += list(zip(*points(name, 5, F64, turn)))
    rng = np.random.default_rng(turn)
    order = rng.permutation(len(found))
    with np.errstate(all="ignore"):
        return [np.array([found[i][k] for i in order]).astype(dtype) for k in range(row.arity)]


def layouts(name, dtype, turn):
    """Operands of a row in every layout: {which: [operand, ...]}."""
    arity = ROWS[name].arity
    small = points(name, 6, dtype, turn)
    many = points(name, LONG, dtype, turn)
    square = points(name, 36, dtype, turn)
    yield "0-d", [a[0].reshape(()) for a in small]
    yield "number", [float(small[0][0])] + [float(a[1]) for a in small[1:]]
    yield "small", small
    yield "long", many
    yield "special", special_points(name, dtype, turn)
    yield "empty", [a[:0] for a in small]
    yield "strided", [a[::-2] for a in many]
    yield "transposed", [a.reshape(6, 6).T for a in square]
    yield "matrix", [points(name, 7 * LONG, dtype, turn)[k].reshape(7, LONG) for k in range(arity)]
    if arity > 1:
        yield "0-d against array", [small[0][0].reshape(())] + many[1:]
        yield "array against 0-d", [many[0]] + [a[0].reshape(()) for a in small[1:]]
        yield "array against number", [many[0]] + [float(a[0]) for a in small[1:]]
        yield "number against array", [float(small[0][0])] + many[1:]
        yield "column against row", [small[0].reshape(6, 1)] + [a.reshape(1, 6) for a in small[1:]]
        yield "row against matrix", [small[0]] + [a.reshape(6, 6) for a in square[1:]]
        yield "matrix against column", [square[0].reshape(6, 6).T] + [a.reshape(6, 1) for a in small[1:]]
        yield "mixed precisions", [many[0].astype(F32)] + [a.astype(F64) for a in many[1:]]
        yield "mixed precisions the other way", [many[0].astype(F64)] + [a.astype(F32) for a in many[1:]]
        yield "integers", [many[0]] + [np.arange(LONG) % 4 + turn for _ in many[1:]]
    else:
        yield "integers", [np.arange(5) + turn]
    yield "truth values", [a > np.median(a) for a in small]


def answer(f):
    """f, or the exception it raises."""
    try:
        return f()
    except (TypeError, ValueError) as error:
        return type(error)


def over_layouts(name, dtype, question, ulps=0.0, whole=False):
    """A question, a function of operands, asked in every layout on two sets of data."""
    for (which, first), (_, second) in zip(layouts(name, dtype, 0), layouts(name, dtype, 1)):
        with np.errstate(all="ignore"):
            if isinstance(answer(lambda: question(*first)), type):
                with pytest.raises((TypeError, ValueError)):
                    fg.compile(question)(*first)
                continue
        try:
            same(question, first, second, ulps=ulps, whole=whole)
        except AssertionError as error:
            raise AssertionError(f"{name}, {which}: {error}") from error
        except Exception as error:
            raise RuntimeError(f"{name}, {which}: {error!r}") from error


def by_floats(name):
    """The operands of a row that carry gradients."""
    return tuple(k for k, p in enumerate(ROWS[name].partials) if p is not None)


@each_dtype
@each_row
def test_a_row_of_the_table_replays_to_its_value(name, dtype):
    f = getattr(fnp, name)
    over_layouts(name, dtype, lambda *v: f(*v))


@each_dtype
@each_differentiable_row
def test_a_row_of_the_table_replays_to_its_gradients(name, dtype):
    f = getattr(fnp, name)
    over_layouts(name, dtype, lambda *v: fg.grad(lambda *u: f(*u).sum(), by_floats(name))(*v), 4, True)


@each_dtype
@each_differentiable_row
def test_a_row_of_the_table_replays_to_its_value_and_gradients(name, dtype):
    f = getattr(fnp, name)
    over_layouts(name, dtype, lambda *v: fg.value_and_grad(lambda *u: (fnp.sin(f(*u)) + 2.0).sum(), by_floats(name))(*v), 8, True)


def pushed(name):
    f, places = getattr(fnp, name), by_floats(name)

    def question(*v):
        def g(*u):
            full = list(v)
            for k, a in zip(places, u):
                full[k] = a
            return f(*full)

        primals = tuple(v[k] for k in places)
        return fg.jvp(g, primals, tuple(fnp.cos(p) for p in primals))

    return question


@each_dtype
@each_differentiable_row
def test_a_row_of_the_table_replays_to_its_tangents(name, dtype):
    over_layouts(name, dtype, pushed(name), 4)


@each_dtype
@each_differentiable_row
def test_a_row_of_the_table_replays_to_its_second_derivatives(name, dtype):
    f, places = getattr(fnp, name), by_floats(name)

    def question(*v):
        first = fg.grad(lambda *u: f(*u).sum(), places)
        return fg.grad(lambda *u: sum((g * fnp.cos(a)).sum() for g, a in zip(first(*u), u)), places)(*v)

    over_layouts(name, dtype, question, 16, True)
