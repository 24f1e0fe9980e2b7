"""The workloads of `fg.compile`: functions recorded once and replayed, against the peers that compile too.

Same form as `workloads.py`, whose contestants and checks these are. The fastgrad contestants appear as soon as
`fg.compile` exists. Knows nothing about how time is measured.
"""

import one_thread  # noqa: F401  isort: skip: before NumPy

import ctypes
import functools
import math
import os
import shutil
import subprocess
import tempfile
from itertools import repeat
from pathlib import Path

import numpy as np
from workloads import (
    Contestant, TorchWithNumpyNames, Workload, casadi_scalars, chain, flat, flat_pair, jax, net, net_by_hand, torch,
)

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import reference
from fastgrad._core import engine

HAS_PROGRAMS = hasattr(fg, "compile")


# The contestants. Each of these yields (name, Contestant) for what is there.


def again(call, times):
    """`call` so many times, and its last result: what one run does where one call is too short to time."""

    def run():
        for _ in repeat(None, times):
            result = call()
        return result

    return run if times > 1 else call


def programs(function, arguments, argnums=0, times=1):
    """fastgrad: value and gradient as one Program, with new arrays for its results and into given ones; and eagerly."""
    value_and_grad = fg.value_and_grad(function, argnums=argnums)
    yield "fastgrad, recorded each time", Contestant(again(functools.partial(value_and_grad, *arguments), times), flat_pair)
    if not HAS_PROGRAMS:
        return
    compiled = fg.compile(value_and_grad)
    moved = [value * 0.75 if k in np.atleast_1d(argnums) else value for k, value in enumerate(arguments)]
    tolerances = {"rtol": 1e-8, "atol": 1e-10} if np.result_type(*arguments) == np.float64 else {"rtol": 1e-2, "atol": 1e-5}

    def answer(result):
        """What was returned, looked at after the Program had also to be right, and write, for other arguments."""
        np.testing.assert_allclose(flat_pair(compiled(*moved)), flat_pair(value_and_grad(*moved)), **tolerances)
        return flat_pair(result)

    yield "fastgrad Program", Contestant(again(functools.partial(compiled, *arguments), times), answer)
    out = fg.tree_map(lambda array: np.zeros_like(np.asarray(array)), value_and_grad(*arguments))
    into = functools.partial(compiled, *arguments, out=out)
    yield "fastgrad Program, out=", Contestant(again(into, times), lambda _: flat_pair(out))


def jax_jit(function, arguments, argnums=0, times=1):
    """JAX, its arguments already its own arrays, waiting for each result."""
    if not jax():
        return
    wait = jax().block_until_ready
    arrays = [jax().numpy.asarray(value) for value in arguments]
    compiled = jax().jit(jax().value_and_grad(function, argnums=argnums))
    yield "JAX jit", Contestant(again(lambda: wait(compiled(*arrays)), times), flat_pair)


def pytorch(function, arguments, argnums=0):
    """PyTorch, eager. `function` is given a namespace with NumPy's names first."""
    if not torch():
        return
    tensors = [torch().from_numpy(np.array(value)) for value in arguments]
    leaves = [tensors[k].requires_grad_() for k in ([argnums] if isinstance(argnums, int) else argnums)]

    def run():
        out = function(TorchWithNumpyNames, *tensors)
        return out, torch().autograd.grad(out, leaves)

    yield "PyTorch", Contestant(run, flat_pair)


# C written by hand

KERNELS = Path(__file__).parents[1] / "fastgrad" / "_core" / "kernels"
LEVEL_FLAGS = {  # as in setup.py
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mprefer-vector-width=512"],
}


@functools.cache
def by_hand(own_functions):
    """by_hand.c compiled now, with fastgrad's tanh and exp at the level that is in use, or libm's; None without a cc."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None
    command = [compiler, "-O3", "-fno-math-errno", "-fno-trapping-math", "-std=gnu11", "-shared", "-fPIC"]
    if own_functions:
        command += ["-DOWN_FUNCTIONS", f"-I{KERNELS}", *LEVEL_FLAGS[engine.cpu_level()]]
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "by_hand.so")
        subprocess.run([*command, str(Path(__file__).with_name("by_hand.c")), "-o", str(library), "-lm"], check=True)
        return ctypes.CDLL(str(library))


def in_c(function, arguments, results, count, own_functions=True):
    """A function of by_hand.c on arrays, which it holds on to, and a number; its call through ctypes is counted once."""
    library = by_hand(own_functions)
    if library is None:
        return
    arrays = [np.ascontiguousarray(array, float) for array in arguments]
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (*arrays, *results)]
    run = functools.partial(library[function], *pointers, ctypes.c_long(count))
    name = "C by hand, fastgrad's functions" if own_functions else "C by hand, libm's functions"
    yield name, Contestant(run, lambda _, keep=arrays: flat(*results))


# The chain of 200 scalar operations


def chain_of_vector(f, v):
    return chain(f, v[0], v[1])


def one_input():
    """The chain at one point, a vector of two numbers, called from Python."""
    start, times = np.array([0.5, 0.3]), 100
    contestants = {
        **dict(programs(functools.partial(chain_of_vector, fnp), (start,), times=times)),
        **dict(in_c("chain_one_input", [start], [np.zeros(3)], times)),
        **dict(in_c("chain_one_input", [start], [np.zeros(3)], times, own_functions=False)),
        **{name: Contestant(again(c.run, times), c.answer) for name, c in casadi_scalars(chain_of_vector, start)},
        **dict(jax_jit(functools.partial(chain_of_vector, jax() and jax().numpy), (start,), times=times)),
    }
    expected = flat_pair(reference.value_and_grad(functools.partial(chain, reference))(*start.tolist()))
    return Workload("chain of 200 scalar operations, one input", contestants, expected, times=times)


def many_inputs(n=100_000, threads=1):
    """The chain at 1e5 points, two columns of numbers. JAX has as many threads as the process; fastgrad is told."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.2, 0.8, n), rng.uniform(-1, 1, n)
    contestants = {}
    if HAS_PROGRAMS:
        compiled = fg.compile(fg.vmap(fg.value_and_grad(functools.partial(chain, fnp), argnums=(0, 1))))

        def program(threads):
            fg.set_num_threads(threads)
            try:
                return compiled(x, y)
            finally:
                fg.set_num_threads(1)

        contestants["fastgrad Program"] = Contestant(functools.partial(program, 1), flat_pair)
        if threads > 1:
            contestants[f"fastgrad Program, {threads} threads"] = Contestant(functools.partial(program, threads), flat_pair)
    if threads == 1:
        contestants.update(in_c("chain_many_inputs", [x, y], [np.zeros(n) for _ in range(3)], n))
    if jax():
        jnp, wait = jax().numpy, jax().block_until_ready
        columns = jnp.asarray(x), jnp.asarray(y)
        mapped = jax().jit(jax().vmap(jax().value_and_grad(functools.partial(chain, jnp), argnums=(0, 1))))
        name = "JAX jit(vmap)" + (f", {threads} threads" if threads > 1 else "")
        contestants[name] = Contestant(lambda: wait(mapped(*columns)), flat_pair)
    name = f"the chain, {n} inputs" + (f", {threads} threads" if threads > 1 else "")
    return Workload(name, contestants, flat_pair(chain_and_gradient(x, y)))


def chain_and_gradient(x, y):
    """The chain's values and gradients at arrays of points, worked out by hand."""
    before, tanhs = [], []
    for _ in range(50):
        before.append(y)
        tanhs.append(np.tanh(x * y + x))
        y = tanhs[-1] + 0.1
    grad_x, grad_y = 0.0, 1.0
    for y_before, t in zip(reversed(before), reversed(tanhs)):
        d = grad_y * (1 - t * t)
        grad_x, grad_y = grad_x + d * (y_before + 1), d * x
    return y, (grad_x, grad_y)


# Two-layer nets. The batch is an argument, as where each step has another one


def net_setting(n_in, n_hidden, n_out, batch, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, n_in)).astype(dtype)
    target = np.eye(n_out, dtype=dtype)[rng.integers(n_out, size=batch)]
    shapes = [(n_in, n_hidden), (n_hidden,), (n_hidden, n_out), (n_out,)]
    return x, target, [(rng.normal(size=shape) / math.sqrt(shape[0])).astype(dtype) for shape in shapes]


def two_layer_net(n_in, n_hidden, n_out, batch, dtype=np.float64, times=1, **tolerances):
    x, target, parameters = net_setting(n_in, n_hidden, n_out, batch, dtype)
    arguments, argnums = (x, target, *parameters), (2, 3, 4, 5)
    contestants = {
        **dict(programs(functools.partial(net, fnp), arguments, argnums, times)),
        "NumPy, forward only": Contestant(again(lambda: net(np, *arguments), times), flat),
        "NumPy, backward by hand": Contestant(again(lambda: net_by_hand(*arguments), times), flat_pair),
        **dict(jax_jit(functools.partial(net, jax() and jax().numpy), arguments, argnums, times)),
    }
    if batch > 1:
        contestants["matrix products alone"] = Contestant(matrix_products(x, parameters), lambda _: np.zeros(0))
    name = f"net {n_in}-{n_hidden}-{n_out}, batch {batch}, {np.dtype(dtype).name}, replayed"
    return Workload(name, contestants, flat_pair(net_by_hand(*arguments)), times=times, **tolerances)


def matrix_products(x, parameters):
    """The five products of that net's value and gradients, by np.matmul into arrays that are there already."""
    w1, b1, w2, b2 = parameters
    h, z, dh = x @ w1, np.ones((len(x), len(b2)), x.dtype), np.ones((len(x), len(b1)), x.dtype)
    dw1, dw2 = np.empty_like(w1), np.empty_like(w2)
    hidden, logits = np.empty_like(h), np.empty_like(z)
    jobs = [(x, w1, hidden), (h, w2, logits), (z, w2.T, dh), (h.T, z, dw2), (x.T, h, dw1)]

    def run():
        for a, b, out in jobs:
            np.matmul(a, b, out=out)

    return run


# A step of Adam on the small net: forward, backward, update


def adam_step(n_in=4, n_hidden=8, n_out=3, batch=1, checked_steps=5):
    """Contestants have state, so what is checked is a fresh one after some steps, held against NumPy's."""
    x, target, parameters = net_setting(n_in, n_hidden, n_out, batch, np.float64)

    def contestant(make):
        step, _ = make()

        def after_some_steps(_):
            fresh_step, fresh_parameters = make()
            for _ in range(checked_steps):
                fresh_step()
            return flat(*[parameter.detach() for parameter in fresh_parameters])

        return Contestant(step, after_some_steps)

    def ours(compile):
        leaves = [fg.tensor(value, requires_grad=True) for value in parameters]
        optimizer = fg.optim.Adam(leaves, lr=1e-3)

        def step(x, target):
            optimizer.zero_grad()
            loss = net(fnp, x, target, *leaves)
            loss.backward()
            optimizer.step()
            return loss

        step = compile(step)
        return lambda: step(x, target), leaves

    def theirs(**options):
        leaves = [torch().tensor(value, requires_grad=True) for value in parameters]
        batch = torch().from_numpy(x), torch().from_numpy(target)
        optimizer = torch().optim.Adam(leaves, lr=1e-3, **options)

        def step():
            optimizer.zero_grad()
            loss = net(TorchWithNumpyNames, *batch, *leaves)
            loss.backward()
            optimizer.step()
            return loss

        return step, leaves

    contestants = {"fastgrad, recorded each time": contestant(lambda: ours(lambda step: step))}
    if HAS_PROGRAMS:
        contestants["fastgrad Program"] = contestant(lambda: ours(fg.compile))
    if torch():
        contestants["PyTorch"] = contestant(theirs)
        contestants["PyTorch, fused"] = contestant(functools.partial(theirs, fused=True))
    name = f"step of Adam, net {n_in}-{n_hidden}-{n_out}, batch {batch}"
    return Workload(name, contestants, flat(*adam_by_hand(x, target, parameters, checked_steps)))


def adam_by_hand(x, target, parameters, steps, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
    parameters = [value.copy() for value in parameters]
    means, squares = ([np.zeros_like(value) for value in parameters] for _ in range(2))
    for step in range(1, steps + 1):
        _, gradients = net_by_hand(x, target, *parameters)
        for p, g, mean, square in zip(parameters, gradients, means, squares):
            mean += (1 - beta1) * (g - mean)
            square += (1 - beta2) * (g * g - square)
            p -= lr / (1 - beta1**step) * mean / (np.sqrt(square / (1 - beta2**step)) + eps)
    return parameters


# Big arrays, elementwise, into one sum


def wave(xp, x, w, b):
    z = x * w + b
    return xp.sum(xp.tanh(z) * xp.exp(-z * z / 2) + xp.sqrt(1 + z * z))


def wave_by_hand(x, w, b):
    z = x * w + b
    t, e, s = np.tanh(z), np.exp(-z * z / 2), np.sqrt(1 + z * z)
    dz = (1 - t * t) * e - t * e * z + z / s
    return np.sum(t * e + s), (dz * w, dz * x, dz)


def big_arrays(n):
    rng = np.random.default_rng(0)
    arguments, argnums = [rng.normal(size=n) for _ in range(3)], (0, 1, 2)
    contestants = {
        **dict(programs(functools.partial(wave, fnp), arguments, argnums)),
        "NumPy, forward only": Contestant(lambda: wave(np, *arguments), flat),
        **dict(in_c("wave", arguments, [np.zeros(1), *[np.zeros(n) for _ in arguments]], n)),
        **dict(jax_jit(functools.partial(wave, jax() and jax().numpy), arguments, argnums)),
        **dict(pytorch(wave, arguments, argnums)),
    }
    name = f"sum(tanh(z) exp(-z z / 2) + sqrt(1 + z z)), z = x w + b, n = {n}"
    return Workload(name, contestants, flat_pair(wave_by_hand(*arguments)), rtol=1e-10, atol=1e-11)


# The log density of a model of three parts: a thousand scalar and small-array operations

SCHOOLS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])  # D. Rubin, 1981


def model_data(rows=100, columns=5, length=200):
    """Treatment effects and their errors; a design matrix and signs; a series of returns."""
    rng = np.random.default_rng(0)
    design = rng.normal(size=(rows, columns))
    signs = np.where(rng.uniform(size=rows) < 1 / (1 + np.exp(-design @ rng.normal(size=columns))), 1.0, -1.0)
    return *SCHOOLS, design, signs, rng.standard_t(5, size=length)


def step_by_step(xp, first, omega, alpha, beta, squares):
    """The variances of a GARCH(1, 1) series, one Python step each."""
    variances = [first]
    for t in range(len(squares) - 1):
        variances.append(omega + alpha * squares[t] + beta * variances[-1])
    return xp.stack(variances)


def by_scan(xp, first, omega, alpha, beta, squares):
    """The same as somebody writes it who knows that JAX takes long over long Python loops."""

    def step(variance, square):
        return omega + alpha * square + beta * variance, variance

    return jax().lax.scan(step, first, squares)[1]


def log_density(xp, data, p, garch=step_by_step):
    """Eight schools (p[:10]), a logistic regression with a scale (p[10:17]) and GARCH(1, 1) (p[17:]), without constants.

    The same text for every array library; p is one vector of 21 unconstrained parameters. About 1300 operations.
    """
    effects, errors, design, signs, returns = data
    # theta_j = mu + tau eta_j, eta_j ~ N(0, 1), mu ~ N(0, 5), tau ~ half-Cauchy(5)
    mu, log_tau, eta = p[0], p[1], p[2:10]
    tau = xp.exp(log_tau)
    misfit = (effects - mu - tau * eta) / errors
    total = -0.5 * (xp.sum(misfit * misfit) + xp.sum(eta * eta) + mu * mu / 25) - xp.log1p(tau * tau / 25) + log_tau
    # coefficients ~ N(0, s), log s ~ N(0, 1), sign_i ~ logistic
    log_s, intercept, coefficients = p[10], p[11], p[12:17]
    margins = signs * (design @ coefficients + intercept)
    total = total - xp.sum(xp.log1p(xp.exp(-margins))) - 0.5 * (log_s * log_s + intercept * intercept / 9)
    total = total - 0.5 * xp.sum(coefficients * coefficients) * xp.exp(-2 * log_s) - len(design[0]) * log_s
    # variance_t = omega + alpha residual_(t-1)**2 + beta variance_(t-1), alpha + beta < 1
    mean, log_omega = p[17], p[18]
    alpha = 1 / (1 + xp.exp(-p[19]))
    beta = (1 - alpha) / (1 + xp.exp(-p[20]))
    omega = xp.exp(log_omega)
    residuals = returns - mean
    squares = residuals * residuals
    variances = garch(xp, omega / (1 - alpha - beta), omega, alpha, beta, squares)
    prior = log_omega * log_omega + mean * mean + p[19] * p[19] + p[20] * p[20]
    return total - 0.5 * (xp.sum(xp.log(variances) + squares / variances) + prior)


MODEL_START = 0.1 * np.sin(np.arange(1.0, 22.0)) + np.where(np.arange(21) == 20, 1.5, 0.0)


def complex_step(function, p, step=1e-30):
    """Value and gradient of an analytic function, to the last bit or two."""
    gradient = [np.imag(function(p + 1j * step * unit)) / step for unit in np.eye(len(p))]
    return function(p), (np.array(gradient),)


def model():
    data, start = model_data(), MODEL_START
    contestants = {
        **dict(programs(functools.partial(log_density, fnp, data), (start,))),
        "NumPy, forward only": Contestant(lambda: log_density(np, data, start), flat),
        **dict(jax_jit(functools.partial(log_density, jax() and jax().numpy, data), (start,))),
    }
    scan = functools.partial(log_density, jax() and jax().numpy, data, garch=by_scan)
    contestants.update({f"{name}, scan": contestant for name, contestant in jax_jit(scan, (start,))})
    expected = flat_pair(complex_step(functools.partial(log_density, np, data), start))
    return Workload("log density of a hierarchical model", contestants, expected)


def first_calls_of_model():
    """What makes that density anew and calls its value and gradient once: {name: function}, none of them warm."""
    data, start = model_data(), MODEL_START

    def fastgrad():
        return fg.compile(fg.value_and_grad(lambda p: log_density(fnp, data, p)))(start)

    def of_jax(garch):
        function = jax().value_and_grad(lambda p: log_density(jax().numpy, data, p, garch))
        return jax().block_until_ready(jax().jit(function)(start))

    calls = {"fastgrad Program": fastgrad} if HAS_PROGRAMS else {}
    if jax():
        calls["JAX jit"] = functools.partial(of_jax, step_by_step)
        calls["JAX jit, scan"] = functools.partial(of_jax, by_scan)
    return calls


# Recordings to plan


def operations(function, *arguments):
    """How many operations fastgrad records when the function is called on leaves."""
    leaves = [fg.tensor(value, requires_grad=True) for value in arguments]
    with fg.Tape() as tape:
        function(*leaves)
    return len(tape) - len(leaves)


def long_chain(nodes):
    """A function of two numbers, of so many scalar operations, all different."""

    def function(x, y):
        tanh = fnp.tanh
        for _ in repeat(None, nodes // 4):
            y = tanh(x * y + x) + 0.1
        return y

    return function


def determinant(rows):
    """By minors of the first row, as written in textbooks: 1 266 384 operations for 9 rows, most of them again and again."""
    if len(rows) == 1:
        return rows[0][0]
    total = None
    for column, element in enumerate(rows[0]):
        term = element * determinant([row[:column] + row[column + 1 :] for row in rows[1:]])
        term = -term if column % 2 else term
        total = term if total is None else total + term
    return total


def determinant_of_array(a):
    return determinant([[a[i, j] for j in range(a.shape[1])] for i in range(a.shape[0])])


def programs_to_look_at():
    """(name, Program) of workloads of all kinds."""
    x, target, parameters = net_setting(4, 8, 3, 1, np.float64)
    big_x, big_target, big_parameters = net_setting(784, 512, 10, 1024, np.float64)
    columns = [np.linspace(0.2, 0.8, 1024)] * 2
    arrays = [np.linspace(-1, 1, 10_000)] * 3
    of_net = fg.value_and_grad(functools.partial(net, fnp), argnums=(2, 3, 4, 5))
    of_chain = fg.value_and_grad(functools.partial(chain, fnp), argnums=(0, 1))
    of_wave = fg.value_and_grad(functools.partial(wave, fnp), argnums=(0, 1, 2))
    of_model = fg.value_and_grad(functools.partial(log_density, fnp, model_data()))
    for name, function, arguments in (
        ("chain", of_chain, (0.5, 0.3)),
        ("chain over lanes", fg.vmap(of_chain), columns),
        ("net 4-8-3", of_net, (x, target, *parameters)),
        ("net 784-512-10", of_net, (big_x, big_target, *big_parameters)),
        ("wave", of_wave, arrays),
        ("model", of_model, (MODEL_START,)),
    ):
        yield name, fg.compile(function).program(*arguments)


PROGRAM_WORKLOADS = {
    "program-chain": one_input,
    "program-chain-100000": many_inputs,
    "program-net-4-8-3": functools.partial(two_layer_net, 4, 8, 3, 1, times=20),
    "program-adam": adam_step,
    "program-wave-10000": functools.partial(big_arrays, 10_000),
    "program-wave-1000000": functools.partial(big_arrays, 1_000_000),
    "program-net-784-512-10": functools.partial(two_layer_net, 784, 512, 10, 1024, rtol=1e-8, atol=1e-10),
    "program-net-784-512-10-float32": functools.partial(two_layer_net, 784, 512, 10, 1024, np.float32, rtol=1e-2, atol=2e-6),
    "program-model": model,
}
TWO_THREADS = {"program-chain-100000-2-threads": functools.partial(many_inputs, threads=2)}


@functools.cache
def load(key):
    """The workload of that key in `PROGRAM_WORKLOADS` or `TWO_THREADS`, set up once."""
    return {**PROGRAM_WORKLOADS, **TWO_THREADS}[key]()
