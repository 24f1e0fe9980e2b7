"""fg.compile: the Python side of recordings, what tells them apart and when they hold.

The engine's Compiled object does the calls that look like the last one by itself; everything else comes here.
"""

import sys
import warnings

import numpy as np

from fastgrad._core import engine
from fastgrad._core.engine import Tensor
from fastgrad.transforms import pullbacks, threads
from fastgrad.transforms.bindings import MOST_BINDINGS, Walk, contents, random_states
from fastgrad.transforms.programs import Binding, has_parameter  # noqa: F401
from fastgrad.tree import tree_flatten, tree_unflatten

__all__ = ["compile"]

ARRAY, NUMBER, TENSOR = 0, 1, 2


def flatten(tree):
    """tree_flatten, with dicts in the order of their keys' insertion, which the function may look at."""
    return tree_flatten(tree, sort=False)


def compile(fun, static_argnums=()):
    """A function that is recorded at its first call and replayed from then on, as fast as compiled code.

    The function runs once for each signature: structure, shapes and dtypes of its arguments (arrays, Tensors, floats and
    trees of these), and the values of everything else (ints, strings, None, and what ``static_argnums`` names).  What it
    did is optimised, forward and backward together, and replayed without Python.  ``grad``, ``value_and_grad``, ``vjp``,
    ``jvp``, ``hessian``, ``vmap``, ``backward()`` and an optimiser's step may be inside.

    Parameters
    ----------
    fun : callable
    static_argnums : int or tuple of int
        Positional arguments that are taken by their value: each value has its own recording.

    Returns
    -------
    callable
        Called like ``fun``; NumPy in, NumPy out; Tensor in, Tensor out.  Has ``program(*arguments)``, the Program that such
        a call replays, ``recordings``, their number, and ``clear()``.

    Raises
    ------
    TypeError
        When the function reads numbers of what it is given (``float(t)``, ``t.item()``, ``np.asarray(t)``) while it is
        recorded, or draws random numbers from a generator that it was not given.

    Warns
    -----
    RuntimeWarning
        When a function is recorded again and again, or cannot be replayed and runs as it is.

    Notes
    -----
    Branches on values are guards: when one comes out otherwise, the function is recorded again, and both recordings are
    kept (16 a signature).  Tensors that live outside (in closures, Modules, optimisers) are read at each call and take
    their new values after it, ``.grad`` included.  Everything else that it reads from outside (enclosing and global names,
    attributes, entries of containers, arrays) is compared at each call, and another value means another recording.  Of
    arrays all bytes are compared, which costs about 0.1 ms for each MiB that does not lie in a cache; so pass large
    arrays, and data that changes, as arguments.  A ``numpy.random.Generator`` among the arguments draws anew at each call.

    While it is recorded the function gets Tensors in place of arrays and floats: ``isinstance(x, np.ndarray)`` and
    ``isinstance(x, float)`` are False, ``math.sin(x)`` and ``round(x)`` raise TypeError, and a 0-d result is a Tensor, which ``+=``
    changes under all its names, where NumPy has a scalar.  A float stays a number, which takes the dtype of what it meets,
    through Python's operators; what a function makes of it is float64, as ever.

    What Python does besides computing happens while recording only, and its outcome is replayed: printing, reading files,
    the clock and the environment, and the draws of a Generator that is made inside without a seed, as by
    ``np.random.default_rng()``, which cannot be noticed.

    Results are bit for bit those of the function but for sums and matrix products, whose terms are added in another order.
    A sum is within 4 ulp of the sum of the magnitudes of what it adds up (8 for float64 summed over leading axes), here as
    there: where terms cancel, the error is that small beside the terms, not beside the result.

    Where it is itself differentiated (its result is, or it is called on Tensors in the middle of a recording), a function of
    100 operations or more leaves one node for each result, whose pullback is compiled at the first sweep; a shorter one, one
    that detaches or changes anything, and one that is mostly products of matrices, runs as it is.  So does, with a warning, one
    that keeps Tensors it makes, or that changes numbers and arrays it reads from outside.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgrad as fg
    >>> slope = fg.compile(fg.grad(lambda x: np.sum(np.tanh(x) ** 2)))
    >>> slope(np.array([0.0, 1.0])).round(4)
    array([0.    , 0.6397])
    >>> slope(np.array([1.0, 0.0])).round(4)
    array([0.6397, 0.    ])
    >>> slope.recordings
    1
    """
    static = (static_argnums,) if isinstance(static_argnums, (int, np.integer)) else tuple(static_argnums)
    if not callable(fun):
        raise TypeError(f"compile: {type(fun).__name__} is not callable")
    has_own_out = has_parameter(fun, "out")
    threads.register()
    return engine.Compiled(fun, tuple(int(k) for k in static), has_own_out, sys.modules[__name__])


class Signature:
    """A call's arguments, flat: what is replayed, what is taken by value, and the key of both."""

    def __init__(self, compiled, arguments, keywords):
        self.function = compiled.__wrapped__
        static = _static_places(compiled, arguments)
        leaves, self.structure = flatten((tuple(a for k, a in enumerate(arguments) if k not in static), keywords))
        self.static = {k: arguments[k] for k in static}
        self.forms, self.places, self.constants, self.generators = [], [], [], []
        key, first, replayed = [], {}, []
        recording = engine.recording_now()
        self.differentiated = False
        for place, leaf in enumerate(leaves):
            kind = type(leaf)
            if kind is Tensor:
                self.differentiated |= recording and engine.is_tracked(leaf) and not leaf.is_leaf
                alias = first.setdefault(id(leaf), len(replayed))
                tracked = recording and engine.is_tracked(leaf)
                key.append((TENSOR, leaf.dtype, leaf.shape, leaf.requires_grad, tracked, leaf.grad is None, alias))
                form = TENSOR
            elif kind is float:
                key.append((NUMBER,))
                form = NUMBER
            elif isinstance(leaf, (np.ndarray, np.generic)) and not isinstance(leaf, np.flexible):
                leaf = _as_array(leaf)
                key.append((ARRAY, leaf.dtype.newbyteorder("="), leaf.shape))
                form = ARRAY
            else:
                key.append(("static", _by_value(leaf, False)))
                self.constants.append((place, leaf))
                continue
            replayed.append(leaf)
            self.forms.append(form)
            self.places.append(place)
        self.leaves = tuple(replayed)
        self.form = TENSOR if TENSOR in self.forms or not self.forms else ARRAY
        # flat: every argument is a leaf to be replayed, and no Tensor is there twice; plain: nor is one differentiated or has a
        # gradient, so that the next call can skip this
        self.flat = not keywords and not static and len(replayed) == len(leaves) == len(arguments) \
            and len(first) == self.forms.count(TENSOR) and all(part == () for part in self.structure[2][0][2])
        self.plain = self.flat and not self.differentiated \
            and not any(isinstance(leaf, Tensor) and (leaf.requires_grad or leaf.grad is not None) for leaf in replayed)
        self.key = (recording, self.structure, _asides(self.structure), tuple(key),
                    tuple((k, _by_value(v, True)) for k, v in sorted(self.static.items())))

    def wrappers(self):
        """Tensors that stand for the leaves while the function is recorded."""
        return [engine.make_wrapper(leaf, type(leaf) is float) for leaf in self.leaves]

    def run(self, wrappers):
        """The function on stand-ins."""
        leaves = [None] * (len(self.places) + len(self.constants))
        for place, t in zip(self.places, wrappers):
            leaves[place] = t
        for place, value in self.constants:
            leaves[place] = self.drawing(value)
        positional, keywords = tree_unflatten(self.structure, leaves)
        rest = iter(positional)
        arguments = [self.drawing(self.static[k]) if k in self.static else next(rest)
                     for k in range(len(positional) + len(self.static))]
        return self.function(*arguments, **keywords)

    def drawing(self, value):
        """A Generator as one whose draws are recorded; anything else as it is."""
        if not isinstance(value, np.random.Generator):
            return value
        self.generators.append(value)
        return RecordingGenerator(value)

    def draws(self):
        """Whether a random generator is among the arguments."""
        return any(isinstance(value, np.random.Generator) for value in (*self.static.values(), *[v for _, v in self.constants]))

    def give_back(self, wrappers, writes):
        """After a recording: arrays of the caller take what their stand-ins became."""
        for target in writes:
            if isinstance(target, int) and isinstance(self.leaves[target], np.ndarray):
                self.leaves[target][...] = wrappers[target].numpy()

    def aliased(self, tensors, changes):
        """Whether an argument is also within reach from the function itself, where something is changed."""
        return bool(changes) and any(isinstance(leaf, Tensor) and id(leaf) in tensors for leaf in self.leaves)

    def lowered(self, leaves, structure):
        """What the function itself returned, as the caller's kind."""
        return tree_unflatten(structure, [
            engine.lower_to(leaf, 0.0) if isinstance(leaf, Tensor) and self.form != TENSOR else leaf for leaf in leaves])


def _static_places(compiled, arguments):
    found = set()
    for k in engine.static_places(compiled):
        if not -len(arguments) <= k < len(arguments):
            raise ValueError(f"compile: static_argnums names argument {k}, and the call has {len(arguments)} positional ones")
        found.add(k % len(arguments))
    return found


def _as_array(leaf):
    if isinstance(leaf, np.ndarray) and type(leaf) is not np.ndarray:
        raise TypeError(f"compile: an argument is a {type(leaf).__name__}; pass np.asarray(x), a plain array")
    leaf = np.asarray(leaf)
    if not (leaf.dtype.kind in "biu" or leaf.dtype.newbyteorder("=") in (np.float64, np.float32)):
        raise TypeError(f"compile: an argument of dtype {leaf.dtype}; use float64, float32, integers or bool, or make it a "
                        "static argument")
    return leaf


class _ById:
    """An object that is told apart by what it is, not by its value."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, _ById) and self.value is other.value

    def __hash__(self):
        return id(self.value)


def _by_value(value, static):
    """A key for what is taken by value: 1, 1.0 and True are three, and so are 0.0 and -0.0."""
    if isinstance(value, float):
        return (type(value), value.hex())
    if isinstance(value, (tuple, frozenset)):
        return (type(value), tuple(_by_value(item, static) for item in value))
    if isinstance(value, np.random.Generator):
        return _ById(value)
    try:
        hash(value)
    except TypeError:
        if static:
            raise TypeError(f"compile: a static argument is a {type(value).__name__}, which cannot be hashed; pass a tuple, or "
                            "make it no static argument") from None
        return _ById(value)
    if type(value).__hash__ is object.__hash__:
        return _ById(value)
    return (type(value), value)


def _asides(structure):
    """What nodes of a tree keep besides their leaves, by value: the numbers and strings among a Module's attributes."""
    if structure == () or structure[0] is None:
        return ()
    kind, extra, parts = structure
    own = ()
    value = getattr(extra, "value", None)
    if value is not None and hasattr(value, "__dict__"):
        own = tuple((name, type(v), v) for name, v in vars(value).items() if isinstance(v, (bool, int, float, str)))
    return (own, *[_asides(part) for part in parts])


def constant_result(leaf, call):
    """A result that is no Tensor: (what it is, whether each call gets a copy)."""
    return (leaf.copy(), True) if isinstance(leaf, np.ndarray) else (leaf, False)


# -------------------------------------------------------------------------------------------------- what it rests on, and chance


def ground_of(call):
    """What a call of a function reads besides its arguments."""
    walk = Walk([call.function, *[value for _, value in call.constants], *call.static.values()])
    if walk.cut:
        warnings.warn(
            f"fg.compile: {getattr(call.function, '__name__', 'the function')} reaches more than {MOST_BINDINGS} names, attributes and "
            "entries from outside, and changes of those farthest away will not be noticed; pass what it needs as arguments",
            RuntimeWarning, stacklevel=2)
    return engine.Ground(walk, contents)


def check_random_states(compiled, generators, before, given):
    """TypeError where random numbers were drawn that the next replay would not draw."""
    now = random_states(generators)
    drawn = now[1:] != before[1:] or any(
        a != b for a, b, generator in zip(now[0], before[0], generators) if not any(generator is g for g in given))
    if drawn:
        raise TypeError(
            f"compile: {compiled.__name__} draws random numbers, and the ones drawn while recording would be replayed for "
            "ever; give it the numpy.random.Generator as an argument, then each call draws anew")


class RecordingGenerator:
    """Stands for a Generator while a function is recorded: its draws are recorded as calls, so that each replay draws."""

    def __init__(self, generator):
        self._generator = generator

    def __getattr__(self, name):
        method = getattr(self._generator, name)
        if not callable(method):
            return method
        if name in ("shuffle", "spawn"):
            raise TypeError(f"compile: generator.{name} changes its argument or makes generators; call it outside")

        def draw(*arguments, **keywords):
            return engine.call_host(method, arguments, keywords, False)

        return draw


# --------------------------------------------------------------------------------------------------------------- warnings


def warn(compiled, what, stacklevel=2):
    """A RuntimeWarning about a compiled function, at the line that called it."""
    warnings.warn(f"fg.compile: {compiled.__name__} {what}", RuntimeWarning, stacklevel=stacklevel)


def warn_eager(compiled, differentiable, escaped, holds):
    if differentiable:
        reason = ("what it returns or changes is still being differentiated; compile the function that takes the gradient "
                  "(fg.grad, fg.value_and_grad, or one that calls backward()), or call it under fg.no_grad()")
    elif not holds:
        reason = ("it changes what it reads from outside (numbers, attributes, containers or arrays) at each call; keep "
                  "such state in Tensors that it changes in place, or pass it in and return it")
    elif escaped > 0:
        reason = f"{escaped} Tensors that it makes are kept somewhere each time; return them instead"
    else:
        reason = "an argument is also a Tensor that it reads from outside, and it changes one of them"
    warn(compiled, f"runs uncompiled: {reason}", stacklevel=3)
