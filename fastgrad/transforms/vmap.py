"""fg.vmap: a function of one example as a function of many.

The function runs once, on one example, under a trace; the trace is replayed on whole batches (batching.py).  This file
knows arguments, axes and trees; nothing about operations.
"""

import numpy as np

import fastgrad.numpy as fnp
from fastgrad._core import engine
from fastgrad._core.engine import Tensor
from fastgrad.transforms.batching import batched_call
from fastgrad.tree import tree_flatten, tree_prefix, tree_unflatten

__all__ = ["vmap"]


def vmap(fun, in_axes=0, out_axes=0):
    """A function of one example as a function of a batch of them.

    Parameters
    ----------
    fun : callable
        Of arrays, numbers or pytrees of them.  It is called once, on the first example.
    in_axes : int, None, or a tuple or list with an entry for each positional argument
        Which axis of an argument runs over the examples; None: all get the argument as it is.  An entry can be a pytree that
        is a prefix of the argument.  Keyword arguments are batched along axis 0.
    out_axes : int, None, or pytree
        Where the axis over the examples goes in the results; a prefix of the result.  None: the result does not depend on the
        batched arguments and is given once.

    Returns
    -------
    callable
        With fun's arguments; its results have an axis more.  NumPy in, NumPy out; Tensor in, or a result that is being
        differentiated: Tensor out.

    Raises
    ------
    ValueError
        If no argument is batched, if the lengths of the batched axes differ, if an argument has no such axis, or if in_axes
        or out_axes do not fit the trees.
    TypeError
        If fun branches on a value that differs from example to example, reads its number, changes a Tensor from outside, or
        returns what is no array.

    Notes
    -----
    Composes with the other transforms in any order: ``vmap(grad(f))`` gives gradients example by example.  Operations without
    a rule for batches (functions of NumPy that fastgrad does not have, rules of your own without ``batch``) run example by
    example.  Random numbers are drawn once, when fun is called: all examples get the same.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import numpy as np
    >>> fg.vmap(lambda x, y: (x * y).sum(), in_axes=(0, None))(np.ones((2, 3)), np.array([1.0, 2.0, 3.0]))
    array([6., 6.])

    The gradient of a loss for each example:

    >>> loss = lambda w, x: (w @ x) ** 2
    >>> fg.vmap(fg.grad(loss), in_axes=(None, 0))(np.array([1.0, 2.0]), np.eye(2))
    array([[2., 0.],
           [0., 4.]])
    """
    if not callable(fun):
        raise TypeError(f"vmap: {type(fun).__name__} is no function")
    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)
    if not (in_axes is None or isinstance(in_axes, tuple) or hasattr(in_axes, "__index__")):
        raise TypeError(f"vmap: in_axes is an int, None, or a tuple with an entry for each argument, not {in_axes!r}")

    def batched(*arguments, **keywords):
        call = _Batch(fun, in_axes, arguments, keywords)
        outputs, leads = batched_call(call.on_example, call.batches, call.size)
        return call.answer(outputs, leads, out_axes)

    name = getattr(fun, "__name__", "f")
    batched.__name__, batched.__doc__, batched.__wrapped__ = f"vmap_{name}", f"vmap of {name}.", fun
    return batched


class _Batch:
    """One call of a batched function: which leaves of its arguments have a batch axis, and what the others are."""

    def __init__(self, fun, in_axes, arguments, keywords):
        self.fun = fun
        leaves, self.structure = tree_flatten((arguments, keywords))
        names, axes = _axes_of_leaves(in_axes, arguments, keywords)
        if all(axis is None for axis in axes):
            raise ValueError("vmap: no argument is batched: in_axes is None for all of them, or there are none")
        self.any_tensor = any(isinstance(leaf, Tensor) for leaf in leaves)
        self.passed = []                    # leaves as the function gets them; a place in batches for those with examples
        self.batches, sizes = [], []
        for leaf, axis, name in zip(leaves, axes, names):
            if axis is None:
                self.passed.append(_same_for_all(leaf))
                continue
            t = _batch(leaf, axis, name)
            sizes.append((t.shape[0], name, axis))
            self.passed.append(_Place(len(self.batches)))
            self.batches.append(t)
        self.size = sizes[0][0]
        if any(n != self.size for n, _, _ in sizes):
            listed = ", ".join(f"{name} has {n} along axis {axis}" for n, name, axis in sizes)
            raise ValueError(f"vmap: the arguments have different numbers of examples: {listed}")

    def on_example(self, *examples):
        """The function on one example; remembers the form of its result."""
        leaves = [examples[leaf.place] if type(leaf) is _Place else leaf for leaf in self.passed]
        arguments, keywords = tree_unflatten(self.structure, leaves)
        found, self.out_structure = tree_flatten(self.fun(*arguments, **keywords))
        return [output_tensor("vmap", leaf) for leaf in found]

    def answer(self, outputs, leads, out_axes):
        """The results with their batch axes in place, as the caller's kind of array."""
        tree = tree_unflatten(self.out_structure, outputs)
        try:
            axes = tree_prefix(tuple(out_axes) if isinstance(out_axes, list) else out_axes, tree)
        except ValueError as error:
            raise ValueError(f"vmap: out_axes does not fit the result: {error}") from None
        return tree_unflatten(self.out_structure, [self.placed(t, lead, axis) for t, lead, axis in zip(outputs, leads, axes)])

    def placed(self, t, lead, axis):
        if axis is None:
            if lead:
                raise ValueError(f"vmap: out_axes is None for a result that depends on the batched arguments (shape {t.shape} "
                                 "with the batch axis first); give it an axis")
        else:
            if not lead:
                t = fnp.copy(fnp.broadcast_to(t, (self.size,) + t.shape))
            if not -t.ndim <= axis < t.ndim:
                raise np.exceptions.AxisError(f"vmap: out_axes {axis} for a result of {t.ndim} axes with the one over examples")
            t = fnp.moveaxis(t, 0, axis) if axis % t.ndim else t
        if self.any_tensor or engine.is_recorded(t) or (engine.is_tracked(t) and engine.recording_now()):
            return t
        return engine.lower_to(t, 0.0)


class _Place:
    """Stands for a batched leaf."""
    __slots__ = ("place",)

    def __init__(self, place):
        self.place = place


def _axes_of_leaves(in_axes, arguments, keywords):
    """For each leaf of (arguments, keywords) its name in messages and its axis."""
    if isinstance(in_axes, tuple) and len(in_axes) != len(arguments):
        raise ValueError(f"vmap: in_axes has {len(in_axes)} entries for {len(arguments)} positional arguments")
    names, axes = [], []
    for k, argument in enumerate(arguments):
        try:
            found = tree_prefix(in_axes[k] if isinstance(in_axes, tuple) else in_axes, argument)
        except ValueError as error:
            raise ValueError(f"vmap: in_axes of argument {k}: {error}") from None
        axes += found
        names += [f"argument {k}" if len(found) == 1 else f"argument {k} (leaf {j})" for j in range(len(found))]
    for key in sorted(keywords):
        n = len(tree_flatten(keywords[key])[0])
        axes += [0] * n
        names += [f"argument {key!r}"] * n
    for axis in axes:
        if axis is not None and not hasattr(axis, "__index__"):
            raise TypeError(f"vmap: in_axes holds {axis!r}, which is no int and not None")
    return names, axes


def _batch(leaf, axis, name):
    """A batched leaf as a Tensor with the batch axis first."""
    if isinstance(leaf, (bool, int, float, complex, str)) or not (isinstance(leaf, Tensor) or hasattr(leaf, "__array__")):
        raise ValueError(f"vmap: {name} is a {type(leaf).__name__}, which has no axis over examples; give it in_axes None")
    t = leaf if isinstance(leaf, Tensor) else engine.as_operand(np.asarray(leaf))
    if t.ndim == 0:
        raise ValueError(f"vmap: {name} has no axes, and in_axes says that axis {axis} runs over examples; give it in_axes None")
    if not -t.ndim <= axis < t.ndim:
        raise np.exceptions.AxisError(f"vmap: {name} has shape {t.shape}, and in_axes asks for its axis {axis}")
    return t if axis % t.ndim == 0 else fnp.moveaxis(t, axis, 0)


def _same_for_all(leaf):
    """A leaf without a batch axis: what can be differentiated as a Tensor, all else (sizes, flags, names) as it is."""
    if isinstance(leaf, float) or (isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype.kind == "f"):
        return engine.as_operand(leaf)
    return leaf


def output_tensor(who, leaf):
    """What a function returned, as a Tensor."""
    if isinstance(leaf, Tensor):
        return leaf
    try:
        return fnp.asarray(leaf)
    except TypeError:
        raise TypeError(f"{who}: the function returned {type(leaf).__name__}, which is no array, Tensor, number or tree of "
                        "these") from None
