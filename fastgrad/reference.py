"""Reverse-mode differentiation in plain Python: the whole idea in one sitting.

This file knows floats and nothing else: no arrays, no NumPy, no compiled code. It is the oracle of
fastgrad's tests and the baseline of its benches, so it is written to be read, not to be fast.

**The idea.** Any computation, however long, is a list of elementary steps `out = f(a, b)`. While the
steps run, write each down on a *tape*: which earlier results it used (its *operands*) and how strongly
`out` responds to each of them (its *partials*, `d out / d a` and `d out / d b`, plain numbers by now).
For `L = tanh(x * w + x)` at x = 0.5, w = 2 the tape is

    id  step          operands  partials
    0   x = 0.5
    1   w = 2.0
    2   x * w = 1.0   0, 1      2.0, 0.5       (w and x)
    3   2 + 0 = 1.5   2, 0      1.0, 1.0
    4   tanh = 0.905  3         0.181          (1 - tanh**2)

Now ask how `L` responds to everything: its *adjoints*. `L` responds to itself with 1. Walk the tape
backwards; a node whose adjoint is `g` hands `g * partial` on to each operand, which adds up what it is
handed. An operand is always older than its result, so when the walk reaches a node, everybody who used
it has spoken, and its adjoint is final. One walk gives the derivative with respect to *every* input.

    adjoint of 4:  1
    of 3:          0.181
    of 2:          0.181
    of 1 (dL/dw):  0.181 * 0.5 = 0.0904
    of 0 (dL/dx):  0.181 * 2.0 + 0.181 * 1.0 = 0.543      (x was used twice: contributions add)

That is all of reverse mode. The walk is a loop over a list, so no depth of computation overflows a
stack, and it changes nothing, so it can be repeated.

Where calculus is silent, the answers are fastgrad's: at a kink the subgradient of least norm
(`abs` and `relu` have 0 at 0, equal arguments of `maximum` get 1/2 each), where a limit exists the
limit, infinity allowed (`sqrt` at 0), NaN where nothing makes sense, and never an exception.

>>> value_and_grad(lambda x, w: tanh(x * w + x))(0.5, 2.0)
(0.9051482536448664, [0.5421199167709458, 0.0903533194618243])
"""

import math
from math import inf, nan

__all__ = [
    "Tape", "Var", "gradient", "value_and_grad", "exp", "log", "sqrt", "sin", "cos", "tanh",
    "sigmoid", "relu", "maximum", "minimum", "where",
]


class Tape:
    """What was done, in order: for node `i`, `operands[i]` are older ids and `partials[i]` go with them."""

    def __init__(self):
        self.operands = []
        self.partials = []

    def variable(self, value):
        """A new input: a node that nothing leads to."""
        return self.record(float(value), (), ())

    def record(self, value, operands, partials):
        self.operands.append(operands)
        self.partials.append(partials)
        return Var(self, len(self.operands) - 1, value)


class Var:
    """A float that knows its place on a tape."""

    __slots__ = ("tape", "id", "value")

    def __init__(self, tape, id, value):
        self.tape, self.id, self.value = tape, id, value

    def __add__(self, other):
        return binary(self, other, lambda a, b: (a + b, 1.0, 1.0))

    def __sub__(self, other):
        return binary(self, other, lambda a, b: (a - b, 1.0, -1.0))

    def __rsub__(self, other):
        return binary(other, self, lambda a, b: (a - b, 1.0, -1.0))

    def __mul__(self, other):
        return binary(self, other, lambda a, b: (a * b, b, a))

    def __truediv__(self, other):
        return binary(self, other, divide_rule)

    def __rtruediv__(self, other):
        return binary(other, self, divide_rule)

    def __pow__(self, other):
        return binary(self, other, power_rule)

    def __rpow__(self, other):
        return binary(other, self, power_rule)

    def __neg__(self):
        return unary(self, lambda a: (-a, -1.0))

    def __abs__(self):
        return unary(self, lambda a: (abs(a), a if a != a else float((a > 0) - (a < 0))))

    __radd__, __rmul__ = __add__, __mul__

    def __eq__(self, other): return self.value == value_of(other)
    def __ne__(self, other): return self.value != value_of(other)
    def __lt__(self, other): return self.value < value_of(other)
    def __le__(self, other): return self.value <= value_of(other)
    def __gt__(self, other): return self.value > value_of(other)
    def __ge__(self, other): return self.value >= value_of(other)
    def __bool__(self): return self.value != 0
    def __repr__(self): return f"Var({self.value!r})"
    __hash__ = object.__hash__


def value_of(x):
    return x.value if isinstance(x, Var) else x


# Recording. A rule takes floats and returns the value and one partial for each of them.

def unary(x, rule):
    if not isinstance(x, Var):
        return rule(x)[0]
    value, partial = rule(x.value)
    return x.tape.record(value, (x.id,), (partial,))


def binary(x, y, rule):
    if not isinstance(x, Var):
        if not isinstance(y, Var):
            return rule(x, y)[0]
        value, _, partial = rule(x, y.value)
        return y.tape.record(value, (y.id,), (partial,))
    if not isinstance(y, Var):
        value, partial, _ = rule(x.value, y)
        return x.tape.record(value, (x.id,), (partial,))
    if x.tape is not y.tape:
        raise ValueError("the two operands live on different tapes; make both with the same Tape")
    value, *partials = rule(x.value, y.value)
    return x.tape.record(value, (x.id, y.id), partials)


# The reverse sweep.

def gradient(out, inputs):
    """d out / d input for each of `inputs`: a list of floats, 0.0 where `out` does not depend on it."""
    if not isinstance(out, Var):
        return [0.0] * len(inputs)
    if any(x.tape is not out.tape for x in inputs):
        raise ValueError("an input lives on another tape than the output; make both with the same Tape")
    operands, partials = out.tape.operands, out.tape.partials
    adjoints = [0.0] * len(operands)
    adjoints[out.id] = 1.0
    for node in range(out.id, -1, -1):
        adjoint = adjoints[node]
        if adjoint == 0.0:  # nothing to hand on, and 0 must never meet an infinite partial
            continue
        for operand, partial in zip(operands[node], partials[node]):
            adjoints[operand] += adjoint * partial
    return [adjoints[x.id] for x in inputs]


def value_and_grad(function):
    """The function that returns `function`'s value and the list of its partial derivatives, on floats."""

    def evaluate(*values):
        tape = Tape()
        inputs = [tape.variable(value) for value in values]
        out = function(*inputs)
        return value_of(out), gradient(out, inputs)

    return evaluate


# Elementary functions: on a Var they record, on a float they are just the function.

def exp(x):
    return unary(x, exp_rule)


def log(x):
    return unary(x, lambda a: (ieee_log(a), ieee_divide(1.0, a + 0.0)))  # + 0.0: no 1 / -0.0


def sqrt(x):
    return unary(x, sqrt_rule)


def sin(x):
    return unary(x, lambda a: (math.sin(a), math.cos(a)) if math.isfinite(a) else (nan, nan))


def cos(x):
    return unary(x, lambda a: (math.cos(a), -math.sin(a)) if math.isfinite(a) else (nan, nan))


def tanh(x):
    return unary(x, tanh_rule)


def sigmoid(x):
    return unary(x, sigmoid_rule)


def relu(x):
    return unary(x, lambda a: (0.0, 0.0) if a <= 0 else (a, 1.0) if a > 0 else (a, a))


def maximum(x, y):
    return binary(x, y, maximum_rule)


def minimum(x, y):
    return -maximum(-x, -y)


def where(condition, x, y):
    return unary(x if condition else y, lambda a: (a, 1.0))


def divide_rule(a, b):
    out = ieee_divide(a, b)
    return out, ieee_divide(1.0, b), -ieee_divide(out, b)


def power_rule(a, b):
    out = ieee_power(a, b)
    by_base = 0.0 if b == 0 else b * ieee_power(a, b - 1)
    by_exponent = 0.0 if a == 0 and b > 0 else out * ieee_log(a)
    return out, by_base, by_exponent


def exp_rule(a):
    out = ieee_exp(a)
    return out, out


def sqrt_rule(a):
    out = math.sqrt(a) if a >= 0 else nan
    return out, ieee_divide(0.5, out + 0.0)


def tanh_rule(a):
    out = math.tanh(a)
    return out, (1 - out) * (1 + out)


def sigmoid_rule(a):
    e = math.exp(-abs(a))  # the side on which nothing overflows
    return (1 if a >= 0 else e) / (1 + e), e / ((1 + e) * (1 + e))


def maximum_rule(a, b):
    if a == b:
        return a, 0.5, 0.5
    if a > b:
        return a, 1.0, 0.0
    return (b, 0.0, 1.0) if a < b else (nan, nan, nan)


# Python raises where IEEE 754 (and NumPy) has an infinity or NaN. These four do not raise.

def ieee_divide(a, b):
    if b != 0:
        return a / b
    return nan if a == 0 or a != a else math.copysign(inf, a) * math.copysign(1.0, b)


def ieee_exp(a):
    try:
        return math.exp(a)
    except OverflowError:
        return inf


def ieee_log(a):
    return math.log(a) if a > 0 else -inf if a == 0 else nan


def ieee_power(a, b):
    try:
        return math.pow(a, b)
    except (OverflowError, ValueError):
        if a < 0 and b != math.floor(b):
            return nan
        return math.copysign(inf, a) if b % 2 == 1 else inf
