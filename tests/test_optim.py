"""Optimisers, held against their formulas in NumPy, and against PyTorch where installed."""

import math

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import nn, optim

SHAPES = [(3, 2), (4,), ()]
STEPS = 50


def starts(dtype):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(dtype) for shape in SHAPES]


def gradients(dtype):
    rng = np.random.default_rng(1)
    return [[np.asarray(rng.normal(size=shape), dtype) for shape in SHAPES] for _ in range(STEPS)]


def walk(make, dtype=np.float64):
    """Values of the parameters after each of 50 steps along random gradients."""
    params = [fg.tensor(array, requires_grad=True) for array in starts(dtype)]
    optimizer = make(params)
    path = []
    for step in gradients(dtype):
        optimizer.zero_grad()
        for parameter, gradient in zip(params, step):
            (parameter * gradient).sum().backward()
        optimizer.step()
        path.append([parameter.detach().numpy().copy() for parameter in params])
    assert all(parameter.dtype == dtype and parameter.is_leaf and parameter.requires_grad for parameter in params)
    return path


def compare(path, expected, rtol):
    for ours, theirs in zip(path, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


SGD_OPTIONS = [
    {},
    {"lr": 0.1},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.3},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"lr": 0.1, "weight_decay": 0.05},
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05, "nesterov": True},
]
ADAM_OPTIONS = [
    {},
    {"lr": 0.1},
    {"lr": 0.1, "betas": (0.5, 0.7)},
    {"lr": 0.1, "eps": 0.1},
    {"lr": 0.1, "weight_decay": 0.05},
    {"lr": 0.1, "amsgrad": True, "betas": (0.9, 0.5)},
    {"lr": 0.1, "betas": (0.0, 0.0)},
]


def sgd_by_hand(lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False):
    values, velocity, path = starts(float), [None] * len(SHAPES), []
    for step in gradients(float):
        for k, g in enumerate(step):
            g = g + weight_decay * values[k]
            if momentum:
                velocity[k] = g if velocity[k] is None else momentum * velocity[k] + (1 - dampening) * g
                g = g + momentum * velocity[k] if nesterov else velocity[k]
            values[k] = values[k] - lr * g
        path.append(list(values))
    return path


def adam_by_hand(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False):
    values, path = starts(float), []
    m, v, top = ([np.zeros(shape) for shape in SHAPES] for _ in range(3))
    for t, step in enumerate(gradients(float), 1):
        for k, g in enumerate(step):
            g = g + weight_decay * values[k]
            m[k] = betas[0] * m[k] + (1 - betas[0]) * g
            v[k] = betas[1] * v[k] + (1 - betas[1]) * g**2
            top[k] = np.maximum(top[k], v[k])
            bounded = (top if amsgrad else v)[k] / (1 - betas[1] ** t)
            values[k] = values[k] - lr * m[k] / (1 - betas[0] ** t) / (np.sqrt(bounded) + eps)
        path.append(list(values))
    return path


@pytest.mark.parametrize("options", SGD_OPTIONS, ids=str)
def test_sgd_follows_its_formula(options):
    compare(walk(lambda params: optim.SGD(params, **options)), sgd_by_hand(**options), 1e-12)


@pytest.mark.parametrize("options", ADAM_OPTIONS, ids=str)
def test_adam_follows_its_formula(options):
    compare(walk(lambda params: optim.Adam(params, **options)), adam_by_hand(**options), 1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("name", "options"),
    [("SGD", options) for options in SGD_OPTIONS] + [("Adam", options) for options in ADAM_OPTIONS],
    ids=str,
)
def test_optimisers_walk_as_pytorch_does(name, options, dtype):
    torch = pytest.importorskip("torch")
    params = [torch.tensor(array, requires_grad=True) for array in starts(dtype)]
    optimizer = getattr(torch.optim, name)(params, **options)
    expected = []
    for step in gradients(dtype):
        for parameter, gradient in zip(params, step):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
        expected.append([parameter.detach().numpy().copy() for parameter in params])
    path = walk(lambda params: getattr(optim, name)(params, **options), dtype)
    compare(path, expected, 1e-11 if dtype is np.float64 else 1e-4)


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
class TestEveryOptimiser:
    def test_a_parameter_without_gradient_stays(self, make):
        moved, unmoved = (fg.tensor([1.0], requires_grad=True) for _ in range(2))
        (moved * 2).sum().backward()
        make([moved, unmoved]).step()
        assert moved.item() != 1.0
        assert unmoved.item() == 1.0

    def test_the_very_tensor_moves(self, make):
        model = nn.Linear(2, 1, rng=0)
        weight, before = model.weight, model.state_dict()
        model(np.ones((3, 2))).sum().backward()
        make(model.parameters()).step()
        assert model.weight is weight and weight.is_leaf
        assert not np.array_equal(model.state_dict()["weight"], before["weight"])

    def test_a_step_is_not_recorded(self, make):
        x = fg.tensor([1.0, 2.0], requires_grad=True)
        optimizer = make([x], lr=0.1)
        (x * x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert x.grad is None
        (3 * x).sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), [3.0, 3.0])

    def test_the_gradient_itself_is_left_alone(self, make):
        options = {"momentum": 0.9} if make is optim.SGD else {}
        x = fg.tensor([1.0, 2.0], requires_grad=True)
        (x * x).sum().backward()
        optimizer = make([x], lr=0.1, weight_decay=0.1, **options)
        optimizer.step()
        optimizer.step()
        np.testing.assert_array_equal(x.grad.numpy(), [2.0, 4.0])

    def test_the_learning_rate_may_change_and_may_be_a_numpy_scalar(self, make):
        x = fg.tensor(np.ones(2, np.float32), requires_grad=True)
        optimizer = make([x], lr=np.float64(0.5))
        optimizer.lr *= np.float64(0.0)
        x.sum().backward()
        optimizer.step()
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x.detach().numpy(), [1.0, 1.0])

    def test_saved_and_loaded_it_goes_on_as_if_nothing_had_been(self, make):
        options = {"momentum": 0.9} if make is optim.SGD else {"amsgrad": True}
        x, y = (fg.tensor([1.0, -2.0], requires_grad=True) for _ in range(2))

        def advance(optimizer, tensor):
            optimizer.zero_grad()
            (tensor * tensor * tensor).sum().backward()
            optimizer.step()

        first = make([x], lr=0.1, **options)
        for _ in range(3):
            advance(first, x)
        second = make([y], lr=9.0, **options)
        second.load_state_dict(first.state_dict())
        with fg.no_grad():
            y[...] = x.detach().numpy()
        for _ in range(3):
            advance(first, x)
            advance(second, y)
        np.testing.assert_array_equal(x.detach().numpy(), y.detach().numpy())

    def test_a_state_that_does_not_fit_is_named(self, make):
        options = {"momentum": 0.9} if make is optim.SGD else {}
        x = fg.tensor([1.0, 2.0], requires_grad=True)
        optimizer = make([x], **options)
        x.sum().backward()
        optimizer.step()
        state = optimizer.state_dict()
        other = fg.tensor([1.0, 2.0, 3.0], requires_grad=True)
        with pytest.raises(ValueError, match=r"of params\[0\] has shape \(2,\), not \(3,\)"):
            make([other], **options).load_state_dict(state)
        with pytest.raises(ValueError, match="state of 1 parameters for 2"):
            make([x, other], **options).load_state_dict(state)
        with pytest.raises(ValueError, match="options are"):
            make([x], **options).load_state_dict({"options": {}, "state": state["state"]})

    def test_wrong_parameters(self, make):
        x = fg.tensor([1.0], requires_grad=True)
        with pytest.raises(TypeError, match="params must be an iterable of Tensors; put the Tensor in a list"):
            make(x)
        with pytest.raises(TypeError, match=r"params\[1\] is ndarray, not a Tensor"):
            make([x, np.ones(1)])
        with pytest.raises(ValueError, match="params is empty"):
            make([])
        with pytest.raises(ValueError, match=r"params\[0\], of shape \(1,\), is not a leaf"):
            make([x * 2])
        with pytest.raises(ValueError, match="is not a leaf that asks for a gradient"):
            make([fg.tensor([1.0])])
        with pytest.raises(ValueError, match="twice"):
            make([x, x])

    @pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
    @pytest.mark.parametrize("name", ["lr", "weight_decay"])
    def test_hyperparameters_out_of_range(self, make, name, value):
        x = fg.tensor([1.0], requires_grad=True)
        with pytest.raises(ValueError, match=f"{make.__name__}: {name} must be a finite number >= 0, not {value}"):
            make([x], **{name: value})


def test_nesterov_needs_momentum_and_no_dampening():
    x = fg.tensor([1.0], requires_grad=True)
    for options in ({}, {"momentum": 0.9, "dampening": 0.1}):
        with pytest.raises(ValueError, match="nesterov needs momentum > 0 and dampening = 0"):
            optim.SGD([x], nesterov=True, **options)


@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, -0.1), (0.9,), (math.nan, 0.9)])
def test_betas_out_of_range(betas):
    with pytest.raises(ValueError, match="Adam: betas must be two numbers from 0 to below 1"):
        optim.Adam([fg.tensor([1.0], requires_grad=True)], betas=betas)


def test_repr_names_the_hyperparameters():
    assert repr(optim.SGD([fg.tensor([1.0], requires_grad=True)], lr=0.1)) == (
        "SGD(1 parameters, lr=0.1, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False)"
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
def test_a_rate_that_is_a_tensor_is_read_at_each_compiled_step(make, dtype):
    ends = []
    for compiled in (True, False):
        x = fg.tensor(np.array([1.0, -2.0], dtype), requires_grad=True)
        optimizer = make([x], lr=fg.tensor(0.5) if compiled else 0.5)

        def step():
            optimizer.zero_grad()
            (x * x).sum().backward()
            optimizer.step()

        call = fg.compile(step) if compiled else step
        for k in range(6):
            if compiled:
                optimizer.lr[...] = 0.5 / (k + 1)
            else:
                optimizer.lr = 0.5 / (k + 1)
            call()
        assert x.dtype == dtype
        ends.append(x.detach().numpy())
        if compiled:
            assert call.recordings <= 2
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-6)


def test_a_rate_that_is_a_tensor_is_saved_as_a_number_and_taken_over_in_place():
    x = fg.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([x], lr=fg.tensor(0.5))
    state = optimizer.state_dict()
    assert type(state["options"]["lr"]) is float and state["options"]["lr"] == 0.5
    rate = optimizer.lr
    optimizer.load_state_dict({**state, "options": {**state["options"], "lr": 0.25}})
    assert optimizer.lr is rate and rate.item() == 0.25
    with pytest.raises(ValueError, match="SGD: lr must be a number or a 0-d Tensor, not one of shape"):
        optim.SGD([x], lr=fg.tensor([0.5]))
    with pytest.raises(ValueError, match="SGD: lr must be a finite number >= 0"):
        optim.SGD([x], lr=fg.tensor(-1.0))
