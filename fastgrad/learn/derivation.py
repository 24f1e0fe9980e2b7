"""Is a derivative that was found by hand right?  ``fg.check_derivation`` compares it with the exact one, at several points.

This module compares and says yes.  What is asked is read in ``questions.py``, the ways in which Jacobians are written are in
``layouts.py``, and what is wrong with a wrong claim is found in ``diagnosis.py``.
"""

import re

import numpy as np

from fastgrad.learn import diagnosis
from fastgrad.learn.layouts import layouts, plain, squeezed
from fastgrad.learn.questions import Question, Reader, points_of
from fastgrad.learn.verdict import Verdict, numbers

__all__ = ["Verdict", "check_derivation"]


def check_derivation(claim, fun, *args, wrt=None, at=None, of=None, where=None):
    """Compares a derivative that was found by hand with the exact one, and says what is wrong with it.

    Parameters
    ----------
    claim : str, callable, or array_like
        A formula over the names of arguments and of what is computed from them (variables that a line of ``fun`` assigns,
        ``fg.mark``, ``fg.names``); a function of the arguments of ``fun``, or of any such names; or numbers. A formula may
        have several sides, ``"p - y = ..."``, and begin with ``"dL/dz ="``, which is then what is asked.
    fun : callable
        Returns a Tensor; called with ``args``.
    *args : float, array_like, Tensor or pytree
        The point.
    wrt : str or int, optional
        The b of d a / d b: an argument by name or position, or the name of an intermediate, with an index if only a part
        is asked for, ``"W2[1, :]"``; the first argument by default.
    at : str or sequence of tuples, optional
        Where to compare. By default the given point and random ones near it, so that a formula that is right by coincidence
        is found; ``"given"``: there only; or a sequence of tuples of arguments. Numbers are compared at the given point.
    of : str, optional
        The a of d a / d b: the name of an intermediate, with or without an index; what ``fun`` returns by default.
    where : dict, optional
        Abbreviations that the claim uses: a formula, a function or numbers for each name.

    Returns
    -------
    Verdict
        True if the claim is right; printed, it says why not.

    Raises
    ------
    ValueError
        If a name is unknown, or a formula is none.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import numpy as np
    >>> def loss(w, x, y):
    ...     p = fg.numpy.sigmoid(w * x)
    ...     loss = (p - y) ** 2
    ...     return loss
    >>> bool(fg.check_derivation("2 * (p - y) * p * (1 - p) * x", loss, 0.5, 2.0, 1.0))
    True
    >>> print(fg.check_derivation("2 * (p - y) * x", loss, 0.5, 2.0, 1.0).message)
    The claim for dloss/dw lacks the factor sigmoid'(w * x): multiply by it.
    """
    sides = _sides(claim)
    asked = re.fullmatch(r"\s*[d∂]\s*(\w+)\s*/\s*[d∂]\s*(\w+)\s*", sides[0]) if len(sides) > 1 else None
    if asked:
        sides = sides[1:]
        for name, given, option in ((asked[1], of, "of"), (asked[2], wrt, "wrt")):
            if isinstance(given, str) and given != name:
                raise ValueError(f"{claim!r} is about {name}, and {option}={given!r} asks something else")
        of, wrt = asked[1], asked[2]
    question = Question(fun, args, wrt, of, where)
    verdicts = [_judge(question, side, at) for side in sides]
    return verdicts[0] if len(verdicts) == 1 else _of_sides(question, sides, verdicts)


def _sides(claim):
    """The sides of ``a = b = c``."""
    if not isinstance(claim, str):
        return [claim]
    sides, depth, begin = [], 0, 0
    for k, sign in enumerate(claim):
        depth += (sign in "([") - (sign in ")]")
        if sign == "=" and depth == 0 and claim[k - 1:k] not in ("=", "<", ">", "!") and claim[k + 1:k + 2] != "=":
            sides.append(claim[begin:k].strip())
            begin = k + 1
    return sides + [claim[begin:].strip()]


def _of_sides(question, sides, verdicts):
    """One verdict about several sides."""
    wrong = [k for k, verdict in enumerate(verdicts) if not verdict]
    if not wrong:
        worst = max(verdicts, key=lambda verdict: verdict.error)
        every = "Both" if len(sides) == 2 else f"All {len(sides)}"
        worst.message = worst.message.replace("Right: ", f"{every} sides are right: ", 1)
        return worst
    if len(wrong) == len(sides):
        first = verdicts[0]
        first.details += [f"{sides[k]}: {verdicts[k].message}" for k in wrong[1:]]
        return first
    right = [sides[k] for k in range(len(sides)) if k not in wrong]
    verdict = verdicts[wrong[0]]
    return Verdict("two sides", f"The sides are not equal: {' and '.join(right)} is right for {question.quantity}, "
                   f"{' and '.join(sides[k] for k in wrong)} is not. {verdict.message}", verdict.details, verdict.error,
                   verdict.claimed, verdict.exact)


def _judge(question, claim, at):
    """The verdict on one claim."""
    ask = Reader(question, claim)
    with np.errstate(all="ignore"):
        points, failed = points_of(question, ask, at)
        if failed is not None:
            return diagnosis.of_failure(question, claim, points[0], failed)
        given = points[0]
        shape = given.claimed.shape
        points = [point for point in points if point.claimed.shape == shape]
        if not any(point.scale > 100 * point.small for point in points):        # all would be taken for rounding errors
            for point in points:
                point.small = point.rounding * point.scale
        if not all(_agree(point) for point in points) and all(_is_near(point) for point in points):
            for point in points:
                point.small += 16 * ask.noise(point)
        judged = [point for point in points if point.kind != "free"]
        found = None
        for layout in layouts([point.exact for point in judged], given.n):
            if squeezed(layout.read(given.exact).shape) == squeezed(shape):
                if all(_all_close(point, layout) for point in judged):
                    found = layout
                    break
        if found is not None:
            return _yes(question, points, judged, found)
        if shape == () and given.exact.size and all(bool(point.close(point.claimed, point.exact).all()) for point in judged):
            verdict = _yes(question, points, judged, plain(given.exact.ndim))
            verdict.details.append(f"one number for all elements of shape {given.exact.shape}, which are equal")
            return verdict
        if not any(point.exact.any() or point.claimed.any() for point in judged):
            return Verdict("right", f"Right: {question.quantity} is 0.", [], 0.0, given.claimed, given.exact)
        smooth = [point for point in judged if point is not given]
        if smooth and diagnosis.at_a_kink(given):
            for layout in layouts([point.exact for point in smooth], given.n):
                if squeezed(layout.read(given.exact).shape) == squeezed(shape) and all(_all_close(p, layout) for p in smooth):
                    verdict = _yes(question, smooth, smooth, layout)
                    verdict.details.append(f"at the given point itself there is a kink, of {diagnosis.at_a_kink(given)}, "
                                           "and the claim makes another choice there than fastgrad")
                    return verdict
        return diagnosis.diagnose(question, claim, judged)


def _agree(point):
    return point.claimed.shape == point.exact.shape and bool(point.close(point.claimed, point.exact).all())


def _is_near(point):
    """Whether the claim may be right but for rounding."""
    c, e = point.claimed, point.exact
    return c.size != e.size or bool((np.abs(np.sort(c.ravel()) - np.sort(e.ravel())) <= 1e-3 * point.scale).all())


def _all_close(point, layout):
    exact = layout.read(point.exact).reshape(point.claimed.shape)
    return bool(point.close(point.claimed, exact).all())


def _yes(question, points, judged, layout):
    given = judged[0]
    exact = layout.read(given.exact).reshape(given.claimed.shape) if given.claimed.shape != () else layout.read(given.exact)
    error = 0.0
    for point in judged:
        difference = np.abs(point.claimed - layout.read(point.exact).reshape(
            point.claimed.shape if point.claimed.shape != () else layout.read(point.exact).shape))
        finite = difference[np.isfinite(difference)]
        if finite.size and point.scale > 100 * point.small:
            error = max(error, float(finite.max()) / point.scale)
    many = f"at {len(judged)} points" if len(judged) > 1 else "at the given point"
    details = [f"the largest error {many} is {error:.1e} of its size"]
    natural = layout.read(given.exact).shape
    if layout.note:
        details.append(layout.note)
    if natural != given.claimed.shape and given.claimed.shape != () and not layout.note:
        details.append(f"of shape {given.claimed.shape} where fastgrad has {natural}: rows, columns and vectors of the same "
                       "numbers are as good")
    if given.digits is not None and error > 1e-6:
        details.append(f"to the digits given; exactly: {numbers(exact)}")
    loose = [point for point in points if point.kind == "free" and not (
        point.claimed.shape == given.claimed.shape and _all_close(point, layout))]
    if loose:
        kept = " and ".join(sorted({name for point in loose for name in point.kept}))
        details.append(f"as long as {kept}; for other numbers the claim and the derivative differ")
    return Verdict("right", f"Right: this is {question.quantity}.", details, error, given.claimed, exact)
