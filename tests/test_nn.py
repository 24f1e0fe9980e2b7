"""Modules, layers and losses, held against NumPy, the complex step, and PyTorch where installed."""

import math

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import nn

REDUCTIONS = ["mean", "sum", "none"]


def complex_gradient(function, x, step=1e-200):
    """Gradient of a real-analytic NumPy function, number by number."""
    x = np.asarray(x, complex)
    gradient = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] += 1j * step
        gradient[index] = function(moved).imag / step
    return gradient


def value_and_gradient(loss, x):
    x = fg.tensor(x, requires_grad=True)
    out = loss(x)
    out.sum().backward()
    return out.detach().numpy(), x.grad.numpy()


# Module


class Block(nn.Module):
    def __init__(self):
        self.first = nn.Linear(3, 4, rng=0)
        self.scale = nn.Parameter([2.0, 3.0])
        self.second = nn.Linear(4, 2, rng=1)
        self.count = 7

    def forward(self, x):
        return self.second(fnp.tanh(self.first(x))) * self.scale


class TestModule:
    def test_parameters_have_dotted_names_own_ones_first(self):
        names = [name for name, _ in Block().named_parameters()]
        assert names == ["scale", "first.weight", "first.bias", "second.weight", "second.bias"]

    def test_a_shared_parameter_counts_once(self):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
        shared = nn.Sequential(*[nn.Linear(3, 3)] * 2)
        assert len(list(shared.parameters())) == 2
        assert len(list(shared.modules())) == 2

    def test_only_leaves_that_ask_for_a_gradient_are_parameters(self):
        model = nn.Module()
        model.constant = fg.tensor([1.0])
        model.weight = nn.Parameter([1.0])
        model.derived = model.weight * 2
        model.array = np.ones(3)
        assert [name for name, _ in model.named_parameters()] == ["weight"]

    def test_assigning_and_deleting_ends_the_registration(self):
        model = nn.Linear(2, 2)
        model.bias = None
        assert [name for name, _ in model.named_parameters()] == ["weight"]
        del model.weight
        assert list(model.parameters()) == []

    @pytest.mark.parametrize(
        "container", [lambda m: [m], lambda m: (m,), lambda m: {"a": m}], ids=["list", "tuple", "dict"]
    )
    def test_a_plain_container_of_modules_is_refused_not_lost(self, container):
        model = nn.Module()
        with pytest.raises(TypeError, match=r"Module\.layers: a \w+ hides the Modules .* use nn.ModuleList"):
            model.layers = container(nn.Linear(2, 2))
        with pytest.raises(TypeError, match="nn.ModuleList"):
            model.weights = container(nn.Parameter([1.0]))
        model.sizes = [1, 2, 3]

    def test_children_and_modules(self):
        model = nn.Sequential(Block(), nn.Tanh())
        assert [name for name, _ in model.named_modules()] == ["", "0", "0.first", "0.second", "1"]
        assert list(model.children()) == [model[0], model[1]]

    def test_backward_fills_and_zero_grad_clears(self):
        model = Block()
        model(np.ones((5, 3))).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        model.zero_grad()
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_train_and_eval_reach_every_module(self):
        model = nn.Sequential(Block(), nn.Tanh())
        assert model.training
        assert model.eval() is model
        assert not any(module.training for module in model.modules())
        assert all(module.training for module in model.train().modules())

    def test_without_forward_a_call_says_so(self):
        with pytest.raises(NotImplementedError, match=r"Module has no forward\(\)"):
            nn.Module()(1.0)

    def test_repr(self):
        assert repr(nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU()))) == (
            "Sequential(\n"
            "  (0): Linear(in_features=4, out_features=8, bias=True)\n"
            "  (1): Sequential(\n"
            "    (0): ReLU()\n"
            "  )\n"
            ")"
        )


class TestState:
    def test_it_goes_round(self):
        ours, theirs = Block(), Block()
        for parameter in theirs.parameters():
            with fg.no_grad():
                parameter[...] = 0.0
        theirs.load_state_dict(ours.state_dict())
        for name, array in ours.state_dict().items():
            np.testing.assert_array_equal(theirs.state_dict()[name], array)

    def test_it_is_a_copy(self):
        model = nn.Linear(2, 2, rng=0)
        state = model.state_dict()
        before = state["weight"].copy()
        state["weight"][...] = 0.0
        np.testing.assert_array_equal(model.state_dict()["weight"], before)

    def test_loading_keeps_the_tensors(self):
        model = nn.Linear(2, 2)
        weight = model.weight
        model.load_state_dict({"weight": np.eye(2), "bias": [1, 2]})
        assert model.weight is weight and weight.requires_grad and weight.is_leaf
        np.testing.assert_array_equal(weight.detach().numpy(), np.eye(2))

    def test_loading_keeps_the_dtype(self):
        model = nn.Linear(2, 2, dtype=np.float32)
        model.load_state_dict({"weight": np.eye(2), "bias": [1, 2]})
        assert model.weight.dtype == np.float32

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda s: s.pop("bias"), "load_state_dict of Linear: missing 'bias'; strict=False"),
            (lambda s: s.update(extra=1.0), "unexpected 'extra'"),
            (lambda s: s.update(weight=np.ones((2, 3))), r"'weight' has shape \(2, 3\) where \(2, 2\) is needed"),
        ],
    )
    def test_what_does_not_fit_is_named_and_changes_nothing(self, change, says):
        model = nn.Linear(2, 2)
        before = model.state_dict()
        state = {"weight": np.eye(2), "bias": np.ones(2)}
        change(state)
        with pytest.raises(ValueError, match=says):
            model.load_state_dict(state)
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(array, before[name])

    def test_not_strict_loads_what_is_there(self):
        model = nn.Linear(2, 2)
        model.load_state_dict({"weight": np.eye(2), "extra": 1.0}, strict=False)
        np.testing.assert_array_equal(model.state_dict()["weight"], np.eye(2))
        with pytest.raises(ValueError, match="has shape"):
            model.load_state_dict({"weight": np.eye(3)}, strict=False)

    def test_complex_numbers_are_refused(self):
        with pytest.raises(TypeError, match="'bias' holds complex128"):
            nn.Linear(2, 2).load_state_dict({"weight": np.eye(2), "bias": np.ones(2, complex)})


class TestTree:
    def test_round_trip_is_a_copy_with_new_parameters(self):
        model = Block().eval()
        children, aux = model._tree_flatten()
        copy = type(model)._tree_unflatten(aux, [child * 2 for child in children])
        assert type(copy) is Block and copy.count == 7 and not copy.training
        assert copy is not model and copy.first is not model.first
        assert [name for name, _ in copy.named_parameters()] == [name for name, _ in model.named_parameters()]
        np.testing.assert_array_equal(copy.scale.detach().numpy(), [4.0, 6.0])
        np.testing.assert_array_equal(model.scale.detach().numpy(), [2.0, 3.0])

    def test_a_shared_parameter_stays_shared(self):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        children, aux = model._tree_flatten()
        copy = nn.Sequential._tree_unflatten(aux, [child * 2 for child in children])
        assert copy[0].weight is copy[1].weight

    def test_a_module_goes_where_a_tensor_goes(self):
        model = Block()
        x = np.random.default_rng(0).normal(size=(5, 3))
        value, gradients = fg.value_and_grad(lambda module: fnp.sum(module(x) ** 2))(model)
        assert isinstance(gradients, Block)
        out = model(x)
        (out * out).sum().backward()
        for ours, (name, parameter) in zip(gradients.parameters(), model.named_parameters()):
            np.testing.assert_allclose(np.asarray(ours.detach()), parameter.grad.numpy(), rtol=1e-14, err_msg=name)


# Layers


class TestLayers:
    @pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3), (0, 3)])
    def test_linear_is_affine(self, shape):
        layer = nn.Linear(3, 2, rng=0)
        x = np.random.default_rng(1).normal(size=shape)
        state = layer.state_dict()
        np.testing.assert_allclose(layer(x).detach().numpy(), x @ state["weight"].T + state["bias"], rtol=1e-14)

    def test_linear_gradients(self):
        layer = nn.Linear(3, 2, rng=0)
        x = np.random.default_rng(1).normal(size=(5, 3))
        weights = np.random.default_rng(2).normal(size=(5, 2))
        input = fg.tensor(x, requires_grad=True)
        (layer(input) * weights).sum().backward()
        np.testing.assert_allclose(layer.weight.grad.numpy(), weights.T @ x, rtol=1e-14)
        np.testing.assert_allclose(layer.bias.grad.numpy(), weights.sum(0), rtol=1e-14)
        np.testing.assert_allclose(input.grad.numpy(), weights @ layer.state_dict()["weight"], rtol=1e-14)

    def test_linear_starts_as_pytorch_starts(self):
        layer = nn.Linear(400, 300, rng=0)
        for array in layer.state_dict().values():
            assert np.abs(array).max() <= 1 / 20
            assert array.std() == pytest.approx(1 / 20 / math.sqrt(3), rel=0.05)

    def test_a_seed_decides(self):
        first, second = nn.Linear(3, 2, rng=5).state_dict(), nn.Linear(3, 2, rng=5).state_dict()
        assert all(np.array_equal(first[name], second[name]) for name in first)
        assert not np.array_equal(first["weight"], nn.Linear(3, 2, rng=6).state_dict()["weight"])

    def test_float32_stays_float32(self):
        layer = nn.Linear(3, 2, dtype=np.float32)
        out = layer(np.ones((4, 3), np.float32))
        out.sum().backward()
        assert {out.dtype, layer.weight.grad.dtype, layer.bias.grad.dtype} == {np.dtype(np.float32)}

    def test_no_bias(self):
        layer = nn.Linear(3, 2, bias=False)
        assert layer.bias is None and len(list(layer.parameters())) == 1
        assert layer(np.zeros(3)).detach().numpy().tolist() == [0.0, 0.0]

    @pytest.mark.parametrize("shape", [(4,), (3, 4), ()])
    def test_a_wrong_input_is_told_the_shapes(self, shape):
        with pytest.raises(ValueError, match=r"Linear: an input of shape .* in_features = 3, as weight \(2, 3\) needs"):
            nn.Linear(3, 2)(np.ones(shape))

    @pytest.mark.parametrize("size", [-1, 2.0, True, "3"])
    def test_wrong_sizes(self, size):
        with pytest.raises(ValueError, match="Linear: in_features must be a non-negative integer"):
            nn.Linear(size, 2)

    def test_an_integer_dtype_is_refused(self):
        with pytest.raises(TypeError, match="floating dtype, not int64"):
            nn.Linear(2, 2, dtype=np.int64)

    @pytest.mark.parametrize(
        ("layer", "function"),
        [
            (nn.Tanh(), np.tanh),
            (nn.ReLU(), lambda x: np.maximum(x, 0)),
            (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
        ],
        ids=["Tanh", "ReLU", "Sigmoid"],
    )
    def test_activations(self, layer, function):
        x = np.linspace(-3, 3, 13)
        np.testing.assert_allclose(layer(fg.tensor(x)).numpy(), function(x), rtol=1e-14)

    def test_sequential_applies_in_order_and_is_a_list(self):
        model = nn.Sequential(nn.Linear(3, 4, rng=0), nn.Tanh(), nn.Linear(4, 2, rng=1))
        x = np.ones((2, 3))
        expected = model[2](fnp.tanh(model[0](x)))
        np.testing.assert_array_equal(model(x).detach().numpy(), expected.detach().numpy())
        assert len(model) == 3 and isinstance(model[-1], nn.Linear)
        assert isinstance(model[:2], nn.Sequential) and len(model[:2]) == 2

    def test_module_list(self):
        layers = nn.ModuleList([nn.Tanh()]).append(nn.Linear(2, 2))
        assert len(layers) == 2 and len(list(layers.parameters())) == 2
        assert isinstance(layers[1:], nn.ModuleList)

    def test_a_function_is_no_module(self):
        with pytest.raises(TypeError, match="Sequential: takes Modules, not"):
            nn.Sequential(np.tanh)


# Losses


RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4))
LABELS = np.array([0, 3, 1, 1, 2, 0])
PROBABILITIES = RNG.dirichlet(np.ones(4), size=6)
P, T = RNG.uniform(0.05, 0.95, size=(5, 3)), RNG.uniform(size=(5, 3))
FACTORS = np.array([0.5, 1.0, 2.0, 0.25])


def log_softmax(z):
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


CLOSED_FORMS = {
    "mse": (lambda x: nn.mse_loss(x, T, "sum"), lambda x: ((x - T) ** 2).sum(), P),
    "bce": (
        lambda x: nn.binary_cross_entropy(x, T, reduction="sum"),
        lambda x: -(T * np.log(x) + (1 - T) * np.log(1 - x)).sum(),
        P,
    ),
    "bce with logits": (
        lambda x: nn.binary_cross_entropy_with_logits(x, T, reduction="sum"),
        lambda x: (np.log(1 + np.exp(x)) - T * x).sum(),
        4 * P - 2,
    ),
    "cross entropy of classes": (
        lambda x: nn.cross_entropy(x, LABELS, reduction="sum"),
        lambda x: -log_softmax(x)[np.arange(6), LABELS].sum(),
        LOGITS,
    ),
    "cross entropy of probabilities": (
        lambda x: nn.cross_entropy(x, PROBABILITIES, reduction="sum"),
        lambda x: -(PROBABILITIES * log_softmax(x)).sum(),
        LOGITS,
    ),
    "cross entropy of one example": (
        lambda x: nn.cross_entropy(x, 2),
        lambda x: -log_softmax(x)[2],
        LOGITS[0],
    ),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_loss_and_gradient_against_the_closed_form_and_the_complex_step(name):
    loss, closed_form, x = CLOSED_FORMS[name]
    value, gradient = value_and_gradient(loss, x)
    assert value.shape == ()
    np.testing.assert_allclose(value, closed_form(x), rtol=1e-13)
    np.testing.assert_allclose(gradient, complex_gradient(closed_form, x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_losses_have_second_derivatives(name):
    loss, closed_form, x = CLOSED_FORMS[name]
    direction = np.random.default_rng(3).normal(size=x.shape)
    first = fg.grad(lambda x: fnp.sum(loss(x)))
    second = fg.grad(lambda x: fnp.sum(first(x) * direction))(x)
    step = 1e-5
    difference = (first(x + step * direction) - first(x - step * direction)) / (2 * step)
    np.testing.assert_allclose(second, difference, rtol=1e-6, atol=1e-8)


LOSSES = {
    "mse_loss": lambda fn, x, wrap, **k: fn(x, wrap(T), **k),
    "binary_cross_entropy": lambda fn, x, wrap, **k: fn(x, wrap(T), **k),
    "binary_cross_entropy weighted": lambda fn, x, wrap, **k: fn(x, wrap(T), weight=wrap(FACTORS[:3]), **k),
    "binary_cross_entropy_with_logits": lambda fn, x, wrap, **k: fn(x, wrap(T), **k),
    "binary_cross_entropy_with_logits weighted": lambda fn, x, wrap, **k: fn(
        x, wrap(T), weight=wrap(FACTORS[:3]), pos_weight=wrap(FACTORS[1:]), **k
    ),
    "cross_entropy": lambda fn, x, wrap, **k: fn(x, wrap(LABELS), **k),
    "cross_entropy weighted": lambda fn, x, wrap, **k: fn(x, wrap(LABELS), weight=wrap(FACTORS), **k),
    "cross_entropy smoothed": lambda fn, x, wrap, **k: fn(x, wrap(LABELS), label_smoothing=0.1, **k),
    "cross_entropy weighted smoothed": lambda fn, x, wrap, **k: fn(
        x, wrap(LABELS), weight=wrap(FACTORS), label_smoothing=0.1, **k
    ),
    "cross_entropy probabilities": lambda fn, x, wrap, **k: fn(x, wrap(PROBABILITIES), **k),
    "cross_entropy probabilities weighted smoothed": lambda fn, x, wrap, **k: fn(
        x, wrap(PROBABILITIES), weight=wrap(FACTORS), label_smoothing=0.1, **k
    ),
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_agree_with_pytorch(name, reduction):
    torch = pytest.importorskip("torch")
    call, function = LOSSES[name], name.split()[0]
    x = LOGITS if function == "cross_entropy" else P
    theirs = torch.tensor(x, requires_grad=True)
    loss = call(getattr(torch.nn.functional, function), theirs, torch.tensor, reduction=reduction)
    loss.sum().backward()
    value, gradient = value_and_gradient(lambda x: call(getattr(nn, function), x, np.asarray, reduction=reduction), x)
    np.testing.assert_allclose(value, loss.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-11, atol=1e-15)


class TestStability:
    def test_cross_entropy_of_huge_logits(self):
        logits = [[1e4, -1e4], [1e4, -1e4]]
        value, gradient = value_and_gradient(lambda z: nn.cross_entropy(z, np.array([0, 1])), logits)
        assert value == 1e4
        np.testing.assert_array_equal(gradient, [[0.0, 0.0], [0.5, -0.5]])

    def test_cross_entropy_keeps_the_digits_of_a_small_loss(self):
        value, gradient = value_and_gradient(lambda z: nn.cross_entropy(z, 0), [30.0, 0.0])
        np.testing.assert_allclose(value, math.log1p(math.exp(-30)), rtol=5e-3)
        np.testing.assert_allclose(gradient, [-math.exp(-30), math.exp(-30)], rtol=5e-3)

    def test_an_impossible_class_does_not_poison_the_others(self):
        value, gradient = value_and_gradient(lambda z: nn.cross_entropy(z, 0), [1.0, 1.0, -np.inf])
        np.testing.assert_allclose(value, math.log(2))
        np.testing.assert_allclose(gradient, [-0.5, 0.5, 0.0])

    def test_bce_is_bounded(self):
        value, _ = value_and_gradient(lambda p: nn.binary_cross_entropy(p, [1.0, 0.0], reduction="none"), [0.0, 1.0])
        np.testing.assert_array_equal(value, [100.0, 100.0])

    def test_bce_of_certainty_that_is_right(self):
        targets = [0.0, 1.0]
        value, gradient = value_and_gradient(lambda p: nn.binary_cross_entropy(p, targets, reduction="none"), targets)
        np.testing.assert_array_equal(value, [0.0, 0.0])
        np.testing.assert_array_equal(gradient, [1.0, -1.0])

    @pytest.mark.parametrize("z", [-800.0, -40.0, 0.0, 40.0, 800.0])
    @pytest.mark.parametrize("t", [0.0, 1.0])
    def test_bce_with_logits_keeps_its_digits(self, z, t):
        mpmath = pytest.importorskip("mpmath")
        with mpmath.workdps(400):
            s = 1 / (1 + mpmath.exp(-mpmath.mpf(z)))
            exact, slope = float(-mpmath.log(s if t else 1 - s)), float(s - t)
        value, gradient = value_and_gradient(lambda z: nn.binary_cross_entropy_with_logits(z, t), z)
        np.testing.assert_allclose(value, exact, rtol=1e-14)
        np.testing.assert_allclose(gradient, slope, rtol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_float32_in_float32_out_whatever_the_target(name):
    call, function = LOSSES[name], name.split()[0]
    x = (LOGITS if function == "cross_entropy" else P).astype(np.float32)
    value, gradient = value_and_gradient(lambda x: call(getattr(nn, function), x, np.asarray), x)
    assert value.dtype == gradient.dtype == np.float32


def test_a_tensor_target_gets_its_gradient():
    target = fg.tensor([0.0, 1.0], requires_grad=True)
    nn.mse_loss(fg.tensor([1.0, 3.0]), target, "sum").backward()
    np.testing.assert_array_equal(target.grad.numpy(), [-2.0, -4.0])


def test_classes_may_be_a_tensor_of_any_integer_dtype():
    expected = nn.cross_entropy(fg.tensor(LOGITS), LABELS).item()
    for dtype in (np.int8, np.uint8, np.int32, np.uint64):
        assert nn.cross_entropy(fg.tensor(LOGITS), LABELS.astype(dtype)).item() == expected
    assert nn.cross_entropy(fg.tensor(LOGITS), fg.tensor(LABELS)).item() == expected
    assert nn.cross_entropy(fg.tensor(LOGITS[::2]), LABELS[::2]).item() == pytest.approx(
        nn.cross_entropy(fg.tensor(LOGITS[::2].copy()), LABELS[::2].copy()).item()
    )


class TestBadInput:
    @pytest.mark.parametrize("name", ["mse_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"])
    def test_shapes_that_would_broadcast_silently(self, name):
        with pytest.raises(ValueError, match=rf"{name}: input has shape \(4, 1\) and target \(4,\); .* reshape"):
            getattr(nn, name)(np.ones((4, 1)), np.ones(4))

    @pytest.mark.parametrize(
        ("loss", "arguments"),
        [
            (nn.mse_loss, (P, T)),
            (nn.binary_cross_entropy, (P, T)),
            (nn.binary_cross_entropy_with_logits, (P, T)),
            (nn.cross_entropy, (LOGITS, LABELS)),
            (nn.cross_entropy, (LOGITS, PROBABILITIES)),
        ],
    )
    def test_an_unknown_reduction(self, loss, arguments):
        says = f"""{loss.__name__}: reduction is 'avg'; it takes "mean", "sum" or "none\""""
        with pytest.raises(ValueError, match=says):
            loss(*arguments, reduction="avg")

    def test_logits_of_three_dimensions(self):
        with pytest.raises(ValueError, match=r"cross_entropy: logits have shape \(2, 3, 4\); .* reshape to \(-1, C\)"):
            nn.cross_entropy(np.ones((2, 3, 4)), np.zeros((2, 3), int))

    def test_class_numbers_of_the_wrong_shape(self):
        with pytest.raises(ValueError, match=r"shape \(6, 4\) go with class numbers of shape \(6,\), not \(6, 1\)"):
            nn.cross_entropy(LOGITS, LABELS[:, None])

    @pytest.mark.parametrize("stray", [-1, 4, 2**40])
    def test_class_numbers_out_of_range(self, stray):
        labels = LABELS.copy()
        labels[2] = stray
        with pytest.raises(IndexError, match=r"class numbers go from 0 to 3, not from"):
            nn.cross_entropy(LOGITS, labels)

    def test_floating_class_numbers(self):
        with pytest.raises(ValueError, match=r"class probabilities and needs the shape of the logits.*astype\(int\)"):
            nn.cross_entropy(LOGITS, LABELS.astype(float))

    def test_a_boolean_target(self):
        with pytest.raises(TypeError, match="target holds bool"):
            nn.cross_entropy(LOGITS, LABELS > 1)

    def test_weights_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"weight has shape \(3,\), not \(4,\): one factor for each class"):
            nn.cross_entropy(LOGITS, LABELS, weight=np.ones(3))
        with pytest.raises(ValueError, match=r"weight has shape \(4,\), which does not broadcast to \(5, 3\)"):
            nn.binary_cross_entropy(P, T, weight=np.ones(4))
        with pytest.raises(ValueError, match=r"pos_weight has shape \(2, 5, 3\), which does not broadcast"):
            nn.binary_cross_entropy_with_logits(P, T, pos_weight=np.ones((2, 5, 3)))

    @pytest.mark.parametrize("smoothing", [-0.1, 1.1, math.nan])
    def test_label_smoothing_out_of_range(self, smoothing):
        with pytest.raises(ValueError, match="label_smoothing is .*, not from 0 to 1"):
            nn.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
