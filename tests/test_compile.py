"""fg.compile: what it replays is what the function would have said, recorded or replayed, whatever changes between calls.

Every comparison is made twice: on the call that is recorded, and on calls with other data that are replayed.  A value
that was frozen while recording shows on the second.
"""

import copy
import dataclasses
import itertools
import math
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

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


def check(ours, theirs, ulps=0.0, whole=False, terms=None):
    """Equal trees: shapes, dtypes, NaNs, infinities; numbers to some ulps of each one, or of the largest with ``whole``.

    terms: for each leaf the sum of the magnitudes of what was added up for it, of which the ulps are then."""
    a, structure = tree_flatten(ours)
    b, expected = tree_flatten(theirs)
    assert structure == expected
    for k, (x, y) in enumerate(zip(a, b)):
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
            if terms is not None:
                size = np.maximum(size, np.asarray(terms[k]).astype(x.dtype))
            near = np.abs(x - y) <= ulps * np.spacing(size)
        right = (x == y) | near | (np.isnan(x) & np.isnan(y))
        assert right.all(), [(tuple(int(k) for k in i), float(x[tuple(i)]), float(y[tuple(i)])) for i in np.argwhere(~right)[:4]]


def magnitudes(question, arguments):
    """For each leaf of a gradient the sum of the magnitudes of its terms, found with operands of the full shape."""
    full = [np.array(a) for a in np.broadcast_arrays(*arguments)]
    found = []
    for y, every in zip(tree_flatten(question(*arguments))[0], tree_flatten(question(*full))[0]):
        y, every = plain(y), np.abs(plain(every))
        shape = (1,) * (every.ndim - y.ndim) + y.shape
        axes = tuple(d for d in range(every.ndim) if shape[d] != every.shape[d])
        found.append(np.nan_to_num(every.sum(axes, dtype=F64, keepdims=True).reshape(y.shape), posinf=0.0))
    return found


def same(f, *calls, ulps=0.0, whole=False, recordings=1, times=2, sums=False):
    """Holds the compiled f against f on each tuple of arguments, the first of which is recorded; returns the compiled f."""
    compiled = fg.compile(f)
    with np.errstate(all="ignore"):
        for arguments in calls:
            for _ in range(times):
                check(compiled(*arguments), f(*arguments), ulps, whole, magnitudes(f, arguments) if sums else None)
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
    """A question, a function of operands, asked in every layout on two sets of data; ulps are those of what is added up."""
    for (which, first), (_, second) in zip(layouts(name, dtype, 0), layouts(name, dtype, 1)):
        with np.errstate(all="ignore"):
            if isinstance(answer(lambda: question(*first)), type):
                with pytest.raises((TypeError, ValueError)):
                    fg.compile(question)(*first)
                continue
        try:
            same(question, first, second, ulps=ulps, whole=whole, sums=bool(ulps))
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
    over_layouts(name, dtype, pushed(name), 16, True)


@each_dtype
@each_differentiable_row
def test_a_row_of_the_table_replays_to_its_second_derivatives(name, dtype):
    f, places = getattr(fnp, name), by_floats(name)

    def question(*v):
        first = fg.grad(lambda *u: f(*u).sum(), places)
        return fg.grad(lambda *u: sum((g * fnp.cos(a)).sum() for g, a in zip(first(*u), u)), places)(*v)

    over_layouts(name, dtype, question, 16, True)


# ------------------------------------------------------------------------------------------------- structured operations

CUBE = (3, 4, 5)


def drawn(shapes, turn, dtype=F64):
    rng = np.random.default_rng(turn)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def questions(f, n):
    """f and what is made of it by every transform, as functions of n arrays."""
    places = tuple(range(n))

    def second(*a):
        first = fg.grad(lambda *u: fnp.sin(f(*u)).sum(), places)
        return fg.grad(lambda *u: sum((fnp.sin(g) * x).sum() for g, x in zip(first(*u), u)), places)(*a)

    def backward(*a):
        leaves = [fg.tensor(x, requires_grad=True) for x in a]
        y = (fnp.sin(f(*leaves)) * 2.0).sum()
        if y.requires_grad:
            y.backward()
        return [leaf.grad for leaf in leaves]

    return {
        "value": f,
        "gradient": lambda *a: fg.grad(lambda *u: (f(*u) * 1.5).sum(), places)(*a),
        "value and gradient": lambda *a: fg.value_and_grad(lambda *u: fnp.sin(f(*u)).sum(), places)(*a),
        "tangent": lambda *a: fg.jvp(f, a, tuple(fnp.cos(x) for x in a)),
        "second derivative": second,
        "backward": backward,
    }


def lowered(tree):
    return fg.tree_map(plain, tree)


def python(*arguments, check=False, **environment):
    """Python, run with what this one imports: from another folder, since the checkout may not be what is installed."""
    return subprocess.run([sys.executable, *arguments], env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
                          cwd=Path(__file__).parent, capture_output=True, text=True, timeout=600, check=check)


def near(ours, theirs, scale):
    """To some ulps of the largest number, which bounds what an order of summation can do."""
    for x, y in zip(tree_flatten(ours)[0], tree_flatten(theirs)[0]):
        assert x.shape == y.shape and x.dtype == y.dtype, (x.shape, x.dtype, y.shape, y.dtype)
        if x.dtype.kind != "f":
            assert np.array_equal(x, y)
            continue
        size = max(scale, np.max(np.abs(y), initial=0, where=np.isfinite(y)))
        with np.errstate(all="ignore"):
            right = (x == y) | (np.abs(x - y) <= 32 * np.finfo(x.dtype).eps * size) | (np.isnan(x) & np.isnan(y))
        assert right.all(), (x, y)


def replays(f, shapes, dtype=F64, scale=1.0, which=None):
    """Every question about f: recorded on one set of numbers, replayed on two others."""
    for name, question in questions(f, len(shapes)).items():
        if which is not None and name not in which:
            continue
        compiled = fg.compile(question)
        with np.errstate(all="ignore"):
            for turn in range(3):
                a = drawn(shapes, turn, dtype)
                expected = lowered(question(*(map(fg.tensor, a) if name == "value" else a)))
                for _ in range(2):
                    try:
                        near(lowered(compiled(*a)), expected, scale)
                    except Exception as error:
                        raise AssertionError(f"{name}, data {turn}: {error!r}") from error
        assert compiled.recordings == 1, name


REDUCED = [CUBE, (7,), (2, LONG), (LONG, 2), (4, 0, 3), (1, 3, 1, 2)]
MASKS = [(shape, axes) for shape in REDUCED for axes in [None, *(
    c for n in range(len(shape) + 1) for c in itertools.combinations(range(len(shape)), n))]]


@pytest.mark.parametrize("reduction", ["sum", "mean", "max", "min", "logsumexp"])
@pytest.mark.parametrize("shape, axes", MASKS, ids=str)
def test_a_reduction_over_any_axes_replays(reduction, shape, axes):
    if 0 in shape and reduction not in ("sum", "mean"):
        return
    for keepdims in (False, True):
        replays(lambda x: getattr(fnp, reduction)(x, axis=axes, keepdims=keepdims), [shape], scale=8.0 * max(shape))


@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1])
def test_a_product_along_an_axis_replays(axis):
    replays(lambda x: fnp.prod(x * (x > -0.8), axis=axis), [CUBE])
    replays(lambda x: fnp.prod(x[:, :0], axis=1), [CUBE])


def assigned(x, index, value):
    y = x * 1.0
    y[index] = value
    return y


EVEN = np.arange(60).reshape(CUBE) % 2 == 0
STRUCTURED = {
    "T": lambda x: x.T,
    "x[::-1]": lambda x: x[::-1],
    "x[::-1].T": lambda x: x[::-1].T,
    "x.T[::-1]": lambda x: x.T[::-1],
    "x.T[1:3, ::-1]": lambda x: x.T[1:3, ::-1],
    "x.T.reshape": lambda x: x.T.reshape(5, 12)[::2],
    "swapaxes": lambda x: fnp.swapaxes(x, 0, 2)[:, ::-1],
    "moveaxis": lambda x: fnp.moveaxis(x, 0, 1)[1:],
    "newaxis": lambda x: x[:, None, ..., None],
    "broadcast": lambda x: fnp.broadcast_to(x[:, :1], (2, 3, 4, 5)),
    "broadcast.T": lambda x: fnp.broadcast_to(x.T[:, :, :1], (5, 4, 6))[:, ::2].T,
    "index of broadcast": lambda x: fnp.broadcast_to(x[0, 0], (3, 5)).reshape(-1)[2:9],
    "chain of views": lambda x: x[1:][::-1][:, 2:][..., ::2],
    "element": lambda x: x[0, 1, 2],
    "empty slice": lambda x: x[3:],
    "squeeze": lambda x: fnp.squeeze(x[:, :1, :], 1).T,
    "expand_dims": lambda x: fnp.expand_dims(x.T, 1)[::-1],
    "negative steps": lambda x: x[::-2, ::-1, ::-3],
    "gather": lambda x: x[[2, 0, 0]],
    "gather of T": lambda x: x.T[[2, 0, 0]],
    "gather of pairs": lambda x: x.T[[0, 1], :, [2, 1]],
    "mask": lambda x: x[EVEN],
    "mask of T": lambda x: x.T[np.arange(5) % 2 == 0],
    "concatenate": lambda x: fnp.concatenate([x, x[::-1], x[:1] * 2.0]),
    "concatenate T": lambda x: fnp.concatenate([x.T, x.T[::-1]], axis=1),
    "concatenate empty": lambda x: fnp.concatenate([x[:0], x]),
    "stack": lambda x: fnp.stack([x, x[::-1], x * x]),
    "stack last": lambda x: fnp.stack([x.T, x.T * 2], axis=-1),
    "stack of numbers": lambda x: fnp.stack([x[0, 0, 0], x[0, 0, 1] * 2.0, x.sum()]),
    "array of numbers": lambda x: fnp.array([[x[0, 0, 0], 2.0], [x.sum(), x[1, 1, 1]]]) * 2.0,
    "rows": lambda x: fnp.stack([r.sum() for r in x]),
    "assign": lambda x: assigned(x, 0, x[1] * 2.0),
    "assign through a view": lambda x: assigned(x, (slice(None), 1), x[:, 0]),
    "assign to a mask": lambda x: assigned(x, np.arange(3) > 0, 7.0),
    "assign twice": lambda x: assigned(x, [0, 0], x[1:]),
    "where": lambda x: fnp.where(x > 0, x, x * x),
    "where by a constant": lambda x: fnp.where(np.arange(5) > 2, x, -x),
    "where guards": lambda x: fnp.where(x > 0, fnp.log(x), 0.0),
    "clip": lambda x: fnp.clip(x, -0.5, 0.5),
    "clip by operands": lambda x: fnp.clip(x, None, x[0]),
    "round": lambda x: fnp.round(x, 1) * x,
    "cast there and back": lambda x: x.astype(F32).astype(F64) * x,
    "cast T": lambda x: x.T.astype(F32)[::-1],
    "cast to integers": lambda x: x.astype(np.int64) * x,
    "cast to bool": lambda x: x.astype(bool) * x,
    "cast an element": lambda x: x[0, 0, 0].astype(F32) * x,
    "softmax": lambda x: fnp.softmax(x, axis=0) + fnp.softmax(x, axis=1) + fnp.softmax(x, axis=2),
    "softmax of T": lambda x: fnp.softmax(x.T, axis=-1),
    "softmax of reversed": lambda x: fnp.softmax(x[::-1, ::-1, ::-1], axis=-1),
    "softmax of broadcast": lambda x: fnp.softmax(fnp.broadcast_to(x[:, :1], CUBE), axis=1),
    "softmax of nothing": lambda x: fnp.softmax(x[:0], axis=1),
    "log_softmax": lambda x: fnp.log_softmax(x, axis=0) + fnp.log_softmax(x, axis=1) + fnp.log_softmax(x, axis=-1),
    "logsumexp of T": lambda x: fnp.logsumexp(x.T[::-1], axis=-1),
    "max of T": lambda x: x.T.max(axis=0),
    "max of reversed": lambda x: x[::-1, ::-1].max(axis=-1),
    "max with ties": lambda x: (fnp.clip(x, -0.1, 0.1)).max(axis=-1) + fnp.clip(x, -0.1, 0.1).min(axis=-1),
    "max of broadcast": lambda x: fnp.broadcast_to(x[:, :1], CUBE).max(axis=(1, 2)),
    "any and all": lambda x: x * (x > 0).any(axis=0) * (x < 1).all(),
    "sum of truth values": lambda x: (x > 0).sum() * x + (x > 0).mean() * x,
    "sum of broadcast": lambda x: fnp.broadcast_to(x, (7, 3, 4, 5)).sum(axis=(0, 2)),
    "sum of a view": lambda x: x[:, 1:, ::2].sum(axis=1),
    "normalised": lambda x: (x - x.mean(axis=-1, keepdims=True)) / fnp.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5),
    "sum of nothing": lambda x: x[:0].sum(axis=0) + x[0],
    "product with nothing": lambda x: x[:, 0, :0] @ x[:0, 0, :].reshape(0, 5),
    "logic": lambda x: fnp.logical_not(x > 0) * x + ((x > 0) & (x < 1)) * x + (~(x > 0)) * x,
    "integers": lambda x: (x * 4).astype(int) // 2 * x + ((x * 3).astype(int) > 1) * x,
    "reductions of integers": lambda x: (x * 9).astype(int).sum(axis=0) * x + (x * 9).astype(int).max() * x,
    "index from data": lambda x: x[(x[:, 0, 0] > 0).astype(int)],
    "operators": lambda x: (x * x + 1) ** 1.5 + x**3 + 1.0 / (x * x + 1) + (1 - x) - (-(-x)) + abs(x),
    "2.0 ** x.T": lambda x: 2.0**x.T,
    "remainders": lambda x: x % 0.7 + x // 0.7 + divmod(x, 0.7)[1],
    "division by a power of two": lambda x: x / 8.0 + x / 0.25 - x * 0.0,
    "division by zero": lambda x: x / 0.0,
    "creation": lambda x: fnp.full(CUBE, x.sum()) * x + fnp.ones_like(x) + fnp.zeros_like(x) + fnp.full_like(x, 2.0),
    "NumPy's names": lambda x: np.where(x > 0, np.sum(x, axis=2, keepdims=True), 0.0) + np.add(np.ones(5), np.max(x, axis=0)),
    "ufunc.reduce": lambda x: np.add.reduce(x, axis=1) + np.multiply.reduce(x, axis=1) + np.maximum.reduce(x, axis=1),
}
ONLY_F64 = {"cast there and back"}


@each_dtype
@pytest.mark.parametrize("name", STRUCTURED)
def test_a_structured_operation_replays(name, dtype):
    replays(STRUCTURED[name], [CUBE], dtype, 4.0 if dtype == F64 else 32.0)


PRODUCTS = [
    ((3,), (3,)), ((3, 4), (4,)), ((3,), (3, 4)), ((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (5, 4, 2)), ((4,), (2, 4, 3)), ((2, 3, 4), (4,)), ((65, 70), (70, 33)), ((1, 4), (4, 1)), ((0, 4), (4, 3)),
    ((3, 0), (0, 2)), ((1, 300), (300, 1)), ((300, 1), (1, 300)), ((130, 130), (130, 130)), ((2, 0, 4), (4, 5)), ((1000,), (1000, 30)),
]


@each_dtype
@pytest.mark.parametrize("a, b", PRODUCTS, ids=str)
def test_a_matrix_product_replays(a, b, dtype):
    scale = 1000.0 * max(a + b)
    replays(lambda x, y: x @ y, [a, b], dtype, scale)
    if len(a) > 1 and len(b) > 1:
        turn = lambda t: fnp.swapaxes(t, -1, -2)  # noqa: E731
        replays(lambda x, y: turn(x) @ turn(y), [a[:-2] + (a[-1], a[-2]), b[:-2] + (b[-1], b[-2])], dtype, scale)
        replays(lambda x, y: x[..., ::-1] @ y[..., ::-1, :], [a, b], dtype, scale)


def labels(turn, dtype=np.int64):
    return np.random.default_rng(turn).integers(0, 4, 6).astype(dtype)


LOSSES = {
    "value": lambda x, l: fg.nn.cross_entropy(x, l),
    "gradient": lambda x, l: fg.grad(lambda x: fg.nn.cross_entropy(x, l))(x),
    "sum": lambda x, l: fg.value_and_grad(lambda x: fg.nn.cross_entropy(x * 2.0, l, reduction="sum"))(x),
    "each": lambda x, l: fg.grad(lambda x: (fg.nn.cross_entropy(x[::-1], l, reduction="none") ** 2).sum())(x),
    "of T": lambda x, l: fg.nn.cross_entropy(x.T[:4, :4], l[:4]),
    "of a broadcast": lambda x, l: fg.grad(lambda x: fg.nn.cross_entropy(fnp.broadcast_to(x[:1], (6, 4)), l))(x),
    "tangent": lambda x, l: fg.jvp(lambda x: fg.nn.cross_entropy(x, l), (x,), (fnp.cos(x),)),
    "hessian": lambda x, l: fg.hessian(lambda x: fg.nn.cross_entropy(x, l))(x),
    "weighted": lambda x, l: fg.value_and_grad(lambda x: fg.nn.cross_entropy(x, l, CLASS_WEIGHTS))(x),
    "weighted, a list": lambda x, l: fg.nn.cross_entropy(x, l, list(CLASS_WEIGHTS), "none"),
    "weighted, float32": lambda x, l: fg.grad(lambda x: fg.nn.cross_entropy(x, l, CLASS_WEIGHTS.astype(F32), "sum"))(x),
    "weighted by a Tensor": lambda x, l: fg.grad(lambda x, w: fg.nn.cross_entropy(x, l, w), (0, 1))(x, x[0] ** 2 + 0.5),
    "smoothed": lambda x, l: fg.value_and_grad(lambda x: fg.nn.cross_entropy(x, l, label_smoothing=0.1))(x),
    "smoothed and weighted": lambda x, l: fg.grad(lambda x: fg.nn.cross_entropy(x, l, CLASS_WEIGHTS, label_smoothing=0.25))(x),
    "smoothed, each": lambda x, l: fg.jvp(lambda x: fg.nn.cross_entropy(x, l, CLASS_WEIGHTS, "none", 0.25), (x,), (fnp.cos(x),)),
    "of one": lambda x, l: fg.nn.cross_entropy(x[0], l[0], CLASS_WEIGHTS, label_smoothing=0.25),
}
CLASS_WEIGHTS = np.array([0.5, 2.0, 0.0, 3.0])


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("name", LOSSES)
def test_cross_entropy_replays_with_labels_as_an_argument(name, dtype):
    compiled = fg.compile(LOSSES[name])
    for turn in range(4):
        x, l = drawn([(6, 4)], turn)[0], labels(turn, dtype)
        near(lowered(compiled(x, l)), lowered(LOSSES[name](fg.tensor(x), l)), 8.0)
    assert compiled.recordings == 1


OTHER_LOSSES = {
    "mse": lambda x, t: fg.nn.mse_loss(x, t), "mse of each": lambda x, t: fg.nn.mse_loss(x, t, "none"),
    "binary": lambda x, t: fg.nn.binary_cross_entropy(fnp.sigmoid(x), t, CLASS_WEIGHTS),
    "logits": lambda x, t: fg.nn.binary_cross_entropy_with_logits(x, t, CLASS_WEIGHTS, "sum", pos_weight=CLASS_WEIGHTS * 2.0),
    "probabilities": lambda x, t: fg.nn.cross_entropy(x, t * 0.25, CLASS_WEIGHTS, label_smoothing=0.25),
}


@pytest.mark.parametrize("dtype", [F64, F32, np.int64, bool])
@pytest.mark.parametrize("name", OTHER_LOSSES)
def test_a_loss_replays_with_targets_as_an_argument(name, dtype):
    loss = OTHER_LOSSES[name]
    for kind in (F64, F32):
        def f(x, t):
            return loss(x, t), fg.grad(lambda x: loss(x, t).sum())(x)

        compiled = fg.compile(f)
        for turn in range(3):
            x, target = drawn([(6, 4)], turn, kind)[0], (drawn([(6, 4)], turn + 10)[0] > 0).astype(dtype)
            near(lowered(compiled(x, target)), lowered(f(x, target)), 8.0)
        assert compiled.recordings == 1


@pytest.mark.parametrize("name", LOSSES)
def test_cross_entropy_replays_with_labels_in_a_closure(name):
    l = labels(0)
    f = lambda x: LOSSES[name](x, l)  # noqa: E731
    compiled = fg.compile(f)
    for turn in range(4):
        l[:] = labels(turn)
        x = drawn([(6, 4)], turn)[0]
        near(lowered(compiled(x)), lowered(f(fg.tensor(x))), 8.0)


# ------------------------------------------------------------------------------------------------------- what is outside

A, B, C = np.array([1.0, 2.0, 3.0]), np.array([4.0, -5.0, 6.0]), np.array([-7.0, 8.0, 0.5])


def follows(make, *changes, calls=2, x=C):
    """A compiled function follows what changes outside: make() gives (function, state); each change is done to the state."""
    f, state = make()
    g, twin = make()
    compiled = fg.compile(g)
    for change in (lambda state: None, *changes):
        change(state)
        change(twin)
        for _ in range(calls):
            near(lowered(compiled(x)), lowered(f(x)), 100.0)
    return compiled


SCALE = 2.0


def test_globals_are_compared_at_each_call_also_those_of_nested_functions():
    global SCALE
    compiled = fg.compile(lambda x: fg.grad(lambda y: (y * y * SCALE).sum())(x))
    for SCALE in (2.0, 3.0, 5.0, 2.0):
        check(compiled(A), 2 * SCALE * A)
        check(compiled(B), 2 * SCALE * B)


def test_enclosing_names_are_compared_whatever_they_name():
    factor, pair, table, helper, rows = 2.0, (1.0, 2.0), {"a": A}, (lambda x: x * 2.0), [A, B]
    f = lambda x: helper(x) * factor + pair[1] * table["a"] + rows[0]  # noqa: E731
    compiled = fg.compile(f)
    check(compiled(C), f(C))
    factor = 3.0
    check(compiled(C), f(C))
    pair = (1.0, 7.0)
    check(compiled(C), f(C))
    table = {"a": B}
    check(compiled(C), f(C))
    helper = lambda x: x * 5.0  # noqa: E731
    check(compiled(C), f(C))
    rows[0] = C
    check(compiled(C), f(C))
    table["a"] = C
    check(compiled(C), f(C))


def test_a_sign_of_zero_is_a_difference():
    zero = 0.0
    compiled = fg.compile(lambda x: x * np.copysign(1.0, zero))
    check(compiled(A), A)
    zero = -0.0
    check(compiled(A), -A)


READINGS = {
    "an operand": lambda a: lambda x: x * a,
    "under grad": lambda a: lambda x: fg.grad(lambda y: (fnp.sin(y) * a).sum())(x),
    "fg.tensor": lambda a: lambda x: x * fg.tensor(a),
    "asarray": lambda a: lambda x: x * fnp.asarray(a),
    "array": lambda a: lambda x: x * fnp.array(a),
    "asarray to float32": lambda a: lambda x: x * fnp.asarray(a, dtype=F32),
    "computed with": lambda a: lambda x: x * (a + 1),
    "NumPy and directly": lambda a: lambda x: fnp.clip(x, -a, a),
    "an element": lambda a: lambda x: x * a[0],
    "a Python number": lambda a: lambda x: x * float(a.max()),
    "a view": lambda a: lambda x: x * a[::-1],
    "a branch": lambda a: lambda x: x * 2.0 if a[0] < 3 else x * 3.0,
    "matmul": lambda a: lambda x: x @ a,
    "stack": lambda a: lambda x: fnp.stack([x, a]),
    "where": lambda a: lambda x: fnp.where(x > 0, x, a),
    "a condition": lambda a: lambda x: fnp.where(a > 2, x, 0.0),
    "assigned": lambda a: lambda x: assigned(fnp.asarray(x), slice(None), a),
    "in a list": lambda a: (lambda held: lambda x: x * held[0])([a]),
    "in an attribute": lambda a: (lambda held: lambda x: x * held.a)(type("Held", (), {"a": a})()),
}


@pytest.mark.parametrize("dtype", [F64, F32, np.int64, np.int8, ">f8", ">i4"], ids=str)
@pytest.mark.parametrize("reading", READINGS)
def test_an_array_outside_that_changes_in_place_is_noticed(reading, dtype):
    def make():
        a = np.array([1, 2, 3], dtype)
        return READINGS[reading](a), a

    def add(a):
        a += 1

    follows(make, add, add)


INDICES = {
    "gather": lambda i: lambda x: fnp.asarray(x)[i],
    "gather's gradient": lambda i: lambda x: fg.grad(lambda x: (x[i] * x[i] * x).sum())(x),
    "pairs": lambda i: lambda x: (fnp.asarray(x)[:, None] * x)[i, i],
    "assignment": lambda i: lambda x: assigned(fnp.asarray(x), i[:2], 5.0),
    "labels": lambda i: lambda x: fg.grad(lambda x: fg.nn.cross_entropy(x[:, None] * x, i))(x),
}


@pytest.mark.parametrize("dtype", [np.int64, np.int32, ">i8"], ids=str)
@pytest.mark.parametrize("reading", INDICES)
def test_an_index_array_outside_that_changes_in_place_is_noticed(reading, dtype):
    def make():
        i = np.array([0, 1, 2], dtype)
        return INDICES[reading](i), i

    def turn(i):
        i[:] = (i + 1) % 3

    follows(make, turn, turn)


@pytest.mark.parametrize("reading", [
    lambda m: lambda x: fnp.asarray(x)[m], lambda m: lambda x: assigned(fnp.asarray(x), m, 5.0), lambda m: lambda x: fnp.where(m, x, 2.0),
    lambda m: lambda x: x * m, lambda m: lambda x: fg.grad(lambda x: (x[m] ** 2).sum())(x)])
def test_a_mask_outside_that_changes_in_place_is_noticed(reading):
    def make():
        m = np.array([True, False, False])
        return reading(m), m

    def turn(m):
        m[:] = np.roll(m, 1)

    def more(m):
        m[:] = [True, True, False]

    follows(make, turn, more, turn)


class Scaled:
    def __init__(self):
        self.factor, self.array, self.tensor = 2.0, A.copy(), fg.tensor(B)

    def by_number(self, x):
        return x * self.factor

    def by_array(self, x):
        return x * self.array

    def by_tensor(self, x):
        return (x * self.tensor).detach()

    @fg.compile
    def decorated(self, x):
        return x * self.factor


@pytest.mark.parametrize("name, value", [("number", 3.0), ("array", B), ("tensor", fg.tensor(C))])
def test_attributes_of_a_method_s_object_are_compared(name, value):
    def make():
        held = Scaled()
        return getattr(held, f"by_{name}"), held

    def change(held):
        setattr(held, {"number": "factor"}.get(name, name), value)

    follows(make, change)


def test_a_decorated_method_tells_objects_apart():
    a, b = Scaled(), Scaled()
    b.factor = 5.0
    check(a.decorated(A), 2 * A)
    check(b.decorated(A), 5 * A)
    check(a.decorated(B), 2 * B)
    a.factor = 7.0
    check(a.decorated(A), 7 * A)


def test_train_and_eval_are_different_recordings():
    class Doubling(fg.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = fg.nn.Parameter(A)

        def forward(self, x):
            return x * self.w * (2.0 if self.training else 1.0)

    model = Doubling()
    closed = fg.compile(lambda x: fg.grad(lambda x: model(x).sum())(x).copy())
    given = fg.compile(lambda model, x: fg.grad(lambda w: (w * x * (2.0 if model.training else 1.0)).sum())(A))
    with fg.no_grad():
        value = fg.compile(lambda x: model(x))
        for _ in range(4):
            check(given(model, B), B * (2.0 if model.training else 1.0))
            check(value(fg.tensor(B)), fg.tensor(A * B * (2.0 if model.training else 1.0)))
            model.train(not model.training)
    assert closed is not None


def test_compiled_functions_inside_compiled_ones_are_followed():
    factor = 2.0
    inner = fg.compile(lambda x: x * factor)
    outer = fg.compile(lambda x: inner(x) + 1.0)
    for factor in (2.0, 3.0, 4.0):
        check(outer(A), A * factor + 1)
        check(outer(B), B * factor + 1)


def test_partials_and_callable_objects_are_followed():
    import functools

    factor = 2.0

    class Callable:
        def __call__(self, x):
            return x * factor

    partial = fg.compile(functools.partial(lambda k, x: x * factor * k, 2.0))
    called = fg.compile(Callable())
    for factor in (2.0, 3.0):
        check(partial(A), A * factor * 2)
        check(called(A), A * factor)


# -------------------------------------------------------------------------------------------------------------- Tensors


def test_a_tensor_outside_is_read_at_each_call_and_may_be_replaced():
    t = fg.tensor(A)
    compiled = fg.compile(lambda x: x * t.sum())
    for t in (fg.tensor(A), fg.tensor(B), fg.tensor(np.ones((2, 2))), fg.tensor(A.astype(F32)), fg.tensor(2.0), fg.tensor(A)):
        check(compiled(fg.tensor(C)), fg.tensor(C) * t.sum(), 4, True)
        with fg.no_grad():
            t *= 2.0
        check(compiled(fg.tensor(B)), fg.tensor(B) * t.sum(), 4, True)


def test_a_tensor_that_is_argument_twice_and_changes():
    def f(a, b):
        a += b
        b += 1.0
        return a * b

    compiled = fg.compile(f)
    for alike in (False, False, True, False, True, True):
        found = []
        for g in (compiled, f):
            a = fg.tensor(A)
            b = a if alike else fg.tensor(B)
            found.append((g(a, b), a, b))
        check(*found)


@pytest.mark.parametrize("which", ["argument", "outside"])
@pytest.mark.parametrize("order", ["apart first", "alike first"])
@pytest.mark.filterwarnings("ignore:fg.compile")
def test_a_tensor_that_is_argument_and_outside_and_changes(which, order):
    def make(w):
        def f(a):
            target = a if which == "argument" else w
            target += 1.0
            return a * w

        return f

    v, w = fg.tensor(A), fg.tensor(A)
    f, compiled = make(v), fg.compile(make(w))
    for alike in (False, True, True, False, True) if order == "apart first" else (True, False, True, True, False):
        b, c = fg.tensor(B), fg.tensor(B)
        check((compiled(w if alike else c), w, c), (f(v if alike else b), v, b))


def trained(make_optimizer, compiles, steps=8, at_half=None):
    rng = np.random.default_rng(0)
    w = fg.tensor(rng.normal(size=(3, 2)), requires_grad=True)
    b = fg.tensor(np.zeros(2), requires_grad=True)
    optimizer = make_optimizer([w, b])

    def step(x, y):
        optimizer.zero_grad()
        loss = ((x @ w + b - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    run = fg.compile(step) if compiles else step
    history = []
    for k in range(steps):
        if k == steps // 2 and at_half is not None:
            at_half(optimizer)
        x, y = fg.tensor(rng.normal(size=(5, 3))), fg.tensor(rng.normal(size=(5, 2)))
        history += [run(x, y), fg.tensor(w.detach().numpy()), fg.tensor(b.detach().numpy()), w.grad, b.grad]
    return history, run


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}], ids=str)
def test_an_optimiser_s_steps_replay(options):
    make = lambda parameters: fg.optim.SGD(parameters, lr=0.01, **options)  # noqa: E731
    ours, compiled = trained(make, True)
    near(lowered(ours), lowered(trained(make, False)[0]), 4.0)
    assert 1 <= compiled.recordings <= 2


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}], ids=str)
def test_a_new_learning_rate_is_noticed(options):
    def slower(optimizer):
        optimizer.lr = 0.001

    make = lambda parameters: fg.optim.SGD(parameters, lr=0.01, **options)  # noqa: E731
    near(lowered(trained(make, True, at_half=slower)[0]), lowered(trained(make, False, at_half=slower)[0]), 4.0)


@pytest.mark.parametrize("given", [False, True], ids=["outside", "argument"])
def test_gradients_accumulate_as_they_do_eagerly(given):
    def make():
        w = fg.tensor(A, requires_grad=True)

        def f(x, v=None):
            loss = (x * (w if v is None else v) ** 2).sum()
            loss.backward()
            return loss.detach()

        return w, f

    (w, f), (v, g) = make(), make()
    compiled = fg.compile(g)
    for k in range(8):
        x = fg.tensor(A * (k + 1))
        check((compiled(x, v) if given else compiled(x), v.grad), (f(x, w) if given else f(x), w.grad))
        if k == 4:
            v.zero_grad()
            w.zero_grad()


def test_a_training_step_on_an_argument():
    def f(w, x):
        w.zero_grad()
        loss = (x * w * w).sum()
        loss.backward()
        with fg.no_grad():
            w -= 0.1 * w.grad
        return loss.detach()

    compiled = fg.compile(f)
    v, w = fg.tensor(A, requires_grad=True), fg.tensor(A, requires_grad=True)
    for k in range(5):
        x = fg.tensor(A * (k + 1))
        near(lowered((compiled(w, x), w, w.grad)), lowered((f(v, x), v, v.grad)), 100.0)


def test_an_array_that_is_argument_and_changes():
    def f(x):
        x += 1.0
        x[0] = 5.0
        return x * 2.0

    compiled = fg.compile(f)
    for k in range(3):
        a, b = A + k, A + k
        check((compiled(a), a), (f(b), b))


def test_state_that_the_first_call_makes():
    class Lazy:
        state = None

        def step(self, x):
            if self.state is None:
                self.state = fg.tensor(np.zeros(3))
            self.state += x
            return self.state * 2.0

    a, b = Lazy(), Lazy()
    compiled = fg.compile(b.step)
    for k in range(6):
        x = fg.tensor(A * (k + 1))
        check((compiled(x), b.state), (a.step(x), a.state))
    assert compiled.recordings == 1


def test_a_function_that_keeps_tensors_runs_as_it_is_and_says_so():
    kept = []

    def f(x):
        kept.append(x * 2.0)
        return kept[-1] + 1.0

    compiled = fg.compile(f)
    with pytest.warns(RuntimeWarning, match="f runs uncompiled") as caught:
        for k in range(6):
            check(compiled(A * k), 2 * A * k + 1)
            check(plain(kept[-1]), 2 * A * k)
    assert len(kept) == 6 and len(caught) == 1


def test_contract_36_an_exception_while_recording_leaves_nothing_behind():
    w = fg.tensor(A, requires_grad=True)
    fails = [True]

    def f(x):
        y = (x * w).sum()
        if fails.pop() if fails else False:
            raise ValueError("not this time")
        y.backward()
        return y.detach()

    compiled = fg.compile(f)
    with pytest.raises(ValueError, match="not this time"):
        compiled(A)
    assert w.grad is None and not engine.tracing() and float(fg.tensor(A)[0]) == 1.0
    check(compiled(A), F64(14.0))
    check(w.grad, fg.tensor(A))
    check(compiled(B), F64(12.0))
    check(w.grad, fg.tensor(A + B))


# -------------------------------------------------------------------------------------------- gradients from outside, modes


@pytest.mark.filterwarnings("ignore:fg.compile")
def test_gradients_flow_through_a_compiled_function():
    f = lambda x: (fnp.sin(x) ** 2).sum()  # noqa: E731
    compiled = fg.compile(f)
    compiled(A)
    for x in (A, B):
        check(fg.grad(compiled)(x), fg.grad(f)(x))
        check(fg.hessian(compiled)(x), fg.hessian(f)(x))
        check(fg.jvp(compiled, (x,), (C,)), fg.jvp(f, (x,), (C,)))


@pytest.mark.filterwarnings("ignore:fg.compile")
@pytest.mark.parametrize("recorded", [False, True])
def test_gradients_flow_to_arguments_and_to_tensors_outside(recorded):
    w, k = fg.tensor(A, requires_grad=True), fg.tensor(A)
    compiled = fg.compile(lambda x: x * k)
    if recorded:
        compiled(fg.tensor(B))
        compiled(fg.tensor(B))
    for x in (w * 1.0, w):
        compiled(x).sum().backward()
        check(w.grad, fg.tensor(A))
        w.zero_grad()
    k.requires_grad = True
    compiled(fg.tensor(B)).sum().backward()
    check(k.grad, fg.tensor(B))
    k.requires_grad = False
    k *= w
    compiled(fg.tensor(B)).sum().backward()
    check(w.grad, fg.tensor(A * B))


@pytest.mark.filterwarnings("ignore:fg.compile")
def test_no_grad_outside_is_part_of_the_signature():
    w = fg.tensor(A, requires_grad=True)

    def f(x):
        y = (x * w).sum()
        if y.requires_grad:
            y.backward()
        return y.detach()

    compiled = fg.compile(f)
    with fg.no_grad():
        for x in (A, B):
            check(compiled(x), F64((x * A).sum()))
    assert w.grad is None
    for x in (A, B):
        w.zero_grad()
        check(compiled(x), F64((x * A).sum()))
        check(w.grad, fg.tensor(x))
    with fg.no_grad():
        w.zero_grad()
        compiled(A)
    assert w.grad is None


def test_no_grad_inside():
    def f(x):
        def g(y):
            with fg.no_grad():
                k = y * 2.0
            return (y * k).sum()

        return fg.grad(g)(x)

    same(f, (A,), (B,), (C,))


# ------------------------------------------------------------------------------------------------------------ signatures


def test_python_numbers_and_float64_are_different_signatures():
    x = A.astype(F32)
    compiled = fg.compile(lambda x, s: x * s)
    for s in (2.0, 3.0, F64(1.1), 4.0, F64(2.3), F32(3.0), 5.0, 2, True):
        check(compiled(x, s), plain(fg.tensor(x) * s))


def test_static_arguments_are_told_apart_by_type_and_value():
    def f(x, s):
        return x * (1.0 if isinstance(s[0], bool) else 2.0 if isinstance(s[0], int) else 3.0 + np.copysign(1.0, s[0]))

    compiled = fg.compile(f, static_argnums=1)
    for s in ((1,), (1.0,), (True,), (0.0,), (-0.0,), (1,), (1.0,)):
        check(compiled(A, s), f(A, s))
        check(compiled(B, s), f(B, s))


@pytest.mark.parametrize("s", [[2.0], {"a": 2.0}, A])
def test_static_arguments_must_be_hashable(s):
    with pytest.raises(TypeError, match="static"):
        fg.compile(lambda x, s: x, static_argnums=1)(A, s)


def test_static_argnums_that_name_no_argument():
    with pytest.raises(ValueError, match="static_argnums names argument 2, and the call has 2 positional ones"):
        fg.compile(lambda x, y: x, static_argnums=2)(A, A)
    check(fg.compile(lambda x, k: x * k, static_argnums=-1)(A, 3), A * 3)


def test_keywords_defaults_and_order():
    def f(x, k=2.0, *, j=3.0, y=None):
        return x * k * j + (0.0 if y is None else y)

    compiled = fg.compile(f)
    for x in (A, B):
        for positional, keywords in [((), {}), ((3.0,), {}), ((), {"j": 1.0}), ((4.0,), {"j": 1.0}), ((), {"j": 1.0, "k": 4.0}),
                                     ((), {"y": C}), ((), {"y": C, "j": 2.0}), ((), {"j": 5.0, "y": A})]:
            check(compiled(x, *positional, **keywords), f(x, *positional, **keywords))


class Pair(NamedTuple):
    a: object
    b: object


@dataclasses.dataclass
class Record:
    a: object
    b: object


def test_trees_in_and_out():
    def f(t):
        return {"s": t["p"].a * t["p"].b, "d": Record(t["d"].a * 2.0, t["d"].b), "l": [t["l"][0] + 1.0, (t["l"][1], None)],
                "n": Pair(t["p"].b, 3), "e": ()}

    compiled = fg.compile(f)
    for k in range(3):
        t = {"p": Pair(A * (k + 1), B), "d": Record(C + k, "s"), "l": [2.0 + k, A + k]}
        check(compiled(t), f(t))
    assert compiled.recordings == 1
    assert compiled({"p": Pair(A, B), "d": Record(C, "t"), "l": [2.0, A]})["d"].b == "t"


def test_a_dict_keeps_its_order():
    def f(d):
        first, second = d.values()
        return first * 2.0 + second

    compiled = fg.compile(f)
    for d in ({"a": A, "b": B}, {"b": B, "a": A}, {"a": B, "b": A}):
        check(compiled(d), f(d))


@pytest.mark.parametrize("result", [(), {}, [], None, 3.0, ("a", None, 2), {"k": [1, 2]}])
def test_results_that_are_constants(result):
    compiled = fg.compile(lambda x: result)
    for x in (A, B):
        assert compiled(x) == result


def test_results_do_not_share_what_the_caller_may_change():
    compiled = fg.compile(lambda x: (np.zeros(3), x, {"k": [1, 2]}, x * 2.0))
    for x in (A, B, C):
        given = x.copy()
        zeros, same_as_given, tree, twice = compiled(given)
        check((zeros, same_as_given, twice), (np.zeros(3), x, x * 2))
        assert tree == {"k": [1, 2]}
        zeros[:], same_as_given[:], twice[:] = 9.0, 9.0, 9.0
        tree["k"].append(3)
        check(given, x)


@pytest.mark.parametrize("n", [3, 5000])
def test_one_value_as_several_results(n):
    x = np.arange(float(n))
    compiled = fg.compile(lambda x: (lambda y: (y, y, y[::-1], y[1:], y.T))(x * 2.0))
    for k in range(3):
        y = (x + k) * 2
        found = compiled(x + k)
        check(found, (y, y, y[::-1], y[1:], y))
        found[0][:] = -1.0
        check(found[1], y)


def test_what_is_outside_as_a_result():
    w, a = fg.tensor(A), A.copy()
    compiled = fg.compile(lambda x: (x * 2.0, w, a))
    for _ in range(3):
        x, t, b = compiled(fg.tensor(B))
        check((plain(x), plain(t), plain(b)), (B * 2, plain(w), a))
        w += 1.0
        a += 1.0


def test_a_function_without_arguments():
    w = fg.tensor(A)
    compiled = fg.compile(lambda: w * 2.0)
    for _ in range(3):
        check(compiled(), w * 2.0)
        w += 1.0


def test_unused_arguments():
    compiled = fg.compile(lambda x, y, z: z * 2.0)
    for k in range(3):
        check(compiled(A + k, np.ones(5000) * k, B + k), (B + k) * 2)


@pytest.mark.parametrize("layout", [lambda x: np.asfortranarray(x), lambda x: x.astype(">f8"), lambda x: x[::-1], lambda x: x.T.copy().T,
                                    lambda x: np.repeat(x, 2, axis=1)[:, ::2], lambda x: np.broadcast_to(x[:1], x.shape)])
@pytest.mark.parametrize("first", [False, True])
def test_contract_24_arguments_of_any_layout(layout, first):
    f = lambda x: (x * 2.0, x.sum(axis=0), x.T @ x)  # noqa: E731
    compiled = fg.compile(f)
    x = np.arange(12.0).reshape(3, 4)
    for y in (layout(x), x + 1, layout(x + 2)) if first else (x, layout(x + 1), layout(x + 2), x):
        check(compiled(y), lowered(f(fg.tensor(y))), 4, True)


def test_contract_31_arguments_of_other_kinds():
    for bad in (np.zeros(2, complex), np.zeros(2, np.float16), np.array(["a"]), np.array([None]), np.zeros(2, np.longdouble)):
        with pytest.raises(TypeError, match="dtype"):
            fg.compile(lambda x: x)(bad)
    with pytest.raises(TypeError, match="np.asarray"):
        fg.compile(lambda x: x)(np.ma.masked_array(A, [0, 1, 0]))
    with pytest.raises(TypeError, match="not callable"):
        fg.compile(3)


NUMBER_OPERATORS = {
    "argument": lambda s: s, "arithmetic": lambda s: (s * 2.0 + 1.0 - s / 3.0) // 0.5, "signs": lambda s: abs(-s) + +s, "remainders": lambda s: s % 0.7 + divmod(s, 0.7)[1],
    "powers": lambda s: s**2 + s**0.5 + s**1 + s**-1 + s**1.5 + 2.0**s, "comparison": lambda s: s > 0, "largest": lambda s: max(s, 1.0), "sum": lambda s: sum([s, s]),
}
NUMBER_FUNCTIONS = {
    "np.sin": np.sin, "np.add": lambda s: np.add(s, 2.0), "np.float64": lambda s: np.float64(2.0) * s, "asarray": fnp.asarray, "array": fnp.array, "tensor": fg.tensor,
    "where": lambda s: fnp.where(s > 0, s, 1.0), "clip": lambda s: fnp.clip(s, 0.0, 1.0), "copy": fnp.copy, "sum of it": fnp.sum, "largest of it": fnp.max, "full": lambda s: fnp.full(LONG, s),
    "list": lambda s: fnp.array([s, 1.0])[0], "reshape": lambda s: fnp.reshape(s, (1,)), "broadcast_to": lambda s: fnp.broadcast_to(s, (LONG,)), "dot": lambda s: fnp.dot(s, 2.0),
    "logsumexp": fnp.logsumexp, "expand_dims": lambda s: fnp.expand_dims(s, 0), "transpose": fnp.transpose, "squeeze": fnp.squeeze, "stack": lambda s: fnp.stack([s, s])[0],
    "operator of a function": lambda s: fnp.sin(s) * 2.0 + s, "array from outside": lambda s: np.ones(LONG) * s, "grad": lambda s: fg.grad(lambda t: t * t)(s),
    "condition": lambda s: fnp.greater(s, 0.0),
}


@pytest.mark.parametrize("wrap", [np.asarray, fg.tensor], ids=["array", "Tensor"])
@each_row
def test_a_row_of_a_number_and_float32_replays_in_its_precision(name, wrap):
    """Python's operators leave a number a number, which takes the array's dtype; a function makes a float64 of it."""
    f, n = getattr(fnp, name), ROWS[name].arity
    data = [[a.tolist() for a in points(name, 2, F32, turn)] for turn in (0, 1)]
    x = [points(name, LONG, F32, turn) for turn in (0, 1)]
    same(lambda x, *s: x * f(*s), *((wrap(a[0]), *(v[0] for v in numbers)) for a, numbers in zip(x, data)))
    for k in range(n):
        def one_array(*v):
            return f(*v) * v[0] if k == 0 else f(*v)

        same(one_array, *((*(v[0] for v in numbers[:k]), wrap(a[k]), *(v[1] for v in numbers[k + 1:])) for a, numbers in zip(x, data)))


@pytest.mark.parametrize("name", [*NUMBER_OPERATORS, *NUMBER_FUNCTIONS])
def test_what_is_made_of_a_number_has_the_precision_that_python_gives_it(name):
    f = (NUMBER_OPERATORS | NUMBER_FUNCTIONS)[name]
    x = drawn([(LONG,)], 0, F32)[0]
    expected = F32 if name in NUMBER_OPERATORS or name == "condition" else F64
    for wrap in (np.asarray, fg.tensor):
        compiled = same(lambda x, s: x * f(s), (wrap(x), 0.75), (wrap(x), 1.5), recordings=2 if name == "largest" else 1)
        assert compiled(wrap(x), 2.0).dtype == expected


def test_changing_a_number_in_place_gives_its_name_another():
    def f(x, s):
        before = s
        s += 1.0
        s *= 2.0
        return x * before, x * s

    same(f, (A, 1.5), (A, -2.0))


# ---------------------------------------------------------------------------------------------------------------- guards


def test_branches_and_loops_on_values_are_guards():
    def f(x):
        if x.sum() > 0:
            y = fnp.sin(x)
        elif x[0] < -5:
            y = x * x
        else:
            y = x * 1.0
        while (y * y).sum() > 1:
            y = y * 0.5
        return y

    compiled = fg.compile(f)
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        for _ in range(200):
            x = rng.normal(size=3) * 10.0 ** rng.integers(-2, 2)
            check(compiled(x), plain(f(fg.tensor(x))))
    assert 1 < compiled.recordings <= 16


def test_guards_on_nan_and_truth_values_and_integers():
    def f(x, k):
        y = x * 2.0 if k.sum() else x * 3.0
        return y + 1.0 if (x > 0).all() else y - (k > 300).sum()

    compiled = fg.compile(f)
    for x in (A, B, A * np.nan, -A, A):
        for k in (np.zeros(2, int), np.array([0, 256]), np.array([512, -512]), np.array([2**40, 0])):
            check(compiled(x, k), plain(f(fg.tensor(x), fg.tensor(k))))


def test_recordings_are_bounded_and_a_function_that_keeps_recording_is_named():
    def branchy(x):
        return [x * float(k) for k in range(100) if x.sum() < k][0]

    compiled = fg.compile(branchy)
    with pytest.warns(RuntimeWarning, match="branchy has been recorded") as caught:
        for k in range(80):
            check(compiled(np.array([k + 0.5])), np.array([k + 0.5]) * (k + 1))
    assert len(caught) == 1 and compiled.recordings <= 16


@pytest.mark.parametrize("how", ["static", "rebound"])
def test_signatures_are_bounded_too(how):
    factor = 0
    compiled = fg.compile((lambda x, k: x * k) if how == "static" else (lambda x, k: x * factor))
    with pytest.warns(RuntimeWarning, match="recorded|more than 64 signatures") as caught:
        for factor in range(400):
            check(compiled(A, factor if how == "static" else 0), A * factor)
    assert len(caught) == 1 and compiled.recordings < 200


# ------------------------------------------------------------------------------------------------------------ randomness


def test_a_generator_that_is_given_draws_anew():
    def f(x, rng):
        rng.normal(size=3)
        n = rng.normal(size=3)
        return x * n * rng.uniform() + rng.integers(5) if (x + n).sum() > 0 else x - n

    compiled = fg.compile(f)
    ours, theirs = np.random.default_rng(3), np.random.default_rng(3)
    for k in range(30):
        check(compiled(A * (k % 3), ours), plain(f(fg.tensor(A * (k % 3)), theirs)))
    assert ours.bit_generator.state == theirs.bit_generator.state
    other = np.random.default_rng(5)
    check(compiled(A, other), plain(f(fg.tensor(A), np.random.default_rng(5))))


def drawing(kind):
    rng = np.random.default_rng(0)

    class Holder:
        pass

    holder = Holder()
    holder.rng = rng
    held = [rng]
    helper = lambda: rng.normal()  # noqa: E731
    return {
        "closure": lambda x: x * rng.normal(), "nested": lambda x: fg.grad(lambda y: (y * rng.normal()).sum())(x),
        "attribute": lambda x: x * holder.rng.normal(), "helper": lambda x: x * helper(), "list": lambda x: x * held[0].normal(),
        "np.random": lambda x: x * np.random.normal(), "np.random.randint": lambda x: x * np.random.randint(3),
        "random": lambda x: x * random.random(),
    }[kind]


@pytest.mark.parametrize("kind", ["closure", "nested", "attribute", "helper", "list", "np.random", "np.random.randint", "random"])
def test_randomness_that_was_not_given_is_an_error(kind):
    with pytest.raises(TypeError, match="draws random numbers.*give it the numpy.random.Generator as an argument"):
        fg.compile(drawing(kind))(A)


# ---------------------------------------------------------------------------------------------------------------- errors


READS = {
    "float(t)": lambda x: float(x[0]), "t.item()": lambda x: x[0].item(), "int(t)": lambda x: int(x[0]), "complex": lambda x: complex(x[0]),
    "np.asarray(t)": lambda x: np.asarray(x), "t.numpy()": lambda x: x.numpy(), "t.tolist()": lambda x: x.tolist(),
    "np.array": lambda x: np.array(x), "a list": lambda x: np.array([x[0], x[1]]), "an index": lambda x: range(x.astype(int)[0]),
    "deepcopy": lambda x: copy.deepcopy(x), "pickle": lambda x: pickle.dumps(x), "math": lambda x: math.sin(x[0]),
    "detached": lambda x: x.detach()[0].item(),
}


@pytest.mark.parametrize("name", READS)
def test_reading_numbers_while_recording_says_what_to_do(name):
    compiled = fg.compile(lambda x: (READS[name](x), x)[1])
    for _ in range(2):
        with pytest.raises(TypeError, match="while fg.compile or fg.vmap records a function.*Keep it a Tensor.*return it and read it"):
            compiled(A)
    assert not engine.tracing()


def test_reading_numbers_of_constants_is_free():
    compiled = fg.compile(lambda x: x * float(fnp.sin(fg.tensor(1.0))) + fg.tensor(A).numpy())
    for x in (A, B):
        check(compiled(x), x * np.sin(1.0) + A)


def test_an_index_out_of_bounds_raises_at_a_replay():
    compiled = fg.compile(lambda x, i: x[i])
    for i in ([0, 1], [2, -1], [1, 1]):
        check(compiled(A, np.array(i)), A[i])
    with pytest.raises(IndexError):
        compiled(A, np.array([0, 5]))
    check(compiled(A, np.array([0, 2])), A[[0, 2]])


@pytest.mark.parametrize("bad", [[0, 1, 2, 3, 4, 9], [0, 1, 2, -7, 0, 0], [0, 2**40, 0, 0, 0, 0]])
@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"hessian"}))      # which does not depend on the labels
def test_a_label_out_of_range_raises_at_a_replay(name, bad):
    if name == "of T" and bad[4] == 4 or name == "of one" and bad[0] == 0:
        return
    compiled = fg.compile(LOSSES[name])
    x = drawn([(6, 4)], 0)[0]
    compiled(x, labels(0))
    with pytest.raises((IndexError, ValueError)):
        LOSSES[name](fg.tensor(x), np.array(bad))
    with pytest.raises((IndexError, ValueError)):
        compiled(x, np.array(bad))
    compiled(x, labels(1))


def test_masks_of_any_number_replay():
    f = lambda x, m: (x[m] * 2.0).sum()  # noqa: E731
    value, slope = fg.compile(f), fg.compile(fg.grad(f))
    for turn in range(7):
        x = drawn([(7,)], turn)[0]
        m = x > np.sort(x)[turn]
        check(value(x, m), plain(f(fg.tensor(x), m)), 4, True)
        check(slope(x, m), fg.grad(f)(x, m))


# --------------------------------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize("n", [3, 50000])
def test_contract_43_threads_call_one_function(n):
    def f(x):
        return {"a": fnp.sin(x) * 2.0} if x.sum() > 0 else (fnp.cos(x), x.sum(), x)

    compiled = fg.compile(f)
    base, wrong = np.linspace(-1.0, 2.0, n), []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            x = base * rng.choice([-1, 1]) + rng.normal() * 1e-3
            found = compiled(x)
            if (type(found) is dict) != (x.sum() > 0):
                wrong.append(type(found))
            elif type(found) is dict:
                wrong.extend([] if np.allclose(found["a"], 2 * np.sin(x)) else ["numbers"])
            elif not (np.allclose(found[0], np.cos(x)) and np.array_equal(found[2], x)):
                wrong.append("numbers")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, wrong[:3]


def test_contract_43_threads_update_one_tensor():
    w = fg.tensor(np.zeros(50000))

    def f(x):
        w.__iadd__(x)
        return w * 1.0

    compiled = fg.compile(f)
    wrong = []

    def work():
        for _ in range(50):
            found = compiled(fg.tensor(np.ones(50000))).numpy()
            wrong.extend([] if (found == found[0]).all() else ["torn"])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and (w.numpy() == w.numpy()[0]).all()


def test_contract_37_an_interrupt_reaches_a_long_replay_and_changes_nothing():
    w = fg.tensor(np.zeros(3))

    def f(x):
        y = x
        for _ in range(400):
            y = fnp.sin(y) @ x * 1e-3
        w.__iadd__(y[0, :3])
        return y

    compiled = fg.compile(f)
    x = np.ones((300, 300))
    compiled(x)
    expected = compiled(x)
    before = w.numpy().copy()
    timer = threading.Timer(0.05, lambda: signal.raise_signal(signal.SIGINT))
    started = time.perf_counter()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        while True:
            compiled(x)
            before = w.numpy().copy()
    assert time.perf_counter() - started < 2.0
    assert np.array_equal(w.numpy(), before)
    check(compiled(x), expected)


def test_contract_44_run_twice_and_by_any_number_of_threads():
    f = fg.value_and_grad(lambda x, y: fnp.softmax(fnp.tanh(x @ y), axis=0).sum() + (fnp.exp(x) * 0.1).sum(), (0, 1))
    compiled = fg.compile(f)
    x, y = drawn([(300, 200), (200, 100)], 0)
    recorded, first = compiled(x, y), compiled(x, y)
    threads = fg.get_num_threads()
    try:
        for n in (1, 2, 3):
            fg.set_num_threads(n)
            for _ in range(2):
                check(compiled(x, y), first)
    finally:
        fg.set_num_threads(threads)
    check(recorded, f(x, y))
    near(lowered(first), lowered(recorded), 1e3)


# ------------------------------------------------------------------------------------------------ the engine's own tests


@pytest.mark.skipif(bool(os.environ.get("FASTGRAD_COMPILED")), reason="this is it")
def test_the_engine_s_tests_pass_with_compiled_twins():
    """A part that takes seconds; FASTGRAD_COMPILED=1 pytest runs all of it (conftest.py)."""
    tests = Path(__file__).parent
    files = [str(tests / f"test_{name}.py") for name in ("structured", "transforms", "tensor", "nn", "optim")]
    run = python("-m", "pytest", *files, "-k", "not against and not pytorch", "-p", "no:cacheprovider", "--tb=short", "-rN",
                 FASTGRAD_COMPILED="1")
    assert run.returncode == 0, run.stdout[-4000:]
    compared = int(re.search(r"compiled twins: (\d+) compared", run.stdout).group(1))
    assert compared > 5000


@pytest.mark.parametrize("divisor", [2.0**-140, 2.0**130, 2.0**-149, 2.0**127, 2.0**1000, 2.0**-1000, 8.0, 0.25])
@each_dtype
def test_a_division_by_a_power_of_two_is_exact(divisor, dtype):
    tiny, huge = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    by_number, by_array = (lambda x: x / divisor), (lambda x: x / fg.tensor(np.full(4, divisor, dtype)))
    with np.errstate(all="ignore"):
        for f in (by_number, by_array):
            same(f, (np.array([tiny, 1.0, huge, np.inf], dtype),), (np.array([1.0, -3 * tiny, 0.0, -huge], dtype),))


def test_training_state_in_views_and_swaps_replays():
    def make():
        a, b = fg.tensor(np.arange(6.0).reshape(2, 3)), fg.tensor(A)

        def f(x):
            row = a[0]
            a[0] = a[1] + x
            a[1] += row
            before = b * 1.0
            b[...] = a[0]
            a[1] = before
            return row * 1.0, a * 2.0, a[:, ::-1]

        return f, (a, b)

    (f, outside), (g, twin) = make(), make()
    compiled = fg.compile(g)
    for x in (A, B, C, A):
        x = fg.tensor(x)
        check((compiled(x), twin), (f(x), outside))
    assert compiled.recordings == 1


def test_a_gradient_is_clipped_by_its_norm():
    w, v = fg.tensor(A, requires_grad=True), fg.tensor(A, requires_grad=True)

    def make(w):
        def f(x):
            w.zero_grad()
            (w * x).sum().backward()
            norm = (w.grad * w.grad).sum()
            if norm > 30:
                w.grad = w.grad * (1.0 / fnp.sqrt(norm))
            return norm, w.grad * 1.0

        return f

    f, compiled = make(v), fg.compile(make(w))
    for x in (A, B, C, A, B):
        x = fg.tensor(x)
        near(lowered((compiled(x), w.grad)), lowered((f(x), v.grad)), 1.0)
    assert compiled.recordings <= 3


# ----------------------------------------------------------------------------------- what follows a product, in its step


def steps_of(program):
    return [(fact["step"], names) for fact, names in zip(engine.program_facts(program)["steps"], engine.step_names(program))]


EPILOGUES = {
    "bias": lambda x, w, b: x @ w + b,
    "bias first": lambda x, w, b: b + x @ w,
    "activated": lambda x, w, b: fnp.tanh(x @ w + b),
    "activated, and the sum too": lambda x, w, b: (fnp.relu(x @ w + b), x @ w + b),
    "two activations": lambda x, w, b: (fnp.tanh(x @ w + b), fnp.exp(x @ w + b)),
    "activated for a product": lambda x, w, b: fnp.sigmoid(x @ w + b) @ w.T,
    "the sum in views": lambda x, w, b: (lambda z: (z[..., :1] * 2, z[..., ::-1] + 1))(x @ w + b),
    "a gradient": fg.grad(lambda x, w, b: np.sum(fnp.gelu(x @ w + b) @ w.T), argnums=(0, 1, 2)),
    "the product as well": lambda x, w, b: (x @ w, fnp.tanh(x @ w + b)),
    "a bias of one row": lambda x, w, b: np.exp(x @ w + b[None]),
    "a bias in a view": lambda x, w, b: x @ w + fnp.concatenate([b, b])[::2][-1:-1 - b.shape[0]:-1] + 0 * b,
    "a constant": lambda x, w, b: fnp.tanh(x @ w + np.ones(w.shape[1], w.dtype)),
    "with itself": lambda x, w, b: (lambda z: fnp.tanh(z + z))(x @ w),
    "a product seen as a stack": lambda x, w, b: fnp.tanh(np.reshape(x @ w, (1, *x.shape[:1], 1, *b.shape)) + b),
    "a product seen in other rows": lambda x, w, b: fnp.tanh(np.reshape(x @ w, (*b.shape, *x.shape[:1])) + x[:, 0]) if x.shape[1] else x,
    "a product seen twice": lambda x, w, b: (lambda z: (fnp.tanh(np.reshape(z, (1, *z.shape)) + b), z))(x @ w),
}


@pytest.mark.parametrize("name", list(EPILOGUES))
@pytest.mark.parametrize("shape", [(1, 4, 8), (16, 4, 8), (5, 3, 1), (700, 33, 9), (40, 64, 64), (90, 300, 2), (0, 3, 2), (2, 0, 3), (2, 3, 0)])
@each_dtype
def test_a_bias_and_an_activation_are_done_by_the_step_of_the_product(name, shape, dtype):
    m, k, n = shape
    rng = np.random.default_rng(7)
    data = [tuple((rng.integers(-3, 4, s) / 8).astype(dtype) for s in ((m, k), (k, n), (n,))) for _ in range(2)]   # exact products
    same(EPILOGUES[name], *data, ulps=64 if name == "a gradient" else 4, whole=True)      # of a gradient, sums of many rows


@each_dtype
def test_epilogues_of_stacks_and_vectors(dtype):
    rng = np.random.default_rng(8)

    def some(*shapes):
        return [tuple(rng.normal(size=s).astype(dtype) for s in shapes) for _ in range(2)]

    f = EPILOGUES["activated, and the sum too"]
    same(f, *some((3, 5, 4), (3, 4, 6), (6,)), ulps=4, whole=True)
    same(f, *some((2, 1, 5, 4), (3, 4, 6), (1, 1, 6)), ulps=4, whole=True)
    same(f, *some((4,), (4, 6), (6,)), ulps=4, whole=True)
    same(f, *some((5, 4), (4,), (5,)), ulps=4, whole=True)          # a column: nothing to add to rows
    same(f, *some((5, 4), (4, 5), (5, 1)), ulps=4, whole=True)
    same(f, *some((5, 4), (4, 6), (2, 5, 6)), ulps=4, whole=True)


def test_which_products_have_an_epilogue():
    x, w, b = np.ones((20, 5)), np.ones((5, 5)), np.ones(5)
    names = [("product", ["matmul", "add", "tanh"])]
    assert steps_of(fg.compile(lambda x, w, b: fnp.tanh(x @ w + b)).program(x, w, b)) == names
    assert steps_of(fg.compile(lambda x, w, b: fnp.tanh(x @ w + b) @ w).program(x, w, b)) == names + [("product", ["matmul"])]
    program = fg.compile(lambda x, w, b: np.sum((x @ w + b - x) ** 2)).program(x, w, b)     # in the group at no cost
    assert [kind for kind, _ in steps_of(program)] == ["product", "group"] and steps_of(program)[0][1] == ["matmul"]
    assert "matmul, add, tanh" in fg.compile(lambda x, w, b: fnp.tanh(x @ w + b)).program(x, w, b).explain()


# ----------------------------------------------------------------------------------------------------- columns times rows


OUTER = {
    "column, row": ((7, 1), (1, 5)),
    "row, column": ((1, 5), (7, 1)),
    "row of one axis": ((7, 1), (5,)),
    "stacks": ((3, 40, 1), (3, 1, 33)),
    "stacks that broadcast": ((2, 1, 9, 1), (3, 1, 4)),
    "one row for all": ((20, 6, 1), (1, 1, 17)),
    "large": ((400, 1), (1, 300)),
    "few rows": ((2, 1), (1, 30001)),
    "few columns": ((30001, 1), (1, 2)),
    "nothing": ((0, 5, 1), (0, 1, 5)),
}


@pytest.mark.parametrize("name", list(OUTER))
@each_dtype
def test_columns_times_rows_to_the_bit(name, dtype):
    rng = np.random.default_rng(3)
    special = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, np.finfo(dtype).smallest_subnormal, -np.finfo(dtype).max], dtype)
    calls = [tuple(np.where(rng.random(s) < 0.3, rng.choice(special, s), rng.normal(size=s).astype(dtype)) for s in OUTER[name])
             for _ in range(2)]
    compiled = fg.compile(lambda x, y: x * y)
    with np.errstate(all="ignore"):
        for x, y in calls * 2:
            found, expected = compiled(x, y), x * y
            assert found.dtype == dtype and np.array_equal(found, expected, equal_nan=True)
            assert np.array_equal(np.signbit(found) | np.isnan(found), np.signbit(expected) | np.isnan(expected))
    if 0 not in OUTER[name][0]:
        assert [kind for kind, _ in steps_of(compiled.program(*calls[0]))] == ["product"]


def test_columns_times_rows_in_views_and_groups():
    x, y = np.random.default_rng(4).normal(size=(2, 6, 6))
    same(lambda x, y: x[:, ::2][..., None] * y[1:, None, 3:0:-1][[0]], (x, y), (y, x))
    same(lambda x, y: (x.T[:, :1] * y[2], x.T[:1] * y[:, 2:3]), (x, y), (y, x))
    program = fg.compile(lambda x, y: x[:, :1] * y[:1] + 1).program(x, y)
    assert [kind for kind, _ in steps_of(program)] == ["group"]


def test_gradients_of_each_example_are_products():
    rng = np.random.default_rng(5)
    x, w, v = rng.normal(size=(9, 4)), rng.normal(size=(4, 6)), rng.normal(size=(6, 3))
    f = fg.vmap(fg.grad(lambda w, v, x: np.sum(fnp.tanh(x @ w) @ v), argnums=(0, 1)), in_axes=(None, None, 0))
    same(f, (w, v, x), (w * 2, v - 1, x), ulps=4, whole=True)
    assert ("product", ["multiply"]) in steps_of(fg.compile(f).program(w, v, x))


# ------------------------------------------------------------------------------------------------- arrays of integers as index

PICKS = {
    "rows": (lambda x, i, j: x[i], (3, 0, -1, 3)),
    "columns": (lambda x, i, j: x[:, i], (3, 0, -1, 3)),
    "a matrix of rows": (lambda x, i, j: x[i], ((1, 2), (0, -4))),
    "pairs": (lambda x, i, j: x[i, j], (0, 1, -2)),
    "pairs that broadcast": (lambda x, i, j: x[i[:, None], j], (3, 2)),
    "pairs after an axis": (lambda x, i, j: x[:, i, j], (1, 0)),
    "with a number": (lambda x, i, j: x[1, i], (2, 0)),
    "the last axis": (lambda x, i, j: x[..., i], (1, -1, 0, 0)),
    "axes around": (lambda x, i, j: x[:, i, :], (1, 3)),
    "a constant list": (lambda x, i, j: x[[3, 0, 0]] + x[i], (1, 2, 3)),
    "a constant array": (lambda x, i, j: x[:, np.array([[0, 1]])] * 2, (0,)),
    "of a view": (lambda x, i, j: x.T[i] * x[::-1][:, i].T, (0, 2, 2)),
    "strided index": (lambda x, i, j: x[i[::-2]], (0, 1, 2, 3, 0)),
    "one number": (lambda x, i, j: x[i[0]] * 2, (2, 1)),
    "parts of axes": (lambda x, i, j: x[::-2, j] + x[1:3, [0, 1]].T[:1, :1], (2, 1)),
    "take": (lambda x, i, j: np.take(x, i, axis=-1), (2, 1)),
    "take of all": (lambda x, i, j: np.take(x, i[:, None]), (9, -1, 3)),
}


@pytest.mark.parametrize("name", list(PICKS))
@pytest.mark.parametrize("integer", [np.int64, np.int32, np.int8, np.intp])
@each_dtype
def test_picking_by_integers(name, integer, dtype):
    f, index = PICKS[name]
    rng = np.random.default_rng(6)
    i, turned = np.array(index, integer), np.array(index, integer)[::-1].copy()
    x, y = (rng.normal(size=(4, 4, 3)).astype(dtype) for _ in range(2))
    x, y = (x, y) if name in ("pairs after an axis", "axes around", "a constant array") else (x[..., 0].copy(), y[..., 0].copy())
    calls = (x, i, i % 3), (y, turned, turned % 3)
    compiled = same(f, *calls)
    assert "host" not in [kind for kind, _ in steps_of(compiled.program(*calls[0]))]
    square = fg.grad(lambda x, i, j: np.sum(f(x, i, j) ** 2))
    compiled = same(square, *calls, ulps=2)
    kinds = [kind for kind, _ in steps_of(compiled.program(*calls[0]))]
    assert "host" not in kinds and "scatter" in kinds
    same(fg.vmap(f, in_axes=(None, None, 0)), (x, i, np.array([i % 3, i % 2])), (y, turned, np.array([i % 2, i % 3])))
    same(fg.vmap(f, in_axes=(0, None, None)), (np.array([x, y]), i, i % 3), (np.array([y, x]), turned, turned % 3))


@each_dtype
def test_many_gradients_add_up_in_one_place(dtype):
    rng = np.random.default_rng(9)
    f = fg.grad(lambda x, i: np.sum(x[i] ** 2))
    for size in (10, 1000):
        x, i = rng.normal(size=(5, 3)).astype(dtype), rng.integers(0, 5, size)
        same(f, (x, i), (x * 2, i[::-1].copy()), ulps=4 if size > 30 else 16, whole=True)


@pytest.mark.parametrize("index", [(4,), (0, -5), (1, 2, 100), (-(2**62),)])
def test_an_index_out_of_range_is_an_index_error(index):
    x, i, wrong = np.ones((4, 6)), np.zeros(len(index), int), np.array(index)
    state = fg.tensor(np.zeros(3))
    for f in (lambda x, i: x[i], lambda x, i: x.T[:, i], lambda x, i: fg.grad(lambda x: np.sum(x[i]))(x), lambda x, i: x[:, 0][i]):
        compiled = fg.compile(f)
        compiled(x, i)
        with pytest.raises(IndexError) as expected:
            f(x, wrong)
        for call in (compiled, compiled.program(x, i)):
            with pytest.raises(IndexError, match=re.escape(str(expected.value))):
                call(x, wrong)
        check(compiled(x, i), f(x, i))

    def step(x, i):
        state[...] = state + 1
        return x[i] * state[0]

    compiled = fg.compile(step)
    compiled(x, i)
    with pytest.raises(IndexError):
        compiled(x, wrong)
    assert np.array_equal(plain(state), np.ones(3))


def test_picks_that_are_left_to_numpy():
    x, i = np.arange(24.0).reshape(2, 3, 4), np.array([1, 0])
    for f in (lambda x, i: x[i, :, i], lambda x, i: x[:1, i, None], lambda x, i: np.take(x, i, mode='wrap'), lambda x, i: np.take(x, i == 1, 0), lambda x, i: x[i, None], lambda x, i: x[np.zeros((0, 1), int), i],
              lambda x, i: (x > 3)[i][0, 0, 0] * x, lambda x, i: x[i == 1]):
        same(f, (x, i), (x + 1, i))
    same(lambda x, i: (x > 3)[i], (x, i), (x[::-1].copy(), i))
    same(lambda n, i: n[i], (np.arange(5), i), (np.arange(5)[::-1].copy(), i[::-1].copy()))


def test_a_rule_of_the_same_name_is_not_taken_for_the_engines():
    rule = engine.Rule("getitem", lambda x, index, shape: x * 3, lambda g, out, x, index, shape: g * 3)
    same(lambda x: rule(x, index=(slice(None),), shape=(4,)) + rule(x, index=[0, 1, 2, 3], shape=(4,)), (np.arange(4.0),), (np.ones(4),))


# ------------------------------------------------------------------------------------------------------------ truth values

TRUTHS = {
    "and": lambda x, y: np.where((x > 0) & (y < 1), x, y),
    "or": lambda x, y: np.where((x > 0) | (y < 1), x, y),
    "xor": lambda x, y: np.where((x > 0) ^ (y < 1), x, y),
    "not": lambda x, y: np.where(~(x > y), x, y),
    "with arrays": lambda x, y: (x > 0) & MASK[: x.shape[-1]],
    "with a bool": lambda x, y: ((x > 0) | True, False ^ (y > 0)),
    "logical": lambda x, y: (np.logical_and(x > 0, y), np.logical_or(x > 0, y > 0), np.logical_xor(x > y, x), np.logical_not(x > y)),
    "compared": lambda x, y: ((x > 0) == (y > 0), (x > 0) != (y > 0), (x > 0) < (y > 0), (x > 0) >= (y > 0)),
    "special": lambda x, y: np.isnan(x) | ~np.isfinite(y) & np.isinf(x),
    "any": lambda x, y: (np.any(x > y), np.any(x), np.any(x > 9), (x > y).any(axis=-1), np.any(x, axis=0, keepdims=True)),
    "all": lambda x, y: (np.all(x > y), np.all(x), np.all(x > -9), (x > y).all(axis=-1), np.all(x, axis=0, keepdims=True)),
    "mean": lambda x, y: (np.mean(x > y), np.mean(x > 0, axis=0)),
    "a branch": lambda x, y: x * 2 if np.any(np.isnan(x)) else x,
}
MASK = np.array([True, False, False, True, True, False])


@pytest.mark.parametrize("name", list(TRUTHS))
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 5), (0, 3)])
@each_dtype
def test_truth_values_need_no_call_of_python(name, shape, dtype):
    rng = np.random.default_rng(10)
    special = np.array([0.0, -0.0, np.nan, np.inf], dtype)
    calls = [tuple(np.where(rng.random(shape) < 0.3, rng.choice(special, shape), rng.normal(size=shape).astype(dtype)) for _ in range(2))
             for _ in range(3)]
    if name == "with arrays" and shape[-1] != 6:
        return
    f = TRUTHS[name]
    compiled = same(f, *calls, recordings=None if name == "a branch" else 1)
    kinds = [kind for kind, _ in steps_of(compiled.program(*calls[-1]))]
    assert "host" not in kinds
    if name != "with arrays":
        with np.errstate(all="ignore"):
            stacked = [np.array(a) for a in zip(*calls)]
            if name != "a branch":
                same(fg.vmap(f), tuple(stacked), tuple(a[::-1].copy() for a in stacked))


def test_truth_values_of_numbers():
    f = lambda x: (np.any(x), np.all(x), np.logical_not(x > 0), (x > 0) & (x < 1), np.mean(x > 0))     # noqa: E731
    for number in (np.float64, float, np.float32, fg.tensor):
        same(f, *[(number(x),) for x in (0.5, -1.0, 0.0, np.nan, 2.0)], recordings=None)
# ------------------------------------------------------------------------------------------------------ calls and threads


def test_sums_and_products_keep_their_bits_whichever_operand_was_made_last():
    def f(x, y):
        for k in range(20):
            y = fnp.tanh(x * y + x) + 0.1 * y
            y = y * x + (x + y) * (y if k % 2 else x)
        return y - x, x - y

    compiled = fg.compile(f)
    for x, y in ((0.5, 0.3), (-0.7, 1.1), (0.0, -0.0), (math.inf, 1.0), (math.nan, 0.2)):
        check(compiled(x, y), f(x, y))


@pytest.mark.parametrize("n", [0, 1, 3, 1024, 1025, 5000])
def test_small_and_large_results_are_arrays_of_their_own(n):
    compiled = fg.compile(lambda x: (fnp.exp(x) * 2.0, fnp.tanh(x)))
    x = np.linspace(0.0, 1.0, n)
    first = compiled(x)
    kept = [a.copy() for a in first]
    second, third = compiled(x), compiled(x + 1.0)
    for a, b, c, d in zip(first, second, third, kept):
        assert a.flags.writeable and a.flags.c_contiguous and type(a) is np.ndarray
        assert not np.shares_memory(a, b) and not np.shares_memory(b, c)
        assert np.array_equal(a, d) and np.array_equal(b, d)
        b[...] = 7.0
    check(compiled(x), tuple(kept))


def test_what_a_replay_returns_is_held_by_the_caller_alone():
    compiled = fg.compile(lambda x: (x * 2.0, (x * x).sum()))
    x = np.ones(3)
    compiled(x)
    result = compiled(x)
    assert type(result) is tuple and type(result[1]) is np.float64
    like = tuple([x, 1.0])
    assert sys.getrefcount(result) == sys.getrefcount(like)
    for refused in (np.ones(4), np.ones((3, 1)), 2.0):
        check(compiled(refused), (refused * 2.0, np.sum(refused * refused)), ulps=4)


def test_threadpoolctl_limits_the_threads_of_programs():
    threadpoolctl = pytest.importorskip("threadpoolctl", minversion="3.2")
    compiled = fg.compile(lambda x: fnp.exp(x).sum())
    x = np.linspace(0.0, 1.0, 300_000)
    before, expected = fg.get_num_threads(), compiled(x)
    try:
        fg.set_num_threads(2)
        with threadpoolctl.threadpool_limits(limits=1):
            assert fg.get_num_threads() == 1
            check(compiled(x), expected, ulps=4)
        assert fg.get_num_threads() == 2
        with threadpoolctl.threadpool_limits(limits={"fastgrad": 3}):
            assert fg.get_num_threads() == 3
        with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
            assert fg.get_num_threads() == 2
        found = [entry for entry in threadpoolctl.threadpool_info() if entry["user_api"] == "fastgrad"]
        assert [(entry["num_threads"], Path(entry["filepath"]).name) for entry in found] == [(2, Path(engine.__file__).name)]
    finally:
        fg.set_num_threads(before)


@pytest.mark.parametrize("compiles", [False, True])
def test_threadpoolctl_is_imported_by_those_who_compile(compiles):
    pytest.importorskip("threadpoolctl", minversion="3.2")
    code = "import sys, fastgrad as fg" + "; fg.compile(lambda x: x)" * compiles + "; print('threadpoolctl' in sys.modules)"
    done = python("-c", code, check=True)
    assert done.stdout.split() == [str(compiles)]


def test_compile_does_without_threadpoolctl():
    code = ("import sys; sys.modules['threadpoolctl'] = None; import fastgrad as fg; "
            "f = fg.compile(lambda x: x * 2.0); print(f(1.0), f(2.0))")
    done = python("-c", code, check=True)
    assert done.stdout.split() == ["2.0", "4.0"]


# ---------------------------------------------------------------------------------- a compiled function that is differentiated


@pytest.fixture
def always(monkeypatch):
    """Nodes for whole results, however few operations there are."""
    from fastgrad.transforms import pullbacks

    monkeypatch.setattr(pullbacks, "LEAST_OPERATIONS", 0)


def on_leaves(f, *arrays, k=1):
    """What f gives for Tensors that ask for gradients, and these after backward; for each of k calls."""
    found = []
    for i in range(k):
        leaves = [fg.tensor(a * (1 + 0.25 * i), requires_grad=True) for a in arrays]
        out = f(*leaves)
        outs = out if isinstance(out, tuple) else (out,)
        flowing = [t for t in outs if isinstance(t, fg.Tensor) and t.requires_grad]
        total = sum((k + 1) * t.sum() for k, t in enumerate(outs) if isinstance(t, fg.Tensor) and not t.is_leaf)
        total.backward()
        found.append(([plain(t) for t in outs], [None if t.grad is None else plain(t.grad) for t in leaves],
                      [(t.is_leaf, t.dtype, t.shape) for t in outs if isinstance(t, fg.Tensor)], len(flowing)))
    return found


def same_nested(a, b):
    if isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            same_nested(x, y)
    elif isinstance(a, np.ndarray):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-12 if a.dtype == F64 else 1e-5)
    else:
        assert a == b


DIFFERENTIATED = {
    "one result": lambda x, y: (fnp.tanh(x * y) * fnp.exp(y)).sum(),
    "an array": lambda x, y: fnp.sqrt(x * x + y * y) - x[::-1],
    "two results": lambda x, y: (x * y + x, (fnp.exp(y) * 2.0).sum()),
    "a result of neither": lambda x, y: (x * 2.0, fnp.ones(3), 7),
    "truth values": lambda x, y: (fnp.where(x > y, x, y) * x, x > y),
    "a branch": lambda x, y: x * y if x.sum() > 5.5 else x / y,
    "the same twice": lambda x, y: (lambda z: (z, z * 1.0))(x * y),
    "an argument itself": lambda x, y: (x, x * y),
    "detached": lambda x, y: x * (y + x).detach() + y,
    "cut by no_grad": lambda x, y: x * cut(y) + y,
    "a gradient inside": lambda x, y: fg.grad(lambda v: (v * v * y).sum())(x) * x,
    "rules": lambda x, y: fnp.prod(fnp.stack([x, y * x, x + y]), axis=0) * fnp.concatenate([x, y])[1:4],
    "products": lambda x, y: (x[:, None] * y) @ fnp.exp(x),
    "an index": lambda x, y: x[[0, 0, 2]] * y[1],
    "float32": lambda x, y: x.astype(F32) * fnp.sin(y.astype(F32)),
}


def cut(t):
    with fg.no_grad():
        return t * 1.0


@pytest.mark.filterwarnings("ignore:fg.compile")
@pytest.mark.parametrize("name", list(DIFFERENTIATED))
def test_what_is_differentiated_gives_what_the_function_gives(name, always):
    f = DIFFERENTIATED[name]
    x, y = np.array([1.0, 2.0, 3.0]), np.array([0.5, 2.5, 1.5])
    same_nested(on_leaves(fg.compile(f), x, y, k=3), on_leaves(f, x, y, k=3))
    within = fg.compile(f)
    same_nested(on_leaves(lambda x, y: within(x * 2.0, y + x), x, y, k=3), on_leaves(lambda x, y: f(x * 2.0, y + x), x, y, k=3))
    half = fg.compile(f)
    same_nested(on_leaves(lambda x: half(x * 2.0, y), x, k=3), on_leaves(lambda x: f(x * 2.0, y), x, k=3))


@pytest.mark.parametrize("transform", [
    fg.grad, fg.value_and_grad, fg.jacrev, fg.jacfwd, fg.hessian, lambda f: fg.grad(lambda x: fg.grad(f)(x).sum()),
    lambda f: fg.jacrev(fg.jacrev(f)), lambda f: lambda x: fg.hvp(f, (x,), (x,)), lambda f: lambda x: fg.jvp(f, (x,), (x * x,)),
    lambda f: fg.grad(lambda x: fg.vmap(f)(fnp.stack([x, x * 2.0])).sum()), lambda f: fg.compile(fg.grad(f)),
    lambda f: lambda x: fg.linearize(f, x)[1](x)])
def test_transforms_of_a_compiled_function(transform, always):
    f = lambda x: (fnp.tanh(x * x) * fnp.exp(-x)).sum()  # noqa: E731
    theirs, ours = transform(f), transform(fg.compile(f))
    for x in (np.array([1.0, 2.0, 3.0]), np.array([0.3, -0.2, 0.1]), np.array([0.0, 1.0, -1.0])):
        near(ours(x), theirs(x), 1e3)


def test_a_long_function_is_one_node_of_a_recording_and_a_short_one_is_not():
    def chain(n):
        def f(x):
            y = x
            for _ in range(n):
                y = fnp.tanh(x * y + x) + 0.1
            return y
        return f

    for n, one in ((2, False), (50, True)):
        compiled, x = fg.compile(chain(n)), fg.tensor(0.5, requires_grad=True)
        for k in range(3):
            with fg.Tape() as tape:
                compiled(x * 1.0)
            assert k == 0 or (len(tape) < 6) == one, (n, k, len(tape))


def test_a_pullback_sees_what_was_there_at_the_call(always):
    w, data = fg.tensor(np.ones(3), requires_grad=True), np.array([1.0, 2.0, 3.0])
    scale = [2.0]

    def f(x):
        return (x * w * fnp.sin(data * scale[0]) * x).sum()

    compiled = fg.compile(f)
    results = []
    for g in (f, compiled, compiled, compiled):
        with fg.no_grad():
            w[...] = 1.0
        w.grad, data[:], scale[0] = None, [1.0, 2.0, 3.0], 2.0
        array = np.array([0.1, 0.2, 0.3])
        x = fg.tensor(array, requires_grad=True)
        out = g(x * 3.0)
        with fg.no_grad():
            w[...] = 5.0
        data[:], scale[0], array[:] = 0.0, 7.0, 9.0
        out.backward()
        results.append((plain(out), plain(x.grad), plain(w.grad)))
    for ours in results[1:]:
        same_nested(ours, results[0])


def test_contract_34_backward_twice_through_a_compiled_function(always):
    compiled = fg.compile(lambda x: (x * x * fnp.exp(x)).sum())
    for _ in range(3):
        x = fg.tensor([1.0, 2.0], requires_grad=True)
        out = compiled(x * 1.0)
        out.backward(retain_graph=True)
        first = plain(x.grad).copy()
        out.backward()
        near(plain(x.grad), 2 * first, 8)
        with pytest.raises(RuntimeError):
            out.backward()


@pytest.mark.filterwarnings("ignore:fg.compile")
def test_a_differentiated_function_that_does_more_runs_as_it_is(always):
    seen, rng = fg.tensor(np.zeros(3)), np.random.default_rng(0)

    def writes(x):
        with fg.no_grad():
            seen[...] = seen + 1.0
        return x * 2.0

    def reads(x):
        return x * float(x.detach().sum())

    def draws(x, rng):
        return x * rng.normal(size=3)

    def backwards(x):
        y = (x * x).sum()
        y.backward(retain_graph=True)
        return x * 3.0

    for k in range(4):
        x = fg.tensor(np.arange(3.0), requires_grad=True)
        for f in (writes, reads):
            x.grad = None
            out = (compiled_twins.setdefault(f.__name__, fg.compile(f)))(x * 1.0)
            out.sum().backward()
            near(plain(x.grad), {"writes": np.full(3, 2.0), "reads": np.full(3, 3.0)}[f.__name__], 4)
        assert plain(seen).tolist() == [k + 1.0] * 3
        x.grad = None
        out = compiled_twins.setdefault("draws", fg.compile(draws))(x * 1.0, rng)
        out.sum().backward()
        x.grad = None
        z = compiled_twins.setdefault("backwards", fg.compile(backwards))(x * 1.0)
        near(plain(x.grad), 2 * np.arange(3.0), 4)
        z.sum().backward()
        near(plain(x.grad), 2 * np.arange(3.0) + 3.0, 4)
    twin = np.random.default_rng(0)
    for _ in range(4):
        twin.normal(size=3)
    assert rng.bit_generator.state == twin.bit_generator.state


compiled_twins = {}


def test_differentiated_and_plain_calls_of_one_function_take_turns(always):
    compiled = fg.compile(lambda x, y: x * fnp.exp(y))
    a, b = np.array([1.0, 2.0]), np.array([0.5, 0.25])
    for _ in range(3):
        check(compiled(a, b), a * np.exp(b), ulps=4)
        x = fg.tensor(a, requires_grad=True)
        for y in (b, fg.tensor(b), x * 1.0, 0.5):
            out = compiled(x * 1.0, y)
            assert out.requires_grad or not out.is_leaf
            x.grad = None
            out.sum().backward()
            value = np.asarray(plain(y))
            expected = np.exp(value) * np.ones(2) + (a * np.exp(value) if isinstance(y, fg.Tensor) and not y.is_leaf else 0.0)
            near(plain(x.grad), expected, 16)
        with fg.no_grad():
            assert compiled(x * 1.0, b).is_leaf
        with pytest.raises(TypeError, match="lose"):
            compiled(x * 1.0, b, out=np.zeros(2))


def test_a_tensor_in_the_middle_of_a_recording_is_read_anew(always):
    box = [None]
    compiled = fg.compile(lambda x: (x * box[0] * x).sum())
    for k in range(20):
        w, x = fg.tensor(np.full(3, 1.0 + k), requires_grad=True), fg.tensor(np.arange(3.0), requires_grad=True)
        box[0] = w * 2.0
        compiled(x * 1.0).backward()
        check((w.grad, x.grad), (2 * np.arange(3.0) ** 2, 4 * np.arange(3.0) * (1.0 + k)), ulps=4)


@pytest.mark.parametrize("seed", range(3))
def test_a_model_whose_loss_is_differentiated_outside_learns_the_same(seed, always, monkeypatch):
    from fastgrad.transforms import pullbacks

    monkeypatch.setattr(pullbacks, "SMALL_PRODUCTS", 1e12)
    rng = np.random.default_rng(seed)
    data, labels, first = rng.normal(size=(5, 4)), np.array([0, 1, 2, 0, 1]), rng.normal(size=(2, 8, 8))
    losses = []
    for compiles in (False, True):
        w, v = (fg.tensor(a, requires_grad=True) for a in (first[0, :4], first[1, :, :3]))
        model = lambda x: fnp.tanh(x @ w) @ v  # noqa: E731
        called, found = fg.compile(model) if compiles else model, []
        for k in range(5):
            w.grad = v.grad = None
            loss = fg.nn.cross_entropy(called(fg.tensor(data * (k + 1))), labels)
            loss.backward()
            with fg.no_grad():
                w[...] = w - 0.1 * w.grad
                v[...] = v - 0.1 * v.grad
            found.append(plain(loss).item())
        losses.append(found)
    np.testing.assert_allclose(*losses, rtol=1e-11)
    assert called.recordings == 1
# ------------------------------------------------------------------------------------------------------------------ sums


def exactly(terms, axes):
    """Sums of float64 or float32 terms, and of their magnitudes, without rounding errors but the last."""
    last = np.moveaxis(terms, axes, tuple(range(-len(axes), 0))).reshape(*[n for d, n in enumerate(terms.shape) if d not in axes], -1)
    rows = last.reshape(-1, last.shape[-1]).astype(F64)
    kept = last.shape[:-1]
    return (np.array([math.fsum(r) for r in rows]).reshape(kept), np.array([math.fsum(abs(r)) for r in rows]).reshape(kept))


SUMMED = [((40000,), (0,)), ((20000, 3), (0,)), ((3, 20000), (1,)), ((300, 200), (0, 1)), ((200, 3, 100), (0, 2)), ((200, 3, 100), (1,)),
          ((70, 600), (0,)), ((5000, 16), (1,)), ((33, 2, 40), (0, 1))]


@each_dtype
@pytest.mark.parametrize("signs", ["of one sign", "that cancel", "of all sizes"])
@pytest.mark.parametrize("shape, axes", SUMMED, ids=str)
def test_contract_44_sums_agree_to_4_ulp_of_what_is_added_up(shape, axes, signs, dtype):
    """With each other and with the exact sum: values, and gradients of what was broadcast over these axes."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(1, 2, shape).astype(dtype), rng.uniform(1, 2, shape).astype(dtype)
    if signs == "that cancel":
        x = (x * rng.choice([-1, 1], shape)).astype(dtype)
    if signs == "of all sizes":
        x = (x * 10.0 ** rng.uniform(-8, 8, shape) * rng.choice([-1, 1], shape)).astype(dtype)
    terms = x * y
    small = np.full([1 if d in axes else n for d, n in enumerate(shape)], 1.0, dtype)
    few = np.full([n for d, n in enumerate(shape) if d not in axes], 1.0, dtype) if axes == tuple(range(len(axes))) else small
    exact, size = exactly(terms, axes)
    ulps = 8 if dtype == F64 and axes == (0,) and len(shape) == 2 else 4      # a Program adds the rows of a chunk one after another
    bound = ulps * np.spacing(size.astype(dtype)).astype(F64)
    for f, arguments in [(lambda x, y: (x * y).sum(axes), (x, y)), (lambda x, y: fnp.mean(x * y, axes) * (x.size // exact.size), (x, y)),
                         (fg.grad(lambda c, x, y: (c * (x * y)).sum()), (small, x, y)), (fg.grad(lambda c, x, y: (x * y * (c + x)).sum()), (few, x, y))]:
        compiled = fg.compile(f)
        compiled(*(a + 1 for a in arguments))
        ours, theirs = plain(compiled(*arguments)).reshape(exact.shape), plain(f(*map(fg.tensor, arguments))).reshape(exact.shape)
        assert ours.dtype == theirs.dtype == dtype
        assert compiled.recordings == 1
        ours, theirs = ours.astype(F64), theirs.astype(F64)
        assert (abs(ours - theirs) <= bound).all(), (abs(ours - theirs) / bound).max() * ulps
        assert (abs(ours - exact) <= bound).all(), (abs(ours - exact) / bound).max() * ulps
        assert (abs(theirs - exact) <= bound / ulps * 4).all(), (abs(theirs - exact) / bound).max() * ulps


def test_sums_of_infinities_and_nan_are_those_of_python():
    for values, total in [([np.inf, 1.0], np.inf), ([-np.inf, 1.0, 2.0], -np.inf), ([np.inf, -np.inf], np.nan), ([1e308, 1e308], np.inf), ([np.nan, 1.0], np.nan)]:
        for n, shape in ((1, -1), (1000, -1), (40, (-1, 2))):
            x = np.array(values * n + [0.0] * (len(values) * n % 2)).reshape(shape)
            axis = 0 if x.ndim == 2 else None
            if x.ndim == 1:
                assert np.array_equal(plain(fnp.sum(x, axis)), total, equal_nan=True), values
            for f in (lambda x: fnp.sum(x * 1.0, axis), lambda x: fg.grad(lambda c: (x * c).sum())(np.ones(x.shape[1:]))):  # noqa: B023
                check(fg.compile(f)(x), f(x))


# ------------------------------------------------------------------------------------------------------ out of memory

STARVED = r"""
import os, resource, sys
import numpy as np
import fastgrad as fg, fastgrad.numpy as fnp
from fastgrad._core import engine

path = sys.argv[1]
n = 4_000_000                           # 32 MB an array
x = np.linspace(0.0, 1.0, n)
table = np.linspace(1.0, 2.0, n)
w = fg.tensor(np.zeros(3))
kept = []
fg.compile(lambda x: fnp.sin(x).sum())(np.ones(100000))     # threads are there


def starved(call, room=16 << 20):
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + room, resource.RLIM_INFINITY))
    try:
        for _ in range(40):             # what was freed before is there for the first ones
            kept.append(call())
    except MemoryError:
        return
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert not engine.tracing()
    raise AssertionError("there was enough memory")


def f(x):
    y = fnp.sin(x)[::-1] * x
    total = y.sum()
    w.__iadd__(y[:3] + 1.0)
    return fnp.exp(y), total


def expected(state):
    y = np.sin(x)[::-1] * x
    return np.exp(y), y.sum(), state + y[:3] + 1.0


def right(answer, state):
    for found, due in zip((*answer, w.numpy()), expected(state)):
        np.testing.assert_allclose(found, due, rtol=1e-12)
    return w.numpy().copy()


def replayed():
    global state
    answer = compiled(x)
    state = right(answer, state)
    return answer


compiled = fg.compile(f)
state = w.numpy().copy()
for _ in range(2):
    starved(lambda: fg.compile(f)(np.append(x, kept[-1][0][:len(kept)] if kept else x[:0])))      # while it is recorded
    state = w.numpy().copy()
    kept.clear()
replayed()
replayed()
assert compiled.recordings == 1
for _ in range(3):
    kept.clear()
    starved(lambda: compiled(x))
    assert compiled.recordings == 1
    for answer in kept:                 # those that there was enough for, and no more, have changed w
        state = state + expected(0.0)[2]
        np.testing.assert_array_equal(answer[0], kept[0][0])
    np.testing.assert_allclose(w.numpy(), state, rtol=1e-12)
    state = w.numpy().copy()
    replayed()
out = np.empty(n), np.empty(())
compiled(x, out=out)                    # which has these
state = right(out, state)

program = fg.compile(lambda x: x.sum() * (fg.tensor(table) * 2.0).sum() * 1.0 + (fnp.sin(table) * x).sum()).program(x)
value = program(x)
program.save(path)
before = os.path.getsize(path)
starved(lambda: program.save(path))
assert os.path.getsize(path) == before and os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
starved(lambda: fg.load_program(path))
np.testing.assert_array_equal(fg.load_program(path)(x), value)
print("enough")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of address space")
def test_contract_38_a_compiled_function_that_runs_out_of_memory_changes_nothing(tmp_path):
    folder = tmp_path / "programs"
    folder.mkdir()
    run = python("-c", STARVED, str(folder / "program"))
    assert run.stdout == "enough\n", run.stdout + run.stderr


# ------------------------------------------------------------------------------------------------------ sums over axes


@pytest.mark.parametrize("shape, axis", [((16, 32, 33), 1), ((5, 32, 1, 7), 1), ((5, 33, 7), 1), ((4, 3, 2, 5), (1, 2)), ((3, 1, 9), 1),
                                         ((2, 0, 3), 1), ((3, 4, 0), 1), ((6, 7), 0), ((2, 8, 3, 4), 2), ((1, 2, 3, 4), (0, 2))])
@pytest.mark.parametrize("turned", [False, True])
@each_dtype
def test_sums_over_axes_in_the_middle(shape, axis, turned, dtype):
    data = [(np.random.default_rng(k).integers(-50, 50, shape[::-1] if turned else shape) / 8).astype(dtype) for k in range(2)]
    f = lambda x: np.sum(np.transpose(x) if turned else x, axis=axis)
    compiled = fg.compile(f)
    for x in (data[0], data[1], data[0]):
        np.testing.assert_array_equal(compiled(x), f(x))
