"""The table of elementary operations: data, no logic.

A row states an operation once: its value, its partial derivatives, what it is called and where it is
delicate.  ``generate.py`` turns a row into forward and accumulating backward loops, forward mode, every
higher order and the docstring; the tests take their sample points from it.  To add an operation, add a row.

The expression language has ``+ - * /``, comparisons, ``&``, ``select(condition, a, b)``, numbers, the constants
below, the names of other rows, and ``x``, ``y``, ``z`` (the operands) and ``out`` (the value).  A row whose
value is its own name, like ``tanh(x)``, is a primitive: its C function is ``fg_tanh_f64`` and ``fg_tanh_f32``.

``x + 0`` is x with -0 made 0: where a partial has a pole at 0, its sign must not depend on the sign of a zero.

The free names of a partial say what recording must keep.  A partial is never multiplied with a cotangent
that is exactly zero (the zero-cotangent rule), and a branch of ``select`` that is the literal 0 gives exactly 0.

This file knows nothing about arrays, loops, shapes or Python objects.
"""

from dataclasses import dataclass

CONSTANTS = {
    "pi": 3.141592653589793,
    "ln2": 0.6931471805599453,
    "ln10": 2.302585092994046,
    "degree": 0.017453292519943295,  # pi / 180
    "sqrt_half": 0.7071067811865476,
    "inv_sqrt_2pi": 0.3989422804014327,
    "two_over_sqrt_pi": 1.1283791670955126,
    # Klambauer et al., Self-Normalizing Neural Networks, 2017
    "selu_scale": 1.0507009873554805,
    "selu_alpha": 1.6732632423543772,
    "inf": float("inf"),
    "nan": float("nan"),
}


@dataclass(frozen=True)
class Op:
    """One row.

    name : the name in ``fastgrad.numpy``; NumPy's where NumPy has it.
    value : the value as an expression.
    dx, dy, dz : the partials; None where the operand carries no gradient.
    says : one line for the docstring.
    kind : "smooth", "kink", "step" (derivative 0 where it exists), "bool" (a truth value).
    domain : open intervals, one an operand, from which tests draw points.
    special : operands at which tests look closely.
    defaults : values of trailing operands that the caller may leave out, by name.
    numpy : the NumPy function of the same value, None where NumPy has none.
    borrow : the precisions in which NumPy's own AVX-512 loop is faster than ours, and is used where it is there.
    """

    name: str
    value: str
    dx: str | None = None
    dy: str | None = None
    dz: str | None = None
    says: str = ""
    kind: str = "smooth"
    domain: tuple = ((-3.0, 3.0),)
    special: tuple = ()
    defaults: tuple = ()
    numpy: str | None = "same"
    borrow: tuple = ()

    @property
    def arity(self):
        return len(self.domain)

    @property
    def partials(self):
        return (self.dx, self.dy, self.dz)[: self.arity]

    @property
    def differentiable(self):
        return any(p is not None for p in self.partials)

    @property
    def numpy_name(self):
        return self.name if self.numpy == "same" else self.numpy


INF = float("inf")
REAL = (-3.0, 3.0)
POSITIVE = (0.1, 4.0)
UNIT = (-0.9, 0.9)
ENDS = (0.0, -0.0, 1.0, -1.0, INF, -INF)
FAR = (0.0, -0.0, 1e-9, -1e-9, 30.0, -30.0, 1e3, -1e3, 1e200, -1e200)
PAIRS = ((0.0, 0.0), (1.0, 1.0), (-1.0, -1.0), (0.0, 1.0), (1.0, 0.0), (-0.0, 0.0))

OPS = (
    # -- sign and scale
    Op("negative", "-x", "-1", says="-x."),
    Op("positive", "x", "1", says="+x."),
    Op("absolute", "fabs(x)", "sign(x)", says="|x|; the derivative at 0 is 0.", kind="kink", special=ENDS),
    Op("sign", "select(x > 0, 1, select(x < 0, -1, select(x == 0, 0, x)))", says="-1, 0 or 1.", kind="step",
       special=ENDS),
    Op("reciprocal", "1 / x", "-out * out", says="1 / x.", domain=(POSITIVE,), special=(0.0, -0.0, 1e200)),
    Op("square", "x * x", "2 * x", says="x * x.", special=ENDS),
    Op("sqrt", "sqrt(x)", "0.5 / (out + 0)", says="The square root; the derivative at 0 is +inf.", domain=(POSITIVE,),
       special=(0.0, 1e-300, INF)),
    Op("cbrt", "cbrt(x)", "1 / (3 * out * out)", says="The cube root.", domain=(POSITIVE,), special=(0.0, -8.0, INF),
       borrow=("f64", "f32")),
    Op("deg2rad", "x * degree", "degree", says="Degrees to radians."),
    Op("rad2deg", "x / degree", "1 / degree", says="Radians to degrees."),
    # -- exponentials and logarithms
    Op("exp", "exp(x)", "out", says="e**x.", special=(0.0, 700.0, -745.0, INF, -INF)),
    Op("exp2", "exp2(x)", "out * ln2", says="2**x.", special=(0.0, 1000.0, -1074.0, INF, -INF)),
    Op("expm1", "expm1(x)", "exp(x)", says="e**x - 1, accurate near 0.", special=FAR),
    Op("log", "log(x)", "select(x < 0, nan, 1 / (x + 0))", says="The natural logarithm.", domain=(POSITIVE,),
       special=(0.0, 1.0, 1e-300, INF)),
    Op("log2", "log2(x)", "select(x < 0, nan, 1 / ((x + 0) * ln2))", says="The logarithm to base 2.",
       domain=(POSITIVE,), special=(0.0, 1.0, 8.0),
       borrow=("f32",)),
    Op("log10", "log10(x)", "select(x < 0, nan, 1 / ((x + 0) * ln10))", says="The logarithm to base 10.",
       domain=(POSITIVE,), special=(0.0, 1.0, 1000.0), borrow=("f32",)),
    Op("log1p", "log1p(x)", "select(x < -1, nan, 1 / (1 + x))", says="log(1 + x), accurate near 0.", domain=((-0.5, 3.0),),
       special=(0.0, -1.0, 1e-20, 1e3, 1e200), borrow=("f64",)),
    # -- trigonometric
    Op("sin", "sin(x)", "cos(x)", says="The sine; x in radians.", special=(0.0, -0.0, 1e5, 1e22)),
    Op("cos", "cos(x)", "-sin(x)", says="The cosine; x in radians.", special=(0.0, -0.0, 1e5, 1e22)),
    Op("tan", "tan(x)", "1 + out * out", says="The tangent; x in radians.", domain=((-1.2, 1.2),), special=(0.0, 1e5)),
    Op("arcsin", "arcsin(x)", "1 / sqrt((1 - x) * (1 + x))", says="The inverse sine, in radians.", domain=(UNIT,),
       special=(0.0, 1.0, -1.0, 2.0)),
    Op("arccos", "arccos(x)", "-1 / sqrt((1 - x) * (1 + x))", says="The inverse cosine, in radians.", domain=(UNIT,),
       special=(0.0, 1.0, -1.0, 2.0)),
    Op("arctan", "arctan(x)", "1 / (1 + x * x)", says="The inverse tangent, in radians.", special=FAR,
       borrow=("f32",)),
    Op("sinc", "sinc(x)",
       # the Taylor series of d/dx sin(pi x)/(pi x) where the closed form cancels: coefficients
       # (-1)**k 2 k pi**(2 k) / (2 k + 1)!
       "select(absolute(x) < 0.25,"
       " x * (-3.2898681336964529 + x * x * (3.2469697011334146 + x * x * (-1.1445109447325053"
       " + x * x * (0.20918278254123840 + x * x * (-0.023460810354558236 + x * x * (0.0017811455163728520"
       " + x * x * (-9.7662231263189327e-05 + x * x * 4.0499478466192442e-06))))))),"
       " (cos(pi * x) - out) / x)",
       says="sin(pi x) / (pi x), 1 at 0.", special=(0.0, -0.0, 1e-9, 1.0, 0.25)),
    # -- hyperbolic
    Op("sinh", "sinh(x)", "cosh(x)", says="The hyperbolic sine.", special=(0.0, -0.0, 1e-9, 700.0, 1e3)),
    Op("cosh", "cosh(x)", "sinh(x)", says="The hyperbolic cosine.", special=(0.0, 700.0, 1e3),
       borrow=("f64",)),
    Op("tanh", "tanh(x)", "(1 - out) * (1 + out)", says="The hyperbolic tangent.", special=FAR,
       borrow=("f32",)),
    Op("arcsinh", "arcsinh(x)", "1 / hypot(1, x)", says="The inverse hyperbolic sine.", special=FAR,
       borrow=("f32",)),
    Op("arccosh", "arccosh(x)", "1 / (sqrt(x - 1) * sqrt(x + 1))", says="The inverse hyperbolic cosine.",
       domain=((1.1, 4.0),), special=(1.0, 1e3, 1e200),
       borrow=("f32",)),
    Op("arctanh", "arctanh(x)", "select(absolute(x) > 1, nan, 1 / ((1 - x) * (1 + x)))", says="The inverse hyperbolic tangent.",
       domain=(UNIT,), special=(0.0, 1e-9, 1.0, -1.0)),
    # -- activations
    Op("sigmoid", "sigmoid(x)", "out * sigmoid(-x)", says="The logistic function 1 / (1 + e**-x).", special=FAR,
       numpy=None),
    Op("softplus", "softplus(x)", "sigmoid(x)", says="log(1 + e**x).", special=FAR, numpy=None),
    Op("relu", "select(x <= 0, 0, x)", "select(x > 0, 1, select(x <= 0, 0, nan))",
       says="max(x, 0); the derivative at 0 is 0.", kind="kink", special=(0.0, -0.0, INF, -INF), numpy=None),
    Op("leaky_relu", "select(x > 0, x, y * x)", "select(x > 0, 1, select(x == 0, clip(y, 0, 1), y))", "select(x > 0, 0, x)",
       says="x where positive, else negative_slope * x.", kind="kink", domain=(REAL, (0.01, 0.3)),
       special=((0.0, 0.01), (-1.0, 0.01)), defaults=(("negative_slope", 0.01),), numpy=None),
    Op("elu", "select(x > 0, x, y * expm1(x))",
       "select(x > 0, 1, select(x == 0, clip(y, 0, 1), y * exp(x)))", "select(x > 0, 0, expm1(x))",
       says="x where positive, else alpha * (e**x - 1).", kind="kink", domain=(REAL, (0.5, 1.5)),
       special=((0.0, 1.0), (-800.0, 1.0)), defaults=(("alpha", 1.0),), numpy=None),
    Op("selu", "selu_scale * select(x > 0, x, selu_alpha * expm1(x))",
       "selu_scale * select(x >= 0, 1, selu_alpha * exp(x))", says="The scaled ELU of self-normalising networks.",
       kind="kink", special=(0.0, -800.0), numpy=None),
    Op("gelu", "0.5 * x * erfc(-x * sqrt_half)",
       "0.5 * erfc(-x * sqrt_half) + x * inv_sqrt_2pi * exp(-0.5 * x * x)",
       says="x times the standard normal distribution function at x.", special=(0.0, -30.0, 30.0, 1e3, -1e3), numpy=None),
    Op("silu", "x * sigmoid(x)", "sigmoid(x) * (1 + x * sigmoid(-x))", says="x * sigmoid(x), also called swish.",
       special=(0.0, -30.0, 30.0, 1e3, -1e3), numpy=None),
    Op("softsign", "x / (1 + absolute(x))", "1 / ((1 + absolute(x)) * (1 + absolute(x)))", says="x / (1 + |x|).",
       special=(0.0, 1e3, -1e3, 1e200), numpy=None),
    # -- special functions
    Op("erf", "erf(x)", "two_over_sqrt_pi * exp(-x * x)", says="The error function.", special=(0.0, -0.0, 30.0, -30.0),
       numpy=None),
    Op("erfc", "erfc(x)", "-two_over_sqrt_pi * exp(-x * x)", says="1 - erf(x), accurate for large x.",
       special=(0.0, 26.0, -30.0), numpy=None),
    Op("gammaln", "gammaln(x)", "digamma(x)", says="The logarithm of |gamma(x)|.", domain=(POSITIVE,),
       special=(1.0, 2.0, 1e3, 1e200), numpy=None),
    Op("digamma", "digamma(x)", "polygamma(1, x)", says="The derivative of gammaln.", domain=(POSITIVE,),
       special=(1.0, 1e3, 1e200), numpy=None),
    Op("polygamma", "polygamma(x, y)", None, "polygamma(x + 1, y)",
       says="The x-th derivative of digamma at y; x is a whole number and carries no gradient.",
       domain=((1.0, 1.0), POSITIVE), special=((1.0, 1.0), (2.0, 0.5), (1.0, -0.5)), numpy=None),
    # -- arithmetic
    Op("add", "x + y", "1", "1", says="x + y.", domain=(REAL, REAL)),
    Op("subtract", "x - y", "1", "-1", says="x - y.", domain=(REAL, REAL)),
    Op("multiply", "x * y", "y", "x", says="x * y.", domain=(REAL, REAL), special=PAIRS),
    Op("divide", "x / y", "1 / y", "-out / y", says="x / y.", domain=(REAL, POSITIVE), special=((0.0, 1.0), (1.0, 0.0))),
    Op("power", "power(x, y)", "select(y == 0, 0, y * power(x, y - 1))",
       "select((x == 0) & (y > 0), 0, out * log(x))",
       says="x**y.  By x: 0 where y is 0; by y: 0 where x is 0 and y positive, NaN where x is negative.",
       domain=(POSITIVE, REAL), special=((0.0, 0.0), (0.0, 0.5), (0.0, 1.0), (0.0, 2.0), (-2.0, 3.0), (-2.0, 2.0)),
       borrow=("f64", "f32")),
    Op("float_power", "power(x, y)", "select(y == 0, 0, y * power(x, y - 1))",
       "select((x == 0) & (y > 0), 0, out * log(x))", says="x**y in float64.", domain=(POSITIVE, REAL),
       special=((0.0, 0.0), (-2.0, 3.0))),
    Op("maximum", "select(x > y, x, select(y >= x, y, x + y))",
       "select(x > y, 1, select(x == y, 0.5, select(x < y, 0, nan)))",
       "select(y > x, 1, select(x == y, 0.5, select(y < x, 0, nan)))",
       says="The larger one, NaN if either is; a tie shares the gradient evenly.", kind="kink",
       domain=(REAL, REAL), special=PAIRS),
    Op("minimum", "select(x < y, x, select(y <= x, y, x + y))",
       "select(x < y, 1, select(x == y, 0.5, select(x > y, 0, nan)))",
       "select(y < x, 1, select(x == y, 0.5, select(y > x, 0, nan)))",
       says="The smaller one, NaN if either is; a tie shares the gradient evenly.", kind="kink",
       domain=(REAL, REAL), special=PAIRS),
    Op("fmax", "select((x >= y) | (y != y), x, y)",
       "select(x > y, 1, select(x == y, 0.5, select(y != y, 1, 0)))",
       "select(y > x, 1, select(x == y, 0.5, select((x != x) & (y == y), 1, 0)))",
       says="The larger one, ignoring NaN; a tie shares the gradient evenly.", kind="kink", domain=(REAL, REAL),
       special=PAIRS),
    Op("fmin", "select((x <= y) | (y != y), x, y)",
       "select(x < y, 1, select(x == y, 0.5, select(y != y, 1, 0)))",
       "select(y < x, 1, select(x == y, 0.5, select((x != x) & (y == y), 1, 0)))",
       says="The smaller one, ignoring NaN; a tie shares the gradient evenly.", kind="kink", domain=(REAL, REAL),
       special=PAIRS),
    Op("arctan2", "arctan2(x, y)", "select(hypot(x, y) == 0, 0, (y / hypot(x, y)) / hypot(x, y))",
       "select(hypot(x, y) == 0, 0, -(x / hypot(x, y)) / hypot(x, y))",
       says="The angle of the point (y, x), in radians; both derivatives at the origin are 0.",
       domain=(POSITIVE, POSITIVE), special=((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (0.0, -1.0), (1e200, 1e200))),
    Op("hypot", "hypot(x, y)", "select(out == 0, 0, x / out)", "select(out == 0, 0, y / out)",
       says="sqrt(x * x + y * y); both derivatives at the origin are 0.", kind="kink", domain=(POSITIVE, POSITIVE),
       special=((0.0, 0.0), (0.0, 1.0), (1e200, 1e200), (1e-200, 1e-200))),
    Op("logaddexp", "logaddexp(x, y)", "select((x == y) & (absolute(x) == inf), 0.5, sigmoid(x - y))",
       "select((x == y) & (absolute(x) == inf), 0.5, sigmoid(y - x))", says="log(e**x + e**y).", domain=(REAL, REAL),
       special=((-INF, -INF), (-INF, 1.0), (INF, 1.0), (1.0, 1.0), (1e3, -1e3))),
    Op("logaddexp2", "logaddexp2(x, y)", "select((x == y) & (absolute(x) == inf), 0.5, sigmoid((x - y) * ln2))",
       "select((x == y) & (absolute(x) == inf), 0.5, sigmoid((y - x) * ln2))", says="log2(2**x + 2**y).",
       domain=(REAL, REAL), special=((-INF, -INF), (-INF, 1.0), (1.0, 1.0))),
    Op("fmod", "fmod(x, y)", "1", "-trunc(x / y)", says="The remainder with the sign of x.", kind="kink",
       domain=((1.1, 1.9), (0.3, 0.45)), special=((-7.0, 3.0), (7.0, -3.0))),
    Op("mod", "mod(x, y)", "1", "-floor_divide(x, y)", says="The remainder with the sign of y.", kind="kink",
       domain=((1.1, 1.9), (0.3, 0.45)), special=((-7.0, 3.0), (7.0, -3.0))),
    Op("floor_divide", "floor_divide(x, y)", says="The quotient rounded down.", kind="step",
       domain=((1.1, 1.9), (0.3, 0.45)), special=((-7.0, 3.0), (7.0, -3.0))),
    Op("copysign", "copysign(x, y)", "sign(x) * copysign(1, y)", None, says="|x| with the sign of y.", kind="kink",
       domain=(REAL, REAL), special=((0.0, -1.0), (1.0, -0.0))),
    Op("heaviside", "select(x > 0, 1, select(x < 0, 0, select(x == 0, y, x)))", None, "select(x == 0, 1, 0)",
       says="0 below 0, y at 0, 1 above.", kind="step", domain=(REAL, REAL), special=((0.0, 0.5), (-0.0, 0.5))),
    # -- three operands
    Op("where", "select(x != 0, y, z)", None, "select(x != 0, 1, 0)", "select(x != 0, 0, 1)",
       says="y where the condition x holds, else z.", domain=(REAL, REAL, REAL), special=((0.0, 1.0, 2.0), (1.0, 1.0, 2.0))),
    Op("clip", "select(z < select(x < y, y, x), z, select(x < y, y, x))",
       "select((x >= y) & (x <= z), 1, select(x != x, nan, 0))",
       "select((x < y) & (y <= z), 1, 0)", "select((x > z) | (y > z), 1, 0)",
       says="x kept between y and z; exactly at a bound the gradient passes to x.", kind="kink",
       domain=(REAL, (-1.0, -0.5), (0.5, 1.0)), special=((-0.5, -0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 1.0, -1.0))),
    # -- differentiates the backward pass itself
    Op("guarded_multiply", "select(x == 0, 0, x * y)",
       "select((x == 0) & (absolute(y) == inf), 0, select((x == 0) & (y != y), 0, y))",
       "x", says="x * y, and exactly 0 where x is 0: how a cotangent x meets a partial y.", domain=(REAL, REAL),
       special=((0.0, INF), (0.0, 1.0)), numpy=None),
    # -- steps
    Op("floor", "floor(x)", says="Rounded down.", kind="step", special=(0.0, -0.0, 0.5, -0.5, 1e300)),
    Op("ceil", "ceil(x)", says="Rounded up.", kind="step", special=(0.0, -0.0, 0.5, -0.5, 1e300)),
    Op("trunc", "trunc(x)", says="Rounded towards 0.", kind="step", special=(0.0, -0.0, 0.5, -0.5, 1e300)),
    Op("rint", "round(x)", says="Rounded to the nearest whole number, ties to even.", kind="step",
       special=(0.0, -0.0, 0.5, -0.5, 1.5, 1e300)),
    # -- truth values
    Op("greater", "x > y", says="x > y.", kind="bool", domain=(REAL, REAL), special=PAIRS),
    Op("greater_equal", "x >= y", says="x >= y.", kind="bool", domain=(REAL, REAL), special=PAIRS),
    Op("less", "x < y", says="x < y.", kind="bool", domain=(REAL, REAL), special=PAIRS),
    Op("less_equal", "x <= y", says="x <= y.", kind="bool", domain=(REAL, REAL), special=PAIRS),
    Op("equal", "x == y", says="x == y.", kind="bool", domain=(REAL, REAL), special=PAIRS),
    Op("not_equal", "x != y", says="x != y.", kind="bool", domain=(REAL, REAL), special=PAIRS),
    Op("logical_and", "(x != 0) & (y != 0)", says="Both differ from 0.", kind="bool", domain=(REAL, REAL), special=PAIRS),
    Op("logical_or", "(x != 0) | (y != 0)", says="Either differs from 0.", kind="bool", domain=(REAL, REAL),
       special=PAIRS),
    Op("logical_xor", "(x != 0) != (y != 0)", says="One differs from 0, the other does not.", kind="bool",
       domain=(REAL, REAL), special=PAIRS),
    Op("logical_not", "x == 0", says="Whether x is 0.", kind="bool", special=(0.0, -0.0, 1.0)),
    Op("isfinite", "absolute(x) < inf", says="Whether x is neither infinite nor NaN.", kind="bool", special=ENDS),
    Op("isnan", "x != x", says="Whether x is NaN.", kind="bool", special=ENDS),
    Op("isinf", "absolute(x) == inf", says="Whether x is infinite.", kind="bool", special=ENDS),
)
