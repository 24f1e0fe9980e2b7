"""The ways in which people write down the derivative of an array by an array.

In full it has the shape of a followed by the shape of b.  Where most of that is 0 because element i of a depends on element
i of b alone, only the rest is written: ``A1 * (1 - A1)`` for an elementwise function, ``W`` for ``W @ X`` by X, where each
column goes its own way.  Knows numbers and shapes only.
"""

import itertools

import numpy as np

__all__ = ["Layout", "layouts", "plain", "squeezed"]

MOST_AXES = 5


class Layout:
    """One way.

    Attributes
    ----------
    pairs : tuple of (int, int, bool)
        Axes of a and of b off whose common diagonal everything is 0; True: and along it everything is the same.
    order : tuple of int
        Of the axes that are left.
    """

    def __init__(self, pairs, order):
        self.pairs, self.order = pairs, order

    def read(self, jacobian):
        """The numbers that are written down."""
        return _reduced(jacobian, self.pairs).transpose(self.order)

    @property
    def note(self):
        """What to tell about it; empty for the full layout."""
        if not self.pairs:
            return ""
        if any(dropped for _, _, dropped in self.pairs):
            return "written once, for what is the same along an axis; in full the Jacobian has zeros beside it"
        return "written as the diagonal: each element depends on its own element alone, and the rest of the Jacobian is 0"


def plain(ndim):
    """The full layout."""
    return Layout((), tuple(range(ndim)))


def squeezed(shape):
    """A shape without its ones: rows, columns and vectors have the same."""
    return tuple(n for n in shape if n != 1)


def layouts(jacobians, n):
    """The layouts in which Jacobians may be written.

    Parameters
    ----------
    jacobians : list of ndarray
        At several points.
    n : int
        How many of the axes are those of a.

    Returns
    -------
    list of Layout
        The full one first.
    """
    first = jacobians[0]
    found = [plain(first.ndim)]
    if first.ndim > MOST_AXES or not any(j.any() for j in jacobians):
        return found
    pairs = [(p, q) for p in range(n) for q in range(n, first.ndim)
             if first.shape[p] == first.shape[q] > 1 and all(_is_diagonal(j, p, q) for j in jacobians)]
    for count in range(1, len(pairs) + 1):
        for chosen in itertools.combinations(pairs, count):
            if len({axis for pair in chosen for axis in pair}) < 2 * count:
                continue
            for dropped in itertools.product((False, True), repeat=count):
                marked = tuple((p, q, d) for (p, q), d in zip(chosen, dropped))
                if all(_is_constant(j, marked) for j in jacobians):
                    found += [Layout(marked, order) for order in _orders(first.shape, n, marked)]
    return found


def _is_diagonal(jacobian, p, q):
    moved = np.moveaxis(jacobian, (p, q), (0, 1))
    return not moved[~np.eye(len(moved), dtype=bool)].any()


def _reduced(jacobian, pairs):
    """The axes of a and b that are left, and then the diagonals that are kept."""
    names = list(range(jacobian.ndim))
    for p, q, dropped in pairs:
        jacobian = np.diagonal(jacobian, axis1=names.index(p), axis2=names.index(q))
        names = [name for name in names if name not in (p, q)] + [p]
        if dropped:
            jacobian, names = jacobian[..., 0], names[:-1]
    return jacobian


def _is_constant(jacobian, pairs):
    for k, (p, q, dropped) in enumerate(pairs):
        if dropped:
            rest = pairs[:k] + pairs[k + 1:] + ((p, q, False),)
            read = _reduced(jacobian, tuple((a, b, False) for a, b, _ in rest))
            if not np.allclose(read, read[..., :1], rtol=1e-9, atol=0):
                return False
    return True


def _orders(shape, n, pairs):
    """Orders of the axes that are left: those of a, then those of b, and the diagonals anywhere."""
    taken = {axis for p, q, _ in pairs for axis in (p, q)}
    of_a = [axis for axis in range(n) if axis not in taken]
    of_b = [axis for axis in range(n, len(shape)) if axis not in taken]
    kept = [p for p, _, dropped in pairs if not dropped]
    sizes = [shape[axis] for axis in of_a + of_b]
    either = any(dropped for _, _, dropped in pairs) and len(set(sizes)) == len(sizes)
    total = len(of_a) + len(of_b) + len(kept)
    for order in itertools.permutations(range(total)):
        left = [axis for axis in order if axis < len(of_a) + len(of_b)]
        if left == sorted(left) or either:
            yield order
