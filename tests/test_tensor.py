"""Tensor: what it is, its operators, its way in and out of NumPy, its errors; CONTRACT 23, 27-31, 35, 44, 47."""

import copy
import operator
import pickle

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

X = np.array([[1.5, -2.0, 0.5], [3.0, 0.25, -1.0]])


def leaf(data=X):
    return fg.tensor(data, requires_grad=True)


def same(a, b):
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


# What it is


@pytest.mark.parametrize("data", [1.0, [1.0, 2.0], X, X.astype(np.float32), np.float32(2.0), np.zeros((0, 3)), [1, 2], True,
                                  [True, False], np.arange(4, dtype=np.int8), np.zeros((2, 1, 3))])
def test_attributes_are_numpys(data):
    a, t = np.asarray(data), fg.tensor(data)
    assert (t.shape, t.ndim, t.size, t.dtype, t.itemsize, t.nbytes) == (a.shape, a.ndim, a.size, a.dtype, a.itemsize, a.nbytes)
    same(t.T.numpy(), a.T)
    same(t.numpy(), a)


def test_mT_swaps_the_last_two_axes():
    same(fg.tensor(np.arange(12.0).reshape(2, 2, 3)).mT.numpy(), np.arange(12.0).reshape(2, 2, 3).swapaxes(1, 2))


def test_a_tensor_is_made_by_fg_tensor_only():
    with pytest.raises(TypeError, match="make a Tensor with fg.tensor"):
        fg.Tensor([1.0])


def test_fg_tensor_copies():
    a = X.copy()
    t = fg.tensor(a)
    a[:] = 0
    same(t.numpy(), X)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.bool_, "float32"])
def test_fg_tensor_takes_a_dtype(dtype):
    same(fg.tensor([0, 1], dtype=dtype).numpy(), np.array([0, 1], dtype))


def test_fg_tensor_of_a_tensor_is_a_leaf_of_its_own():
    x = leaf()
    y = fg.tensor(x * 2.0)
    assert y.is_leaf and not y.requires_grad
    same(y.numpy(), X * 2)


def test_fg_tensor_of_a_list_of_tensors():
    same(fg.tensor([fg.tensor(1.0), 2.0]).numpy(), np.array([1.0, 2.0]))


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda a: a[::-1], lambda a: a.astype(">f8"), lambda a: a[:, ::2]])
def test_contract_24_fg_tensor_takes_every_layout(layout):
    np.testing.assert_array_equal(fg.tensor(layout(X)).numpy(), layout(X))


@pytest.mark.parametrize("dtype", [np.float16, np.complex128, np.complex64, object, np.longdouble, "U3", "M8[s]"])
def test_contract_31_other_dtypes_are_one_clear_error(dtype):
    a = np.zeros(2).astype(dtype) if dtype != "M8[s]" else np.zeros(2, dtype)
    for call in (fg.tensor, lambda a: fg.tensor(1.0) + a, fnp.sum, lambda a: fnp.sin(a)):
        with pytest.raises(TypeError, match=r"no Tensors of dtype .*use float64 or float32"):
            call(a)


@pytest.mark.parametrize("data", [1, True, [1, 2], np.arange(3), np.array([True])])
def test_contract_29_an_integer_leaf_is_a_type_error(data):
    with pytest.raises(TypeError, match=r"data is of dtype (int64|bool).*only float64 and float32 carry gradients.*astype"):
        fg.tensor(data, requires_grad=True)
    t = fg.tensor(data)
    with pytest.raises(TypeError, match="this Tensor is of dtype"):
        t.requires_grad = True
    assert not t.requires_grad


def test_leaves_and_recorded_tensors():
    x = leaf()
    y = x * 2.0
    constant = fg.tensor(X)
    assert x.is_leaf and x.requires_grad and x.grad is None
    assert not y.is_leaf and y.requires_grad
    assert constant.is_leaf and not constant.requires_grad
    assert not (constant * 2.0).requires_grad


def test_requires_grad_can_be_switched_on_and_off_on_a_leaf():
    x = fg.tensor(X)
    x.requires_grad = True
    (x * 2.0).sum().backward()
    same(x.grad.numpy(), np.full(X.shape, 2.0))
    x.requires_grad = False
    assert not (x * 2.0).requires_grad
    assert x.requires_grad_() is x and x.requires_grad


def test_a_leaf_that_is_switched_off_after_it_was_recorded_still_gets_that_gradient():
    x = leaf(3.0)
    y = x * x
    x.requires_grad = False
    z = x * x
    assert not z.requires_grad
    y.backward()
    assert x.grad.item() == 6.0


def test_requires_grad_of_a_recorded_tensor_cannot_be_set():
    y = leaf() * 2.0
    with pytest.raises(RuntimeError, match=r"leaves only.*detach"):
        y.requires_grad = False


def test_grad_can_be_set_and_forgotten():
    x = leaf()
    (x * x).sum().backward()
    x.grad = fg.tensor(X)
    (x * x).sum().backward()
    same(x.grad.numpy(), X + 2 * X)
    x.zero_grad()
    assert x.grad is None
    x.grad = None
    with pytest.raises(ValueError, match=r"grad of shape \(2,\) for a Tensor of shape \(2, 3\)"):
        x.grad = fg.tensor([1.0, 2.0])
    with pytest.raises(TypeError, match="grad can be None or another Tensor"):
        x.grad = X
    with pytest.raises(TypeError, match="grad can be None or another Tensor"):
        x.grad = x


# Operators

OPERATORS = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow"]
PARTNERS = {
    "Tensor": lambda a: fg.tensor(a), "ndarray": np.asarray, "np.float64": lambda a: np.float64(1.5), "float": lambda a: 1.5,
    "int": lambda a: 2, "list": lambda a: a.tolist(), "row": lambda a: a[0], "np.float32": lambda a: np.float32(1.5),
    "np.int64": lambda a: np.int64(2), "bool": lambda a: True, "0-d ndarray": lambda a: np.array(1.5), "int array": lambda a: np.array([1, 2, 3]),
}
POSITIVE = np.array([[1.5, 2.0, 0.5], [3.0, 0.25, 1.0]])


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("partner", PARTNERS)
@pytest.mark.parametrize("tracked", [False, True])
def test_an_operator_with_any_partner_is_numpys_on_both_sides(name, partner, tracked):
    f, y = getattr(operator, name), PARTNERS[partner](POSITIVE)
    plain = y.numpy() if isinstance(y, fg.Tensor) else y
    x = fg.tensor(POSITIVE, requires_grad=tracked)
    for out, expected in ((f(x, y), f(POSITIVE, plain)), (f(y, x), f(plain, POSITIVE))):
        assert type(out) is fg.Tensor
        assert out.requires_grad == (tracked and name != "floordiv")
        assert out.dtype == expected.dtype
        np.testing.assert_allclose(out.detach().numpy(), expected, rtol=4e-16)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("partner", PARTNERS)
def test_an_operator_with_any_partner_has_its_gradient_on_both_sides(name, partner):
    f, y, x = getattr(operator, name), PARTNERS[partner](POSITIVE + 0.1), POSITIVE + 0.0371
    h = 1e-6
    for call in (lambda x: f(x, y), lambda x: f(y, x)):
        found = fg.grad(lambda x: call(x).sum())(x)
        up, down = (call(fg.tensor(x + s * h)).numpy() for s in (1, -1))
        np.testing.assert_allclose(found, (up - down) / (2 * h), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("partner", ["Tensor", "np.float64", "float", "int", "0-d ndarray", "np.float32"])
def test_operators_of_numbers(name, partner):
    f, y = getattr(operator, name), PARTNERS[partner](np.array(1.5))
    plain = y.numpy() if isinstance(y, fg.Tensor) else y
    for x in (fg.tensor(2.5), leaf(2.5)):
        for out, expected in ((f(x, y), f(np.float64(2.5), plain)), (f(y, x), f(plain, np.float64(2.5)))):
            assert type(out) is fg.Tensor and out.shape == () and out.dtype == np.float64
            assert out.item() == pytest.approx(float(expected), rel=4e-16)


@pytest.mark.parametrize("exponent", [-2, -1, -0.5, 0, 0.5, 1, 2, 2.0, 3, 2.5])
def test_powers_that_have_a_short_cut_are_powers(exponent):
    out, found = fg.value_and_grad(lambda x: (x ** exponent).sum())(POSITIVE)
    np.testing.assert_allclose(out, (POSITIVE ** exponent).sum(), rtol=1e-14)
    np.testing.assert_allclose(found, exponent * POSITIVE ** (exponent - 1.0), rtol=1e-14)


@pytest.mark.parametrize("exponent", [2, 1, 0.5, -1, 0])
def test_integers_to_a_power_are_numpys(exponent):
    t = fg.tensor([1, 4])
    if exponent == -1:
        with pytest.raises(ValueError, match="negative integer powers"):
            t ** exponent
    else:
        same((t ** exponent).numpy(), np.array([1, 4]) ** exponent)


def test_unary_operators():
    for f in (operator.neg, operator.pos, abs):
        same(f(fg.tensor(X)).numpy(), f(X))
    same((~fg.tensor([True, False])).numpy(), np.array([False, True]))
    same((~fg.tensor([1, 2])).numpy(), ~np.array([1, 2]))
    same(round(fg.tensor(X).round(1).numpy()[0, 0], 1), np.float64(1.5))
    quotient, rest = divmod(fg.tensor(X), 0.75)
    same(quotient.numpy(), X // 0.75)
    same(rest.numpy(), X % 0.75)


@pytest.mark.parametrize("f", [operator.and_, operator.or_, operator.xor])
def test_bit_operators_of_truth_values_and_integers(f):
    for a, b in (([True, False], [True, True]), ([6, 3], [5, 1])):
        same(f(fg.tensor(a), fg.tensor(b)).numpy(), f(np.array(a), np.array(b)))
        same(f(fg.tensor(a), np.array(b)).numpy(), f(np.array(a), np.array(b)))
    with pytest.raises(TypeError, match="not supported for float Tensors; compare first"):
        f(fg.tensor([1.0]), fg.tensor([True]))


@pytest.mark.parametrize("name", ["lt", "le", "eq", "ne", "gt", "ge"])
@pytest.mark.parametrize("partner", ["Tensor", "ndarray", "float", "int", "np.float64", "list"])
def test_comparisons_are_numpys_and_carry_no_gradient(name, partner):
    f, y = getattr(operator, name), PARTNERS[partner](POSITIVE)
    plain = y.numpy() if isinstance(y, fg.Tensor) else y
    x = fg.tensor(POSITIVE.T.reshape(2, 3), requires_grad=True)
    out = f(x, y)
    assert not out.requires_grad
    same(out.numpy(), f(x.detach().numpy(), plain))
    same(f(y, x).numpy(), f(plain, x.detach().numpy()))


@pytest.mark.parametrize("other", ["a", None, object()])
def test_comparing_with_what_is_no_number_is_pythons(other):
    assert (fg.tensor(1.0) == other) is False
    assert (fg.tensor(1.0) != other) is True
    with pytest.raises(TypeError):
        fg.tensor(1.0) < other


@pytest.mark.parametrize("name", OPERATORS + ["matmul", "and_", "or_"])
@pytest.mark.parametrize("other", ["a", None, object(), {}, 1j])
def test_an_operator_with_what_is_no_number_is_a_type_error(name, other):
    f = getattr(operator, name)
    with pytest.raises(TypeError):
        f(fg.tensor([1.0, 2.0]), other)
    if not isinstance(other, str):      # "text" % anything is Python's formatting
        with pytest.raises(TypeError):
            f(other, fg.tensor([1.0, 2.0]))


def test_a_class_that_knows_tensors_gets_its_reflected_operator():
    class Other:
        def __radd__(self, t):
            return "radd"

        def __rmatmul__(self, t):
            return "rmatmul"

        def __rpow__(self, t):
            return "rpow"

    assert fg.tensor(1.0) + Other() == "radd"
    assert fg.tensor([1.0]) @ Other() == "rmatmul"
    assert fg.tensor([1.0]) ** Other() == "rpow"


@pytest.mark.parametrize("name", ["iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow"])
def test_in_place_operators_change_the_tensor_and_record(name):
    f, a = getattr(operator, name), POSITIVE + 0.0371
    x = leaf(a)
    y = x * 1.0
    before = y
    y = f(y, 1.5)
    assert y is before
    np.testing.assert_allclose(y.detach().numpy(), f(a.copy(), 1.5), rtol=4e-16)
    if name == "ifloordiv":
        assert not y.requires_grad
        return
    y.sum().backward()
    h = 1e-6
    difference = (f(a + h, 1.5) - f(a - h, 1.5)) / (2 * h)
    np.testing.assert_allclose(x.grad.numpy(), difference, rtol=1e-7, atol=1e-8)


def test_imatmul():
    y = fg.tensor(np.eye(2))
    y @= np.array([[1.0, 2.0], [3.0, 4.0]])
    same(y.numpy(), np.array([[1.0, 2.0], [3.0, 4.0]]))


def test_an_in_place_operator_leaves_other_readers_alone():
    x = leaf(2.0)
    y = x * x
    z = y * 3.0
    y += 10.0
    (z + y).backward()
    assert z.item() == 12.0 and y.item() == 14.0 and x.grad.item() == 16.0


def test_an_in_place_operator_on_a_leaf_is_an_error_that_names_no_grad():
    for x in (leaf(2.0), leaf()):
        with pytest.raises(RuntimeError, match=r"\+= on a leaf that requires a gradient.*fg.no_grad\(\)"):
            x += 1.0
        with pytest.raises(RuntimeError, match=r"x\[index\] = value on a leaf"):
            x[...] = 1.0


def test_a_leaf_can_be_updated_inside_no_grad_and_stays_a_leaf():
    x = leaf(2.0)
    for k in range(3):
        loss = x * x
        loss.backward()
        with fg.no_grad():
            x -= 0.25 * x.grad
        assert x.is_leaf and x.requires_grad
        x.zero_grad()
    assert x.item() == 0.25


def test_a_leaf_updated_between_recording_and_backward_gives_the_gradient_of_what_was_recorded():
    for data in (2.0, np.array([2.0, 3.0])):
        x = fg.tensor(data, requires_grad=True)
        y = (x * x).sum()
        with fg.no_grad():
            x *= 100.0
        y.backward()
        same(x.grad.numpy(), 2 * np.asarray(data))


def test_an_in_place_operator_keeps_shape_and_dtype():
    x = fg.tensor(np.ones(3, np.float32))
    x += np.ones(3)
    assert x.dtype == np.float32
    with pytest.raises(ValueError, match=r"\+=: the result of shape \(2, 3\) does not fit the Tensor of shape \(3,\)"):
        x += np.ones((2, 3))
    n = fg.tensor([1, 2])
    with pytest.raises(TypeError, match=r"\+=: cannot cast"):
        n += 0.5
    n += 1
    same(n.numpy(), np.array([2, 3]))


def test_contract_28_float32_with_python_numbers_stays_and_with_float64_promotes():
    for x in (fg.tensor(np.float32(2.0)), fg.tensor(np.ones(3, np.float32), requires_grad=True)):
        for y in (2.0, 2, True, np.float32(2.0), np.ones((), np.float32), np.int8(1)):
            assert (x * y).dtype == (y * x).dtype == np.float32
        for y in (np.float64(2.0), np.ones(()), np.ones(3), fg.tensor(2.0), np.int64(2)):
            expected = (np.ones(3, np.float32) * (y.numpy() if isinstance(y, fg.Tensor) else y)).dtype
            assert (x * y).dtype == (y * x).dtype == expected


def test_contract_30_contributions_of_both_precisions_arrive_in_the_leafs_dtype():
    for dtype in (np.float32, np.float64):
        x = fg.tensor(np.ones(3, dtype), requires_grad=True)
        y = (x * np.float64(2.0)).sum() + (x.astype(np.float32) * np.float32(3.0)).sum() + x.astype(np.float64).sum()
        for create_graph in (True, False):
            x.zero_grad()
            y.backward(create_graph=create_graph)
            same(x.grad.detach().numpy(), np.full(3, 6.0, dtype))


# Out of fastgrad


def test_python_numbers():
    assert float(fg.tensor(1.5)) == 1.5 and type(float(fg.tensor(np.float32(1.5)))) is float
    assert int(fg.tensor(3)) == 3 and int(fg.tensor(2.7)) == 2
    assert complex(fg.tensor(2.0)) == 2 + 0j
    assert operator.index(fg.tensor(3)) == 3 and [10, 20, 30][fg.tensor(1)] == 20
    with pytest.raises(TypeError, match="only integer Tensors can be an index"):
        operator.index(fg.tensor(1.0))
    assert fg.tensor([2.5]).item() == 2.5 and type(fg.tensor(True).item()) is bool and type(fg.tensor(1).item()) is int


@pytest.mark.parametrize("data", [1.0, [1.0], [[1.0]], True, 3])
def test_one_element_has_a_truth_value(data):
    assert bool(fg.tensor(data)) and not fg.tensor(np.asarray(data) * 0)


def test_several_elements_have_none():
    for data in (X, [True, True]):
        with pytest.raises(ValueError, match="ambiguous.*any.*all"):
            bool(fg.tensor(data))


@pytest.mark.parametrize("call, text", [
    (float, r"float\(t\)"), (int, r"int\(t\)"), (complex, r"complex\(t\)"), (np.asarray, r"np.asarray\(t\)"),
    (np.array, r"np.asarray\(t\)"), (lambda t: np.float64(t), "t")])
def test_a_lost_gradient_is_a_type_error_that_says_detach(call, text):
    for t in (leaf(2.0), leaf(2.0) * 3.0):
        with pytest.raises(TypeError, match=text + r".*would lose its gradient.*t.detach\(\)"):
            call(t)
        call(t.detach())
        with fg.no_grad():
            call(t)
    call(fg.tensor(2.0))


def test_bool_of_a_recorded_number_works_because_a_branch_loses_no_gradient():
    assert fg.grad(lambda x: x * x if x > 0 else -x)(3.0) == 6.0


def test_item_repr_and_format_always_work():
    y = leaf(2.0) * 3.0
    assert y.item() == 6.0
    assert repr(y) == "Tensor(6.0, op='multiply')"
    assert repr(leaf(2.0)) == "Tensor(2.0, requires_grad=True)"
    assert f"{y:.2f}" == "6.00" and f"{y}" == "6.0" and str(y) == "6.0"
    assert repr(fg.tensor([1.0, 2.0])) == "Tensor([1., 2.])"
    assert repr(fg.tensor(np.float32([1, 2]))) == "Tensor([1., 2.], dtype=float32)"
    assert repr(fg.tensor([1, 2])) == "Tensor([1, 2], dtype=int64)"
    assert repr(fg.tensor(True)) == "Tensor(True)"
    assert str(fg.tensor([1.0, 2.0])) == "[1. 2.]" and f"{fg.tensor([1.0, 2.0])}" == "[1. 2.]"
    assert y.tolist() == 6.0 and (leaf() * 1.0).tolist() == X.tolist()


@pytest.mark.parametrize("op, name", [(lambda x: x.sum(), "sum"), (lambda x: x[0], "getitem"), (lambda x: x @ x.T, "matmul"),
                                      (lambda x: x.astype(np.float32), "astype"), (lambda x: x[[0, 1]], "getitem"),
                                      (lambda x: fnp.tanh(x), "tanh"), (lambda x: fnp.stack([x, x]), "concatenate")])
def test_repr_says_what_made_a_recorded_tensor(op, name):
    assert f"op='{name}'" in repr(op(leaf()))


@pytest.mark.parametrize("shape", [(2,), (2, 1), (0,)])
def test_item_of_several_elements_is_an_error_with_the_shape(shape):
    with pytest.raises(ValueError, match=r"item: a Tensor of shape \(.*not one"):
        fg.tensor(np.zeros(shape)).item()


def test_len_iter_in():
    t = leaf()
    assert len(t) == 2
    rows = list(t)
    assert [r.shape for r in rows] == [(3,), (3,)]
    (rows[0] * rows[1]).sum().backward()
    same(t.grad.numpy(), X[::-1])
    assert 3.0 in t and 7.0 not in t and fg.tensor(3.0) in t
    a, b = fg.tensor([1.0, 2.0])
    assert (a.item(), b.item()) == (1.0, 2.0)
    for call in (len, iter, list):
        with pytest.raises(TypeError, match="0-d Tensor"):
            call(fg.tensor(1.0))


def test_tensors_are_hashable_by_identity():
    a, b = fg.tensor(1.0), fg.tensor(1.0)
    assert len({a, b}) == 2 and {a: 1}[a] == 1


@pytest.mark.parametrize("data", [1.0, X, X.astype(np.float32), [1, 2], True, np.zeros((0, 2)), X.T])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_keeps_value_dtype_and_requires_grad(data, protocol):
    for requires_grad in {False, np.asarray(data).dtype.kind == "f"}:
        t = fg.tensor(data, requires_grad=requires_grad)
        back = pickle.loads(pickle.dumps(t, protocol))
        same(back.detach().numpy(), t.detach().numpy())
        assert back.requires_grad == requires_grad and back.is_leaf


def test_deepcopy_and_copy():
    x = leaf()
    twin = copy.deepcopy(x)
    assert twin.is_leaf and twin.requires_grad and twin is not x
    with fg.no_grad():
        twin += 1.0
    same(x.detach().numpy(), X)
    y = copy.copy(x)
    y.sum().backward()
    same(x.grad.numpy(), np.ones(X.shape))
    pair = copy.deepcopy([x, x])
    assert pair[0] is pair[1]


def test_a_recorded_tensor_is_not_pickled_nor_deepcopied():
    y = leaf() * 2.0
    with pytest.raises(TypeError, match=r"pickle of a Tensor that is being differentiated.*detach"):
        pickle.dumps(y)
    with pytest.raises(TypeError, match=r"deepcopy of a Tensor that is being differentiated.*detach"):
        copy.deepcopy(y)
    same(pickle.loads(pickle.dumps(y.detach())).numpy(), X * 2)


def test_numpy_shares_memory_and_is_read_only_while_differentiated():
    t = fg.tensor(X)
    a = t.numpy()
    a[0, 0] = 100.0
    assert t.numpy()[0, 0] == 100.0 and np.shares_memory(t.numpy(), a)
    for recorded in (leaf(), leaf() * 2.0, leaf(2.0), leaf(2.0) * 2.0):
        a = recorded.numpy()
        assert not a.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            a[...] = 0.0


def test_numpy_outlives_its_tensor():
    a = fg.tensor(X).numpy()
    b = (leaf() * 2.0).numpy()
    for _ in range(50):
        fg.tensor(np.zeros_like(X))
    same(a, X)
    same(b, X * 2)


def test_contract_35_writing_the_array_of_a_detached_tensor_does_not_reach_a_recording():
    for make in (lambda x: x * 1.0, lambda x: fnp.exp(x) * 0 + x, lambda x: x.reshape(3, 2), lambda x: x[::-1]):
        x = leaf()
        y = make(x)
        values = y.detach().numpy().copy()
        z = (y * y).sum()
        a = y.detach().numpy()
        if a.flags.writeable:
            a[...] = 1e9
        z.backward()
        same(x.grad.numpy().sum(), (2 * values).sum())


def test_detach_cuts_loose():
    x = leaf()
    y = x * 2.0
    d = y.detach()
    assert not d.requires_grad and d.is_leaf
    same(d.numpy(), X * 2)
    (y * d).sum().backward()
    same(x.grad.numpy(), 2 * (X * 2))


# no_grad and enable_grad


def test_no_grad_and_enable_grad_as_contexts():
    x = leaf()
    with fg.no_grad():
        assert not (x * 2.0).requires_grad
        with fg.enable_grad():
            assert (x * 2.0).requires_grad
        assert not (x * 2.0).requires_grad
    assert (x * 2.0).requires_grad
    assert x.requires_grad


def test_no_grad_and_enable_grad_as_decorators():
    @fg.no_grad()
    def frozen(x, *, factor):
        """Doc."""
        return x * factor

    @fg.no_grad()
    @fg.enable_grad()
    def thawed(x):
        return x * 2.0

    assert not frozen(leaf(), factor=2.0).requires_grad
    assert frozen.__name__ == "frozen" and frozen.__doc__ == "Doc."
    assert thawed(leaf()).requires_grad
    assert (leaf() * 2.0).requires_grad


def test_no_grad_ends_with_an_exception():
    with pytest.raises(ZeroDivisionError):
        with fg.no_grad():
            1 / 0
    assert (leaf() * 2.0).requires_grad


def test_one_no_grad_object_can_be_used_again_and_nested():
    context = fg.no_grad()
    with context:
        with context:
            assert not (leaf() * 2.0).requires_grad
        assert not (leaf() * 2.0).requires_grad
    assert (leaf() * 2.0).requires_grad


def test_what_was_recorded_before_no_grad_can_be_swept_inside():
    x = leaf(2.0)
    y = x * x
    with fg.no_grad():
        y.backward()
    assert x.grad.item() == 4.0


# Types


@pytest.mark.parametrize("from_, to", [(np.float64, np.float32), (np.float32, np.float64), (np.float64, np.float64)])
def test_astype_between_floats_passes_the_gradient_in_the_operands_dtype(from_, to):
    x = fg.tensor(X.astype(from_), requires_grad=True)
    y = x.astype(to)
    assert y.dtype == to
    for create_graph in (True, False):
        x.zero_grad()
        y.sum().backward(create_graph=create_graph)
        same(x.grad.detach().numpy(), np.ones(X.shape, from_))


def test_astype_to_integers_ends_the_gradient():
    y = leaf().astype(np.int64)
    assert not y.requires_grad
    same(y.numpy(), X.astype(np.int64))


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "floor_divide", "mod", "power", "maximum", "minimum", "divide",
                                  "arctan2", "hypot", "logaddexp"])
@pytest.mark.parametrize("kinds", [([1, 2], [3, 4]), ([True, False], [2, 3]), ([1, 2], 3), (np.int8([1, 2]), np.int32([3, 4]))])
def test_integers_alone_are_numpys(name, kinds):
    a, b = kinds
    out = getattr(fnp, name)(fg.tensor(a), b)
    expected = getattr(np, name)(np.asarray(a), b)
    assert out.dtype == expected.dtype
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-15)


@pytest.mark.parametrize("name", ["exp", "sin", "sqrt", "log", "tanh", "absolute", "negative", "square", "sign", "floor", "isnan"])
@pytest.mark.parametrize("data", [[1, 2], 3])
def test_functions_of_integers_are_numpys(name, data):
    out, expected = getattr(fnp, name)(fg.tensor(data)), getattr(np, name)(np.asarray(data))
    assert out.dtype == expected.dtype
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-15)


def test_sums_of_python_integers_are_exact():
    assert (fg.tensor(2**53) + 1).item() == 2**53 + 1
    assert (fg.tensor([2**62]) + 2**61).tolist() == [2**62 + 2**61]


# NumPy's protocols

UFUNCS = ["degrees", "radians", "rad2deg", "sin", "exp", "tanh", "negative", "absolute", "sqrt", "square", "sign", "floor", "isnan", "logical_not", "conjugate", "fabs"]
BINARY_UFUNCS = ["remainder", "fmod", "float_power", "add", "multiply", "subtract", "divide", "power", "maximum", "fmin", "arctan2", "hypot", "greater", "equal", "matmul"]


@pytest.mark.parametrize("name", UFUNCS)
def test_np_ufuncs_of_a_tensor_are_fastgrads(name):
    x = leaf(POSITIVE)
    out, ours = getattr(np, name)(x), getattr(fnp, name)(x)
    assert type(out) is fg.Tensor and out.requires_grad == ours.requires_grad
    same(out.detach().numpy(), ours.detach().numpy())


@pytest.mark.parametrize("name", BINARY_UFUNCS)
def test_np_ufuncs_of_a_tensor_on_either_side_are_fastgrads(name):
    a = POSITIVE @ POSITIVE.T
    x = leaf(a)
    for arguments in ((x, a), (a, x), (x, x)):
        out, ours = getattr(np, name)(*arguments), getattr(fnp, name)(*arguments)
        assert type(out) is fg.Tensor and out.requires_grad == ours.requires_grad
        same(out.detach().numpy(), ours.detach().numpy())


FUNCTIONS = {
    "sum": (lambda f, x: f(x, axis=0)), "mean": (lambda f, x: f(x, axis=-1, keepdims=True)), "prod": (lambda f, x: f(x)),
    "max": (lambda f, x: f(x, axis=1)), "min": (lambda f, x: f(x)), "amax": (lambda f, x: f(x)),
    "reshape": (lambda f, x: f(x, (3, 2))), "ravel": (lambda f, x: f(x)), "squeeze": (lambda f, x: f(x)),
    "expand_dims": (lambda f, x: f(x, 0)), "transpose": (lambda f, x: f(x)), "swapaxes": (lambda f, x: f(x, 0, 1)),
    "moveaxis": (lambda f, x: f(x, 0, 1)), "broadcast_to": (lambda f, x: f(x, (2, 2, 3))),
    "concatenate": (lambda f, x: f([x, x], axis=1)), "stack": (lambda f, x: f((x, x))), "dot": (lambda f, x: f(x, x.T)),
    "copy": (lambda f, x: f(x)), "clip": (lambda f, x: f(x, 0.5, 2.0)), "where": (lambda f, x: f(x > 1, x, 0.0)),
    "round": (lambda f, x: f(x)), "zeros_like": (lambda f, x: f(x)), "full_like": (lambda f, x: f(x, 2.0)),
    "sinc": (lambda f, x: f(x)), "real": (lambda f, x: f(x)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_np_functions_of_a_tensor_are_fastgrads(name):
    x = leaf(POSITIVE)
    out, ours = FUNCTIONS[name](getattr(np, name), x), FUNCTIONS[name](getattr(fnp, name), x)
    assert type(out) is fg.Tensor and out.requires_grad == ours.requires_grad
    same(out.detach().numpy(), ours.detach().numpy())


@pytest.mark.parametrize("name, expected", [("shape", (2, 3)), ("ndim", 2), ("size", 6)])
def test_np_shape_ndim_size(name, expected):
    assert getattr(np, name)(leaf()) == expected


@pytest.mark.parametrize("name", ["add", "multiply", "maximum", "minimum"])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_reduce_of_a_ufunc(name, axis):
    x = leaf(POSITIVE)
    out = getattr(np, name).reduce(x, axis=axis)
    assert out.requires_grad
    np.testing.assert_allclose(out.detach().numpy(), getattr(np, name).reduce(POSITIVE, axis=axis), rtol=1e-15)


def test_np_add_reduce_is_over_axis_0_by_default():
    assert np.add.reduce(fg.tensor(POSITIVE)).shape == (3,)


@pytest.mark.parametrize("call, text", [
    (lambda t: np.sort_complex(t), "numpy.sort_complex is not supported"),
    (lambda t: np.linalg.eig(t), "numpy.linalg.eig is not supported"),
    (lambda t: np.linalg.eigvals(t), "numpy.linalg.eigvals is not supported"),
    (lambda t: np.nanmedian(t), "numpy.nanmedian is not supported"),
    (lambda t: np.hypot.accumulate(t), "numpy.hypot.accumulate is not supported"),
    (lambda t: np.nextafter.outer(t, t), "numpy.nextafter.outer is not supported"),
    (lambda t: np.add.reduceat(t, [0]), "numpy.add.reduceat is not supported"),
    (lambda t: np.spacing(t), "numpy.spacing is not supported"),
    (lambda t: np.sin(t, where=np.ones((2, 2), bool)), "numpy.sin with where= is not supported"),
    (lambda t: np.add(t, t, dtype=np.float32, casting="unsafe"), "numpy.add with dtype=, casting= is not supported"),
    (lambda t: np.unwrap(t[0]), "numpy.unwrap is not supported"),
    (lambda t: np.polyfit([0.0, 1.0], t[0], 1), "is not supported"),
])
def test_an_unsupported_function_of_a_tracked_tensor_is_a_type_error(call, text):
    x = leaf(np.array([[2.0, 1.0], [1.0, 3.0]]))
    for t in (x, x * 1.0):
        with pytest.raises(TypeError, match=text + r".*would lose its gradient.*fastgrad.numpy.*detach"):
            call(t)


@pytest.mark.parametrize("call", [np.sort, np.linalg.eigvals, np.median, np.add.accumulate, np.spacing, np.argsort, np.std])
def test_an_unsupported_function_of_an_untracked_tensor_is_numpys(call):
    a = np.array([[2.0, 1.0], [1.0, 3.0]])
    out = call(fg.tensor(a))
    assert type(out) is fg.Tensor
    same(out.numpy(), call(a))


@pytest.mark.parametrize("call", [lambda t, out: np.sin(t, out=out), lambda t, out: np.add(t, 1.0, out=out),
                                  lambda t, out: fnp.sin(t, out=out), lambda t, out: fnp.sum(t, out=out)])
def test_out_takes_a_tensor_and_refuses_an_array(call):
    x = leaf([1.0])
    for bad in (np.zeros(1), [0.0]):
        with pytest.raises(TypeError):
            call(x, bad)
    with pytest.raises(TypeError, match="out= takes a Tensor, not ndarray.*gradient would be lost"):
        call(x, np.zeros(1))


def test_out_is_recorded():
    x = leaf([1.0, 2.0])
    out = fg.tensor([0.0, 0.0])
    assert np.multiply(x, x, out=out) is out
    fnp.exp(x * 0.0, out=(other := fg.tensor([0.0, 0.0])))
    (out * other).sum().backward()
    same(x.grad.numpy(), np.array([2.0, 4.0]))
    with pytest.raises(ValueError, match=r"out=: the result of shape \(2,\) does not fit the Tensor of shape \(3,\)"):
        fnp.exp(x, out=fg.tensor([0.0, 0.0, 0.0]))


def test_out_over_an_input():
    x = leaf([1.0, 2.0])
    y = x * 1.0
    np.multiply(y, y, out=y)
    np.multiply(y, y, out=y)
    y.sum().backward()
    same(x.grad.numpy(), np.array([4.0, 32.0]))


def test_an_array_updated_in_place_by_a_tracked_tensor_is_an_error_not_a_lost_gradient():
    a = np.zeros(2)
    with pytest.raises(TypeError):
        a += leaf([1.0, 2.0])
    b = np.zeros(2)
    with pytest.raises((TypeError, ValueError)):
        b[0] = leaf(2.0)
    same(b, np.zeros(2))


# CONTRACT 35: the user's array changes after it was recorded

SIZES = [1, 8, 5000, 50000]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("operation", [
    lambda x, a: x * a, lambda x, a: a * x, lambda x, a: x / a, lambda x, a: a ** x, lambda x, a: fnp.where(a > 1.5, x, x * a),
    lambda x, a: fnp.maximum(x, a), lambda x, a: x @ a, lambda x, a: fnp.clip(x, a - 1, a), lambda x, a: fnp.arctan2(x, a),
    lambda x, a: x * a[::-1], lambda x, a: x * a[None, :][0], lambda x, a: fnp.dot(x, a), lambda x, a: x * fnp.asarray(a),
    lambda x, a: x * fnp.reshape(a, (1, -1))])
def test_contract_35_an_array_that_changes_after_it_was_recorded_as_a_constant(n, dtype, operation):
    a = np.linspace(1.0, 2.0, n).astype(dtype)
    x = fg.tensor(np.linspace(0.5, 1.7, n).astype(dtype), requires_grad=True)
    expected = fg.grad(lambda x: operation(x, a.copy()).sum())(x.detach().numpy().copy())
    out = operation(x, a).sum()
    a[:] = np.nan
    out.backward()
    same(x.grad.numpy(), expected)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("operation", [lambda x: x * x, lambda x: fnp.exp(x), lambda x: x.reshape(-1, 1) * x, lambda x: x[::-1] * x,
                                       lambda x: x.max() * x, lambda x: fnp.logsumexp(x), lambda x: x[[0, -1]] * x[0],
                                       lambda x: x.T @ x, lambda x: fnp.concatenate([x, x]) ** 2, lambda x: fnp.prod(x)])
def test_contract_35_an_argument_that_changes_after_it_was_recorded(n, operation):
    if n > 5000:
        n = 200
    a = np.linspace(0.9, 1.1, n)
    expected = fg.vjp(lambda x: operation(x).sum(), a.copy())[1](1.0)[0]
    out, pull = fg.vjp(lambda x: operation(x).sum(), a)
    a[:] = np.nan
    same(pull(np.float64(1.0))[0], expected)


def test_contract_35_a_tensor_made_of_an_array_that_changes_afterwards():
    a = np.array([1.0, 2.0])
    x = leaf([3.0, 4.0])
    t = fg.tensor(a)
    y = (x * t * t).sum()
    a[:] = 100.0
    t.numpy()[:] = 50.0
    y.backward()
    same(x.grad.numpy(), np.array([1.0, 4.0]))


def test_contract_35_the_array_of_a_constant_written_through_an_old_view():
    t = fg.tensor([1.0, 2.0])
    view = t.numpy()
    x = leaf([3.0, 4.0])
    y = (x * t).sum()
    view[:] = 100.0
    y.backward()
    same(x.grad.numpy(), np.array([1.0, 2.0]))


def test_contract_35_a_view_of_a_constant_written_through_an_old_array():
    t = fg.tensor([1.0, 2.0, 3.0])
    part = t[1:]
    array = t.numpy()
    x = leaf([3.0, 4.0])
    y = (x * part).sum()
    array[:] = 100.0
    y.backward()
    same(x.grad.numpy(), np.array([2.0, 3.0]))


def test_contract_35_a_constant_tensor_changed_in_place_after_it_was_recorded():
    for change in (lambda t: t.__setitem__(0, 9.0), lambda t: t.__iadd__(9.0), lambda t: fnp.exp(t, out=t)):
        t = fg.tensor([1.0, 2.0])
        part = t[:1]
        x = leaf([3.0, 4.0])
        y = (x * t).sum() + (x[:1] * part).sum()
        change(t)
        y.backward()
        same(x.grad.numpy(), np.array([2.0, 2.0]))


def test_contract_35_a_matrix_plus_its_own_transpose_in_place():
    a = np.arange(9.0).reshape(3, 3)
    t = fg.tensor(a)
    t += t.T
    same(t.numpy(), a + a.T)
    x = leaf(a)
    y = x * 1.0
    y += y.T
    (y * a).sum().backward()
    same(x.grad.numpy(), a + a.T)


def test_contract_35_the_cotangent_given_to_backward_is_not_kept():
    x = leaf([1.0, 2.0])
    g = np.array([3.0, 4.0])
    y = x * 1.0
    y.backward(g)
    g[:] = 0.0
    same(x.grad.numpy(), np.array([3.0, 4.0]))
    g = np.array([3.0, 4.0])
    z = leaf([1.0, 2.0])
    z.backward(g)
    g[:] = 0.0
    same(z.grad.numpy(), np.array([3.0, 4.0]))


def test_the_gradients_of_two_leaves_never_share_memory():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (x + y).backward(np.ones(2))
    x.grad.numpy()[:] = 100.0
    same(y.grad.numpy(), np.ones(2))
    with fg.no_grad():
        x.grad.__imul__(0.0)
    same(y.grad.numpy(), np.ones(2))


# CONTRACT 23: 0-d


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_contract_23_the_gradient_of_a_0_d_is_0_d(dtype):
    x = fg.tensor(np.array(2.0, dtype), requires_grad=True)
    (x * x * fg.tensor(np.ones(3, dtype))).sum().backward()
    assert type(x.grad) is fg.Tensor and x.grad.shape == ()
    same(x.grad.numpy(), np.array(12.0, dtype))
    found = fg.grad(lambda x: (x * x).sum())(np.array(2.0, dtype))
    assert type(found) is np.ndarray and found.shape == () and found.dtype == dtype


# CONTRACT 47: errors


@pytest.mark.parametrize("f, name", [(operator.add, "add"), (operator.mul, "multiply"), (fnp.maximum, "maximum"), (fnp.arctan2, "arctan2"),
                                     (operator.lt, "less"), (operator.mod, "mod")])
def test_contract_47_a_failed_broadcast_names_the_operation_and_both_shapes(f, name):
    for x in (fg.tensor(np.ones((2, 3))), leaf()):
        with pytest.raises(ValueError, match=rf"{name}: operands could not be broadcast together with shapes \(2, 3\) \(2,\).*reshape"):
            f(x, np.ones(2))


def test_contract_47_where_and_clip_name_all_shapes():
    with pytest.raises(ValueError, match=r"where.*\(2,\) \(2, 3\) \(\)"):
        fnp.where(np.ones(2, bool), leaf(), 0.0)
    with pytest.raises(ValueError, match=r"clip.*\(2, 3\) \(4,\)"):
        fnp.clip(leaf(), np.ones(4), 1.0)


@pytest.mark.parametrize("call", [lambda: fnp.sin("a"), lambda: fnp.add(1.0, "a"), lambda: fnp.sum(None), lambda: fnp.matmul([1.0], None),
                                  lambda: fnp.exp(object()), lambda: fnp.where(True, 1.0, {})])
def test_contract_47_what_is_no_number_is_a_type_error_that_names_the_operation(call):
    with pytest.raises(TypeError, match=r"(sin|add|sum|matmul|exp|where): (str|NoneType|object|dict) is not a Tensor"):
        call()


@pytest.mark.parametrize("call", [lambda t: t.sum(axes=0), lambda t: fnp.sin(t, 1, 2, 3), lambda t: fnp.sum(t, foo=1),
                                  lambda t: t.backward(retain=True), lambda t: fg.tensor([1.0], grad=True)])
def test_contract_47_unknown_keywords_are_type_errors(call):
    with pytest.raises(TypeError):
        call(fg.tensor([1.0]))


@pytest.mark.parametrize("call, error, text", [
    (lambda: fg.tensor(1.0).backward(), RuntimeError, "backward: nothing was recorded.*requires_grad=True"),
    (lambda: (leaf() * 2.0).backward(), ValueError, r"backward of a Tensor of shape \(2, 3\).*pass backward\(gradient\).*\.sum\(\)"),
    (lambda: (leaf() * 2.0).backward(np.ones(3)), ValueError, r"backward: a gradient of shape \(3,\) for a Tensor of shape \(2, 3\)"),
    (lambda: (leaf(2.0) * 2.0).backward("a"), TypeError, "backward: str is not"),
    (lambda: fg.tensor(1.0).retain_grad(), RuntimeError, "retain_grad: this Tensor is not being differentiated"),
])
def test_contract_47_errors_of_backward(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_after_any_error_the_next_call_works():
    x = leaf()
    y = x * x
    for bad in (lambda: y + np.ones(7), lambda: y @ y, lambda: float(y), lambda: y.backward(), lambda: y[9], lambda: np.nanmedian(y)):
        with pytest.raises((ValueError, TypeError, IndexError)):
            bad()
    y.sum().backward()
    same(x.grad.numpy(), 2 * X)


# Methods


@pytest.mark.parametrize("call", [
    lambda t: t.sum(), lambda t: t.sum(0), lambda t: t.sum(axis=1, keepdims=True), lambda t: t.mean(axis=0), lambda t: t.prod(1),
    lambda t: t.max(), lambda t: t.min(axis=0), lambda t: t.any(), lambda t: t.all(axis=1), lambda t: t.argmax(), lambda t: t.argmin(axis=0),
    lambda t: t.argsort(), lambda t: t.dot(t.T), lambda t: t.reshape(3, 2), lambda t: t.reshape((6,)), lambda t: t.ravel(),
    lambda t: t.flatten(), lambda t: t[None].squeeze(), lambda t: t[None].squeeze(0), lambda t: t.transpose(),
    lambda t: t.transpose(1, 0), lambda t: t.transpose((1, 0)),
    lambda t: t.swapaxes(0, 1), lambda t: t.clip(-1.0, 1.0), lambda t: t.clip(max=0.5), lambda t: t.round(), lambda t: t.round(1),
    lambda t: t.copy(), lambda t: t.astype(np.float32), lambda t: t.T, lambda t: t.real])
def test_methods_are_ndarrays(call):
    expected = np.asarray(call(X))
    for t in (fg.tensor(X), leaf()):
        out = call(t)
        assert type(out) is fg.Tensor and out.dtype == expected.dtype and out.shape == expected.shape
        np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-15)


@pytest.mark.parametrize("call", [lambda xp: xp.zeros((2, 3)), lambda xp: xp.ones(3, dtype=np.float32), lambda xp: xp.full((2,), 7.0),
                                  lambda xp: xp.arange(4), lambda xp: xp.arange(1.0, 2.0, 0.25), lambda xp: xp.linspace(0, 1, 5),
                                  lambda xp: xp.eye(3), lambda xp: xp.identity(2), lambda xp: xp.array([[1, 2], [3, 4]]),
                                  lambda xp: xp.asarray([1.0, 2.0]), lambda xp: xp.zeros_like(X), lambda xp: xp.ones_like(X.astype(np.float32)),
                                  lambda xp: xp.full_like(X, 2.0), lambda xp: xp.array([1, 2], dtype=np.float32)])
def test_creation_is_numpys(call):
    out = call(fnp)
    assert type(out) is fg.Tensor and not out.requires_grad
    same(out.numpy(), call(np))


def test_fnp_array_of_tracked_numbers_passes_their_gradients():
    found = fg.grad(lambda x, y: (fnp.array([[x, y], [1.0, x]]) ** 2).sum(), (0, 1))(2.0, 3.0)
    assert found == (8.0, 6.0)
    assert fg.grad(lambda x: fnp.full((2, 3), x).sum())(2.0) == 6.0
    assert fg.grad(lambda x: fnp.array(x).sum() + fnp.asarray(x).sum())(2.0) == 2.0


def test_a_list_of_tensors_is_an_operand():
    found = fg.grad(lambda x: (fnp.ones(2) * [x, x * x]).sum() + fnp.sum([x, 2.0 * x]) + ([x, x] * fnp.ones(2)).sum())(3.0)
    assert found == 1 + 6 + 3 + 2


def test_contract_44_the_value_is_bitwise_the_same_with_and_without_recording():
    rng = np.random.default_rng(0)
    for shape in ((), (3,), (7, 11), (300, 40)):
        a, b = rng.standard_normal(shape), rng.standard_normal(shape)

        def f(x, y):
            z = fnp.tanh(x * y) + fnp.exp(-x * x) / (1.0 + y * y)
            return [z, z.sum(), fnp.softmax(z), fnp.logsumexp(z), (z.T @ z) if shape[1:] else z, z.max(), z.mean(), fnp.sin(z) ** 3]

        plain = [t.numpy() for t in f(fg.tensor(a), fg.tensor(b))]
        recorded = [t.detach().numpy() for t in f(leaf(a), leaf(b))]
        again = [t.detach().numpy() for t in f(leaf(a), leaf(b))]
        with fg.no_grad():
            unrecorded = [t.numpy() for t in f(leaf(a), leaf(b))]
        for values in zip(plain, recorded, again, unrecorded):
            for v in values[1:]:
                same(v, values[0])


def test_contract_44_the_gradient_is_bitwise_the_same_when_run_twice():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((40, 30))
    f = fg.grad(lambda x: (fnp.tanh(x.T @ x) * fnp.softmax(x).sum(0)).sum())
    same(f(a), f(a))


@pytest.mark.parametrize("number", [1.0, 2.0, 1.5, 2, True, -1])
@pytest.mark.parametrize("operation", ["add", "multiply", "subtract", "maximum", "divide"])
def test_a_python_float_makes_integers_floats_whatever_its_value(number, operation):
    f, whole = getattr(np, operation), np.array([1, 2, 4])
    for ours, theirs in [(f(fg.tensor(whole), number), f(whole, number)), (f(number, fg.tensor(whole)), f(number, whole)),
                         (fg.compile(lambda t: f(t, number))(fg.tensor(whole)), f(whole, number))]:
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours.numpy(), theirs)
