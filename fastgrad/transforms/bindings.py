"""What a function reads besides its arguments, found by walking from it: the ground on which a recording stands.

Cells, globals, defaults, attributes of the objects and classes it holds and entries of its containers are noted with what
they hold.  A recording is good as long as each holds the same object, or an equal number or string; arrays are compared by
their bytes.  Knows nothing about how recordings are made.
"""

import collections
import functools
import gc
import random
import sys
import types

import numpy as np

from fastgrad._core import engine
from fastgrad._core.engine import Tensor

MOST_BINDINGS = 2000
DEPTH = 16
KEPT_WHOLE = 1 << 20     # bytes of an array above which a digest of it is kept in place of a copy
_LEAVES = (bool, int, float, complex, str, bytes, type(None), types.ModuleType, types.BuiltinFunctionType, np.ufunc,
           np.dtype, np.generic, slice, range, Tensor)
_CONSTANTS = (bool, int, float, complex, str, np.generic)
_OWN = ("fastgrad", "numpy")


class Walk:
    """Everything reachable from a function and its constant arguments, to some depth.

    Attributes
    ----------
    dicts, lists, cells, attributes : lists of (container, key, value)
        A key of -1 of a list stands for its length; attributes are slots.
    arrays : list of ndarray
    generators : list of numpy.random.Generator
    tensors : dict of id -> Tensor
    cut : bool
        Whether there was more than MOST_BINDINGS or DEPTH allow.
    """

    def __init__(self, roots):
        self.dicts, self.lists, self.cells, self.attributes = [], [], [], []
        self.arrays, self.generators, self.tensors = [], [], {}
        self.seen, self.classes_seen = set(), set()
        self.cut = False
        queue = collections.deque((root, 0) for root in roots)
        while queue:
            value, depth = queue.popleft()
            if depth > DEPTH or len(self.dicts) + len(self.lists) + len(self.cells) >= MOST_BINDINGS:
                self.cut = True
                return
            queue.extend((found, depth + 1) for found in self.look(value) if not isinstance(found, _LEAVES)
                         or isinstance(found, Tensor))

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
        elif isinstance(value, (list, tuple, collections.deque)):
            if not isinstance(value, tuple):
                self.lists.append((value, -1, len(value)))
            for k, item in enumerate(value):
                if not isinstance(value, tuple):
                    self.lists.append((value, k, item))
                yield item
        elif isinstance(value, dict):
            self.lists.append((value, -1, len(value)))
            for key, item in value.items():
                self.dicts.append((value, key, item))
                yield item
        elif isinstance(value, set):
            self.lists.append((value, -1, len(value)))
            within = _Looked(lambda key: key[0] in value)
            self.lists += [(within, (item,), True) for item in value]
        elif isinstance(value, (bytearray, memoryview)):
            self.lists.append((_Looked(lambda _: bytes(value).decode("latin1")), "bytes", bytes(value).decode("latin1")))
        elif isinstance(value, type):
            yield from self.classes(value)
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
        for name, item in vars(f).items():
            self.dicts.append((vars(f), name, item))
            yield item
        for name in _names_of(f.__code__):
            if name not in f.__globals__:
                if isinstance(sys.modules.get(name), types.ModuleType):     # imported inside
                    yield from self.module(sys.modules[name], f.__code__)
            else:
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
        """Attributes of an object, and of its class."""
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            self.lists.append((attributes, -1, len(attributes)))
            for name, item in attributes.items():
                self.dicts.append((attributes, name, item))
                yield item
        yield from self.classes(type(value), value)

    def classes(self, kind, instance=None):
        """What a class and its bases hold, methods included; of an instance its slots."""
        for base in kind.__mro__:
            if base.__module__ == "builtins":
                continue
            if instance is not None:
                yield from self.slots(base, instance)
            if base in self.classes_seen:
                continue
            self.classes_seen.add(base)
            ours = _is_ours(base.__module__) or base.__module__ in sys.stdlib_module_names
            attributes = gc.get_referents(vars(base))[0]    # the dict itself, not a proxy of it
            for name, item in list(attributes.items()):
                if isinstance(item, types.FunctionType):
                    wanted = not ours
                elif ours:
                    wanted = isinstance(item, (*_CONSTANTS, np.ndarray, Tensor, list, dict, tuple))
                else:
                    wanted = not isinstance(item, (types.MemberDescriptorType, types.GetSetDescriptorType))
                if not wanted or (name.startswith("__") and not isinstance(item, types.FunctionType)):
                    continue
                self.dicts.append((attributes, name, item))
                if isinstance(item, (staticmethod, classmethod)):
                    item = item.__func__
                elif isinstance(item, property):
                    item = item.fget
                elif isinstance(item, functools.cached_property):
                    item = item.func
                yield item

    def slots(self, base, instance):
        for name, item in vars(base).items():
            if "__slots__" in vars(base) and isinstance(item, types.MemberDescriptorType):
                value = getattr(instance, name, None)
                self.attributes.append((instance, name, value))
                yield value


class _Looked:
    """Something that is no list and no dict, looked at as if it were."""

    def __init__(self, look):
        self.look = look

    def __getitem__(self, key):
        return self.look(key)


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


def contents(array):
    """The bytes of an array, or what follows from all of them where it is large."""
    if array.nbytes <= KEPT_WHOLE or array.dtype.hasobject:
        return array.tobytes()
    return engine.digest(array.ravel("K").view(np.uint8))


def random_states(generators):
    """The states of generators and of the global ones, to be compared."""
    legacy = np.random.get_state(legacy=False)["state"]
    return ([repr(generator.bit_generator.state) for generator in generators], int(legacy["pos"]),
            hash(legacy["key"].tobytes()), hash(random.getstate()))
