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


# Where the eager sweep forwards rounds to float32, or gives float64 for float32 by a number, and a replay does not.
MIXED = {"mixed precisions", "mixed precisions the other way", "array against number", "number against array"}


def over_layouts(name, dtype, question, ulps=0.0, whole=False, leave_out=()):
    """A question, a function of operands, asked in every layout on two sets of data."""
    for (which, first), (_, second) in zip(layouts(name, dtype, 0), layouts(name, dtype, 1)):
        if which in leave_out:
            continue
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
    if name == "float_power" and dtype == F32:
        return              # the same: float64 from float32
    over_layouts(name, dtype, pushed(name), 16, True, leave_out=MIXED)


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
    "NumPy's names": lambda x: np.where(x > 0, np.sum(x, axis=1, keepdims=True), 0.0) + np.add(np.ones(5), np.max(x, axis=0)),
    "ufunc.reduce": lambda x: np.add.reduce(x, axis=1) + np.multiply.reduce(x, axis=1) + np.maximum.reduce(x, axis=1),
}
ONLY_F64 = {"cast there and back"}
# float32 by a Python number has float64 tangents in the eager sweep forwards
NO_F32_TANGENTS = {"operators", "2.0 ** x.T", "division by a power of two", "division by zero", "remainders"}


@each_dtype
@pytest.mark.parametrize("name", STRUCTURED)
def test_a_structured_operation_replays(name, dtype):
    which = {"value", "gradient", "value and gradient", "second derivative", "backward"}
    if dtype == F64 or name not in NO_F32_TANGENTS:
        which.add("tangent")
    replays(STRUCTURED[name], [CUBE], dtype, 4.0 if dtype == F64 else 32.0, which)


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
}


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("name", LOSSES)
def test_cross_entropy_replays_with_labels_as_an_argument(name, dtype):
    compiled = fg.compile(LOSSES[name])
    for turn in range(4):
        x, l = drawn([(6, 4)], turn)[0], labels(turn, dtype)
        near(lowered(compiled(x, l)), lowered(LOSSES[name](fg.tensor(x), l)), 8.0)
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
