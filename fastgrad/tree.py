"""Pytrees: nested containers whose leaves are arrays, Tensors and numbers.

Tuples, lists, dicts, NamedTuples, dataclasses, ``nn.Module``, None and the types that were registered are nodes; everything
else is a leaf.  Knows nothing about gradients.
"""

from dataclasses import fields, is_dataclass, replace

__all__ = ["tree_flatten", "tree_unflatten", "tree_leaves", "tree_map", "tree_prefix", "register_pytree_node",
           "register_pytree_node_class"]

_REGISTERED = {}        # type -> (flatten, unflatten)


def register_pytree_node(type, flatten, unflatten):
    """Makes the objects of a type nodes of pytrees.

    Parameters
    ----------
    type : type
        Itself, not its subclasses.
    flatten : callable
        ``flatten(object)`` returns (children, aux): a sequence of subtrees, and what else there is to the object.  aux is compared
        with ``==`` and, for fg.compile, hashed: objects of another aux are trees of another structure.
    unflatten : callable
        ``unflatten(aux, children)`` returns an object.  It must take children of any kind, such as Tensors for arrays.

    Raises
    ------
    ValueError
        If the type is a node already.

    Examples
    --------
    >>> import fastgrad as fg
    >>> class Pair:
    ...     def __init__(self, x, y):
    ...         self.x, self.y = x, y
    >>> fg.register_pytree_node(Pair, lambda p: ((p.x, p.y), None), lambda aux, children: Pair(*children))
    >>> float(fg.grad(lambda p: p.x * p.y)(Pair(2.0, 3.0)).x)
    3.0
    """
    if not isinstance(type, _type):
        raise TypeError(f"register_pytree_node: {type!r} is no type")
    if type in _REGISTERED or type in (dict, list, tuple, _type(None)) or hasattr(type, "_tree_flatten"):
        raise ValueError(f"register_pytree_node: {type.__name__} is a node of pytrees already")
    _REGISTERED[type] = flatten, unflatten


_type = type


def register_pytree_node_class(cls):
    """Makes the objects of a class nodes of pytrees, by two methods of theirs; a class decorator.

    Parameters
    ----------
    cls : type
        With a method ``tree_flatten(self)`` that returns (children, aux), and a classmethod ``tree_unflatten(aux, children)``; see
        ``register_pytree_node``.

    Returns
    -------
    type
        cls.

    Examples
    --------
    >>> import fastgrad as fg
    >>> @fg.register_pytree_node_class
    ... class Line:
    ...     def __init__(self, slope, start):
    ...         self.slope, self.start = slope, start
    ...     def tree_flatten(self):
    ...         return (self.slope, self.start), None
    ...     @classmethod
    ...     def tree_unflatten(cls, aux, children):
    ...         return cls(*children)
    >>> float(fg.grad(lambda line: line.slope * 2.0 + line.start)(Line(1.0, 5.0)).slope)
    2.0
    """
    for method in ("tree_flatten", "tree_unflatten"):
        if not callable(getattr(cls, method, None)):
            raise TypeError(f"register_pytree_node_class: {cls.__name__} has no method {method}")
    register_pytree_node(cls, lambda tree: tree.tree_flatten(), cls.tree_unflatten)
    return cls


def tree_flatten(tree, sort=True):
    """The leaves of a tree in order, and its structure.

    Parameters
    ----------
    tree : pytree
    sort : bool
        Whether entries of dicts come in the order of their keys, where these are strings, or as they were inserted.

    Returns
    -------
    leaves : list
    structure : object
        What ``tree_unflatten`` needs; equal for trees of the same shape.

    Examples
    --------
    >>> from fastgrad.tree import tree_flatten
    >>> tree_flatten({"b": 2.0, "a": (1.0, None)})[0]
    [1.0, 2.0]
    """
    leaves = []
    return leaves, _flatten(tree, leaves, sort)


def _flatten(tree, leaves, sort):
    kind = type(tree)
    if tree is None:
        return (None, None, ())
    if kind is dict:
        keys = sorted(tree) if sort and all(isinstance(k, str) for k in tree) else list(tree)
        return (dict, tuple(keys), tuple(_flatten(tree[k], leaves, sort) for k in keys))
    if kind in _REGISTERED:
        children, aux = _parts_of(tree)
        return (kind, _Aux(kind, aux), tuple(_flatten(child, leaves, sort) for child in children))
    if kind is list or kind is tuple or (isinstance(tree, tuple) and hasattr(kind, "_fields")):
        return (kind, len(tree), tuple(_flatten(child, leaves, sort) for child in tree))
    if hasattr(kind, "_tree_flatten"):
        children, aux = tree._tree_flatten()
        return (kind, _Opaque(aux), tuple(_flatten(child, leaves, sort) for child in children))
    if is_dataclass(tree) and not isinstance(tree, type):
        names = tuple(f.name for f in fields(tree))
        return (kind, _Opaque(tree), tuple(_flatten(getattr(tree, n), leaves, sort) for n in names))
    leaves.append(tree)
    return ()


def _parts_of(tree):
    """What the flatten of a registered type gives."""
    parts = _REGISTERED[type(tree)][0](tree)
    if not isinstance(parts, (tuple, list)) or len(parts) != 2 or not hasattr(parts[0], "__iter__"):
        raise TypeError(f"register_pytree_node: the flatten of {type(tree).__name__} returned no pair (children, aux)")
    return parts


class _Aux:
    """What a node of a registered type keeps besides its children, by value."""

    __slots__ = ("kind", "aux")

    def __init__(self, kind, aux):
        self.kind, self.aux = kind, aux

    def __eq__(self, other):
        return isinstance(other, _Aux) and (self.aux is other.aux or bool(self.aux == other.aux))

    def __hash__(self):
        try:
            return hash(self.aux)
        except TypeError:
            raise TypeError(f"fg.compile: the aux of a {self.kind.__name__} is a {type(self.aux).__name__}, which cannot be hashed; let "
                            "its flatten give a tuple, and arrays as children") from None


class _Opaque:
    """What a node keeps besides its children; equal for nodes of one type."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, _Opaque) and type(self.value) is type(other.value)

    def __hash__(self):
        return hash(type(self.value))


def count_leaves(structure):
    """How many leaves trees of a structure have."""
    return 1 if structure == () else sum(count_leaves(part) for part in structure[2])


def tree_unflatten(structure, leaves):
    """The tree of a structure with other leaves.

    Parameters
    ----------
    structure : object
        From ``tree_flatten``.
    leaves : iterable

    Returns
    -------
    pytree
    """
    return _unflatten(structure, iter(leaves))


def _unflatten(structure, leaves):
    if structure == ():
        return next(leaves)
    kind, extra, parts = structure
    if kind is None:
        return None
    children = [_unflatten(part, leaves) for part in parts]
    if kind in _REGISTERED:
        return _REGISTERED[kind][1](extra.aux, tuple(children))
    if kind is dict:
        return dict(zip(extra, children))
    if kind is list:
        return children
    if kind is tuple:
        return tuple(children)
    if hasattr(kind, "_fields"):
        return kind(*children)
    if hasattr(kind, "_tree_unflatten"):
        return kind._tree_unflatten(extra.value, children)
    return replace(extra.value, **{f.name: c for f, c in zip(fields(extra.value), children)})


def tree_leaves(tree):
    """The leaves of a tree in order.

    Parameters
    ----------
    tree : pytree

    Returns
    -------
    list

    Examples
    --------
    >>> import fastgrad as fg
    >>> fg.tree_leaves({"b": 2.0, "a": (1.0, None)})
    [1.0, 2.0]
    """
    return tree_flatten(tree)[0]


def tree_map(function, tree, *others):
    """The tree of ``function`` applied to the leaves of one or several trees of one structure.

    Parameters
    ----------
    function : callable
    tree, *others : pytree

    Returns
    -------
    pytree

    Raises
    ------
    ValueError
        If the structures differ.

    Examples
    --------
    >>> from fastgrad.tree import tree_map
    >>> tree_map(lambda x, y: x + y, {"a": 1.0}, {"a": 2.0})
    {'a': 3.0}
    """
    leaves, structure = tree_flatten(tree)
    columns = [leaves]
    for other in others:
        more, other_structure = tree_flatten(other)
        if other_structure != structure:
            raise ValueError(f"tree_map: trees of different structure: {tree!r} and {other!r}")
        columns.append(more)
    return tree_unflatten(structure, [function(*row) for row in zip(*columns)])


def tree_prefix(prefix, tree):
    """One entry a leaf, from a tree of entries that may end early: an entry in the place of a subtree counts for all of it.

    Parameters
    ----------
    prefix : int, None, or pytree of these
        As ``in_axes`` of ``fg.vmap``.
    tree : pytree

    Returns
    -------
    list

    Raises
    ------
    ValueError
        If the prefix has nodes where the tree has others.

    Examples
    --------
    >>> from fastgrad.tree import tree_prefix
    >>> tree_prefix({"a": 0, "b": None}, {"a": 1.0, "b": (2.0, 3.0)})
    [0, None, None]
    """
    if prefix is None or isinstance(prefix, int) or hasattr(prefix, "__index__"):
        return [prefix] * len(tree_flatten(tree)[0])
    kind, extra, parts = _flatten(tree, [], True) or (None, None, ())
    children = _children(prefix, kind, extra)
    if children is None or len(children) != len(parts):
        where = "a leaf" if kind is None else f"a {kind.__name__} of {len(parts)}"
        raise ValueError(f"{prefix!r} stands where the tree has {where}")
    return [entry for child, part in zip(children, _children(tree, kind, extra)) for entry in tree_prefix(child, part)]


def _children(tree, kind, keys):
    """The children of a node of a kind; None where it is no such node."""
    if kind is dict:
        return [tree[k] for k in keys] if type(tree) is dict and set(tree) == set(keys) else None
    if kind in (list, tuple):
        return list(tree) if type(tree) in (list, tuple) else None
    if kind is None or type(tree) is not kind:
        return None
    if kind in _REGISTERED:
        return list(_parts_of(tree)[0])
    if isinstance(tree, tuple):
        return list(tree)
    if hasattr(kind, "_tree_flatten"):
        return list(tree._tree_flatten()[0])
    return [getattr(tree, f.name) for f in fields(tree)]
