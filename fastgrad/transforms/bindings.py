"""What a function reads besides its arguments, found by walking from it: the ground on which a recording stands.

Cells, globals, defaults, attributes of the objects it holds and entries of its containers are noted with what they hold.
A recording is good as long as each holds the same object, or an equal number or string; arrays that are not read by
reference are compared by their bytes.  Knows nothing about how recordings are made.
"""

import functools
import random
import sys
import types

import numpy as np

from fastgrad._core import engine
from fastgrad._core.engine import Tensor

MOST_BINDINGS = 2000
DEPTH = 6
COMPARED_WHOLE = 1 << 20  # bytes of an array above which only samples are compared
SAMPLES = 4096
_LEAVES = (bool, int, float, complex, str, bytes, type(None), type, types.ModuleType, types.BuiltinFunctionType, np.ufunc,
           np.dtype, np.generic, slice, range, Tensor)
_CONSTANTS = (bool, int, float, complex, str, np.generic)
_OWN = ("fastgrad", "numpy")


class Walk:
    """Everything reachable from a function and its constant arguments, to some depth.

    Attributes
    ----------
    dicts, lists, cells, attributes : lists of (container, key, value)
        A key of -1 of a list stands for its length; attributes are those of classes.
    arrays : list of ndarray
    generators : list of numpy.random.Generator
    tensors : dict of id -> Tensor
    """

    def __init__(self, roots):
        self.dicts, self.lists, self.cells, self.attributes = [], [], [], []
        self.arrays, self.generators, self.tensors = [], [], {}
        self.seen = set()
        queue = [(root, 0) for root in roots]
        while queue and len(self.dicts) + len(self.lists) + len(self.cells) < MOST_BINDINGS:
            value, depth = queue.pop(0)
            for found in self.look(value):
                if depth < DEPTH:
                    queue.append((found, depth + 1))

    def look(self, value):
        """Notes what an object holds; yields what to look at next."""
        if isinstance(value, Tensor):
            self.tensors[id(value)] = value
            return
        if isinstance(value, _LEAVES) or id(value) in self.seen:
            return
        self.seen.add(id(value))
        if isinstance(value, np.ndarray):
            self.arrays.append(value)
        elif isinstance(value, np.random.Generator):
            self.generators.append(value)
        elif isinstance(value, types.FunctionType):
            yield from self.function(value)
        elif isinstance(value, types.MethodType):
            yield value.__func__
            yield value.__self__
        elif isinstance(value, functools.partial):
            yield value.func
            yield value.args
            yield value.keywords
        elif isinstance(value, (engine.Compiled, engine.ValueAndGrad)):
            yield value.__wrapped__
        elif isinstance(value, (list, tuple)):
            if isinstance(value, list):
                self.lists.append((value, -1, len(value)))
            for k, item in enumerate(value):
                if isinstance(value, list):
                    self.lists.append((value, k, item))
                yield item
        elif isinstance(value, dict):
            self.lists.append((value, -1, len(value)))
            for key, item in value.items():
                self.dicts.append((value, key, item))
                yield item
        else:
            yield from self.object(value)

    def function(self, f):
        if getattr(f, "__wrapped__", None) is not None:
            yield f.__wrapped__
        for cell in f.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:
                continue
            self.cells.append((cell, None, value))
            yield value
        if _is_ours(f.__module__):
            return
        yield f.__defaults__
        yield f.__kwdefaults__
        for name in _names_of(f.__code__):
            if name in f.__globals__:
                value = f.__globals__[name]
                if isinstance(value, types.ModuleType):
                    yield from self.module(value, f.__code__)
                else:
                    self.dicts.append((f.__globals__, name, value))
                    yield value

    def module(self, module, code):
        """What a function may read of a module of its author's."""
        if module.__name__.split(".")[0] in (*_OWN, "math", "scipy") or module.__name__ in sys.builtin_module_names \
                or module.__name__ in sys.stdlib_module_names:
            return
        for name in _names_of(code):
            if name in vars(module):
                self.dicts.append((vars(module), name, vars(module)[name]))
                yield vars(module)[name]

    def object(self, value):
        """Attributes of an object, and what its class calls."""
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            self.lists.append((attributes, -1, len(attributes)))
            for name, item in attributes.items():
                self.dicts.append((attributes, name, item))
                yield item
        kind = type(value)
        for base in kind.__mro__:
            if base.__module__ == "builtins":
                continue
            for name, item in list(vars(base).items()):
                if isinstance(item, types.FunctionType):
                    if not _is_ours(item.__module__):
                        yield item
                elif isinstance(item, (*_CONSTANTS, np.ndarray, Tensor, list, dict, tuple)) and not name.startswith("__"):
                    self.attributes.append((base, name, item))
                    yield item


def _is_ours(module):
    return module is not None and module.split(".")[0] in _OWN


def _names_of(code):
    """Names that a function and the functions inside it read as globals."""
    names, queue = [], [code]
    while queue:
        code = queue.pop()
        names += code.co_names
        queue += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return dict.fromkeys(names)


def sample(array):
    """The bytes of an array, or of some of its elements where it is large."""
    if array.nbytes > COMPARED_WHOLE:
        array = array.reshape(-1)[:: max(1, array.size // SAMPLES)] if array.flags.c_contiguous else array.ravel()[:SAMPLES]
    return array.tobytes()


def random_states(generators):
    """The states of generators and of the global ones, to be compared."""
    legacy = np.random.get_state(legacy=False)["state"]
    return ([repr(generator.bit_generator.state) for generator in generators], int(legacy["pos"]),
            hash(legacy["key"].tobytes()), hash(random.getstate()))
