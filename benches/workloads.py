"""The workloads, each written for fastgrad, for its baselines and for every peer that is installed.

A workload is a set of contestants that compute the same thing; `check` holds their answers against the right
one before anything is timed. Knows nothing about how time is measured: `ratios.py` and the pytest files do that.
"""

import one_thread  # noqa: F401  isort: skip: before NumPy

import functools
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from types import SimpleNamespace

import numpy as np

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import reference


@dataclass(frozen=True)
class Contestant:
    """One way to do the work: `run` is what is timed, `answer` turns its result into one flat float64 vector."""

    run: Callable
    answer: Callable


@dataclass(frozen=True)
class Workload:
    """The same work done by several contestants, by name.

    expected : the right answer, [value, *gradients], flat. A contestant that computes the value alone is held to that.
    times : how often one run does the work (small things are repeated inside).
    """

    name: str
    contestants: dict
    expected: np.ndarray
    times: int = 1
    rtol: float = 1e-10
    atol: float = 1e-12

    def check(self, name):
        """Raise AssertionError where that contestant's answer is wrong."""
        contestant = self.contestants[name]
        answer = contestant.answer(contestant.run())
        np.testing.assert_allclose(
            answer, self.expected[: len(answer)], rtol=self.rtol, atol=self.atol, err_msg=f"{self.name}: {name}"
        )


def flat(*values):
    """One float64 vector of numbers, arrays, Tensors of any library, and sequences of them."""
    parts = []
    for value in values:
        if isinstance(value, (tuple, list)):
            parts.append(flat(*value))
        else:
            value = value.detach() if hasattr(value, "detach") else value
            parts.append(np.array(value.numpy() if hasattr(value, "numpy") else value, np.float64).ravel())
    return np.concatenate(parts)


# The peers. Each of these yields (name, Contestant) for what is installed.


@functools.cache
def peer(module):
    """The module where it is installed, else None."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


@functools.cache
def torch():
    module = peer("torch")
    if module is not None:
        module.set_num_threads(1)
    return module


@functools.cache
def jax():
    module = peer("jax")
    if module is not None:
        module.config.update("jax_enable_x64", True)
        module.config.update("jax_cpu_enable_async_dispatch", False)  # else each call is handed to a second thread
    return module


def scalar_peers(function, inputs):
    """micrograd and XAD. `function(f, *inputs)` is given their numbers, and tanh, exp, log, value of them as `f`."""
    if peer("micrograd.engine"):
        number = peer("micrograd.engine").Value
        micrograd_functions = SimpleNamespace(
            tanh=functools.partial(micrograd_unary, math.tanh, lambda out, x: 1 - out * out),
            exp=functools.partial(micrograd_unary, math.exp, lambda out, x: out),
            log=functools.partial(micrograd_unary, math.log, lambda out, x: 1 / x),
            value=lambda x: x.data,
        )

        def micrograd():
            values = [number(value) for value in inputs]
            out = function(micrograd_functions, *values)
            out.backward()
            return out.data, [value.grad for value in values]

        yield "micrograd", Contestant(micrograd, flat_pair)
    if peer("xad"):
        adjoint, xad_math = peer("xad.adj_1st"), peer("xad.math")
        xad_functions = SimpleNamespace(tanh=xad_math.tanh, exp=xad_math.exp, log=xad_math.log, value=peer("xad").value)
        tape = adjoint.Tape()

        def xad():
            with tape:
                tape.clearAll()
                values = [adjoint.Real(value) for value in inputs]
                tape.registerInputs(values)
                tape.newRecording()
                out = function(xad_functions, *values)
                tape.registerOutput(out)
                tape.setDerivative(out, 1.0)
                tape.computeAdjoints()
                return out.getValue(), [tape.getDerivative(value) for value in values]

        yield "XAD", Contestant(xad, flat_pair)


def micrograd_unary(function, partial, x):
    """micrograd has no tanh, exp and log; these are written in its own way."""
    out = type(x)(function(x.data), (x,))

    def _backward():
        x.grad += partial(out.data, x.data) * out.grad

    out._backward = _backward
    return out


def casadi_scalars(function, inputs):
    """CasADi's virtual machine on a vector of inputs, called through its buffers. `function(casadi, vector)`."""
    ca = peer("casadi")
    if not ca:
        return
    x = ca.SX.sym("x", len(inputs))
    out = function(ca, x)
    compiled = ca.Function("f", [x], [out, ca.gradient(out, x)])
    buffer, trigger = compiled.buffer()
    arrays = [np.array(inputs, float), np.zeros(1), np.zeros(len(inputs))]
    buffer.set_arg(0, memoryview(arrays[0]))
    buffer.set_res(0, memoryview(arrays[1]))
    buffer.set_res(1, memoryview(arrays[2]))
    yield "CasADi", Contestant(trigger, lambda _, keep=(compiled, buffer): flat(arrays[1:]))


def array_peers(function, constants, inputs):
    """autograd, mygrad, PyTorch and JAX. `function(xp, *constants, *inputs)` is given a module with NumPy's names."""
    if peer("autograd"):
        anp = peer("autograd.numpy")
        autograd = peer("autograd").value_and_grad(lambda inputs: function(anp, *constants, *inputs))
        yield "autograd", Contestant(lambda: autograd(tuple(inputs)), flat_pair)
    if peer("mygrad"):
        mg = peer("mygrad")

        def mygrad():
            tensors = [mg.tensor(value) for value in inputs]
            out = function(mg, *constants, *tensors)
            out.backward()
            return out.data, [tensor.grad for tensor in tensors]

        yield "mygrad", Contestant(mygrad, flat_pair)
    if torch():
        data = [torch().tensor(value) for value in constants]
        leaves = [torch().from_numpy(np.array(value)).requires_grad_() for value in inputs]

        def pytorch():
            out = function(TorchWithNumpyNames, *data, *leaves)
            return out, torch().autograd.grad(out, leaves)

        yield "PyTorch", Contestant(pytorch, flat_pair)
    if jax():
        jnp = peer("jax.numpy")
        fixed = [jnp.asarray(value) for value in constants]
        arrays = [jnp.asarray(value) for value in inputs]
        compiled = jax().jit(jax().value_and_grad(lambda inputs: function(jnp, *fixed, *inputs)))
        yield "JAX jit", Contestant(lambda: jax().block_until_ready(compiled(arrays)), flat_pair)


def flat_pair(result):
    value, gradients = result
    return flat(value, list(gradients))


class TorchWithNumpyNames:
    """What the workloads use of NumPy's names, on PyTorch's tensors."""

    tanh = staticmethod(lambda x: torch().tanh(x))
    exp = staticmethod(lambda x: torch().exp(x))
    sqrt = staticmethod(lambda x: torch().sqrt(x))
    log = staticmethod(lambda x: torch().log(x))
    max = staticmethod(lambda x, axis, keepdims: torch().amax(x, axis, keepdims))

    @staticmethod
    def sum(x, axis=None, keepdims=False):
        return torch().sum(x) if axis is None else torch().sum(x, axis, keepdims)


# A chain of 200 scalar operations


def chain(f, x, y):
    tanh = f.tanh
    for _ in range(50):
        y = tanh(x * y + x) + 0.1
    return y


def scalar_chain():
    start = (0.5, 0.3)
    pure = reference.value_and_grad(functools.partial(chain, reference))
    x, y = (fg.tensor(value, requires_grad=True) for value in start)

    def backward():
        x.grad = y.grad = None
        out = chain(fnp, x, y)
        out.backward()
        return out, (x.grad, y.grad)

    value_and_grad = fg.value_and_grad(functools.partial(chain, fnp), argnums=(0, 1))
    contestants = {
        "Python floats, forward only": Contestant(lambda: chain(math, *start), flat),
        "pure-Python engine": Contestant(lambda: pure(*start), flat_pair),
        "fastgrad": Contestant(backward, flat_pair),
        "fastgrad, value_and_grad": Contestant(lambda: value_and_grad(*start), flat_pair),
        **dict(scalar_peers(chain, start)),
        **dict(casadi_scalars(lambda ca, x: chain(ca, x[0], x[1]), start)),
        **dict(array_peers(chain, (), start)),
    }
    return Workload("chain of 200 scalar operations", contestants, flat_pair(pure(*start)))


# Two-layer tanh nets with softmax cross-entropy


def net(xp, x, target, w1, b1, w2, b2):
    """Mean cross-entropy of a batch; `target` is one-hot. The same text for every array library."""
    z = xp.tanh(x @ w1 + b1) @ w2 + b2
    z = z - xp.max(z, axis=1, keepdims=True)
    return xp.sum(target * (xp.log(xp.sum(xp.exp(z), axis=1, keepdims=True)) - z)) / len(x)


def net_by_hand(x, target, w1, b1, w2, b2):
    """Its value and gradients in NumPy, the derivatives worked out by hand."""
    h = np.tanh(x @ w1 + b1)
    z = h @ w2 + b2
    z -= np.max(z, axis=1, keepdims=True)
    e = np.exp(z)
    total = np.sum(e, axis=1, keepdims=True)
    n = len(x)
    value = np.sum(target * (np.log(total) - z)) / n
    dz = (e / total - target) / n
    dh = (dz @ w2.T) * (1 - h * h)
    return value, (x.T @ dh, np.sum(dh, axis=0), h.T @ dz, np.sum(dz, axis=0))


def net_of_numbers(f, shapes, x, digits, *numbers):
    """The same net, number by number: `f` has tanh, exp, log and value for them."""
    numbers = iter(numbers)
    w1, b1, w2, b2 = ([[next(numbers) for _ in range(s[-1])] for _ in range(math.prod(s[:-1]))] for s in shapes)
    loss = 0.0
    for row, digit in zip(x, digits):
        h = [f.tanh(total) for total in affine(row, w1, b1[0])]
        z = affine(h, w2, b2[0])
        top = max(f.value(logit) for logit in z)
        total = 0.0
        for logit in z:
            total = total + f.exp(logit - top)
        loss = loss + (f.log(total) - (z[digit] - top))
    return loss / len(x)


def affine(inputs, weights, totals):
    for value, row in zip(inputs, weights):
        totals = [total + weight * value for total, weight in zip(totals, row)]
    return totals


def casadi_net(x, target, parameters):
    """CasADi's matrix expressions, called through its buffers, which hold matrices column by column."""
    ca = peer("casadi")
    if not ca:
        return
    given = [np.asfortranarray(np.atleast_2d(p)) for p in parameters]
    symbols = [ca.MX.sym(f"p{k}", *p.shape) for k, p in enumerate(given)]
    w1, b1, w2, b2 = symbols
    n, ones = len(x), ca.DM.ones(1, target.shape[1])
    z = ca.mtimes(ca.tanh(ca.mtimes(ca.DM(x), w1) + ca.repmat(b1, n, 1)), w2) + ca.repmat(b2, n, 1)
    z = z - ca.mtimes(functools.reduce(ca.fmax, ca.horzsplit(z)), ones)
    z = ca.mtimes(ca.log(ca.sum2(ca.exp(z))), ones) - z
    out = ca.sum1(ca.sum2(ca.DM(target) * z)) / n
    compiled = ca.Function("net", symbols, [out, *[ca.densify(ca.gradient(out, s)) for s in symbols]])
    buffer, trigger = compiled.buffer()
    results = [np.zeros((1, 1)), *[np.zeros(p.shape, order="F") for p in given]]
    for k, array in enumerate(given):
        buffer.set_arg(k, memoryview(array.T))
    for k, array in enumerate(results):
        buffer.set_res(k, memoryview(array.T))
    yield "CasADi", Contestant(trigger, lambda _, keep=(compiled, buffer, given): flat(results))


def two_layer_net(n_in, n_hidden, n_out, batch, dtype=np.float64, **tolerances):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, n_in)).astype(dtype)
    digits = rng.integers(n_out, size=batch)
    target = np.eye(n_out, dtype=dtype)[digits]
    shapes = [(n_in, n_hidden), (n_hidden,), (n_hidden, n_out), (n_out,)]
    parameters = [(rng.normal(size=shape) / math.sqrt(shape[0])).astype(dtype) for shape in shapes]
    value_and_grad = fg.value_and_grad(functools.partial(net, fnp, x, target), argnums=(0, 1, 2, 3))
    contestants = {
        "NumPy, forward only": Contestant(lambda: net(np, x, target, *parameters), flat),
        "NumPy, backward by hand": Contestant(lambda: net_by_hand(x, target, *parameters), flat_pair),
        "fastgrad": Contestant(lambda: value_and_grad(*parameters), flat_pair),
    }
    if batch <= 32:  # beyond, number by number takes minutes, and CasADi's matrices too
        numbers, rows, labels = flat(parameters).tolist(), x.tolist(), digits.tolist()
        functions = SimpleNamespace(tanh=reference.tanh, exp=reference.exp, log=reference.log, value=reference.value_of)
        pure = reference.value_and_grad(functools.partial(net_of_numbers, functions, shapes, rows, labels))
        contestants["pure-Python engine"] = Contestant(lambda: pure(*numbers), flat_pair)
        contestants.update(casadi_net(x, target, parameters))
    if batch == 1:
        contestants.update(scalar_peers(lambda f, *p: net_of_numbers(f, shapes, rows, labels, *p), numbers))
    contestants.update(array_peers(net, (x, target), parameters))
    name = f"net {n_in}-{n_hidden}-{n_out}, batch {batch}, {np.dtype(dtype).name}"
    return Workload(name, contestants, flat_pair(net_by_hand(x, target, *parameters)), **tolerances)


# One binary operation on two 8-vectors


def product():
    times = 100
    a, b = np.linspace(1, 2, 8), np.linspace(3, 4, 8)
    x, y = (fg.tensor(array, requires_grad=True) for array in (a, b))
    ones = fg.tensor(np.ones(8))

    def multiply(x, y):
        def run():
            for _ in repeat(None, times):
                out = x * y
            return out

        return Contestant(run, flat)

    def multiply_and_sweep(x, y, ones):
        def run():
            x.grad = y.grad = None
            for _ in repeat(None, times):
                out = x * y
                out.backward(ones)
            return out, x.grad, y.grad

        return Contestant(run, flat)

    contestants = {
        "ndarray": multiply(a, b),
        "fastgrad, recorded": multiply(x, y),
        "fastgrad, recorded and swept": multiply_and_sweep(x, y, ones),
    }
    if torch():
        p, q = (torch().tensor(array, requires_grad=True) for array in (a, b))
        contestants["PyTorch, recorded"] = multiply(p, q)
        contestants["PyTorch, recorded and swept"] = multiply_and_sweep(p, q, torch().ones_like(p))
    return Workload("a * b of two 8-vectors", contestants, flat(a * b, times * b, times * a), times=times)


# Each unary operation of the table that NumPy has too


def unary_operations():
    """Rows of the table with one operand and a NumPy function of the same value."""
    from fastgrad._core import ops

    return [op for op in ops.OPS if op.arity == 1 and op.numpy_name and hasattr(np, op.numpy_name)]


def unary(op, n, dtype):
    """`np.f(array)` against `fnp.f(tensor)`, nothing recorded."""
    times = max(1, 2000 // n)
    low, high = op.domain[0]
    x = np.random.default_rng(0).uniform(max(low, -1e3), min(high, 1e3), n).astype(dtype)

    def apply(function, x):
        def run():
            for _ in repeat(None, times):
                out = function(x)
            return out

        return Contestant(run, flat)

    theirs = getattr(np, op.numpy_name)
    contestants = {"NumPy": apply(theirs, x), "fastgrad": apply(getattr(fnp, op.name), fg.tensor(x))}
    rtol, atol = (1e-13, 1e-13) if dtype == np.float64 else (2e-5, 2e-6)
    name = f"{op.name}, n = {n}, {np.dtype(dtype).name}"
    return Workload(name, contestants, flat(theirs(x)), times=times, rtol=rtol, atol=atol)


UNARY_SIZES = (8, 1000, 100_000)
UNARY_DTYPES = (np.float64, np.float32)

WORKLOADS = {
    "chain": scalar_chain,
    "net-4-8-3": functools.partial(two_layer_net, 4, 8, 3, 1),
    "net-64-64-10": functools.partial(two_layer_net, 64, 64, 10, 32),
    "net-784-512-10": functools.partial(two_layer_net, 784, 512, 10, 1024, rtol=1e-8, atol=1e-10),
    "net-784-512-10-float32": functools.partial(two_layer_net, 784, 512, 10, 1024, np.float32, rtol=1e-2, atol=2e-6),
    "product": product,
}


@functools.cache
def load(key):
    """The workload of that key in `WORKLOADS`, set up once."""
    return WORKLOADS[key]()


# A graph of a million scalar nodes


def record_sweep_free(x, y, nodes):
    """The chain, of so many nodes: recorded, swept, and let go."""
    tanh = fnp.tanh
    out = y
    for _ in repeat(None, nodes // 4):
        out = tanh(x * out + x) + 0.1
    out.backward()
