"""Where in the user's code a node was recorded, and what it is called: what the engine asks while a tape is watched."""

import linecache
import os
import sys
from typing import NamedTuple

from fastgrad._core import engine
from fastgrad.nn import Module
from fastgrad.tree import tree_flatten

__all__ = ["Place", "mark", "names"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_CALL = Module.__call__.__code__


class Place(NamedTuple):
    """A line of code.

    Attributes
    ----------
    file : str
    line : int
    function : str
        Whose line it is.
    modules : tuple of Module
        Those whose call it was part of, the outermost first.
    """

    file: str
    line: int
    function: str
    modules: tuple

    @property
    def text(self):
        """The line as it stands there; empty where the source is not at hand."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self):
        return f"{os.path.basename(self.file)}:{self.line}"


def here():
    """The line outside of fastgrad that is being run; None where there is none."""
    frame, found, modules = sys._getframe(1), None, []
    while frame is not None:
        if frame.f_code is _CALL:
            modules.append(frame.f_locals["self"])
        elif found is None and not frame.f_code.co_filename.startswith(_PACKAGE) \
                and not frame.f_globals.get("__name__", "").startswith("fastgrad."):       # rules that the table generates
            found = frame
        frame = frame.f_back
    if found is None:
        return None
    return Place(found.f_code.co_filename, found.f_lineno, found.f_code.co_name, tuple(reversed(modules)))


engine.install(place=here)


def mark(t, name):
    """Names a value, for ``fg.explain``, ``fg.draw`` and ``fg.check_derivation``.

    Parameters
    ----------
    t : Tensor or array_like
    name : str
        In a formula it must be an identifier, such as ``"z1"``.

    Returns
    -------
    Tensor or array_like
        t, to be used from here on. What is not being differentiated, or is being compiled, is returned as it is.

    Raises
    ------
    TypeError
        If the name is not a string.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import numpy as np
    >>> def f(x):
    ...     z = fg.mark(2.0 * x, "z")
    ...     return np.tanh(z)
    >>> bool(fg.check_derivation("2 * (1 - tanh(z)**2)", f, 0.3))
    True
    """
    if not isinstance(name, str):
        raise TypeError(f"fg.mark: a name is a string, not a {type(name).__name__}")
    return engine.mark(t, name) if isinstance(t, engine.Tensor) else t


class names:
    """Names values after the variables that hold them: ``with fg.names(): ...``.

    At the end of the block every Tensor that a variable was assigned in it, and that is being differentiated, is named
    after the variable.

    Parameters
    ----------
    prefix : str
        Put before each name.

    Examples
    --------
    >>> import fastgrad as fg
    >>> x = fg.tensor(2.0, requires_grad=True)
    >>> with fg.names():
    ...     a = x * x
    ...     b = a + 1.0
    >>> [step.name for step in fg.learn.Graph.of(b).steps if step.operands]
    ['a', 'b']
    """

    def __init__(self, prefix=""):
        if not isinstance(prefix, str):
            raise TypeError(f"fg.names: a prefix is a string, not a {type(prefix).__name__}; fg.mark(t, name) names one value")
        self._prefix = prefix

    def __enter__(self):
        self._before = dict(sys._getframe(1).f_locals)
        return self

    def __exit__(self, *exception):
        before, self._before = self._before, None
        for name, value in list(sys._getframe(1).f_locals.items()):
            if isinstance(value, engine.Tensor) and value is not before.get(name) and not value.is_leaf:
                engine.mark(value, self._prefix + name)
        return False


def paths_of(tree, name):
    """A name for each leaf of a tree: ``w``, ``w.bias``, ``w[0]``, ``w['a']``, in the order of ``tree_flatten``."""
    if isinstance(tree, Module):
        return [f"{name}.{path}" for path, _ in tree.named_parameters()]
    kind = type(tree)
    if kind is dict:
        keys = sorted(tree) if all(isinstance(k, str) for k in tree) else list(tree)
        parts = [(f"{name}[{key!r}]", tree[key]) for key in keys]
    elif isinstance(tree, tuple) and hasattr(kind, "_fields"):
        parts = [(f"{name}.{field}", getattr(tree, field)) for field in kind._fields]
    elif kind is list or kind is tuple:
        parts = [(f"{name}[{k}]", part) for k, part in enumerate(tree)]
    elif hasattr(kind, "__dataclass_fields__") and not isinstance(tree, type):
        parts = [(f"{name}.{field}", getattr(tree, field)) for field in kind.__dataclass_fields__]
    else:
        return [name] * len(tree_flatten(tree)[0])
    return [path for name, part in parts for path in paths_of(part, name)]
