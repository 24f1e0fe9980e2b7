"""A tree as one flat array, and back: what optimisers and solvers of other packages take."""

import numpy as np

import fastgrad.numpy as fnp
from fastgrad._core.engine import Tensor
from fastgrad.tree import tree_flatten, tree_unflatten

__all__ = ["ravel_pytree"]


def ravel_pytree(tree):
    """All numbers of a tree in one flat array, and the function that makes the tree of such an array.

    Parameters
    ----------
    tree : pytree
        Of arrays, Tensors and numbers.

    Returns
    -------
    flat : ndarray or Tensor
        A Tensor where a leaf is one; of the dtype that all leaves go into.
    unravel : callable
        ``unravel(flat)`` gives a tree whose leaves have the shapes and dtypes of those here; gradients flow through it.

    Raises
    ------
    ValueError
        By unravel, for an array of another shape.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import numpy as np
    >>> flat, unravel = fg.ravel_pytree({"w": np.ones((2, 2)), "b": 0.5})
    >>> flat
    array([0.5, 1. , 1. , 1. , 1. ])
    >>> unravel(2 * flat)["w"]
    array([[2., 2.],
           [2., 2.]])
    """
    leaves, structure = tree_flatten(tree)
    for leaf in leaves:
        if not isinstance(leaf, (Tensor, np.ndarray, np.generic, float, int)):
            raise TypeError(f"ravel_pytree: a leaf is a {type(leaf).__name__}, which has no numbers to lay flat")
    leaves = [leaf if isinstance(leaf, Tensor) else np.asarray(leaf) for leaf in leaves]
    shapes, dtypes = [tuple(leaf.shape) for leaf in leaves], [leaf.dtype for leaf in leaves]
    dtype = np.result_type(*dtypes) if leaves else np.dtype(float)
    sizes = [leaf.size for leaf in leaves]
    parts = [leaf.astype(dtype).reshape((n,)) for leaf, n in zip(leaves, sizes)]
    if any(isinstance(leaf, Tensor) for leaf in leaves):
        flat = fnp.concatenate(parts)
    else:
        flat = np.concatenate(parts) if parts else np.zeros(0)

    def unravel(flat):
        if not isinstance(flat, Tensor):
            flat = np.asarray(flat)
        if tuple(flat.shape) != (sum(sizes),):
            raise ValueError(f"unravel: an array of shape {tuple(flat.shape)} for a tree of {sum(sizes)} numbers, of shape ({sum(sizes)},)")
        found, start = [], 0
        for shape, n, kind in zip(shapes, sizes, dtypes):
            part = flat[start : start + n].reshape(shape)
            found.append(part if part.dtype == kind else part.astype(kind))
            start += n
        return tree_unflatten(structure, found)

    return flat, unravel
