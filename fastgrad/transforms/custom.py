"""Functions with derivatives of their own: custom_vjp, custom_jvp, stop_gradient and checkpoint.

Such a function computes its value off the tape and leaves one node there, whose vjp or jvp calls the user's rule on
Tensors.  A node has one value: several results lie in it end to end.  Under fg.vmap, whose trace would see through the
function, it is a host call whose rule for batches is the same function of batches.
"""

import functools
import inspect
import zlib
from keyword import iskeyword
from math import prod

import numpy as np

import fastgrad.numpy as fnp
from fastgrad._core import engine
from fastgrad._core.engine import Batched, Rule, Tensor
from fastgrad.transforms.batching import batched_call, spread
from fastgrad.transforms.vmap import output_tensor
from fastgrad.tree import count_leaves, tree_flatten, tree_map, tree_unflatten

__all__ = ["custom_vjp", "custom_jvp", "stop_gradient", "checkpoint", "remat"]


# ------------------------------------------------------------------------------------------------------------- arguments

class _Arguments:
    """A call's arguments: which leaves are Tensors, and the trees to be made of others in their place."""

    def __init__(self, trees, keeps):
        self.leaves, self.structure = tree_flatten(trees)
        self.places = [k for k, leaf in enumerate(self.leaves) if type(leaf) is Tensor]
        self.tensors = [self.leaves[k] for k in self.places]
        for k in self.places:
            self.leaves[k] = None
        if keeps:       # the caller may change his arrays before the sweep
            self.leaves = [leaf.copy() if isinstance(leaf, np.ndarray) else leaf for leaf in self.leaves]

    def trees(self, tensors):
        leaves = list(self.leaves)
        for k, t in zip(self.places, tensors):
            leaves[k] = t
        return tree_unflatten(self.structure, leaves)

    def tangents(self, tangents):
        """Trees like the arguments: a tangent for each Tensor, zeros for every other number."""
        leaves = [0.0 if leaf is None else np.zeros(np.shape(leaf)) for leaf in self.leaves]
        for k, t in zip(self.places, tangents):
            leaves[k] = t
        return tree_unflatten(self.structure, leaves)


def _name_of(function, kind):
    """What its node is called: its name, or the kind where that is none, as a lambda's."""
    name = getattr(function, "__name__", type(function).__name__)
    return name if name.isidentifier() and not iskeyword(name) else kind


def _flowing(t):
    return t.dtype.kind == "f"


def _results(who, tree):
    leaves, structure = tree_flatten(tree)
    return [output_tensor(who, leaf) for leaf in leaves], structure


def _zeros_like(t):
    return engine.zeros_for(t) if _flowing(t) else fnp.zeros(t.shape)


# ------------------------------------------------------------------------------------------------- several results as one

class _Layout:
    """How results lie in one value; a single one is that value."""

    def __init__(self, tensors):
        self.shapes, self.dtypes = [t.shape for t in tensors], [t.dtype for t in tensors]
        self.dtype = np.dtype(np.float32 if all(d == np.float32 for d in self.dtypes) else np.float64)

    def pack(self, tensors, lead=()):
        if len(tensors) == 1:
            return tensors[0]
        return fnp.concatenate([fnp.reshape(t, lead + (-1 if t.size else prod(t.shape[len(lead):]),)).astype(self.dtype)
                                for t in tensors], len(lead))

    def unpack(self, packed):
        if len(self.shapes) == 1:
            return [packed]
        found, start = [], 0
        for shape, dtype in zip(self.shapes, self.dtypes):
            part = fnp.reshape(packed[start : start + prod(shape)], shape)
            found.append(part if part.dtype == dtype else part.astype(dtype))
            start += prod(shape)
        return found


# ---------------------------------------------------------------------------------------------------------------- applying

def _apply(op, tensors):
    """The results of an operation with rules of its own, a list of Tensors.

    ``op.fun(tensors)`` gives the results; ``op.forward(tensors)`` them with a vjp, of (cotangents, operands), and a jvp,
    of (tangents, operands); ``op.batched(leads, size)`` is the same operation of batches.
    """
    if engine.recording_now() and any(engine.is_tracked(t) for t in tensors):
        return _recorded(op, tensors)
    if engine.tracing_example() and any(engine.is_recorded(t) for t in tensors):
        return _traced(op, tensors)
    return op.fun(tensors)


def _recorded(op, tensors):
    """With a node on the tape."""
    results, vjp, jvp = op.forward([engine.off_tape(t) for t in tensors])
    for t in results:
        if engine.is_tracked(t):
            raise TypeError(f"{op.name}: the function reads a Tensor from outside that is being differentiated, and its rule says "
                            "nothing about that; pass the Tensor as an argument, or use fg.stop_gradient(t)")
    results = [engine.off_tape(t) for t in results]
    floats = [k for k, t in enumerate(results) if _flowing(t)]
    if not floats:
        return results
    layout = _Layout([results[k] for k in floats])
    like = [(t.shape, t.dtype) for t in results]

    def filled(values):
        """For every result one of these, or zeros."""
        values = dict(zip(floats, values))
        return [values[k] if k in values else fnp.zeros(shape) for k, (shape, _) in enumerate(like)]

    def rule_vjp(g, out, *operands):
        found = vjp(filled(layout.unpack(g)), operands)
        return tuple(c if c is not None and _flowing(t) else None for c, t in zip(found, operands))

    def rule_jvp(tangents, out, *operands):
        found = jvp([_zeros_like(t) if d is None else d for d, t in zip(tangents, operands)], operands)
        return layout.pack([found[k] for k in floats])

    rule = Rule(op.name, None, rule_vjp, rule_jvp, saves="operands")
    packed = layout.pack([results[k] for k in floats])
    packed = engine.record(rule, tensors, packed)
    for k, t in zip(floats, layout.unpack(packed)):
        results[k] = t
    return results


def _traced(op, tensors):
    """As a host call of the trace of an example: a rule that is whole by itself, and does batches."""
    seen = []

    def value(*arrays):
        results = op.fun([engine.as_operand(np.asarray(a)) for a in arrays])
        if any(engine.is_tracked(t) for t in results):
            raise TypeError(f"{op.name}: the function reads a Tensor from outside that is being differentiated; pass it as an "
                            "argument, or use fg.stop_gradient(t)")
        seen[:] = [_Layout(results)]
        if len(results) > 1 and any(t.dtype.kind in "iu" and t.size and np.abs(t.numpy()).max() > 2**53 for t in results):
            raise TypeError(f"{op.name}: an integer above 2**53 among several results under fg.vmap; return it alone")
        return np.array(seen[0].pack(results).numpy())

    def vjp(g, out, *operands):
        results, pull, _ = op.forward(operands)
        cotangents = [c if _flowing(t) else fnp.zeros(t.shape) for c, t in zip(seen[0].unpack(g), results)]
        found = pull(cotangents, operands)
        return tuple(c if c is not None and _flowing(t) else None for c, t in zip(found, operands))

    def jvp(tangents, out, *operands):
        results, _, push = op.forward(operands)
        return seen[0].pack(push([_zeros_like(t) if d is None else d for d, t in zip(tangents, operands)], operands))

    def batch(size, *operands):
        leads = [isinstance(t, Batched) for t in operands]
        batched = op.batched(leads, size)
        results = _apply(batched, [t.tensor if lead else t for t, lead in zip(operands, leads)])
        return seen[0].pack(results, (size,))

    packed = Rule(op.name, value, vjp, jvp, saves="operands", batch=batch)(*tensors)
    return seen[0].unpack(packed)


class _Batches:
    """What the operations of batches share: a function of examples done on a batch of some of its arguments."""

    def __init__(self, op, leads, size):
        self.op, self.name, self.leads, self.size = op, op.name, list(map(bool, leads)), size

    def on_batch(self, function, tensors, leads):
        """A function of a list of Tensors, and which of its results have a batch axis."""
        if not any(leads):
            results = function(tensors)
            return results, [0] * len(results)

        def one(*examples):
            rest = iter(examples)
            return function([next(rest) if lead else t for t, lead in zip(tensors, leads)])

        return batched_call(one, [t for t, lead in zip(tensors, leads) if lead], self.size)

    def all_spread(self, results, leads):
        return [fnp.copy(t) if lead == 0 else t for lead, t in
                zip(leads, (spread(t, lead, self.size) for t, lead in zip(results, leads)))]

    def fun(self, tensors):
        return self.all_spread(*self.on_batch(self.op.fun, tensors, self.leads))

    def gathered(self, cotangents, leads):
        """Cotangents of the operands, from those of each example."""
        found = []
        for c, lead, operand_lead in zip(cotangents, leads, self.leads):
            if c is None:
                found.append(None)
            elif operand_lead:
                found.append(spread(c, lead, self.size))
            else:
                found.append(fnp.sum(c, 0) if lead else c * float(self.size))
        return found


def _present(values):
    """The Tensors among values that may be None, and how to put them back."""
    there = [v is not None for v in values]
    return [v for v in values if v is not None], there


def _put_back(values, there):
    rest = iter(values)
    return [next(rest) if is_there else None for is_there in there]


# ----------------------------------------------------------------------------------------------------------- user's functions

class _Custom:
    """What custom_vjp and custom_jvp share: the function, which arguments are differentiated, a call's arguments."""

    def __init__(self, fun, nondiff_argnums=()):
        if not callable(fun):
            raise TypeError(f"{self._kind}: {type(fun).__name__} is not callable")
        self.fun = fun
        self.nondiff_argnums = (nondiff_argnums,) if isinstance(nondiff_argnums, int) else tuple(nondiff_argnums)
        functools.update_wrapper(self, fun)
        self.__name__ = getattr(fun, "__name__", "f")

    def __get__(self, instance, owner):
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self):
        return f"<{self._kind} {self.__name__}>"

    def _positional(self, arguments, keywords):
        """The arguments by position, keywords and defaults among them."""
        try:
            bound = inspect.signature(self.fun).bind(*arguments, **keywords)
        except ValueError:
            if keywords:
                raise TypeError(f"{self._kind}: {self.__name__} has no signature to place keywords by; pass them by position") from None
            return list(arguments)
        bound.apply_defaults()
        if bound.kwargs:
            raise TypeError(f"{self._kind}: {self.__name__} takes {', '.join(bound.kwargs)} by keyword only, and rules get arguments "
                            "by position; make them positional")
        return list(bound.args)

    def __call__(self, *arguments, **keywords):
        self._check_defined()
        arguments = self._positional(arguments, keywords)
        for k in self.nondiff_argnums:
            if not -len(arguments) <= k < len(arguments):
                raise ValueError(f"{self._kind}: nondiff_argnums names argument {k}, and {self.__name__} got {len(arguments)}")
        apart = sorted(k % len(arguments) for k in self.nondiff_argnums)
        recording = engine.recording_now()
        given = _Arguments(tuple(a for k, a in enumerate(arguments) if k not in apart), recording)
        op = self._operation(given, {k: arguments[k] for k in apart})
        if any(engine.is_tracked(t) for k in apart for t in tree_flatten(arguments[k])[0] if type(t) is Tensor) and recording:
            raise TypeError(f"{self._kind}: argument {apart} of {self.__name__} holds a Tensor that is being differentiated, and "
                            "nondiff_argnums says that it is not; leave it out of nondiff_argnums, or use fg.stop_gradient")
        if not (recording and any(engine.is_tracked(t) for t in given.tensors)
                or engine.tracing_example() and any(engine.is_recorded(t) for t in given.tensors)):
            return self.fun(*arguments)
        results = _apply(op, given.tensors)
        return tree_unflatten(op.structure, results)


class _Operation:
    """One call of a user's function: an operation on the Tensors among its arguments."""

    def __init__(self, custom, given, apart):
        self.custom, self.given, self.apart = custom, given, apart
        self.name = _name_of(custom, custom._kind)
        self.structure = None

    def arguments(self, tensors):
        """All arguments by position."""
        rest = iter(self.given.trees(tensors))
        n = len(self.apart) + len(self.given.structure[2])
        return [self.apart[k] if k in self.apart else next(rest) for k in range(n)]

    def checked(self, tree, what):
        """Leaves of a result; their structure must not change."""
        tensors, structure = _results(self.custom._kind, tree)
        if self.structure is not None and structure != self.structure:
            raise TypeError(f"{self.custom._kind}: {what} of {self.name} returned a tree of another structure than "
                            f"{self.name} itself")
        self.structure = structure
        return tensors

    def fun(self, tensors):
        return self.checked(self.custom.fun(*self.arguments(tensors)), "a second call")


# -------------------------------------------------------------------------------------------------------------- custom_vjp

class custom_vjp(_Custom):
    """A function whose gradient is given by a rule: two functions, forward and backward.

    Parameters
    ----------
    fun : callable
        Of pytrees; returns a pytree.
    nondiff_argnums : int or tuple of int
        Positional arguments that are no numbers (functions, sizes); the backward function gets them first.

    Attributes
    ----------
    fun, nondiff_argnums
        As given.

    Notes
    -----
    Reverse mode only: fg.jvp of such a function raises TypeError.  Where the gradient is differentiated again, by whatever
    transform, that goes through the operations of ``fwd`` and ``bwd``; ``fwd`` runs again for it.  Under fg.vmap the rule
    is applied to each example.

    The function and its rule read what is differentiated from their arguments alone: a Tensor from outside that is being
    differentiated is a TypeError.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import numpy as np
    >>> @fg.custom_vjp
    ... def clipped(x):
    ...     return x * 1.0
    >>> def forward(x):
    ...     return clipped(x), None
    >>> def backward(residuals, g):
    ...     return (np.clip(g, -1.0, 1.0),)
    >>> clipped.defvjp(forward, backward)
    >>> fg.grad(lambda x: np.sum(clipped(x) * np.array([0.5, 7.0])))(np.zeros(2))
    array([0.5, 1. ])
    """

    _kind = "custom_vjp"
    _rules = None

    def defvjp(self, fwd, bwd):
        """Sets the rule.

        Parameters
        ----------
        fwd : callable
            With fun's arguments; returns (result, residuals), residuals being any pytree.
        bwd : callable
            ``bwd(*nondiff, residuals, g)`` with g like the result; returns a tuple with a cotangent for each differentiated
            argument, None for zero.
        """
        self._rules = fwd, bwd

    def _check_defined(self):
        if self._rules is None:
            raise AttributeError(f"custom_vjp: no rule for {self.__name__}; give it one with {self.__name__}.defvjp(fwd, bwd)")

    def _operation(self, given, apart):
        return _VjpOperation(self, given, apart)


class _VjpOperation(_Operation):

    def fwd(self, tensors):
        """Results and residuals."""
        answer = self.custom._rules[0](*self.arguments(tensors))
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise TypeError(f"custom_vjp: the fwd of {self.name} returned no pair (result, residuals)")
        return self.checked(answer[0], "the fwd"), _Arguments(answer[1], False)

    def bwd(self, form, residuals, cotangents, operands):
        """For each Tensor among the arguments its cotangent, or None."""
        g = tree_unflatten(self.structure, cotangents)
        answer = self.custom._rules[1](*[self.apart[k] for k in sorted(self.apart)], form.trees(residuals), g)
        parts = self.given.structure[2]
        if not isinstance(answer, (tuple, list)) or len(answer) != len(parts):
            got = f"{len(answer)} of them" if isinstance(answer, (tuple, list)) else type(answer).__name__
            raise TypeError(f"custom_vjp: the bwd of {self.name} must return a tuple with a cotangent for each of "
                            f"{len(parts)} arguments (None for zero), not {got}")
        leaves = []
        for k, (part, c) in enumerate(zip(parts, answer)):
            leaves += self.leaves_of(part, c, k)
        found = []
        for place, t in zip(self.given.places, operands):
            c = leaves[place]
            if c is not None and _flowing(t):
                c = output_tensor("custom_vjp", c)
                if c.shape != t.shape:
                    raise ValueError(f"custom_vjp: the bwd of {self.name} gave a cotangent of shape {c.shape} for an argument of "
                                     f"shape {t.shape}")
                c = c if c.dtype == t.dtype else c.astype(t.dtype)
            found.append(c if _flowing(t) else None)
        return found

    def leaves_of(self, structure, tree, k):
        """The leaves of a tree in which None stands for zeros of whatever is in its place."""
        if tree is None:
            return [None] * count_leaves(structure)
        if structure == ():
            leaves, given = tree_flatten(tree)
            if given == ():
                return [tree]
        else:
            leaves, given = tree_flatten(tree)
            if given == structure:
                return leaves
            children = list(tree.values()) if isinstance(tree, dict) else list(tree) if isinstance(tree, (tuple, list)) else []
            if isinstance(tree, dict) and structure[0] is dict and set(tree) == set(structure[1]):
                children = [tree[key] for key in structure[1]]
            if type(tree) is structure[0] and len(children) == len(structure[2]):
                return [leaf for part, c in zip(structure[2], children) for leaf in self.leaves_of(part, c, k)]
        raise TypeError(f"custom_vjp: the bwd of {self.name} gave a cotangent of another structure than argument {k} that is "
                        f"differentiated: {type(tree).__name__}")

    def forward(self, tensors):
        results, residuals = self.fwd(tensors)
        form, saved = residuals, residuals.tensors
        if any(engine.is_tracked(t) for t in saved) and not any(engine.is_tracked(t) for t in tensors):
            raise TypeError(f"{self.name}: its fwd reads a Tensor from outside that is being differentiated; pass it as an argument")
        form.tensors = None
        return (results, *_vjp_and_jvp(self, form, saved, engine.transform_depth()))

    def batched(self, leads, size):
        return _VjpOfBatch(self, leads, size)


def _vjp_and_jvp(op, form, saved, depth):
    """The rules of a node of a custom_vjp: from residuals that are there, or, where they are differentiated, made again."""

    def again(operands):
        results, residuals = op.fwd(list(operands))
        if not engine.tracing() and not _alike(residuals.tensors, saved):
            raise RuntimeError(f"custom_vjp: the fwd of {op.name} gave other residuals the second time, as derivatives of its gradient "
                               "were asked for; random numbers belong in its arguments")
        return results, residuals

    def vjp(cotangents, operands):
        if not engine.recording_now():
            return op.bwd(form, saved, cotangents, operands)
        residuals = again(operands)[1]
        return op.bwd(residuals, residuals.tensors, cotangents, operands)

    def jvp(tangents, operands):
        if engine.transform_depth() >= depth - 1:
            raise TypeError(f"jvp: {op.name} is a custom_vjp, whose rule is for reverse mode; use fg.vjp or fg.grad, or "
                            "define it with fg.custom_jvp, which gives both")
        return _push_through(op.name, lambda inputs: again(inputs)[0], tangents, operands)

    return vjp, jvp


def _alike(found, before):
    return len(found) == len(before) and all(
        a.dtype == b.dtype and np.array_equal(engine.off_tape(a).numpy(), engine.off_tape(b).numpy(), equal_nan=a.dtype.kind == "f")
        for a, b in zip(found, before))


def _push_through(name, function, tangents, operands):
    """Tangents of a function's results by its operations."""
    recorded = engine.recording_now()
    places = [k for k, t in enumerate(operands) if _flowing(t)]
    with engine.Recorder():
        line = engine.make_linearization(name, [operands[k] for k in places], places)
        inputs = list(operands)
        for k, t in zip(places, line.inputs):
            inputs[k] = t
        results = function(inputs)
        engine.finish_linearization(line, [t for t in results if _flowing(t)])
    pushed = iter(line.push([tangents[k] for k in places], recorded))
    return [_or_zeros(next(pushed), t) if _flowing(t) else t for t in results]


def _or_zeros(c, t):
    return engine.zeros_for(t) if c is None else c


class _VjpOfBatch(_Batches):
    """A custom_vjp of batches: fwd and bwd of each example, and the sum for what all examples share."""

    def fwd(self, tensors):
        seen = []

        def one(examples):
            results, residuals = self.op.fwd(examples)
            seen[:] = [len(results), residuals]
            return [*results, *residuals.tensors]

        found, leads = self.on_batch(one, tensors, self.leads)
        n, inner = seen
        form = _BatchForm(inner, leads[n:], found[n:])
        return self.all_spread(found[:n], leads[:n]), form

    def bwd(self, form, residuals, cotangents, operands):
        seen = []
        n = len(residuals)
        examples = [t[0] if lead and self.size else t for t, lead in zip(operands, self.leads)]
        if not self.size:
            return [engine.zeros_for(t) if _flowing(t) else None for t in operands]

        def one(parts):
            found, there = _present(self.op.bwd(form.inner, parts[:n], parts[n:], [engine.off_tape(t) for t in examples]))
            seen[:] = [there]
            return found

        found, leads = self.on_batch(one, [*residuals, *cotangents], [*form.leads, *[1] * len(cotangents)])
        return self.gathered(_put_back(found, seen[0]), _put_back(leads, seen[0]))

    forward = _VjpOperation.forward

    def batched(self, leads, size):
        return _VjpOfBatch(self, leads, size)


class _BatchForm:
    """Residuals of a batch: those of the examples, and which of them differ."""

    def __init__(self, inner, leads, tensors):
        self.inner, self.leads, self.tensors = inner, leads, tensors


# -------------------------------------------------------------------------------------------------------------- custom_jvp

class custom_jvp(_Custom):
    """A function whose derivative is given by a rule for forward mode, from which reverse mode follows.

    Parameters
    ----------
    fun : callable
        Of pytrees; returns a pytree.
    nondiff_argnums : int or tuple of int
        Positional arguments that are no numbers (functions, sizes); the rule gets them first.

    Attributes
    ----------
    fun, nondiff_argnums
        As given.

    Notes
    -----
    The rule's tangent must be linear in the tangents it is given: reverse mode sweeps through the rule, from its tangent to
    those.  Higher orders differentiate the rule.  The function and its rule read what is differentiated from their arguments alone.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import numpy as np
    >>> @fg.custom_jvp
    ... def log1pexp(x):
    ...     return np.log(1.0 + np.exp(x))
    >>> @log1pexp.defjvp
    ... def rule(primals, tangents):
    ...     (x,), (t,) = primals, tangents
    ...     return log1pexp(x), t * (1.0 - 1.0 / (1.0 + np.exp(x)))
    >>> float(fg.grad(log1pexp)(0.0))
    0.5
    """

    _kind = "custom_jvp"
    _rule = None

    def defjvp(self, rule):
        """Sets the rule, and returns it, so that it can be a decorator.

        Parameters
        ----------
        rule : callable
            ``rule(*nondiff, primals, tangents)``, both tuples over the differentiated arguments; returns (result, tangent).

        Returns
        -------
        callable
        """
        self._rule = rule
        return rule

    def defjvps(self, *rules):
        """Sets the rule by a function for each argument.

        Parameters
        ----------
        *rules : callable or None
            ``rule(tangent, result, *primals)`` gives what one argument's tangent adds to that of the result; None: nothing.
        """
        if self.nondiff_argnums:
            raise TypeError("custom_jvp: defjvps does not go with nondiff_argnums; use defjvp")

        def rule(primals, tangents):
            if len(primals) != len(rules):
                raise TypeError(f"custom_jvp: defjvps of {self.__name__} has {len(rules)} rules for {len(primals)} arguments")
            result = self(*primals)
            parts = [each(t, result, *primals) for each, t in zip(rules, tangents) if each is not None]
            if not parts:
                return result, tree_map(lambda t: np.zeros(np.shape(t)), result)
            return result, functools.reduce(lambda a, b: tree_map(lambda x, y: x + y, a, b), parts)

        self._rule = rule

    def _check_defined(self):
        if self._rule is None:
            raise AttributeError(f"custom_jvp: no rule for {self.__name__}; give it one with {self.__name__}.defjvp(rule)")

    def _operation(self, given, apart):
        return _JvpOperation(self, given, apart)


class _JvpOperation(_Operation):

    def rule(self, tensors, tangents):
        """Tangents of the results, given one for each Tensor among the arguments."""
        rest = [self.apart[k] for k in sorted(self.apart)]
        answer = self.custom._rule(*rest, tuple(self.given.trees(tensors)), tuple(self.given.tangents(tangents)))
        if not isinstance(answer, (tuple, list)) or len(answer) != 2:
            raise TypeError(f"custom_jvp: the rule of {self.name} returned no pair (result, tangent)")
        results, found = self.checked(answer[0], "the rule"), self.checked(answer[1], "the tangent of the rule")
        for k, (t, d) in enumerate(zip(results, found)):
            if t.shape != d.shape:
                raise ValueError(f"custom_jvp: the rule of {self.name} gave a tangent of shape {d.shape} for a result of shape "
                                 f"{t.shape}")
            if _flowing(t) and d.dtype != t.dtype:
                found[k] = d.astype(t.dtype)
        return found

    def forward(self, tensors):
        return (self.fun(tensors), *_transposed(self))

    def batched(self, leads, size):
        return _JvpOfBatch(self, leads, size)


def _transposed(op):
    """The rules of a node of a custom_jvp."""

    def vjp(cotangents, operands):
        recorded = engine.recording_now()
        primals = list(operands) if recorded else [engine.off_tape(t) for t in operands]
        places = [k for k, t in enumerate(operands) if _flowing(t)]
        with engine.Recorder():
            line = engine.make_linearization(op.name, [engine.zeros_for(operands[k]) for k in places], places)
            tangents = [_zeros_like(t) for t in operands]
            for k, t in zip(places, line.inputs):
                tangents[k] = t
            found = op.rule(primals, tangents)
            kept = [k for k, t in enumerate(found) if _flowing(t)]
            engine.finish_linearization(line, [found[k] for k in kept])
        seeds = [cotangents[k] for k in kept]
        pulled = line.pull_recorded(seeds) if recorded else line.pull(seeds)
        answer = [None] * len(operands)
        for k, c in zip(places, pulled):
            answer[k] = c
        return answer

    def jvp(tangents, operands):
        return op.rule(list(operands), tangents)

    return vjp, jvp


class _JvpOfBatch(_Batches):
    """A custom_jvp of batches."""

    def rule(self, tensors, tangents):
        n = len(tensors)
        found, leads = self.on_batch(lambda parts: self.op.rule(parts[:n], parts[n:]), [*tensors, *tangents], self.leads * 2)
        return self.all_spread(found, leads)

    def forward(self, tensors):
        return (self.fun(tensors), *_transposed(self))

    def batched(self, leads, size):
        return _JvpOfBatch(self, leads, size)


# ------------------------------------------------------------------------------------------------ stop_gradient and checkpoint

def stop_gradient(tree):
    """The same values, through which no gradient flows.

    Parameters
    ----------
    tree : pytree

    Returns
    -------
    pytree
        Tensors detached, everything else as it is.

    Examples
    --------
    >>> import fastgrad as fg
    >>> float(fg.grad(lambda x: x * fg.stop_gradient(x))(3.0))
    3.0
    """
    return tree_map(lambda leaf: leaf.detach() if type(leaf) is Tensor else leaf, tree)


def checkpoint(fun):
    """A function that keeps its arguments alone for the backward sweep, and is computed again there.

    Parameters
    ----------
    fun : callable
        Of pytrees; returns a pytree.  It may read Tensors from outside, such as the parameters of a Module.

    Returns
    -------
    callable
        With fun's arguments and results, and the same gradients, bit for bit.

    Raises
    ------
    RuntimeError
        In the sweep, where fun gives another result the second time, because it draws random numbers or because what it reads
        was changed in between.

    Notes
    -----
    Costs one more call of fun, and saves the memory of what lies between its arguments and its results.  A long chain of n
    steps needs the memory of about ``2 * sqrt(n)`` if it is checkpointed in pieces of ``sqrt(n)``.

    Inside fg.compile and fg.vmap it is fun itself: a Program plans its memory by what is read when, and fg.vmap replays what
    the function did.  ``checkpoint(fg.vmap(f))`` saves memory.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import numpy as np
    >>> layer = fg.checkpoint(lambda x: np.tanh(np.exp(-x)) * 2.0)
    >>> fg.grad(lambda x: np.sum(layer(x)))(np.zeros(2)).round(4)
    array([-0.8399, -0.8399])
    """
    if not callable(fun):
        raise TypeError(f"checkpoint: {type(fun).__name__} is not callable")

    def checkpointed(*arguments, **keywords):
        if engine.tracing() or not engine.recording_now():
            return fun(*arguments, **keywords)
        op = _Checkpoint(fun, _Arguments((arguments, keywords), True))
        results = op.apply()
        return tree_unflatten(op.structure, results)

    checkpointed.__name__ = getattr(fun, "__name__", "f")
    checkpointed.__doc__, checkpointed.__wrapped__ = getattr(fun, "__doc__", None), fun
    return checkpointed


remat = checkpoint


class _Checkpoint:
    """One call of a checkpointed function."""

    def __init__(self, function, given):
        self.function, self.given = function, given
        self.name = _name_of(function, "checkpoint")
        self.structure = None

    def fun(self, tensors):
        arguments, keywords = self.given.trees(tensors)
        results, self.structure = _results("checkpoint", self.function(*arguments, **keywords))
        return results

    def apply(self):
        tensors = self.given.tensors
        self.given.tensors = None
        with engine.Segment() as segment:
            results = self.fun([engine.off_tape(t) for t in tensors])
            outside = segment.outside()
            for t in results:       # a result may be a Tensor from outside as it is
                if segment.was_there(t) and not any(t is o for o in outside):
                    outside.append(t)
        self.count = len(tensors)
        if not any(engine.is_tracked(t) for t in (*tensors, *outside)):
            return results
        results = [engine.off_tape(t) for t in results]
        floats = [k for k, t in enumerate(results) if _flowing(t)]
        if not floats:
            return results
        layout = _Layout([results[k] for k in floats])
        sum_of_bits = [_digest(t) for t in results]
        rule = Rule(self.name, None, *_again(self, layout, floats, outside, sum_of_bits), saves="operands")
        packed = engine.record(rule, [*tensors, *outside], layout.pack([results[k] for k in floats]))
        for k, t in zip(floats, layout.unpack(packed)):
            results[k] = t
        return results


def _digest(t):
    return zlib.crc32(np.ascontiguousarray(engine.off_tape(t).numpy()))


def _again(op, layout, floats, outside, digests):
    """The rules of a checkpoint's node: the function recorded anew, and swept."""
    n = op.count

    def line_of(operands):
        if any(o is not t for o, t in zip(operands[n:], outside)):
            raise RuntimeError(f"checkpoint: {op.name} reads a Tensor from outside that was changed since it was first computed; "
                               "change it after the sweep, or pass it as an argument")
        places = [k for k, t in enumerate(operands) if _flowing(t)]
        with engine.Recorder():
            line = engine.make_linearization(op.name, [operands[k] for k in places], places)
            inputs = list(operands[:n])
            for k, t in zip(places, line.inputs):
                if k < n:
                    inputs[k] = t
            stand_ins = [t for k, t in zip(places, line.inputs) if k >= n]
            with engine.StandIns(outside, stand_ins), engine.Segment() as segment:
                results = op.fun(inputs)
                # before Tensors from outside get back to their places
                outputs = [t + 0.0 if any(t is o for o in outside) else t for k, t in enumerate(results) if k in floats]
                known = {id(t) for t in (*outside, *line.inputs)}
                more = [t for t in segment.outside() if id(t) not in known]
            if more or (not engine.tracing() and [_digest(t) for t in results] != digests):
                raise RuntimeError(
                    f"checkpoint: {op.name} gave another result when it was computed again: it draws random numbers, or what it reads "
                    "from outside was changed in between; pass these as arguments")
            engine.finish_linearization(line, outputs)
        return line, places

    def vjp(g, out, *operands):
        recorded = engine.recording_now()
        line, places = line_of(operands)
        cotangents = layout.unpack(g)
        found = line.pull_recorded(cotangents) if recorded else line.pull(cotangents)
        answer = [None] * len(operands)
        for k, c in zip(places, found):
            answer[k] = c
        return tuple(answer)

    def jvp(tangents, out, *operands):
        recorded = engine.recording_now()
        line, places = line_of(operands)
        found = line.push([tangents[k] for k in places], recorded)
        return layout.pack([_or_zeros(c, t) for c, t in zip(found, line.outputs)])

    return vjp, jvp
