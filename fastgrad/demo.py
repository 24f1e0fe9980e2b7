"""The main job: learn handwritten digits, show that the gradients are right, and how fast they are.

Data: "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, 1998, UCI Machine Learning
Repository, CC BY 4.0; the 1797 images of its test part, 8 x 8 pixels each.

The network, 64-32-10 with tanh, is written four times: with fastgrad, which trains it; in NumPy with the
derivatives worked out by hand; in complex NumPy, to check the gradients; and on the pure-Python engine.
fastgrad's is trained by a Program: one step, forward, backward and update, compiled by `fg.compile`.
"""

import argparse
import functools
import io
import json
import math
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

import fastgrad as fg
import fastgrad.reference as reference
from fastgrad import nn, optim

PIXELS, HIDDEN, CLASSES = 64, 32, 10
BATCH = 32
LANES = 16  # batches that one call of the Program of lanes takes
EPOCHS = 40
TRAINING_SHARE = 0.6  # of the time allowed, at most: only then is training cut short
CREDIT = (
    'digits: "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, 1998, '
    "UCI Machine Learning Repository, CC BY 4.0"
)

COMMANDS = """commands:
  python -m fastgrad explain "(x + y) * z" x=-2 y=5 z=-4    explains a formula and its gradients, step by step
  python -m fastgrad check ...                              checks a derivative worked out by hand
  each with --help tells its options
"""


# The data


def load_digits():
    """Images as float64 (1797, 64), from 0 to 1, and their digits as int64 (1797,)."""
    table = np.loadtxt(Path(__file__).with_name("data") / "digits.csv.gz", delimiter=",", dtype=np.int64)
    return table[:, :-1] / 16.0, table[:, -1]


def split(images, digits, rng):
    """Shuffle and hold out a fifth: (train images, train digits), (test images, test digits)."""
    order = rng.permutation(len(digits))
    held_out = len(digits) // 5
    test, train = order[:held_out], order[held_out:]
    return (images[train], digits[train]), (images[test], digits[test])


# The same loss four times: the mean cross-entropy of the 64-32-10 tanh network over a batch.


def network(rng):
    """The network as fastgrad's user writes it."""
    return nn.Sequential(nn.Linear(PIXELS, HIDDEN, rng=rng), nn.Tanh(), nn.Linear(HIDDEN, CLASSES, rng=rng))


def fastgrad_gradients(model, x, digits):
    """Loss and gradients by fastgrad, as the training loop computes them: the latter wait in each `.grad`."""
    model.zero_grad()
    loss = nn.cross_entropy(model(x), digits)
    loss.backward()
    return loss


def program_of_gradients(model):
    """The same as a function of a batch that is compiled: replayed without Python."""
    return fg.compile(lambda x, digits: fastgrad_gradients(model, x, digits))


def program_of_training(model, optimizer):
    """A whole step of training as a compiled function of a batch: forward, backward, update."""

    def step(x, digits):
        loss = fastgrad_gradients(model, x, digits)
        optimizer.step()
        return loss

    return fg.compile(step)


def program_of_lanes():
    """Losses and gradients of many batches (lanes, batch, ...) for parameters that all of them share, compiled."""

    def loss(w1, b1, w2, b2, x, digits):
        return nn.cross_entropy(np.tanh(x @ w1.T + b1) @ w2.T + b2, digits)

    one = fg.value_and_grad(loss, argnums=(0, 1, 2, 3))
    return fg.compile(fg.vmap(one, in_axes=(None, None, None, None, 0, 0)))


def numpy_gradients(parameters, x, digits):
    """Loss and gradients in NumPy, every derivative worked out by hand."""
    w1, b1, w2, b2 = parameters
    rows = np.arange(len(digits))
    h = np.tanh(x @ w1.T + b1)
    z = h @ w2.T + b2
    z -= z.max(axis=1, keepdims=True)
    e = np.exp(z)
    total = e.sum(axis=1, keepdims=True)
    loss = (np.log(total[:, 0]) - z[rows, digits]).mean()
    dz = e / total
    dz[rows, digits] -= 1.0
    dz /= len(digits)
    dh = (dz @ w2) * (1.0 - h * h)
    return loss, [dh.T @ x, dh.sum(axis=0), dz.T @ h, dz.sum(axis=0)]


def complex_loss(parameters, x, digits):
    """The loss in complex numbers, for `complex_step`."""
    w1, b1, w2, b2 = parameters
    z = np.tanh(x @ w1.T + b1) @ w2.T + b2
    return (np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(digits)), digits]).mean()


def complex_step(parameters, x, digits, step=1e-200):
    """Gradients without any derivative: each number in turn moved by `step` along the imaginary axis.

    Im f(p + i h) / h is f'(p) to rounding, as nothing is subtracted (J. Lyness and C. Moler, 1967).
    """
    moved = [array.astype(complex) for array in parameters]
    gradients = [np.empty_like(array) for array in parameters]
    for array, gradient in zip(moved, gradients):
        for index in np.ndindex(array.shape):
            value = array[index]
            array[index] = complex(value.real, step)
            gradient[index] = complex_loss(moved, x, digits).imag / step
            array[index] = value
    return gradients


def python_gradients(parameters, x, digits):
    """Loss and gradients on the pure-Python engine: lists of floats in, lists of floats out."""
    tape = reference.Tape()
    w1, w2 = ([[tape.variable(value) for value in row] for row in parameters[k]] for k in (0, 2))
    b1, b2 = ([tape.variable(value) for value in parameters[k]] for k in (1, 3))
    loss = 0.0
    for pixels, digit in zip(x, digits):
        h = [reference.tanh(affine(row, pixels, b)) for row, b in zip(w1, b1)]
        z = [affine(row, h, b) for row, b in zip(w2, b2)]
        top = max(logit.value for logit in z)
        total = 0.0
        for logit in z:
            total = total + reference.exp(logit - top)
        loss = loss + (reference.log(total) - (z[digit] - top))
    loss = loss / len(digits)
    inputs = [variable for row in w1 for variable in row] + b1 + [variable for row in w2 for variable in row] + b2
    return loss.value, reference.gradient(loss, inputs)


def affine(weights, inputs, bias):
    for weight, value in zip(weights, inputs):
        bias = bias + weight * value
    return bias


# The steps of the job


def check_gradient(model, x, digits):
    """Largest error of fastgrad's gradients against the complex step, relative to the largest gradient.

    Of three ways to get them: as Python runs, replayed by a Program, by a Program of lanes.
    """
    arrays = list(model.state_dict().values())
    exact = complex_step(arrays, x, digits)
    other, ways = 0.5 * x[::-1], []  # what the Programs are recorded on
    for call in (functools.partial(fastgrad_gradients, model), program_of_gradients(model)):
        call(other, digits)
        call(x, digits)
        ways.append([parameter.grad.numpy() for parameter in model.parameters()])
    lanes = program_of_lanes()
    lanes(*arrays, other[None], digits[None])
    ways.append([array[0] for array in lanes(*arrays, x[None], digits[None])[1]])
    largest = max(np.abs(array).max() for array in exact)
    return float(max(np.abs(a - b).max() for way in ways for a, b in zip(way, exact)) / largest)


def train(model, images, digits, rng, deadline, bar):
    """Mini-batches with Adam for `EPOCHS` epochs, or until `deadline`. Returns (epochs done, gradients, last loss)."""
    optimizer = optim.Adam(model.parameters(), lr=fg.tensor(0.01))  # a Tensor: the Program reads it at each step
    step = program_of_training(model, optimizer)
    batches = len(digits) // BATCH
    gradients = 0
    loss = math.nan
    for epoch in range(EPOCHS):
        optimizer.lr[...] = 0.01 * (1.0 - epoch / EPOCHS)
        order = rng.permutation(len(digits))
        losses = []
        for batch in range(batches):
            rows = order[batch * BATCH : (batch + 1) * BATCH]
            losses.append(step(images[rows], digits[rows]))
        gradients += batches
        loss = float(sum(losses)) / batches
        bar.show((epoch + 1) / EPOCHS, f"epoch {epoch + 1}, loss {loss:.4f}")
        if time.perf_counter() > deadline:
            break
    return epoch + 1, gradients, loss


def accuracy(model, images, digits):
    """The share of images whose digit has the largest logit."""
    with fg.no_grad():
        logits = model(images).numpy()
    return float((logits.argmax(axis=1) == digits).mean())


def measure(contestants, deadline):
    """Median seconds of each call, all taken in turn until `deadline`, so that what slows the machine slows all."""
    calls = {}
    for name, call in contestants.items():
        begin = time.perf_counter()
        call()
        calls[name] = max(1, min(50, int(0.002 / (time.perf_counter() - begin))))
    seconds = {name: [] for name in contestants}
    while True:
        for name, call in contestants.items():
            begin = time.perf_counter()
            for _ in range(calls[name]):
                call()
            seconds[name].append((time.perf_counter() - begin) / calls[name])
        if time.perf_counter() > deadline:
            return {name: float(np.median(times)) for name, times in seconds.items()}


def race(model, images, digits, batch, deadline):
    """Gradients a second of the engines, the same parameters and the same batch for each, but for the lanes' batches."""
    x, labels = images[:batch], digits[:batch]
    arrays = list(model.state_dict().values())
    as_lists = [array.tolist() for array in arrays], x.tolist(), labels.tolist()
    many = images[: LANES * batch].reshape(LANES, batch, PIXELS), digits[: LANES * batch].reshape(LANES, batch)
    program, lanes = program_of_gradients(model), program_of_lanes()
    fastgrad_gradients(model, x, labels)  # so that the Program is recorded for parameters that have gradients
    program(x, labels)
    lanes(*arrays, *many)
    seconds = measure(
        {
            "pure Python": lambda: python_gradients(*as_lists),
            "NumPy, backward by hand": lambda: numpy_gradients(arrays, x, labels),
            "fastgrad": lambda: fastgrad_gradients(model, x, labels),
            "fastgrad, Program": lambda: program(x, labels),
            "fastgrad, Program, batch of lanes": lambda: lanes(*arrays, *many),
        },
        deadline,
    )
    seconds["fastgrad, Program, batch of lanes"] /= LANES
    return {name: 1.0 / value for name, value in seconds.items()}


def table(races):
    """The races side by side: a row an engine, gradients a second and their ratios to pure Python and to NumPy."""
    names = list(next(iter(races.values())))
    lines = [f"{'':35}" + "".join(f"{f'batch of {batch}':>33}" for batch in races)]
    lines.append(f"{'gradients per second':35}" + f"{'':>11}{'x Python':>11}{'x NumPy':>11}" * len(races))
    for name in names:
        line = f"  {name:33}"
        for rates in races.values():
            for value in (rates[name], rates[name] / rates[names[0]], rates[name] / rates[names[1]]):
                line += f"{value:>11,.0f}" if value >= 100 else f"{value:>11.2g}"
        lines.append(line)
    return "\n".join(lines)


# The command


class Bar:
    """A progress bar on one line of `stream`; nothing at all where that is no terminal."""

    def __init__(self, stream):
        self.stream = stream if stream.isatty() else None

    def show(self, share, text):
        if self.stream is not None:
            filled = round(30 * share)
            self.stream.write(f"\r[{'#' * filled}{'.' * (30 - filled)}] {text}\x1b[K")
            self.stream.flush()

    def close(self):
        if self.stream is not None:
            self.stream.write("\n")


class Parser(argparse.ArgumentParser):
    """Bad arguments get one line and exit code 2."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")


def parse_arguments(argv):
    parser = Parser(
        prog="python -m fastgrad",
        description="Train a 64-32-10 tanh network on 1797 handwritten digits, check its gradients,\n"
        "and compare the speed of five ways to get them.",
        epilog=f"{COMMANDS}\n{CREDIT}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--seconds", type=positive, default=8.0, metavar="N", help="time allowed, about (default: 8)")
    parser.add_argument("--json", metavar="FILE", help="write the results to FILE")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="of the split, the weights and the batches (default: 0)"
    )
    options = parser.parse_args(argv)
    if options.json is not None:
        try:
            check_writable(options.json)
        except OSError as error:
            parser.error(f"argument --json: cannot write {options.json!r}: {error.strerror}")
    return options


def positive(text):
    value = number(float, text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def seed(text):
    value = number(int, text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is negative")
    return value


def number(kind, text):
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def check_writable(path):
    """Raise OSError where `path` cannot be written; leave nothing behind and an existing file as it is."""
    existed = os.path.lexists(path)
    with open(path, "a"):
        pass
    if not existed:
        os.unlink(path)


def main(argv=None):
    """Run the command line; returns the exit code."""
    options = parse_arguments(argv)
    try:
        results, complaint = run(options)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    if options.json is not None:
        try:
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump(results, file, indent=2)
                file.write("\n")
        except OSError as error:
            print(f"python -m fastgrad: cannot write {options.json!r}: {error.strerror}", file=sys.stderr)
            return 1
    if complaint:
        print(f"python -m fastgrad: {complaint}", file=sys.stderr)
        return 1
    return 0


def run(options):
    """The whole job. Returns (results for --json, None or what went wrong)."""
    begin = time.perf_counter()
    say = (lambda text: None) if options.quiet else print
    bar = Bar(io.StringIO() if options.quiet else sys.stderr)
    rng = np.random.default_rng(options.seed)
    (images, digits), (test_images, test_digits) = split(*load_digits(), rng)
    model = network(rng)
    parameters = sum(array.size for array in model.state_dict().values())
    say(CREDIT)
    say(f"network: {PIXELS}-{HIDDEN}-{CLASSES}, tanh, {parameters} parameters, float64")

    error = check_gradient(model, images[:BATCH], digits[:BATCH])
    say(f"gradient of a batch of {BATCH} against the complex step: largest error {error:.1e} of the largest entry")
    results = {
        "fastgrad": fg.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "seed": options.seed,
        "gradient_error": error,
    }
    if not error < 1e-10:
        return results, f"the gradient is wrong: largest error {error:.1e}"

    started = time.perf_counter()
    epochs, gradients, loss = train(model, images, digits, rng, started + TRAINING_SHARE * options.seconds, bar)
    seconds = time.perf_counter() - started
    bar.close()
    right = accuracy(model, test_images, test_digits)
    say(f"{epochs} epochs of {gradients // epochs} batches of {BATCH} in {seconds:.2f} s; loss {loss:.4f}")
    say(f"trained on {len(digits)} digits, right on {100 * right:.1f} % of {len(test_digits)} held-out ones")
    results["training"] = {"epochs": epochs, "batch": BATCH, "gradients": gradients, "seconds": seconds, "loss": loss}
    results["held_out"] = {"digits": len(test_digits), "accuracy": right}

    races = {}
    deadline = begin + options.seconds
    for left, batch in ((2, 1), (1, BATCH)):
        now = time.perf_counter()
        races[batch] = race(model, images, digits, batch, now + max(0.0, deadline - now) / left)
    say("\n" + table(races))
    say("(value and gradients of this network; medians, taken in turn; products this small run on one BLAS thread;")
    say(f" Program: the function by fg.compile; lanes: {LANES} batches a call by fg.vmap, the time of one of them)")
    results["gradients_per_second"] = {f"batch {batch}": rates for batch, rates in races.items()}
    return results, None
