"""fg.vmap: whatever it is asked to do comes out as from a Python loop over the examples."""

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import nn
from fastgrad._core import engine
from fastgrad._core.ops import OPS
from fastgrad.transforms import batching

RNG = np.random.default_rng(0)
N = 4


def plain(x):
    return np.asarray(x.detach().numpy() if isinstance(x, fg.Tensor) else x)


def leaves_of(result):
    return [plain(leaf) for leaf in fg.tree.tree_flatten(result)[0]]


def loop(f, arguments, axes):
    """What f gives example by example, stacked."""
    axes = axes if isinstance(axes, tuple) else (axes,) * len(arguments)
    n = next(np.shape(a)[x] for a, x in zip(arguments, axes) if x is not None)
    rows = []
    for i in range(n):
        rows.append(leaves_of(f(*[a if x is None else fg.tensor(np.take(plain(a), i, x)) for a, x in zip(arguments, axes)])))
    return [np.stack(column) for column in zip(*rows)]


def agrees(f, *arguments, in_axes=0, ulps=4):
    """Value and dtype of vmap(f), held against the loop."""
    with np.errstate(all="ignore"):
        found = leaves_of(fg.vmap(f, in_axes=in_axes)(*arguments))
        wanted = loop(f, arguments, in_axes)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        assert a.shape == b.shape and a.dtype == b.dtype
        if a.dtype.kind != "f":
            np.testing.assert_array_equal(a, b)
            continue
        scale = np.max(np.abs(b[np.isfinite(b)]), initial=0)
        np.testing.assert_allclose(a, b, rtol=ulps * np.finfo(a.dtype).eps, atol=ulps * np.finfo(a.dtype).eps * scale)


def array(*shape, dtype=np.float64):
    return RNG.normal(size=shape).astype(dtype)


# -- every operation has a rule

def without_a_rule(operations):
    return [name for name, op in operations.items()
            if not (op in batching.RULES or op in batching.BY_ENGINE or op in batching.NEVER_TRACED or op == batching.PICK)]


def test_every_operation_of_a_trace_has_a_batching_rule():
    assert not without_a_rule(engine.operations())


def test_an_operation_without_a_rule_is_noticed():
    assert without_a_rule({**engine.operations(), "convolve": 199}) == ["convolve"]


def draw(row, shape, dtype):
    """Operands of a row of the table from its domain."""
    rng = np.random.default_rng(1)
    if row.name == "polygamma":
        return [np.ones(shape, dtype), rng.uniform(0.5, 2.0, shape).astype(dtype)]
    return [rng.uniform(low, high, shape).astype(dtype) for low, high in row.domain]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("row", OPS, ids=lambda row: row.name)
def test_an_elementary_operation_is_as_in_a_loop(row, dtype):
    f = engine.UFUNCS_BY_NAME[row.name]
    operands = draw(row, (N, 3), dtype)
    agrees(f, *operands)
    agrees(f, *draw(row, (N,), dtype))
    if row.arity > 1:
        axes = (0,) + (None,) * (row.arity - 1)
        agrees(f, operands[0], *[o[0] for o in operands[1:]], in_axes=axes)
        agrees(f, *[o[0] for o in operands[:-1]], operands[-1], in_axes=axes[::-1])
        # examples of different rank
        agrees(f, operands[0], *[o[:, 0] for o in operands[1:]])
        agrees(f, *[o[:, 0] for o in operands[:-1]], operands[-1])


@pytest.mark.parametrize("row", [row for row in OPS if row.differentiable], ids=lambda row: row.name)
def test_the_derivatives_of_an_elementary_operation_are_as_in_a_loop(row):
    f = engine.UFUNCS_BY_NAME[row.name]
    slots = tuple(k for k, partial in enumerate(row.partials) if partial is not None)

    def gradients(*operands):
        return fg.grad(lambda *a: (f(*a) * fnp.arange(1.0, 4.0)).sum(), slots)(*operands)

    def both(*operands):
        tangents = tuple(fnp.ones(o.shape, o.dtype) * 0.5 for o in operands)
        moved = [operands[k] for k in slots]
        return fg.jvp(lambda *a: gradients(*[a[slots.index(k)] if k in slots else o for k, o in enumerate(operands)]),
                      tuple(moved), tuple(tangents[k] for k in slots))

    for dtype in (np.float64, np.float32):
        operands = draw(row, (N, 3), dtype)
        agrees(gradients, *operands, ulps=8)
        agrees(both, *operands, ulps=16)
        if row.arity > 1:
            agrees(gradients, operands[0], *[o[:, 0] for o in operands[1:]], ulps=8)
            agrees(gradients, *[o[0] for o in operands[:-1]], operands[-1], in_axes=(None,) * (row.arity - 1) + (0,), ulps=8)


STRUCTURED = {
    "sum": (lambda x: (x.sum(), x.sum(0), x.sum(1), x.sum((0, 2)), x.sum(keepdims=True)), [(2, 3, 5)]),
    "mean": (lambda x: (x.mean(), x.mean(0), x.mean(-1, keepdims=True)), [(2, 3)]),
    "max": (lambda x: (x.max(), x.max(0), x.max(-1, keepdims=True)), [(2, 3)]),
    "min": (lambda x: (x.min(), x.min(0), x.min(-1, keepdims=True)), [(2, 3)]),
    "prod": (lambda x: (x.prod(), x.prod(0), x.prod(1)), [(2, 3)]),
    "reshape": (lambda x: (x.reshape(6), x.reshape(1, 3, -1), x.ravel()), [(2, 3)]),
    "transpose": (lambda x: (x.T, x.transpose(1, 2, 0), fnp.swapaxes(x, 0, 2), fnp.moveaxis(x, 0, -1)), [(2, 3, 4)]),
    "broadcast_to": (lambda x: (fnp.broadcast_to(x, (5, 2, 3)), fnp.broadcast_to(x[:, :1], (2, 4))), [(2, 3)]),
    "broadcast_number": (lambda x: fnp.broadcast_to(x, (2, 3)), [()]),
    "getitem": (lambda x: (x[0], x[1, 2], x[::-1], x[:, 1:], x[..., None, 0], x[1:1], x.T[1:]), [(2, 3)]),
    "astype": (lambda x: (x.astype(np.float32), x.astype(np.float32).astype(np.float64) * x), [(3,)]),
    "logsumexp": (lambda x: (fnp.logsumexp(x), fnp.logsumexp(x, 0), fnp.logsumexp(x, -1, True)), [(2, 3)]),
    "softmax": (lambda x: (fnp.softmax(x), fnp.softmax(x, 0), fnp.softmax(x, None)), [(2, 3)]),
    "log_softmax": (lambda x: (fnp.log_softmax(x), fnp.log_softmax(x, 0)), [(2, 3)]),
    "concatenate": (lambda x, y: (fnp.concatenate([x, y]), fnp.concatenate([x, y * 2], 1), fnp.stack([x, y], -1)),
                    [(2, 3), (2, 3)]),
    "concatenate_constant": (lambda x: (fnp.concatenate([x, np.ones(2)]), fnp.stack([x, np.zeros(3)])), [(3,)]),
    "gather": (lambda x: (x[[0, 1, 1]], x[:, [2, 0]], x[[0, 1], [2, 2]], x[np.array([[0, 1], [1, 1]])]), [(2, 3)]),
    "gather_apart": (lambda x: (x[[0, 1], :, [1, 1]], x[0, :, [1, 0, 1]], x[:, [0, 2], None, [1, 1]], x[..., [1, 0]]),
                     [(2, 3, 2)]),
    "mask": (lambda x: (x[np.array([True, False, True])], x[np.array([True, False, False])] * 2), [(3, 2)]),
    "mask_of_mask": (lambda x: x[np.array([True, False, True])][np.array([True, False])] * x, [(3,)]),
    "where": (lambda x: (fnp.where(x > 0, x, x * 0.5), fnp.clip(x, -0.5, 0.5), fnp.where(np.array([True, False, True]), x, 1.0)),
              [(3,)]),
    "full": (lambda x: (fnp.full((2, 2), x), fnp.array([x, 1.0, x])), [()]),
}


def weighted(f):
    """One number that every element of f's results goes into with a weight of its own."""
    def total(*arguments):
        result = f(*arguments)
        result = result if isinstance(result, tuple) else (result,)
        return sum((r * fnp.asarray(np.cos(np.arange(r.size)).reshape(r.shape).astype(r.dtype))).sum() * (k + 1.0)
                   for k, r in enumerate(result))
    return total


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", STRUCTURED)
def test_a_structured_operation_and_its_derivatives_are_as_in_a_loop(name, dtype):
    f, shapes = STRUCTURED[name]
    operands = [array(N, *shape, dtype=dtype) for shape in shapes]
    slots = tuple(range(len(shapes)))
    agrees(f, *operands)
    agrees(fg.grad(weighted(f), slots), *operands, ulps=16)
    agrees(lambda *a: fg.jvp(fg.grad(weighted(lambda *b: f(*[fnp.sin(x) for x in b])), slots), a, a), *operands, ulps=32)
    if dtype == np.float64:
        agrees(lambda *a: fg.jacfwd(f)(*a), *operands, ulps=16)


@pytest.mark.parametrize("ranks", [(a, b) for a in range(1, 5) for b in range(1, 5)])
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_a_matrix_product_of_any_ranks_is_as_in_a_loop(ranks, axes):
    left = {1: (3,), 2: (2, 3), 3: (4, 2, 3), 4: (5, 4, 2, 3)}[ranks[0]]
    right = {1: (3,), 2: (3, 6), 3: (4, 3, 6), 4: (5, 1, 3, 6)}[ranks[1]]
    x, y = (array(*((N,) if axis == 0 else ()), *shape) for axis, shape in zip(axes, (left, right)))
    agrees(fnp.matmul, x, y, in_axes=axes)
    agrees(fg.grad(lambda a, b: weighted(fnp.matmul)(fnp.sin(a), b), (0, 1)), x, y, in_axes=axes, ulps=16)


def test_weights_shared_by_all_examples_are_multiplied_in_one_product():
    w, x = fg.tensor(array(5, 3), requires_grad=True), array(N, 3)
    with fg.Tape() as tape:
        fg.vmap(lambda x: w @ x)(x)
    products = [node for node in tape if node.op == "matmul"]
    assert [node.shape for node in products] == [(N, 5)]


@pytest.mark.parametrize("x_axis, label_axis", [(0, 0), (0, None), (None, 0)])
def test_cross_entropy_is_as_in_a_loop(x_axis, label_axis):
    labels = RNG.integers(0, 3, (N, 2) if label_axis == 0 else 2)
    x = array(N, 2, 3) if x_axis == 0 else array(2, 3)
    f = lambda x, labels: engine.softmax_cross_entropy(x, labels)  # noqa: E731
    agrees(f, x, labels, in_axes=(x_axis, label_axis))
    agrees(fg.grad(lambda x, t: f(x, t).sum()), x, labels, in_axes=(x_axis, label_axis))
    agrees(lambda x, t: fg.hessian(lambda x: f(x, t).sum())(x), x, labels, in_axes=(x_axis, label_axis), ulps=16)


def test_one_label_an_example():
    agrees(engine.softmax_cross_entropy, array(N, 3), np.array([0, 2, 1, 1]))
    agrees(fg.grad(engine.softmax_cross_entropy), array(N, 3), np.array([0, 2, 1, 1]))


INDICES = {
    "number": (lambda x, i: x[i], ()),
    "numbers": (lambda x, i: x[i], (2,)),
    "table": (lambda x, i: x[i], (2, 3)),
    "second": (lambda x, i: x[:, i], (2,)),
    "last": (lambda x, i: x[..., i], (2,)),
    "pair": (lambda x, i: x[i, i], (2,)),
    "with_array": (lambda x, i: x[np.array([[0], [1]]), i], (2,)),
    "apart": (lambda x, i: x[i, :, i], (2,)),
    "apart_number": (lambda x, i: x[0, :, i], (2,)),
    "middle": (lambda x, i: x[:, i, None], (2, 2)),
    "none": (lambda x, i: x[None, i], (2,)),
    "slice": (lambda x, i: x[::-1, i, 1:], (2,)),
    "both": (lambda x, i: x[:, i, i * 0 + 1], (2,)),
}


@pytest.mark.parametrize("axes", [(0, 0), (None, 0), (0, None)])
@pytest.mark.parametrize("name", INDICES)
def test_indices_that_differ_by_example_pick_and_accumulate_as_in_a_loop(name, axes):
    f, shape = INDICES[name]
    x = array(*((N,) if axes[0] == 0 else ()), 3, 3, 3)
    i = RNG.integers(0, 3, ((N,) if axes[1] == 0 else ()) + shape)
    agrees(f, x, i, in_axes=axes)
    agrees(fg.grad(lambda x, i: weighted(f)(fnp.sin(x), i)), x, i, in_axes=axes, ulps=8)
    agrees(lambda x, i: fg.hessian(lambda x: weighted(f)(fnp.sin(x), i))(x), x, i, in_axes=axes, ulps=16)


def assigned(index):
    def f(x, v, i):
        y = x * 1.0
        y[index(i)] = v
        return y
    return f


ASSIGNED = {
    "basic": (lambda i: (slice(None), 1), (3, 3)),
    "number": (lambda i: i, (3, 3)),
    "numbers": (lambda i: [0, 2], (2, 3, 3)),
    "varying": (lambda i: (i[..., None], np.array([0, 1])), (2, 3)),
    "broadcast": (lambda i: (slice(None), i), (3,)),
    "apart": (lambda i: (i, slice(None), np.array([1, 0])), (2, 1)),
    "negative_step": (lambda i: (slice(None, None, -1), i), (3, 3)),
}


@pytest.mark.parametrize("axes", [(0, 0, 0), (None, 0, None), (0, None, None), (None, None, 0), (0, None, 0)])
@pytest.mark.parametrize("name", ASSIGNED)
def test_assignment_by_index_is_as_in_a_loop(name, axes):
    index, shape = ASSIGNED[name]
    x, v = (array(*((N,) if axis == 0 else ()), *s) for axis, s in zip(axes, ((3, 3, 3), shape)))
    i = RNG.integers(0, 3, (N,)) if axes[2] == 0 else np.array(1)
    f = assigned(index)
    agrees(lambda x, v, i: f(x, v, i), x, v, i, in_axes=axes)
    agrees(fg.grad(lambda x, v, i: weighted(f)(x, fnp.sin(v), i), (0, 1)), x, v, i, in_axes=axes, ulps=8)
    if any(axis == 0 for axis in axes[:2]):
        agrees(lambda x, v, i: fg.jvp(lambda x, v: f(x, v, i), (x, v), (x, v)), x, v, i, in_axes=axes, ulps=8)


def test_contract_20_of_duplicates_the_last_assignment_wins_in_each_example():
    i = np.array([[0, 0, 1], [2, 1, 2], [1, 1, 1]])
    agrees(fg.grad(lambda v, i: weighted(assigned(lambda i: i))(fnp.zeros(3), v, i)), array(3, 3), i)


def test_a_mask_that_differs_by_example_can_be_assigned_to():
    def relu(x):
        y = x * 1.0
        y[y < 0] = 0.0
        return y

    def rows(x, m):
        y = x * 1.0
        y[m] = x[0]
        return y

    agrees(relu, array(N, 3, 2))
    agrees(fg.grad(lambda x: (relu(x) ** 2).sum()), array(N, 3, 2))
    agrees(rows, array(N, 3, 2), RNG.random((N, 3)) > 0.5)


def test_a_mask_that_differs_by_example_cannot_pick():
    with pytest.raises(ValueError, match=r"x\[mask\] with a mask that differs from example to example.*where"):
        fg.vmap(lambda x: x[x > 0])(array(N, 3))


def test_integers_and_truth_values_are_as_in_a_loop():
    i = RNG.integers(0, 9, (N, 3))
    agrees(lambda i: (i + 1, i * i, i // 2, i > 3, (i > 3) & (i < 6), i.sum(), i.max(), i.sum(0, keepdims=True)), i)
    agrees(lambda i, x: i * x, i, array(N, 3))
    agrees(lambda i: i.astype(np.float64) / 2, i)
    agrees(lambda b: (b, fnp.where(b, 1.0, 2.0), b.any(), b.all()), i > 4)
    agrees(lambda x: (x.argmax(), x.argmax(0), x.argmin(-1), x.argsort(), fnp.round(x, 1), (x > 0).any(0)), array(N, 3, 2))


def test_a_numpy_function_without_a_rule_runs_example_by_example():
    agrees(lambda x: (np.nanmedian(x, axis=0) * 2.0, np.nanpercentile(x, [25, 75])), array(N, 3))
    with pytest.raises(ValueError, match="another shape for each example"):
        fg.vmap(lambda x: np.unique(x))(np.array([[1.0, 1.0], [1.0, 2.0]]))
    assert fg.vmap(lambda x: np.nanmedian(x, keepdims=True))(np.zeros((0, 3))).shape == (0, 1)


def test_a_rule_of_ones_own_runs_example_by_example_and_differentiates():
    cube = engine.Rule("cube", lambda x: x**3, lambda g, out, x: g * 3.0 * x * x,
                       lambda t, out, x: t[0] * 3.0 * x * x, saves="operands")
    agrees(lambda x: cube(x) * x, array(N, 3))
    agrees(fg.grad(lambda x: cube(x).sum()), array(N, 3))
    x = fg.tensor(array(N, 3), requires_grad=True)
    fg.vmap(lambda x: cube(x).sum())(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 3 * x.detach().numpy() ** 2, rtol=1e-15)
    assert fg.vmap(cube)(np.zeros((0, 3))).shape == (0, 3)


# -- axes and trees

def test_in_axes_and_out_axes_take_any_place():
    x = array(2, N, 3)
    for axis in (1, -2):
        np.testing.assert_array_equal(fg.vmap(lambda a: a * 2, axis)(x), np.moveaxis(x * 2, 1, 0))
        np.testing.assert_array_equal(fg.vmap(lambda a: a * 2, axis, -1)(x), np.moveaxis(x * 2, 1, -1))
    np.testing.assert_array_equal(fg.vmap(lambda a: a * 2, 1, 1)(x), x * 2)


def test_vmap_of_vmap_goes_over_two_axes():
    x, y = array(N), array(3)
    outer = fg.vmap(fg.vmap(lambda a, b: fnp.sin(a) * b, (None, 0)), (0, None))(x, y)
    np.testing.assert_array_equal(outer, np.outer(np.sin(fg.tensor(x).numpy()), y))
    z = array(2, 3, N)
    np.testing.assert_array_equal(fg.vmap(fg.vmap(lambda a: a.sum(), 0), 2)(z), z.sum(1).T)
    np.testing.assert_array_equal(fg.vmap(fg.vmap(lambda a: a * 2, 1, 1), 0)(z), z * 2)
    np.testing.assert_array_equal(fg.vmap(fg.vmap(fg.vmap(lambda a: a * a)))(z), z * z)


def test_trees_go_in_and_come_out():
    tree = {"w": array(N, 3), "b": (array(N), 2.0)}
    found = fg.vmap(lambda t, k: {"s": t["w"].sum() * t["b"][1], "l": [t["b"][0], k]}, ({"w": 0, "b": (0, None)}, None),
                    {"s": 0, "l": [0, None]})(tree, 3)
    np.testing.assert_allclose(found["s"], tree["w"].sum(1) * 2, rtol=1e-15)
    np.testing.assert_array_equal(found["l"][0], tree["b"][0])
    assert found["l"][1] == 3


def test_keywords_are_batched_along_axis_0():
    np.testing.assert_array_equal(fg.vmap(lambda x, *, y: x * y)(np.arange(3.0), y=np.arange(3.0)), [0, 1, 4])


def test_sizes_and_flags_stay_what_they_are():
    def f(x, n, flag, name):
        assert type(n) is int and flag is True and name == "a"
        return sum(x * k for k in range(n))

    np.testing.assert_array_equal(fg.vmap(f, (0, None, None, None))(np.ones(2), 3, True, "a"), [3.0, 3.0])


def test_numpy_in_numpy_out_and_tensor_in_tensor_out():
    f = fg.vmap(lambda x: x * 2)
    assert type(f(np.ones(2))) is np.ndarray and type(f(fg.tensor(np.ones(2)))) is fg.Tensor
    w = fg.tensor(2.0, requires_grad=True)
    assert type(fg.vmap(lambda x: x * w)(np.ones(2))) is fg.Tensor
    assert type(fg.vmap(lambda x: x.sum() * 0.0 + 1.0, (0,), 0)(np.ones((2, 2)))) is np.ndarray
    assert fg.vmap(lambda x: 1.0, out_axes=None)(np.ones(2)) == 1.0


def test_a_result_that_does_not_depend_on_the_batch_is_repeated():
    found = fg.vmap(lambda x: (x, np.arange(3.0), 1.0))(np.ones(2))
    np.testing.assert_array_equal(found[1], [[0, 1, 2], [0, 1, 2]])
    np.testing.assert_array_equal(found[2], [1, 1])
    found[1][0, 0] = 5.0        # its own memory
    assert found[1][1, 0] == 0


def test_the_result_is_not_the_argument_s_memory():
    x = np.ones((2, 2))
    y = fg.vmap(lambda a: a)(x)
    y[0, 0] = 5.0
    assert x[0, 0] == 1


def test_float32_with_a_python_number_stays_float32():
    x = array(N, 3, dtype=np.float32)
    agrees(lambda x: x * 2.0 + 1, x)
    agrees(lambda x, c: x * c, x, 2.5, in_axes=(0, None))
    agrees(lambda x, c: x * c, x, np.float64(2.5), in_axes=(0, None))
    agrees(fg.grad(lambda x: (fnp.tanh(x) * 2.0).sum()), x)
    agrees(lambda x: x * np.float64(2.0), x)


@pytest.mark.parametrize("f", [
    lambda x: fnp.tanh(x) * x.sum(), lambda x: x[::-1], lambda x: x @ fnp.ones((3, 2)), lambda x: x.max(),
    lambda x: x[np.array([0, 0])], lambda x: fnp.concatenate([x, x]), fg.grad(lambda x: fnp.logsumexp(fnp.sin(x))),
    fg.hessian(lambda x: (x**3).sum()), lambda x: x.argmax()])
def test_contract_22_a_batch_of_no_examples(f):
    one = plain(f(fg.tensor(np.ones(3))))
    found = fg.vmap(f)(np.zeros((0, 3)))
    assert found.shape == (0,) + one.shape and found.dtype == one.dtype
    assert fg.vmap(f)(np.ones((1, 3))).shape == (1,) + one.shape


def test_contract_22_examples_without_elements():
    agrees(lambda x: (x * 2, x.sum(), x[None]), np.zeros((N, 0)))
    agrees(lambda x: (x @ fnp.ones((0, 2)), x.T), np.zeros((N, 2, 0)))


@pytest.mark.parametrize("layout", ["F", "strided", "readonly", "swapped"])
def test_contract_24_other_layouts_of_the_batch(layout):
    x = array(N, 3)
    y = {"F": np.asfortranarray(x), "strided": np.repeat(x, 2, 0)[::2], "readonly": x.copy(), "swapped": x.astype(">f8")}[layout]
    y.setflags(write=layout != "readonly")
    np.testing.assert_array_equal(fg.vmap(lambda a: fnp.tanh(a).sum())(y), fg.vmap(lambda a: fnp.tanh(a).sum())(x))


# -- transforms of it, and it of transforms

def energy(w, x):
    h = fnp.tanh(x @ w)
    return fnp.logsumexp(h * h) + (h[0] * w[0, 0])


def test_gradients_example_by_example():
    w, x = array(3, 5), array(N, 3)
    agrees(fg.grad(energy), w, x, in_axes=(None, 0), ulps=8)
    agrees(fg.value_and_grad(energy, (0, 1)), w, x, in_axes=(None, 0), ulps=8)


def test_gradients_of_a_module_example_by_example():
    model = nn.Sequential(nn.Linear(3, 4, rng=0), nn.Tanh(), nn.Linear(4, 2, rng=1))
    x = array(N, 3)
    found = fg.vmap(fg.grad(lambda m, x: (m(x[None]) ** 2).sum()), (None, 0))(model, x)
    for i in range(N):
        one = fg.grad(lambda m: (m(x[i][None]) ** 2).sum())(model)
        for a, b in zip(fg.tree.tree_flatten(found)[0], fg.tree.tree_flatten(one)[0]):
            np.testing.assert_allclose(plain(a)[i], plain(b), rtol=1e-12, atol=1e-14)


def test_the_gradient_of_a_sum_over_a_batch():
    w, x = array(3, 5), array(N, 3)
    found = fg.grad(lambda w: fg.vmap(energy, (None, 0))(w, x).sum())(w)
    np.testing.assert_allclose(found, fg.grad(lambda w: sum(energy(w, r) for r in x))(w), rtol=1e-13, atol=1e-14)


def test_hessian_of_vmap_and_vmap_of_hessian():
    w, x = array(3, 2), array(N, 3)
    found = fg.hessian(lambda w: fg.vmap(energy, (None, 0))(w, x).sum())(w)
    np.testing.assert_allclose(found, sum(fg.hessian(energy)(w, r) for r in x), rtol=1e-12, atol=1e-13)
    agrees(fg.hessian(lambda x: energy(fnp.asarray(w), x)), x, ulps=32)


def test_jvp_of_vmap_and_vmap_of_jvp():
    x, t = array(N, 3), array(N, 3)
    f = lambda x: fnp.sin(x) * fnp.exp(x.sum())  # noqa: E731
    inner = fg.vmap(lambda x, t: fg.jvp(f, (x,), (t,)))(x, t)
    outer = fg.jvp(fg.vmap(f), (x,), (t,))
    for a, b in zip(inner, outer):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_linearize_vjp_and_jacobians_inside():
    x = array(N, 3)
    f = lambda x: fnp.tanh(x) * x.sum()  # noqa: E731
    agrees(lambda x: fg.vjp(f, x)[1](x)[0], x, ulps=8)
    agrees(lambda x: fg.linearize(f, x)[1](x), x, ulps=8)
    agrees(fg.jacrev(f), x, ulps=8)
    agrees(fg.jacfwd(f), x, ulps=8)
    agrees(fg.jacobian(f), x, ulps=8)
    agrees(lambda x: fg.hvp(lambda x: f(x).sum(), (x,), (x,)), x, ulps=16)


def test_vmap_of_a_pullback_recorded_before_is_a_jacobian():
    x = array(3)
    f = lambda x: fnp.tanh(x[::-1]) * x.sum()  # noqa: E731
    out, pull = fg.vjp(f, x)
    np.testing.assert_allclose(fg.vmap(pull)(np.eye(3))[0], fg.jacrev(f)(x), rtol=1e-14)
    _, push = fg.linearize(f, x)
    np.testing.assert_allclose(fg.vmap(push, out_axes=1)(np.eye(3)), fg.jacfwd(f)(x), rtol=1e-14)
    second = fg.grad(lambda x: (fg.vmap(fg.vjp(f, x)[1])(fnp.eye(3))[0] ** 2).sum())(x)
    np.testing.assert_allclose(second, fg.grad(lambda x: (fg.jacrev(f)(x) ** 2).sum())(x), rtol=1e-12)


def test_contract_39_nested_with_closures_over_outer_variables():
    x, y = array(N), array(3)

    def f(a):
        return fg.vmap(lambda b: fg.grad(lambda c: fnp.sin(a * c) * b)(b))(y).sum()

    agrees(f, x, ulps=8)
    agrees(fg.grad(f), x, ulps=8)
    found = fg.grad(lambda s: (fg.vmap(f)(x * s)).sum())(2.0)
    np.testing.assert_allclose(found, sum(fg.grad(lambda s: f(v * s))(2.0) for v in x), rtol=1e-12)


def test_closures_over_tracked_tensors_receive_gradients():
    w, x = fg.tensor(array(3), requires_grad=True), array(N, 3)
    u = w * 2.0
    y = fg.vmap(lambda x: fnp.tanh(x @ w) * u.sum())(x)
    y.sum().backward()
    v = fg.tensor(w.detach().numpy(), requires_grad=True)
    sum(fnp.tanh(fg.tensor(r) @ v) * (v * 2.0).sum() for r in x).backward()
    np.testing.assert_allclose(w.grad.numpy(), v.grad.numpy(), rtol=1e-13)


def test_backward_goes_on_through_the_result_and_twice_with_create_graph():
    x = fg.tensor(array(N, 3), requires_grad=True)
    fg.vmap(lambda a: (fnp.sin(a) ** 2).sum())(x).sum().backward(create_graph=True)
    first = x.grad
    np.testing.assert_allclose(first.detach().numpy(), np.sin(2 * x.detach().numpy()), rtol=1e-13)
    x.zero_grad()
    first.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.cos(2 * x.detach().numpy()), rtol=1e-12)


def test_under_no_grad_nothing_is_recorded():
    x = fg.tensor(array(N, 3), requires_grad=True)
    with fg.no_grad():
        assert not fg.vmap(lambda a: a.sum())(x).requires_grad


def test_backward_inside_on_a_leaf_made_inside():
    def f(x):
        with fg.enable_grad():
            w = fg.tensor(x, requires_grad=True)
            (fnp.sin(w) * w).sum().backward()
        return w.grad

    agrees(f, array(N, 3), ulps=8)


def test_the_function_runs_once():
    calls = []
    fg.vmap(lambda x: calls.append(1) or x)(np.ones(5))
    assert calls == [1]


def test_contract_35_an_array_changed_between_two_uses_inside():
    def f(x):
        buffer = np.zeros(3)
        y = x + buffer
        buffer[:] = 5.0
        return y, x * buffer

    agrees(f, array(N, 3))


def test_a_wide_trace_inside_an_open_one_leaves_both_whole():
    x, y = fg.tensor(array(N)), array(3)
    trace, results = engine.trace_function(lambda x: [fg.vmap(lambda a, b: a * b.sum(), (0, None))(x, x * y[0])], [x])
    names = [node.name for node in engine.trace_nodes(trace)]
    assert "sum" in names and names.count("argument") == 1
    np.testing.assert_allclose(results[0].numpy(), x.numpy() * (x.numpy() * y[0]).sum(), rtol=1e-14)


# -- Jacobians, which go row by row or as a batch

def both_ways(monkeypatch, function, *arguments):
    """What comes out of sweeps one by one, and of one batched sweep."""
    found = []
    for batched in (False, True):
        monkeypatch.setattr(fg.transforms, "_pays", lambda call, count, costs: batched)  # noqa: B023
        found.append(function(*arguments))
    return found


JACOBIANS = {
    "jacrev": lambda: fg.jacrev(lambda x: fnp.tanh(x @ np.cos(np.arange(12.0)).reshape(3, 4)) * x.sum()),
    "jacfwd": lambda: fg.jacfwd(lambda x: fnp.softmax(x) * x[::-1]),
    "numbers": lambda: fg.jacrev(lambda x: fnp.stack([fnp.sin(x[0]) * x[1], x[2] / x[0]])),
    "unused": lambda: fg.jacrev(lambda x: (x[:2], np.ones(2), x.sum())),
    "unused_forward": lambda: fg.jacfwd(lambda x: (x[:2], np.ones(2), x.sum())),
    "hessian": lambda: fg.hessian(lambda x: fnp.logsumexp(fnp.sin(x)) * x.max()),
    "third": lambda: fg.jacfwd(fg.hessian(lambda x: (x**3).prod())),
    "gather": lambda: fg.hessian(lambda x: (x[np.array([0, 0, 2])] ** 3).sum()),
    "grad_of_jacobian": lambda: fg.grad(lambda x: (fg.jacrev(lambda y: fnp.sin(y) * x)(x * 2.0) ** 2).sum()),
    "pair": lambda: lambda x: fg.jacfwd(lambda a, b: {"s": a * b, "t": (a.sum(), b[0])}, (0, 1))(x, x * 2.0),
    "hessian_of_pair": lambda: lambda x: fg.hessian(lambda t: (t[0] * t[1] ** 2).sum())((x, x * 2.0)),
}


@pytest.mark.parametrize("kind", ["float64", "float32", "tensor"])
@pytest.mark.parametrize("name", JACOBIANS)
def test_a_jacobian_is_the_same_row_by_row_and_batched(name, kind, monkeypatch):
    x = np.array([0.3, -0.8, 1.1], np.float32 if kind == "float32" else np.float64)
    rows, batch = both_ways(monkeypatch, JACOBIANS[name](), fg.tensor(x) if kind == "tensor" else x)
    (rows, structure), (batch, other) = fg.tree.tree_flatten(rows), fg.tree.tree_flatten(batch)
    assert structure == other
    for a, b in zip(rows, batch):
        assert type(a) is type(b) and a.dtype == b.dtype
        np.testing.assert_allclose(plain(a), plain(b), rtol=32 * np.finfo(a.dtype).eps, atol=32 * np.finfo(a.dtype).eps)


def test_a_jacobian_by_a_number_is_the_same_both_ways(monkeypatch):
    for f in (fg.jacrev, fg.jacfwd, fg.jacobian):
        rows, batch = both_ways(monkeypatch, f(lambda x: fnp.sin(x) * x), 2.0)
        assert type(rows) is type(batch) and rows.shape == batch.shape == () and rows == batch


def test_large_jacobians_go_in_pieces(monkeypatch):
    x = array(40)
    f = lambda x: fnp.tanh((x[:, None] * x).sum(0))  # noqa: E731
    whole = fg.jacrev(f)(x)
    monkeypatch.setattr(batching, "LARGE", 3 * 1600)
    monkeypatch.setattr(fg.transforms, "_pays", lambda call, count, costs: True)
    np.testing.assert_allclose(fg.jacrev(f)(x), whole, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(fg.jacfwd(f)(x), whole, rtol=1e-12, atol=1e-14)


# -- compiled

def test_a_compiled_function_with_vmap_inside_is_replayed_on_other_numbers():
    w = array(3, 5)
    f = lambda w, x: fg.vmap(fg.grad(energy), (None, 0))(w, x)  # noqa: E731
    compiled = fg.compile(f)
    for _ in range(3):
        x = array(N, 3)
        np.testing.assert_allclose(compiled(w, x), f(w, x), rtol=1e-12, atol=1e-13)
    assert compiled.recordings == 1


@pytest.mark.parametrize("f", [
    lambda x: fg.jacrev(lambda x: fnp.tanh(x) * x.sum())(x), lambda x: fg.jacfwd(lambda x: fnp.softmax(x) * x)(x),
    lambda x: fg.hessian(lambda x: fnp.logsumexp(fnp.sin(x) * x))(x),
    lambda x: fg.grad(lambda x: fg.vmap(lambda a, b: fnp.sin(a * b) * x.sum(), (0, None))(x, x[0]).sum())(x),
    lambda x: fg.vmap(fg.vmap(lambda a, b: a * fnp.exp(b), (None, 0)), (0, None))(x, x),
    lambda x: fg.vmap(fg.vjp(lambda x: fnp.sin(x) * x[::-1], x)[1])(np.eye(3))[0],
    lambda x: fg.vmap(lambda i: fnp.positive(x)[i] ** 2)(np.array([0, 2, 1])),
    lambda x: fg.grad(lambda x: fg.vmap(lambda i: x[i] ** 2)(np.array([0, 2, 2])).sum())(x),
])
def test_what_is_batched_inside_a_compiled_function_reads_its_arguments_anew(f):
    compiled = fg.compile(f)
    for _ in range(3):
        x = array(3)
        np.testing.assert_allclose(compiled(x), f(x), rtol=1e-12, atol=1e-13)
    assert compiled.recordings == 1


def test_a_branch_on_what_is_the_same_for_all_becomes_a_guard_of_the_compiled_function():
    f = lambda w, x: fg.vmap(lambda a: fnp.sin(a) if w > 0 else a * w)(x)  # noqa: E731
    compiled, x = fg.compile(f), array(N)
    for w in (1.0, -2.0, 3.0, -0.5):
        np.testing.assert_allclose(compiled(w, x), f(w, x), rtol=1e-14)
    assert compiled.recordings == 2


def test_an_array_that_a_compiled_function_closes_over_is_read_at_each_call():
    data = array(N, 3)
    compiled = fg.compile(lambda x: fg.vmap(lambda a, b: (a * b).sum() + fnp.sum(data), (0, 0))(x, data))
    x = array(N, 3)
    for _ in range(2):
        np.testing.assert_allclose(compiled(x), (x * data).sum(1) + data.sum(), rtol=1e-13)
        data *= 2.0


def test_vmap_of_a_compiled_function_batches_what_it_does():
    compiled = fg.compile(lambda x: fnp.tanh(x) * x.sum())
    agrees(compiled, array(N, 3))
    agrees(fg.grad(lambda x: compiled(x).sum()), array(N, 3), ulps=8)


# -- randomness

def test_random_numbers_are_drawn_once_for_all_examples():
    rng = np.random.default_rng(0)
    noise = fg.vmap(lambda x: x * 0.0 + rng.normal(size=3))(np.zeros((2, 3)))
    np.testing.assert_array_equal(noise[0], noise[1])
    np.testing.assert_array_equal(noise[0], np.random.default_rng(0).normal(size=3))


def test_a_rule_with_a_batch_function_is_called_once_on_the_batch():
    calls = []

    def batch(size, x, *, power):
        calls.append(size)
        assert isinstance(x, engine.Batched)
        return square(x.tensor, power=power)

    square = engine.Rule("square", lambda x, power: x**power, lambda g, out, x, power: g * power * x, saves="operands",
                         batch=batch)
    np.testing.assert_array_equal(fg.vmap(lambda x: square(x, power=2))(np.arange(3.0)), [0, 1, 4])
    assert calls == [3]


# -- what is refused

@pytest.mark.parametrize("call, error, text", [
    (lambda: fg.vmap(lambda x: x, None)(np.ones(2)), ValueError, "no argument is batched"),
    (lambda: fg.vmap(lambda: 1.0)(), ValueError, "no argument is batched"),
    (lambda: fg.vmap(lambda x, y: x)(np.ones(2), np.ones((3, 1))), ValueError,
     "argument 0 has 2 along axis 0, argument 1 has 3 along axis 0"),
    (lambda: fg.vmap(lambda x, y: x, (0, 1))({"a": np.ones(2), "b": np.ones(2)}, np.ones((2, 3))), ValueError,
     r"argument 0 \(leaf 0\) has 2 along axis 0.*argument 1 has 3 along axis 1"),
    (lambda: fg.vmap(lambda x: x, 2)(np.ones((2, 3))), np.exceptions.AxisError, r"argument 0 has shape \(2, 3\).*axis 2"),
    (lambda: fg.vmap(lambda x: x, -3)(np.ones((2, 3))), np.exceptions.AxisError, "axis -3"),
    (lambda: fg.vmap(lambda x: x)(1.0), ValueError, "argument 0 is a float.*in_axes None"),
    (lambda: fg.vmap(lambda x: x)(fg.tensor(1.0)), ValueError, "argument 0 has no axes.*in_axes None"),
    (lambda: fg.vmap(lambda x: x, (0, 0))(np.ones(2)), ValueError, "in_axes has 2 entries for 1"),
    (lambda: fg.vmap(lambda x: x, ((0, 0),))(np.ones(2)), ValueError, "in_axes of argument 0"),
    (lambda: fg.vmap(lambda x: x, "a")(np.ones(2)), TypeError, "in_axes is an int, None"),
    (lambda: fg.vmap(lambda x: x, out_axes=None)(np.ones(2)), ValueError, "out_axes is None for a result that depends"),
    (lambda: fg.vmap(lambda x: x, out_axes=1)(np.ones(2)), np.exceptions.AxisError, "out_axes 1"),
    (lambda: fg.vmap(lambda x: (x, x), out_axes=(0, 0, 0))(np.ones(2)), ValueError, "out_axes does not fit"),
    (lambda: fg.vmap(lambda x: "a")(np.ones(2)), TypeError, "returned str"),
    (lambda: fg.vmap(lambda x: x.item())(np.ones(2)), TypeError, "frozen"),
    (lambda: fg.vmap(lambda x: x if x > 0 else -x)(np.ones(2)), TypeError, "branches on a value that differs.*where"),
    (lambda: fg.vmap(lambda x: max(x, x * 2))(np.ones(2)), TypeError, "branches"),
    (lambda: fg.vmap(3), TypeError, "no function"),
])
def test_contract_47_wrong_use_is_refused_by_name(call, error, text):
    with pytest.raises(error, match=text):
        call()
    assert not engine.tracing() and engine.recording_now()


def test_a_branch_on_what_is_the_same_for_all_examples_is_fine():
    w = fg.tensor(2.0)
    assert fg.vmap(lambda x: x * 2 if w > 1 else x)(np.ones(2)).tolist() == [2, 2]
    trace, _ = engine.trace_function(lambda w: [fg.vmap(lambda x: x * 2 if w > 1 else x)(fg.tensor([1.0, 2.0]))], [w])
    assert [truth for _, truth in trace.guards] == [True]       # it became a guard of the trace around


def test_a_branch_on_the_outer_example_is_refused_by_the_outer_vmap():
    with pytest.raises(TypeError, match="branches on a value that differs"):
        fg.vmap(lambda a: fg.vmap(lambda x: x if a > 0 else -x)(np.ones(2)))(np.ones(3))


def test_changes_of_what_is_outside_are_refused_and_leave_it_as_it_was():
    total, w = fg.tensor(0.0), fg.tensor(1.0, requires_grad=True)

    def adds(x):
        nonlocal total
        total += x
        return x

    with pytest.raises(TypeError, match="changes a Tensor from outside in place"):
        fg.vmap(adds)(np.ones(2))
    assert total.item() == 0

    def sweeps(x):
        with fg.enable_grad():
            (w * x).backward()
        return x

    with pytest.raises(TypeError, match="changes the gradient of a Tensor from outside"):
        fg.vmap(sweeps)(np.ones(2))
    assert w.grad is None

    def resets(x):
        w.grad = x
        return x

    with pytest.raises(TypeError, match="changes the gradient"):
        fg.vmap(resets)(np.ones(2))
    assert w.grad is None


def test_contract_36_an_exception_inside_leaves_everything_as_it_was():
    def fails(x):
        raise KeyError("mine")

    x = fg.tensor(np.ones(2), requires_grad=True)
    nodes = engine.tape_statistics()["nodes"]
    with pytest.raises(KeyError, match="mine"):
        fg.vmap(fails)(x)
    assert not engine.tracing() and engine.tape_statistics()["nodes"] == nodes
    assert fg.vmap(lambda a: a * 2)(x).sum().item() == 4


def test_an_argument_changed_in_place_inside_is_the_function_s_own():
    def f(x):
        x += 1.0
        x[0] = 7.0
        return x

    x = np.zeros((2, 2))
    np.testing.assert_array_equal(fg.vmap(f)(x), [[7, 1], [7, 1]])
    assert not x.any()


def test_nothing_is_left_behind():
    x = fg.tensor(array(N, 3), requires_grad=True)
    f = fg.vmap(fg.grad(lambda a: fnp.logsumexp(fnp.tanh(a))))
    f(x).sum().backward()
    before = engine.tape_statistics()
    for _ in range(20):
        f(x).sum().backward()
    after = engine.tape_statistics()
    assert after["nodes"] == before["nodes"] and after["array_bytes"] <= before["array_bytes"] + 4096


# -- against JAX

def test_against_jax():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    w, x = array(3, 5), array(N, 3)

    def energy_of(np_, logsumexp):
        def f(w, x):
            h = np_.tanh(x @ w)
            return logsumexp(h * h) + h[0] * w[0, 0]
        return f

    ours, theirs = energy_of(fnp, fnp.logsumexp), energy_of(jnp, jax.nn.logsumexp)
    for mine, other in [
        (fg.vmap(ours, (None, 0)), jax.vmap(theirs, (None, 0))),
        (fg.vmap(fg.grad(ours), (None, 0)), jax.vmap(jax.grad(theirs), (None, 0))),
        (fg.vmap(fg.hessian(ours, 1), (None, 0)), jax.vmap(jax.hessian(theirs, 1), (None, 0))),
        (fg.grad(lambda w, x: fg.vmap(ours, (None, 0))(w, x).sum()),
         jax.grad(lambda w, x: jax.vmap(theirs, (None, 0))(w, x).sum())),
        (fg.vmap(lambda w, x: ours(w, x) * x, (None, 0), 1), jax.vmap(lambda w, x: theirs(w, x) * x, (None, 0), 1)),
    ]:
        np.testing.assert_allclose(mine(w, x), other(w, x), rtol=1e-12, atol=1e-13)


# -- prefixes of trees

def test_an_entry_of_a_prefix_counts_for_its_subtree():
    tree = {"a": 1.0, "b": [2.0, (3.0, None)], "c": {}}
    assert fg.tree.tree_prefix(0, tree) == [0, 0, 0]
    assert fg.tree.tree_prefix({"a": None, "b": [1, 2], "c": 0}, tree) == [None, 1, 2]
    assert fg.tree.tree_prefix((0, 1), [5.0, [6.0, 7.0]]) == [0, 1, 1]
    model = nn.Linear(2, 2, rng=0)
    assert fg.tree.tree_prefix(None, model) == [None, None]
    for wrong in ({"a": 0}, (0, 1, 2), {"a": (0, 0), "b": 0, "c": 0}, {"a": 0, "b": [0], "c": 0}, "a"):
        with pytest.raises(ValueError, match="stands where the tree has"):
            fg.tree.tree_prefix(wrong, tree)


# ------------------------------------------------------------------------------------------------ what has no derivative


HIDDEN = {
    "detach": lambda y: y * y.detach(),
    "detach twice": lambda y: y * y.detach().detach() + np.sin(y),
    "no_grad": lambda y: y * in_no_grad(lambda: np.exp(y) + y),
    "enable_grad inside": lambda y: y * in_no_grad(lambda: with_grad(lambda: np.exp(y)) * y),
    "a Rule in no_grad": lambda y: np.sum(y * in_no_grad(lambda: fnp.concatenate([np.reshape(y, (1,)), np.ones(1)]))),
    "detach in an inner gradient": lambda y: fg.grad(lambda z: z * z * z.detach())(y),
    "an inner gradient in no_grad": lambda y: y * in_no_grad(lambda: fg.grad(np.sin)(y)),
}


def in_no_grad(function):
    with fg.no_grad():
        return function()


def with_grad(function):
    with fg.enable_grad():
        return function()


@pytest.mark.parametrize("name", list(HIDDEN))
def test_derivatives_around_vmap_stop_where_those_of_the_function_do(name):
    f, x = HIDDEN[name], np.array([0.3, -1.2, 2.0])
    one_by_one = fg.grad(lambda x: sum(f(x[k]) for k in range(3)))(x)
    batched = lambda x: np.sum(fg.vmap(f)(x))
    np.testing.assert_allclose(fg.grad(batched)(x), one_by_one, rtol=1e-15)
    np.testing.assert_allclose(fg.compile(fg.grad(batched))(x), one_by_one, rtol=1e-15)
    np.testing.assert_allclose(fg.grad(lambda x: np.sum(fg.vmap(fg.vmap(f))(np.reshape(x, (3, 1)))))(x), one_by_one, rtol=1e-15)
    _, tangent = fg.jvp(batched, (x,), (np.ones(3),))
    np.testing.assert_allclose(tangent, one_by_one.sum(), rtol=1e-15)
