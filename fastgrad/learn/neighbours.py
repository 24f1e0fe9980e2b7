"""Random points near a given one, at which a derivative is compared too.

What looks as if it had to be so stays so: labels, shares of a whole, symmetric matrices, vectors of length 1, zeros among
other numbers.  A formula may count on it, as ``p - y`` does on labels that sum to 1.  Knows numbers only.
"""

import numpy as np

__all__ = ["neighbours"]

KINDS = ["near"] * 2 + ["far"] * 6 + ["free"] * 2


def neighbours(arrays, fixed):
    """Arrays moved at random, the same at each call.

    Some keep the signs of all numbers, so that a logarithm stays defined; more do not, so that both sides of a kink are seen.

    Parameters
    ----------
    arrays : list of ndarray
    fixed : list of bool
        Whether an array stays what it looks like.

    Yields
    ------
    arrays : list of ndarray
    kind : str
        ``"near"``, ``"far"``; ``"free"`` for points where nothing stays what it looks like.
    kept : list of (int, str)
        Which arrays look like something, and like what: ``"is symmetric"``.
    """
    rng = np.random.default_rng(20_240_229)
    looks = [_restorer(x) if stays else None for x, stays in zip(arrays, fixed)]
    kept = [(k, look[0]) for k, look in enumerate(looks) if look is not None]
    for kind in KINDS:
        if kind == "free" and not kept:
            return
        moved = []
        for x, look in zip(arrays, looks):
            y = _moved(x, kind, rng)
            moved.append(y if look is None or kind == "free" else look[1](y, rng))
        yield moved, kind, kept


def _moved(x, kind, rng):
    size = float(np.sqrt(np.mean(x * x))) if x.size else 0.0
    signs = rng.choice((-1.0, 1.0), x.shape) if kind == "far" else 1.0
    return np.where(x == 0, (size or 1.0) * rng.normal(0, 0.4, x.shape), signs * x * np.exp(rng.normal(0, 0.4, x.shape)))


def _restorer(x):
    """What x looks like, in words, and what makes another array look so too; None where it looks like nothing."""
    if x.size < 2 or (x == x.flat[0]).all():
        return None
    if (x >= 0).all():
        for axis in range(x.ndim):
            if x.shape[axis] > 1 and np.allclose(x.sum(axis), 1, rtol=1e-9):
                words = "sums to 1" if x.ndim == 1 else f"sums to 1 along axis {axis}"
                return words, lambda y, rng: rng.permuted(x, axis=axis)
    if x.ndim == 2 and x.shape[0] == x.shape[1] and (x == x.T).all():
        return "is symmetric", lambda y, rng: np.where(x == 0, 0.0, (y + y.T) / 2)
    if np.isin(x, (-1, 0, 1)).all():
        words = f"has no elements but {' and '.join(f'{v:g}' for v in np.unique(x))}"
        return words, lambda y, rng: rng.permutation(x.ravel()).reshape(x.shape)
    if np.isclose(np.sum(x * x), 1, rtol=1e-9):
        return "has length 1", lambda y, rng: np.where(x == 0, 0.0, y) / np.sqrt(np.sum(np.where(x == 0, 0.0, y)**2))
    if (x == 0).any():
        return "keeps its zeros", lambda y, rng: np.where(x == 0, 0.0, y)
    return None
