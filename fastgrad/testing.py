"""Tests of gradients: fg.testing.check_grads."""

import numpy as np

from fastgrad._core import engine
from fastgrad._core.engine import Tensor
from fastgrad.transforms import grad, jvp, vjp
from fastgrad.tree import tree_flatten, tree_unflatten

__all__ = ["check_grads"]

DIRECTIONS = 3                                          # random ones, besides those along single elements for small arguments
TOLERANCES = {"f8": (1e-6, 2e-4), "f4": (2e-2, 6e-2)}   # of first and second derivatives, relative to their size
STEPS = {"f8": (1e-3, 1e-4, 1e-5), "f4": (1e-1, 3e-2, 1e-2)}    # of differences of fourth order; those that agree best count


def check_grads(f, args, order=2, modes=("fwd", "rev"), atol=None, rtol=None, eps=None):
    """Compares the derivatives of a function with numerical ones.

    Parameters
    ----------
    f : callable
        Of arrays and pytrees of them, with any result; written with NumPy's or fastgrad.numpy's names.
    args : tuple
        Where to look.  All float leaves are differentiated.
    order : int
        1: first derivatives; 2: second ones too.
    modes : tuple or str of "fwd", "rev"
        Forward mode (fg.jvp), reverse mode (fg.vjp), or both.
    atol, rtol : float, optional
        Tolerances; by default they follow from the dtype, and atol from the size of the derivative.
    eps : float, optional
        The step; by default it follows from the dtype and the size of the argument.

    Returns
    -------
    None

    Raises
    ------
    AssertionError
        If a derivative is wrong; it names the argument, the element, both numbers and, where it shows, the cause.
    ValueError
        If order or modes are unknown, or there is nothing to differentiate.

    Notes
    -----
    First derivatives are held against the complex step where f works on complex arrays of NumPy, which is exact to rounding,
    else against central differences of fourth order; second ones against differences of fastgrad's own first ones.
    Directions are random and the same at each call, and one along each element where an argument has up to 8.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgrad.testing import check_grads
    >>> check_grads(lambda x, y: np.sin(x) * y, (np.array([0.5, 2.0]), 3.0))
    """
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    if not modes or any(m not in ("fwd", "rev") for m in modes):
        raise ValueError(f"check_grads: modes are 'fwd' and 'rev', not {modes!r}")
    if order not in (1, 2):
        raise ValueError(f"check_grads: order is 1 or 2, not {order!r}")
    _Check(f, args if isinstance(args, (tuple, list)) else (args,), modes, atol, rtol, eps).run(order)


def _lowered(leaf):
    return np.asarray(leaf.detach().numpy() if isinstance(leaf, Tensor) else leaf)


class _Check:

    def __init__(self, f, args, modes, atol, rtol, eps):
        self.f, self.modes, self.atol, self.rtol, self.eps = f, modes, atol, rtol, eps
        self.leaves, self.structure = tree_flatten(tuple(args))
        self.leaves = [_lowered(leaf) if isinstance(leaf, Tensor) or hasattr(leaf, "__array__") else leaf for leaf in self.leaves]
        self.places = [k for k, leaf in enumerate(self.leaves)
                       if isinstance(leaf, float) or getattr(leaf, "dtype", np.dtype(bool)).kind == "f"]
        if not any(np.size(self.leaves[k]) for k in self.places):
            raise ValueError("check_grads: no argument is a float or a float array, so there is nothing to differentiate; "
                             "write integers as floats, for example 3.0")
        self.point = [np.asarray(self.leaves[k]) for k in self.places]
        self.names = _names(args, self.structure)
        self.names = [self.names[k] for k in self.places]
        # the coarsest dtype decides
        self.kind = "f4" if any(p.dtype == np.float32 for p in self.point) else "f8"
        self.rng = np.random.default_rng(0)

    # -- the function of float leaves

    def at(self, values):
        """The float results of f, flat, at other values of the float leaves."""
        leaves = list(self.leaves)
        for k, v in zip(self.places, values):
            leaves[k] = v
        found = tree_flatten(self.f(*tree_unflatten(self.structure, leaves)))[0]
        return [leaf for leaf in found if _is_float(leaf)]

    def plain(self, values):
        with np.errstate(all="ignore"):
            return [_lowered(v) for v in self.at(values)]

    def moved(self, direction, h):
        return [(p + h * d).astype(p.dtype) for p, d in zip(self.point, direction)]

    def steps(self, direction):
        if self.eps:
            return [self.eps]
        size = max([1.0] + [1e-3 * float(np.max(np.abs(p), initial=0, where=np.isfinite(p) & (d != 0)))
                            for p, d in zip(self.point, direction)])
        return [h * size / max(1.0, max(float(np.max(np.abs(d), initial=0)) for d in direction)) for h in STEPS[self.kind]]

    def differences(self, function, direction):
        """The derivative of a function of values along a direction, with what one-sided differences say of it."""
        found = [self.difference(function, direction, h) for h in self.steps(direction)]
        if len(found) == 1:
            return found[0]
        apart = []
        for one, other in zip(found, found[1:]):
            off = [float(np.max(np.abs(a - b), initial=0)) for a, b in zip(one[0], other[0])]
            apart.append(max(off) if np.all(np.isfinite(off)) else np.inf)
        return found[int(np.argmin(apart)) + (min(apart) == np.inf)]

    def difference(self, function, direction, h):
        with np.errstate(all="ignore"):
            far, ahead, middle, behind, back = ([np.asarray(v, float) for v in function(self.moved(direction, s * h))]
                                                for s in (2, 1, 0, -1, -2))
            return ([(8 * (a - b) - (c - d)) / (12 * h) for a, b, c, d in zip(ahead, behind, far, back)],
                    [(a - m) / h for a, m in zip(ahead, middle)], [(m - b) / h for b, m in zip(behind, middle)])

    def complex_step(self, direction):
        """Exact to rounding, where f is analytic and knows complex numbers; else None."""
        if self.kind == "f4" or self.eps:
            return None
        h = 1e-30
        try:
            with np.errstate(all="ignore"):
                found = self.at([p + 1j * (h * d) for p, d in zip(self.point, direction)])
            if not found or any(not isinstance(v, (np.ndarray, np.generic, complex)) or np.asarray(v).dtype.kind != "c" for v in found):
                return None
            return [np.asarray(v).imag / h for v in found]
        except Exception:       # whatever a function says to numbers that it was not written for
            return None

    # -- the checks

    def run(self, order):
        results = self.plain(self.point)
        if not results:
            raise ValueError("check_grads: the function has no float result, so there is nothing to differentiate")
        self.weights = [self.rng.normal(size=r.shape) for r in results]
        if len(results) == results[0].size == 1:
            self.weights = [np.ones(results[0].shape)]
        self.weighted_results = "the result" if len(results) == results[0].size == 1 else "all results, with random weights"
        for direction, label in self.directions():
            reference = self.reference(direction, results)
            if "fwd" in self.modes:
                self.compare(self.forward(self.point, direction), reference, direction, label, "forward mode", 0)
            if "rev" in self.modes:
                pulled = sum(float(np.sum(np.asarray(g, float) * d)) for g, d in zip(self.reverse(self.point), direction))
                total = [[np.asarray(sum(float(np.sum(np.asarray(v, float) * w)) for v, w in zip(part, self.weights)))]
                         for part in reference]
                size = sum(float(np.sum(np.abs(np.asarray(v, float) * w))) for v, w in zip(reference[0], self.weights))
                self.compare([np.asarray(pulled)], total, direction, label, "reverse mode", 0, size)
            if order > 1:
                self.second(direction, label)

    def directions(self):
        for k, p in enumerate(self.point):
            if p.size <= 8:
                for j in range(p.size):
                    direction = [np.zeros(q.shape) for q in self.point]
                    direction[k].flat[j] = 1.0
                    index = "" if p.ndim == 0 else f", element {tuple(int(i) for i in np.unravel_index(j, p.shape))}"
                    yield direction, f"{self.names[k]}{index}"
            else:
                for _ in range(DIRECTIONS):
                    direction = [np.zeros(q.shape) for q in self.point]
                    direction[k] = self.rng.normal(size=p.shape)
                    yield direction, self.names[k]
        if len(self.point) > 1:
            for _ in range(DIRECTIONS):
                yield [self.rng.normal(size=p.shape) for p in self.point], "all arguments together"

    def reference(self, direction, results):
        found, right, left = self.differences(self.plain, direction)
        exact = self.complex_step(direction)
        # abs and its kin answer a complex argument with no derivative: believed only where differences agree with it
        if exact is not None and all(np.allclose(e, d, rtol=1e-3, atol=1e-3 * (1 + float(np.max(np.abs(d), initial=0))))
                                     for e, d in zip(exact, found)):
            found = exact
        return found, right, left

    def compare(self, ours, reference, direction, label, how, which, size=0.0):
        expected, right, left = reference
        rtol = TOLERANCES[self.kind][which] if self.rtol is None else self.rtol
        for n, (o, e, r, s) in enumerate(zip(ours, expected, right, left)):
            o, e = np.asarray(o, float), np.asarray(e, float)
            largest = max(size, float(np.max(np.abs(e), initial=0, where=np.isfinite(e))), 1e-3)
            atol = rtol * largest if self.atol is None else self.atol
            same = (o == e) | (np.isnan(o) & np.isnan(e)) | (np.abs(o - e) <= atol + rtol * np.abs(e))
            if same.all():
                continue
            where = np.unravel_index(int(np.argmin(same)), same.shape)
            a, b = float(o[where]), float(e[where])
            at = self.weighted_results if how == "reverse mode" else f"result {n}" if len(ours) > 1 else "the result"
            at += "" if not where else f", element {tuple(map(int, where))}"
            order = "derivative" if which == 0 else "second derivative"
            raise AssertionError(
                f"check_grads: the {order} of {getattr(self.f, '__name__', 'f')} by {self.worst(direction, label, how, which)} is "
                f"wrong in {how}: fastgrad gives {a:.9g} where {b:.9g} is due ({at}; tolerance {atol + rtol * abs(b):.2g}). "
                f"Likely cause: {self.cause(a, b, float(np.asarray(r)[where]), float(np.asarray(s)[where]), which, direction)}.")

    def worst(self, direction, label, how, which):
        """The label with the element where a large argument is wrong by itself, which costs a difference an element."""
        if which or label not in self.names or "element" in label:
            return label
        k = self.names.index(label)
        g = np.asarray(self.reverse(self.point)[k], float)
        worst, place = -1.0, None
        for j in range(min(g.size, 256)):
            unit = [np.zeros(p.shape) for p in self.point]
            unit[k].flat[j] = 1.0
            slope = sum(float(np.sum(v * w)) for v, w in zip(self.differences(self.plain, unit)[0], self.weights))
            off = abs(slope - g.flat[j])
            if not off <= worst:
                worst, place = off, j
        return f"{label}, element {tuple(int(i) for i in np.unravel_index(place, g.shape))}"

    def cause(self, ours, due, right, left, which, direction):
        scale = max(abs(due), abs(right), abs(left), 1e-12)
        if not np.isfinite(ours):
            return "NaN or infinity in a derivative whose value is finite; a partial that is infinite at this point"
        if not np.isfinite(due):
            return "the function is NaN or infinite near the point; move the point"
        if which == 0 and abs(right - left) > (0.3 if self.kind == "f4" else 0.05) * scale and min(right, left) - 0.02 * scale <= ours <= max(right, left) + 0.02 * scale:
            return (f"a kink or a jump near the point: the slope is {left:.4g} before and {right:.4g} after it; move the "
                    "point away from it")
        if ours == 0:
            return ("a gradient that is lost, as by detach(), fg.stop_gradient, fg.no_grad(), rounding, an integer dtype, or a rule "
                    "that leaves an argument out")
        ratio = due / ours
        if abs(ratio + 1) < 1e-2:
            return "the sign"
        if self.kind == "f4" and abs(ratio - 1) < 0.1:
            return "float32 precision; give float64 arguments, or a larger rtol"
        if abs(ratio - 1) > 1e-3:
            for n in (2, 3, 4, 5, 6, 8, 10):
                if abs(ratio - n) < 1e-3 * n:
                    return f"a factor of {n} that is missing"
                if abs(ratio * n - 1) < 1e-3:
                    return f"a factor of {n} too much"
            sizes = {p.size for p, d in zip(self.point, direction)} - {1}
            for n in sizes:
                if abs(ratio - n) < 1e-3 * n or abs(ratio * n - 1) < 1e-3:
                    return f"a mean where a sum is due, or the other way round (a factor of {n})"
        if abs(ratio - 1) < 1e-4:
            return "a tolerance or a step that does not fit this function; give rtol or eps"
        return "a rule that is wrong, or a function that reads or changes something besides its arguments"

    # -- fastgrad's derivatives

    def tensors_at(self, values):
        return [v if isinstance(v, Tensor) else engine.as_operand(np.asarray(v)) for v in self.at(values)]

    def forward(self, values, direction):
        tangents = [d.astype(p.dtype) for p, d in zip(self.point, direction)]
        return [_lowered(t) for t in jvp(lambda *v: self.tensors_at(v), tuple(values), tuple(tangents))[1]]

    def reverse(self, values):
        out, pull = vjp(lambda *v: self.tensors_at(v), *values)
        return [_lowered(g) for g in pull([w.astype(_lowered(o).dtype) for w, o in zip(self.weights, out)])]

    def weighted(self, *values):
        """One number of all results."""
        total = 0.0
        for t, w in zip(self.tensors_at(values), self.weights):
            total = total + (t * w.astype(t.dtype)).sum()
        return total

    def second(self, direction, label):
        """The derivative of the gradient, or of the tangent, along a direction, against differences of these."""
        tangents = tuple(d.astype(p.dtype) for p, d in zip(self.point, direction))
        every = tuple(range(len(self.point)))
        if "rev" in self.modes:
            reference = self.differences(self.reverse, direction)
            # forward over reverse, and reverse over reverse along another direction
            if "fwd" in self.modes:
                ours = [_lowered(t) for t in jvp(lambda *v: list(grad(self.weighted, every)(*v)), tuple(self.point), tangents)[1]]
                self.compare(ours, reference, direction, label, "forward over reverse mode", 1)
            other = [self.rng.normal(size=p.shape) for p in self.point]

            def along(*values):
                total = 0.0
                for g, d in zip(grad(self.weighted, every)(*values), other):
                    total = total + (g * d.astype(g.dtype)).sum()
                return total

            pulled = grad(along, every)(*self.point)
            ours = sum(float(np.sum(np.asarray(g, float) * d)) for g, d in zip(pulled, direction))
            total = [[np.asarray(sum(float(np.sum(np.asarray(v, float) * d)) for v, d in zip(part, other)))] for part in reference]
            size = sum(float(np.sum(np.abs(v * d))) for v, d in zip(reference[0], other))
            self.compare([np.asarray(ours)], total, direction, label, "reverse over reverse mode", 1, size)
        elif "fwd" in self.modes:
            reference = self.differences(lambda values: self.forward(values, direction), direction)
            inner = lambda *v: jvp(lambda *w: self.tensors_at(w), v, tangents)[1]
            ours = [_lowered(t) for t in jvp(inner, tuple(self.point), tangents)[1]]
            self.compare(ours, reference, direction, label, "forward over forward mode", 1)


def _is_float(leaf):
    if isinstance(leaf, (bool, int)) or leaf is None:
        return False
    return isinstance(leaf, (float, complex)) or getattr(leaf, "dtype", np.dtype(bool)).kind in "fc"


def _names(args, structure):
    """What to call each leaf: its argument, and where in it."""
    names = []

    def walk(part, name):
        if part == ():
            names.append(name)
            return
        kind, extra, parts = part
        keys = extra if kind is dict else range(len(parts))
        for key, inner in zip(keys, parts):
            walk(inner, f"{name}[{key!r}]")

    for k, part in enumerate(structure[2]):
        walk(part, f"argument {k}")
    return names
