"""fg.detect_anomaly: the operation, the numbers and the line where the first NaN or infinity appears."""

import gc
import threading

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import nn
from fastgrad._core import engine


def log_of(x):
    return np.log(x)


def sum_of_roots(x):
    return np.sum(np.sqrt(x))


def message(call, **options):
    with fg.detect_anomaly(**options), pytest.raises(FloatingPointError) as caught:
        call()
    return str(caught.value)


def holds(text, *parts):
    """Whether the parts stand in the text in this order."""
    at = 0
    for part in parts:
        found = text.find(part, at)
        assert found >= 0, f"{part!r} is missing in {text!r}"
        at = found + len(part)


# --------------------------------------------------------------------------------------------------- values, forward

def test_a_number():
    said = message(lambda: fg.grad(log_of)(0.0))
    holds(said, "log: its value is -inf, where x = 0.0; recorded at test_anomaly.py:", "in log_of: `return np.log(x)`")


def test_an_array_with_the_first_index_and_how_many():
    def f(x, y):
        return np.sum(x / y)
    said = message(lambda: fg.grad(f)(np.ones((2, 2)), np.array([[1.0, 2.0], [0.0, 0.0]])))
    holds(said, "divide: its value is inf at [1, 0] and at 1 more of 4 elements, where x = 1.0, y = 0.0;", "`return np.sum(x / y)`")
    said = message(lambda: fg.grad(f)(np.ones((2, 2)), np.array([0.0, 1.0])))           # broadcast
    holds(said, "inf at [0, 0] and at 1 more of 4 elements", "x = 1.0, y = 0.0")


def test_float32():
    x = fg.tensor(np.float32(100.0), requires_grad=True)
    holds(message(lambda: np.exp(x)), "exp: its value is inf, where x = 100.0")
    x = fg.tensor(np.array([1, 0.1], np.float32), requires_grad=True)
    holds(message(lambda: np.log(x - np.float32(0.1))), "log: its value is -inf at [1] of 2 elements, where x = 0.0")


@pytest.mark.parametrize("f, x, parts", [
    (lambda x: np.sum(x), np.full(8, 1e308), ("sum: its value is inf, where x = float64[8] of numbers from 1e+308 to 1e+308",)),
    (lambda x: np.sum(x @ np.full((3, 3), 1e308)), np.full((2, 3), 10.0), ("matmul: its value is inf at [0, 0] and at 5 more of 6",)),
    (lambda x: np.sum(np.concatenate([x, x]) * 1e308 * 10), np.ones(2), ("multiply: its value is inf at [0] and at 3 more of 4",)),
    (lambda x: np.prod(x), np.full(2, 1e200), ("inf",)),
    (lambda x: np.sum(x.astype(np.float32)), np.full(2, 1e200), ("astype: its value is inf at [0] and at 1 more", "x = [1.e+200, 1.e+200]")),
], ids=["sum", "matmul", "concatenate", "prod", "astype"])
def test_operations_that_are_not_elementwise(f, x, parts):
    with np.errstate(all="ignore"):
        holds(message(lambda: fg.grad(f)(x)), *parts)


@pytest.mark.parametrize("f, x, parts", [
    (log_of, np.nan, ("log: its value is nan, because x = nan already; x is an argument",)),
    (lambda x: np.sum(x * np.array([1.0, np.inf])), np.ones(2),
     ("multiply: its value is inf at [1] of 2 elements, where y = inf already; y was passed in as data",)),
    (lambda x: np.sum(x, axis=0) @ np.array([np.nan, 1.0]), np.ones((2, 2)),
     ("matmul: its value is nan, because y = nan at [0] of 2 elements already; y was passed in as data",)),
], ids=["argument", "data", "product"])
def test_what_came_in_from_outside(f, x, parts):
    holds(message(lambda: fg.grad(f)(x)), *parts)


def test_an_operand_that_was_computed_before():
    x = fg.tensor(0.0, requires_grad=True)
    y = np.log(x)
    holds(message(lambda: y * 2.0), "multiply: its value is -inf, because x = -inf already; x was computed before")


def test_a_name_is_used():
    def f(x):
        p = fg.mark(x - 1.0, "p")
        return np.log(p)
    holds(message(lambda: fg.grad(f)(1.0)), "log: its value is -inf, where p = 0.0;")


def test_a_module_says_which():
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    said = message(lambda: model(np.full((1, 2), np.nan)))
    holds(said, "matmul: its value is nan at [0, 0] and at 2 more of 3 elements, because x = nan", "passed in as data",
          "module Sequential > Linear")


def test_infinities_may_be_allowed():
    with fg.detect_anomaly(infinities=False):
        assert fg.grad(log_of)(0.0) == np.inf
        assert fg.grad(lambda x: np.sum(np.where(x > 0, x, -np.inf)))(np.ones(2)).tolist() == [1.0, 1.0]
    holds(message(lambda: fg.grad(log_of)(-1.0), infinities=False), "log: its value is nan, where x = -1.0")
    holds(message(lambda: fg.grad(lambda x: x - x)(np.inf), infinities=False), "subtract: its value is nan, where x = inf, y = inf")


def test_what_is_masked_is_no_anomaly():
    with fg.detect_anomaly():
        f = lambda x: np.sum(np.where(x > 0, np.sqrt(x), 0.0))                          # the zero-cotangent rule
        assert fg.grad(f)(np.array([4.0, 0.0])).tolist() == [0.25, 0.0]
        assert fg.grad(lambda x: np.sum(np.where(x > 0, x, 0.0)))(np.array([1.0, 2.0])).tolist() == [1.0, 1.0]


def test_numbers_that_are_not_recorded_are_not_seen():
    with fg.detect_anomaly(), np.errstate(all="ignore"):
        assert np.log(fg.tensor(0.0)).item() == -np.inf
        with fg.no_grad():
            assert np.log(fg.tensor(0.0, requires_grad=True)).item() == -np.inf


X = np.array([[1.0, np.nan], [2.0, 3.0]])


@pytest.mark.parametrize("f", [
    np.sum, np.mean, np.max, np.min, np.prod, np.transpose, fg.numpy.logsumexp, fg.numpy.softmax, fg.numpy.log_softmax,
    lambda x: x.reshape(4), lambda x: np.broadcast_to(x, (3, 2, 2)), lambda x: x[0], lambda x: x[np.array([0, 1])], lambda x: x[x != 2.0],
    lambda x: x @ x, lambda x: np.ones((5, 2, 2)) @ x, lambda x: x[0, 1] + 1.0, lambda x: 2.0 * x[0, 1], lambda x: -x[0, 1],
    lambda x: abs(x[0, 1]), lambda x: x[0, 1] ** 2, lambda x: 1.0 / x, lambda x: np.concatenate([x, x]), lambda x: np.stack([x, x]),
    lambda x: nn.cross_entropy(x, np.array([0, 1])), lambda x: nn.mse_loss(x, np.ones((2, 2))), lambda x: x.astype(np.float32),
    lambda x: np.where(np.ones((2, 2)) > 0, x, 0.0), lambda x: np.clip(x, 0.0, 1.0), lambda x: np.expand_dims(x, 0),
])
def test_no_operation_is_missed(f):
    x = fg.tensor(X, requires_grad=True)
    holds(message(lambda: f(x)), "its value is nan", " = nan", "already;", "is an argument or a leaf")


def test_changes_in_place_are_seen():
    def change(x):
        y = x * 1.0
        y[0] = np.inf
        return y

    def add(x):
        y = x * 1.0
        y += np.inf
        return y
    x = fg.tensor([1.0, 2.0], requires_grad=True)
    assert "inf" in message(lambda: change(x)) and "add: its value is inf" in message(lambda: add(x))


# --------------------------------------------------------------------------------------------- gradients, backward

def test_a_pullback_of_numbers():
    said = message(lambda: fg.grad(np.sqrt)(0.0))
    holds(said, "the pullback of sqrt made a gradient of inf for x, where x = 0.0, from an incoming gradient of 1.0; recorded at")


def test_a_pullback_of_arrays():
    said = message(lambda: fg.value_and_grad(sum_of_roots)(np.array([4.0, 1.0, 1.0, 0.0])))
    holds(said, "the pullback of sqrt made a gradient of inf for x at [3] of 4 elements, where x = 0.0, from an incoming gradient of 1.0; "
          "recorded at test_anomaly.py:", "in sum_of_roots: `return np.sum(np.sqrt(x))`")


def test_backward_leaves_gradients_as_they_were():
    w = fg.tensor(np.array([1.0, 2.0]), requires_grad=True)
    x = fg.tensor(np.array([4.0, 0.0]), requires_grad=True)
    (w * 1.0).sum().backward()
    with fg.detect_anomaly():
        loss = (np.sqrt(x) * 3.0).sum() + (w * w).sum()
        with pytest.raises(FloatingPointError, match=r"sqrt made a gradient of inf for x at \[1\]"):
            loss.backward()
    assert x.grad is None and w.grad.numpy().tolist() == [1.0, 1.0]
    (w * 1.0).sum().backward()                                  # and the tape works on
    assert w.grad.numpy().tolist() == [2.0, 2.0]
    loss.backward()
    assert x.grad.numpy().tolist() == [0.75, np.inf] and w.grad.numpy().tolist() == [4.0, 6.0]


def test_backward_that_is_recorded():
    x = fg.tensor(0.0, requires_grad=True)
    with fg.detect_anomaly():
        y = np.sqrt(x)
        with pytest.raises(FloatingPointError, match="the pullback of sqrt made a gradient of inf for x, where x = 0.0"):
            y.backward(create_graph=True)
    assert x.grad is None


def test_a_graph_that_was_recorded_outside():
    x = fg.tensor(0.0, requires_grad=True)
    y = np.sqrt(x)
    said = message(lambda: y.backward())
    holds(said, "the pullback of sqrt made a gradient of inf for x", "the line is not known: sqrt was recorded before")


def test_a_gradient_that_backward_was_given():
    x = fg.tensor([1.0, 2.0], requires_grad=True)
    with fg.detect_anomaly():
        y = x * 2.0
    said = message(lambda: y.backward(np.array([1.0, np.nan])))
    holds(said, "the gradient that the sweep was given for the value of multiply is nan at [1] of 2 elements already")
    assert x.grad is None


def test_a_gradient_of_a_structured_operation():
    big = np.full((2, 2), 1e308)
    said = message(lambda: fg.grad(lambda x: np.sum((x @ big) * 10.0))(np.full((2, 2), 1e-300)))
    holds(said, "the pullback of matmul made a gradient of inf for x at [0, 0] and at 3 more of 4 elements", "incoming gradient of [[10., 10.]")


# ------------------------------------------------------------------------------------------------- where it is used

@pytest.mark.parametrize("transform", [fg.grad, fg.value_and_grad, fg.jacrev, fg.jacfwd, fg.hessian,
                                       lambda f: lambda x: fg.vjp(f, x)[1](1.0), lambda f: lambda x: fg.jvp(f, (x,), (1.0,)),
                                       lambda f: fg.grad(fg.grad(f)), lambda f: fg.compile(fg.grad(f)), lambda f: fg.grad(fg.compile(f))],
                         ids=["grad", "value_and_grad", "jacrev", "jacfwd", "hessian", "vjp", "jvp", "grad-grad", "compile-grad", "grad-compile"])
def test_under_transforms(transform):
    holds(message(lambda: transform(log_of)(0.0)), "log: its value is -inf, where x = 0.0", "`return np.log(x)`")
    assert np.all(np.isfinite(np.asarray(fg.grad(log_of)(1.0))))


@pytest.mark.parametrize("transform", [fg.hessian, lambda f: fg.grad(lambda x: np.sum(fg.grad(f)(x))), lambda f: fg.jacfwd(fg.grad(f))],
                         ids=["hessian", "grad-grad", "jacfwd-grad"])
def test_the_pullback_is_named_in_nested_transforms(transform):
    said = message(lambda: transform(sum_of_roots)(np.array([1.0, 0.0])))
    holds(said, "the pullback of sqrt made a gradient of inf for x at [1] of 2 elements, where x = 0.0", "in sum_of_roots")


def test_vmap():
    holds(message(lambda: fg.vmap(fg.grad(log_of))(np.array([0.0, 1.0]))), "log: its value is -inf, where x = 0.0")
    said = message(lambda: fg.grad(lambda x: np.sum(fg.vmap(log_of)(x)))(np.array([1.0, 0.0])))
    holds(said, "log: its value is -inf at [1] of 2 elements")
    with fg.detect_anomaly():
        assert np.allclose(fg.vmap(fg.grad(np.sqrt))(np.array([4.0, 1.0])), [0.25, 0.5])


def test_a_compiled_function_runs_as_python():
    fast = fg.compile(fg.grad(log_of))
    assert [fast(1.0), fast(0.0)] == [1.0, np.inf] and fast.recordings == 1
    holds(message(lambda: fast(0.0)), "log: its value is -inf")
    with fg.detect_anomaly():
        assert fast(2.0) == 0.5 and fast(4.0) == 0.25
        out = np.zeros(())
        assert fast(2.0, out=out) is out and out == 0.5
    assert fast(2.0) == 0.5 and fast(0.0) == np.inf and fast.recordings == 1

    first = fg.compile(fg.grad(log_of))                         # whose first call is a watched one
    with fg.detect_anomaly():
        assert first(2.0) == 0.5 and first.recordings == 0
    assert first(2.0) == 0.5 and first.recordings == 1


def test_a_step_of_training():
    model = nn.Linear(2, 1)
    with fg.detect_anomaly():
        loss = nn.mse_loss(model(np.ones((4, 2))), np.zeros((4, 1)))
        loss.backward()
        before = model.weight.grad.numpy().copy()
        with pytest.raises(FloatingPointError):
            np.sum(np.log(model(np.ones((4, 2))) * 0.0)).backward()
    assert np.array_equal(model.weight.grad.numpy(), before) and np.isfinite(before).all()


def test_as_a_decorator():
    @fg.detect_anomaly()
    def step(x, again=True):
        return step(x, False) if again else fg.grad(log_of)(x)
    assert step(2.0) == 0.5 and step.__name__ == "step"
    with pytest.raises(FloatingPointError, match="log"):
        step(0.0)
    assert fg.grad(log_of)(0.0) == np.inf                       # and it is over


def test_nested_blocks():
    with fg.detect_anomaly(infinities=False):
        with fg.detect_anomaly():
            with pytest.raises(FloatingPointError):
                fg.grad(log_of)(0.0)
        assert fg.grad(log_of)(0.0) == np.inf
        with pytest.raises(FloatingPointError):
            fg.grad(log_of)(-1.0)
        with fg.Tape(lines=True), pytest.raises(FloatingPointError):                    # looks on, and the check goes on
            fg.grad(log_of)(-1.0)
    watch = fg.detect_anomaly()
    with watch, watch:
        pass
    assert fg.grad(log_of)(0.0) == np.inf


def test_a_watch_is_of_its_thread():
    found = []
    with fg.detect_anomaly():
        other = threading.Thread(target=lambda: found.append(fg.grad(log_of)(0.0)))
        other.start()
        other.join()
    assert found == [np.inf]

    def watched():
        try:
            with fg.detect_anomaly():
                fg.grad(log_of)(0.0)
        except FloatingPointError as error:
            found.append(str(error))
    other = threading.Thread(target=watched)
    other.start()
    assert fg.grad(log_of)(0.0) == np.inf
    other.join()
    assert "log: its value is -inf" in found[1]


@pytest.mark.parametrize("f, x", [(log_of, 0.0), (np.sqrt, 0.0), (lambda x: np.sum(np.log(x)), np.zeros(3)), (sum_of_roots, np.zeros(3)),
                                  (lambda x: np.sum(np.where(x > 1, x, x / 0.0)), np.ones(3)), (lambda x: np.prod(x), np.full(2, 1e200)),
                                  (lambda x: np.sum(np.concatenate([x, x]) @ np.full((6, 2), np.inf)), np.ones(3))], ids=str)
def test_the_tape_is_left_as_it_was(f, x):
    leaf = fg.tensor(x, requires_grad=True)
    gc.collect()
    before = engine.tape_statistics()["nodes"], engine.recording_now()
    for _ in range(3):
        with fg.detect_anomaly(), np.errstate(all="ignore"):
            with pytest.raises(FloatingPointError):
                fg.grad(f)(x)
            with pytest.raises(FloatingPointError):
                f(leaf).backward()
    gc.collect()
    assert (engine.tape_statistics()["nodes"], engine.recording_now()) == before
    assert leaf.grad is None and fg.grad(lambda x: np.sum(x * x))(np.array([1.0, 2.0])).tolist() == [2.0, 4.0]
