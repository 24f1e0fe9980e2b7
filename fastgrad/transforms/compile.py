"""fg.compile: the Python side of recordings, what tells them apart and when they hold.

The engine's Compiled object does the calls that look like the last one by itself; everything else comes here.
"""

import warnings
from types import FunctionType

import numpy as np

from fastgrad._core import engine
from fastgrad._core.engine import Tensor
from fastgrad.transforms.programs import Binding, has_parameter
from fastgrad.tree import tree_flatten, tree_unflatten

__all__ = ["compile"]

ARRAY, NUMBER, TENSOR = 0, 1, 2
MOST_BINDINGS = 64
flatten = tree_flatten


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
    their new values after it, ``.grad`` included.  Arrays that the function closes over are read at each call where they
    lie; numbers, strings and arrays that it reads as global or enclosing names are compared at each call, and another
    value means another recording.  What NumPy computes of plain arrays inside, attributes of other objects and Python's
    side effects are frozen or happen once.  A ``numpy.random.Generator`` among the arguments draws anew at each call.

    A function whose result is still being differentiated, or that stores Tensors it makes, runs as it is.

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
    import sys

    return engine.Compiled(fun, tuple(int(k) for k in static), sys.modules[__name__])


class Signature:
    """A call's arguments, flat: what is replayed, what is taken by value, and the key of both."""

    def __init__(self, compiled, arguments, keywords):
        function = compiled.__wrapped__
        static = _static_places(compiled, arguments)
        leaves, self.structure = tree_flatten((tuple(a for k, a in enumerate(arguments) if k not in static), keywords))
        self.function = function
        self.static = {k: arguments[k] for k in static}
        self.leaves, self.forms, self.places, self.constants = [], [], [], []
        key, first = [], {}
        any_tensor = any_array = False
        self.differentiated = False
        recording = engine.recording_now()
        for place, leaf in enumerate(leaves):
            kind = type(leaf)
            if kind is Tensor:
                any_tensor = True
                if engine.is_tracked(leaf) and not leaf.is_leaf and recording:
                    self.differentiated = True
                alias = first.setdefault(id(leaf), len(self.leaves))
                key.append((TENSOR, leaf.dtype, leaf.shape, leaf.requires_grad, leaf.grad is None, alias))
                form = TENSOR
            elif isinstance(leaf, np.ndarray) or (isinstance(leaf, np.generic) and not isinstance(leaf, (np.float64, np.str_))):
                leaf = np.asarray(leaf)
                if not _supported(leaf.dtype):
                    raise TypeError(f"compile: an argument of dtype {leaf.dtype}; use float64, float32, integers or bool, or "
                                    "make it a static argument")
                any_array = True
                key.append((ARRAY, leaf.dtype, leaf.shape))
                form = ARRAY
            elif isinstance(leaf, float):
                any_array = True
                key.append((NUMBER, kind is float))
                form = NUMBER
            else:
                key.append(("static", kind, _hashable(leaf)))
                self.constants.append((place, leaf))
                continue
            self.leaves.append(leaf)
            self.forms.append(form)
            self.places.append(place)
        self.form = TENSOR if any_tensor or not any_array else ARRAY
        # plain: every argument is a leaf to be replayed, so that the next call can skip all this
        self.plain = not keywords and not static and len(self.leaves) == len(arguments) and self.structure == tree_flatten(
            (tuple(0.0 for _ in arguments), {}))[1] and all(k != NUMBER or type(leaf) is float for k, leaf in zip(self.forms, self.leaves)) \
            and len(first) == sum(f == TENSOR for f in self.forms) and not any(
                isinstance(leaf, Tensor) and (leaf.requires_grad or leaf.grad is not None) for leaf in self.leaves)
        self.key = (self.structure, tuple(key), tuple(sorted((k, type(v), _hashable(v)) for k, v in self.static.items())))

    def wrappers(self):
        """Tensors that stand for the leaves while the function is recorded."""
        return [engine.make_wrapper(leaf, type(leaf) is float) for leaf in self.leaves]

    def run(self, wrappers):
        """The function on stand-ins."""
        leaves = [None] * (len(self.places) + len(self.constants))
        for place, t in zip(self.places, wrappers):
            leaves[place] = t
        for place, value in self.constants:
            leaves[place] = recording_generator(value) if isinstance(value, np.random.Generator) else value
        positional, keywords = tree_unflatten(self.structure, leaves)
        arguments, rest = [], iter(positional)
        for k in range(len(positional) + len(self.static)):
            arguments.append(self.static[k] if k in self.static else next(rest))
        return self.function(*arguments, **keywords)

    def give_back(self, wrappers, writes, cleared):
        """After a recording: the caller's Tensors take what their stand-ins became."""
        for target in writes:
            if isinstance(target, int):
                engine.give_back_value(self.leaves[target], wrappers[target])
            elif isinstance(target, tuple) and isinstance(target[0], int):
                engine.give_back_gradient(self.leaves[target[0]], wrappers[target[0]].grad)
        for target in cleared:
            if isinstance(target, int):
                engine.give_back_gradient(self.leaves[target], None)

    def refuses(self, slots, writes):
        """Whether a Tensor is both an argument and from outside, and one of the two changes."""
        given = {id(leaf) for leaf in self.leaves if isinstance(leaf, Tensor)}
        if not writes or not any(id(slot) in given for slot in slots):
            return False
        return True

    def lowered(self, leaves, structure):
        """What the function itself returned, as the caller's kind."""
        done = []
        for leaf in leaves:
            if isinstance(leaf, Tensor) and not (self.form == TENSOR):
                leaf = engine.lower_to(leaf, 0.0)
            done.append(leaf)
        return tree_unflatten(structure, done)


def _static_places(compiled, arguments):
    places = engine.static_places(compiled)
    found = set()
    for k in places:
        if not -len(arguments) <= k < len(arguments):
            raise ValueError(f"compile: static_argnums names argument {k}, and the call has {len(arguments)} positional ones")
        found.add(k % len(arguments))
    return found


def _supported(dtype):
    return dtype.kind in "biu" or dtype in (np.float64, np.float32)


class _ById:
    """An object that is told apart by what it is, not by its value."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, _ById) and self.value is other.value

    def __hash__(self):
        return id(self.value)

    def __lt__(self, other):
        return id(self.value) < id(other.value)


def _hashable(value):
    if isinstance(value, np.random.Generator):
        return _ById(value)
    try:
        hash(value)
    except TypeError:
        return _ById(value)
    return value


# ------------------------------------------------------------------------------------------------ what a function closes over


def bindings_of(function):
    """The names that a function, and functions it closes over, read: [(cell or globals, name or None, value)].

    Only numbers, strings, arrays and Tensors: what would be frozen, and can be compared at each call.
    """
    found, seen, queue = [], set(), [function]
    while queue and len(found) < MOST_BINDINGS:
        f = queue.pop()
        f = getattr(f, "__func__", f)
        if id(f) in seen:
            continue
        seen.add(id(f))
        inner = getattr(f, "__wrapped__", None)
        if inner is not None:
            queue.append(inner)
        if not isinstance(f, FunctionType):
            continue
        for cell in f.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:
                continue
            _bind(found, queue, cell, None, value)
        for name in f.__code__.co_names:
            if name in f.__globals__:
                _bind(found, queue, f.__globals__, name, f.__globals__[name])
    return found


def _bind(found, queue, where, name, value):
    if isinstance(value, (bool, int, float, str, np.ndarray, np.generic, Tensor)):
        found.append((where, name, value))
    elif isinstance(value, FunctionType) and not value.__module__.startswith(("fastgrad", "numpy")):
        queue.append(value)
    elif isinstance(value, engine.ValueAndGrad):
        queue.append(value)


# ------------------------------------------------------------------------------------------------------------- randomness


def random_state(compiled):
    """The states of the generators that a function could draw from without being given them."""
    states = []
    for generator in _generators(compiled.__wrapped__):
        states.append((generator, repr(generator.bit_generator.state)))
    legacy = np.random.get_state(legacy=False)["state"]
    return states, (int(legacy["pos"]), hash(legacy["key"].tobytes()))


def check_random_state(compiled, before):
    """TypeError where random numbers were drawn that the next replay would not draw."""
    states, legacy = before
    now = np.random.get_state(legacy=False)["state"]
    drawn = (int(now["pos"]), hash(now["key"].tobytes())) != legacy
    drawn = drawn or any(repr(generator.bit_generator.state) != state for generator, state in states)
    if drawn:
        raise TypeError(
            f"compile: {compiled.__name__} draws random numbers, and the ones drawn while recording would be replayed for "
            "ever; give it the numpy.random.Generator as an argument, then each call draws anew")


def _generators(function):
    found = []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            value = cell.cell_contents
        except ValueError:
            continue
        if isinstance(value, np.random.Generator):
            found.append(value)
    code = getattr(function, "__code__", None)
    for name in code.co_names if code else ():
        value = getattr(function, "__globals__", {}).get(name)
        if isinstance(value, np.random.Generator):
            found.append(value)
    return found


def recording_generator(generator):
    """A stand-in for a Generator: its methods are recorded as calls, so that each replay draws."""
    return _RecordingGenerator(generator)


class _RecordingGenerator:
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


def warn_recording(compiled, times):
    warnings.warn(
        f"fg.compile: {compiled.__name__} has been recorded {times} times for one signature: it branches on values that keep "
        "changing. Use fg.numpy.where for data, or leave it uncompiled", RuntimeWarning, stacklevel=4)


def warn_eager(compiled, differentiable, escaped):
    if differentiable:
        reason = ("what it returns or changes is still being differentiated; compile the function that takes the gradient "
                  "(fg.grad, fg.value_and_grad, or one that calls backward()), or call it under fg.no_grad()")
    else:
        reason = f"{escaped} Tensors that it makes are kept somewhere each time; return them instead"
    warnings.warn(f"fg.compile: {compiled.__name__} runs uncompiled: {reason}", RuntimeWarning, stacklevel=4)
