"""Functions of functions: gradients, products with Jacobians, Jacobians and Hessians.

All stand on one thing, the engine's Linearization: a function's recording between its inputs and its outputs, swept
backwards (``pull``) or forwards (``push``) as often as needed.  NumPy in, NumPy out; Tensor in, Tensor out.  Arguments
and results can be pytrees.
"""

import numpy as np

import fastgrad.numpy as fnp
from fastgrad._core import engine
from fastgrad._core.engine import Tensor
from fastgrad.transforms.batching import batched_call
from fastgrad.transforms.vmap import output_tensor, vmap
from fastgrad.tree import count_leaves, tree_flatten, tree_map, tree_unflatten

__all__ = ["grad", "value_and_grad", "vjp", "jvp", "linearize", "jacrev", "jacfwd", "jacobian", "hessian", "hvp", "compile",
           "vmap", "custom_vjp", "custom_jvp", "stop_gradient", "checkpoint", "remat", "ravel_pytree"]


AN_ARRAY = np.empty(0)


class _Call:
    """One call of a function on inputs: its Linearization, its result, and in what form to answer."""

    def __init__(self, who, function, arguments, keywords, argnums, has_aux=False):
        self.who = who
        self.single = isinstance(argnums, (int, np.integer))
        self.places = [argnums] if self.single else list(argnums)
        leaves, places, self.structures = [], [], []
        for place in self.places:
            if not -len(arguments) <= place < len(arguments):
                raise ValueError(f"{who}: argnums names argument {place}, and the call has {len(arguments)} positional ones")
            found, structure = tree_flatten(arguments[place])
            leaves += found
            places += [place] * len(found)
            self.structures.append(structure)
        self.given = leaves
        self.any_tensor = any(isinstance(leaf, Tensor) for leaf in leaves)
        recording = engine.recording_now()
        with engine.Recorder():
            self.line = engine.make_linearization(who, leaves, places)
            inputs = iter(self.line.inputs)
            passed = list(arguments)
            for place, structure in zip(self.places, self.structures):
                passed[place] = tree_unflatten(structure, inputs)
            result = function(*passed, **keywords)
            self.aux = None
            if has_aux:
                if not isinstance(result, tuple) or len(result) != 2:
                    raise TypeError(f"{who}: has_aux=True, and the function returned no pair (value, aux)")
                result, self.aux = result
            found, self.out_structure = tree_flatten(result)
            engine.finish_linearization(self.line, [output_tensor(who, leaf) for leaf in found])
        # Whether answers must go on being differentiated by somebody around this call.
        self.connected = self.line.outside and recording and (engine.recording_outside() or self.any_tensor)

    @property
    def outputs(self):
        return self.line.outputs

    def value(self):
        """What the function returned, as the caller's kind of array."""
        if self.connected:
            return tree_unflatten(self.out_structure, self.outputs)
        return tree_unflatten(self.out_structure, [self.lower(t) for t in self.outputs])

    def lower(self, t, like=0.0):
        return engine.off_tape(t) if self.any_tensor else engine.lower_to(t, like)

    def lower_aux(self):
        return self.aux if self.connected else lower_aux(self.aux, self.any_tensor)

    def recorded(self, seeds):
        """Whether a sweep from these must be recorded."""
        return self.connected or (engine.recording_now() and any(t is not None and engine.is_tracked(t) for t in seeds))

    def pulled(self, cotangents):
        """Gradients of the inputs as Tensors."""
        found = self.line.pull_recorded(cotangents) if self.recorded(cotangents) else self.line.pull(cotangents)
        return [engine.zeros_for(t) if g is None else g for g, t in zip(found, self.line.inputs)]

    def pushed(self, tangents):
        """Tangents of the outputs as Tensors."""
        found = self.line.push(tangents, self.recorded(tangents))
        return [engine.zeros_for(out) if t is None else t for t, out in zip(found, self.outputs)]

    def pull(self, cotangents):
        """Gradients of the inputs as a flat list in the caller's kind."""
        found = self.pulled(cotangents)
        if self.recorded(cotangents):
            return found
        return [engine.lower_to(g, like) for g, like in zip(found, self.given)]

    def push(self, tangents):
        """Tangents of the outputs as a flat list in the caller's kind."""
        found = self.pushed(tangents)
        return found if self.recorded(tangents) else [self.lower(t) for t in found]

    def block(self, t, as_tensor):
        """A block of a Jacobian in the caller's kind."""
        if self.connected:
            return t
        if isinstance(t, np.ndarray):
            return fnp.asarray(t) if as_tensor else t
        return engine.off_tape(t) if as_tensor else engine.lower_to(t, AN_ARRAY)

    def by_argument(self, flat):
        """A flat list as one tree an argument, or the tree of the only one."""
        flat = iter(flat)
        trees = [tree_unflatten(structure, flat) for structure in self.structures]
        return trees[0] if self.single else tuple(trees)


def _plain(argnums):
    """argnums as the engine takes them: an int or a tuple."""
    return int(argnums) if isinstance(argnums, np.integer) else argnums


def lower_aux(aux, any_tensor):
    """What has_aux carries out of a transform: without a gradient, NumPy for those who gave NumPy."""
    def lower(leaf):
        if not isinstance(leaf, Tensor):
            return leaf
        return engine.off_tape(leaf) if any_tensor else engine.lower_to(leaf, 0.0)

    return tree_map(lower, aux)


def _cotangents(who, tree, outputs, structure):
    """Cotangents or tangents given by a caller, checked against what they belong to."""
    leaves, given = tree_flatten(tree)
    if given != structure:
        raise TypeError(f"{who}: a tree of another structure than the {'result' if 'vjp' in who else 'primals'}")
    checked = []
    for leaf, like in zip(leaves, outputs):
        t = leaf if isinstance(leaf, Tensor) else fnp.asarray(leaf)
        if t.shape != like.shape:
            raise ValueError(f"{who}: got shape {t.shape} where shape {like.shape} is due")
        checked.append(t if t.dtype == like.dtype else t.astype(like.dtype))
    return checked


def _grad_by_tree(function, argnums, has_aux, wants_value, arguments, keywords):
    """value_and_grad and grad for arguments that are not plain arrays."""
    call = _Call("value_and_grad" if wants_value else "grad", function, arguments, keywords, argnums, has_aux)
    if call.out_structure != ():
        raise TypeError(f"{call.who}: the function returned a tree, and a gradient is of one number; use fg.vjp or "
                        "fg.jacobian, or has_aux=True for more results")
    engine.check_scalar_output(call.outputs[0], call.who)
    gradients = call.by_argument(call.pull([fnp.ones((), call.outputs[0].dtype)]))
    value = (call.value(), call.lower_aux()) if has_aux else call.value()
    if wants_value:
        return value, gradients
    return (gradients, value[1]) if has_aux else gradients


def grad(fun, argnums=0, has_aux=False):
    """The gradient of a function of one number's worth of result.

    Parameters
    ----------
    fun : callable
        Returns a 0-d float, or (value, aux) with ``has_aux``.
    argnums : int or tuple of int
        The positional arguments to differentiate by; arrays, floats or pytrees of them.
    has_aux : bool
        Whether fun returns something besides, to be handed through.

    Returns
    -------
    callable
        With fun's arguments; returns the gradient in the argument's form (a tuple for a tuple of argnums), with
        ``has_aux`` the pair (gradient, aux).

    Raises
    ------
    TypeError
        When called with an integer or bool argument to differentiate by.
    ValueError
        When fun's result is not one number.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import numpy as np
    >>> fg.grad(lambda x: np.sum(x * x))(np.array([1.0, 2.0]))
    array([2., 4.])
    """
    return engine.ValueAndGrad(fun, _plain(argnums), has_aux, False, _grad_by_tree)


def value_and_grad(fun, argnums=0, has_aux=False):
    """The value and the gradient of a function, from one recording.

    Parameters
    ----------
    fun, argnums, has_aux
        As for ``grad``.

    Returns
    -------
    callable
        Returns (value, gradient), with ``has_aux`` ((value, aux), gradient).

    Examples
    --------
    >>> import fastgrad as fg
    >>> value, gradient = fg.value_and_grad(lambda x: x * x)(3.0)
    >>> float(value), float(gradient)
    (9.0, 6.0)
    """
    return engine.ValueAndGrad(fun, _plain(argnums), has_aux, True, _grad_by_tree)


def vjp(fun, *primals, has_aux=False):
    """The value of a function and its pullback: products of cotangents with the Jacobian.

    Parameters
    ----------
    fun : callable
    *primals : pytrees of float arrays
    has_aux : bool

    Returns
    -------
    out : pytree
        fun(*primals).
    vjp_fn : callable
        ``vjp_fn(cotangent)`` with a tree like out returns a tuple, a cotangent a primal.  Can be called again.
    aux
        Only with ``has_aux``.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import numpy as np
    >>> out, pull = fg.vjp(lambda x, y: x * y, np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    >>> pull(np.ones(2))
    (array([3., 4.]), array([1., 2.]))
    """
    call = _Call("vjp", fun, primals, {}, tuple(range(len(primals))), has_aux)

    def vjp_fn(cotangent):
        return call.by_argument(call.pull(_cotangents("vjp_fn", cotangent, call.outputs, call.out_structure)))

    return (call.value(), vjp_fn, call.lower_aux()) if has_aux else (call.value(), vjp_fn)


def _tangents(who, call, tangents):
    if len(tangents) != len(call.structures):
        raise TypeError(f"{who}: {len(tangents)} tangents for {len(call.structures)} primals")
    leaves, found = [], []
    for tangent, structure in zip(tangents, call.structures):
        more, given = tree_flatten(tangent)
        if given != structure:
            raise TypeError(f"{who}: tangents of another structure than the primals")
        leaves += more
    for leaf, like in zip(leaves, call.line.inputs):
        t = leaf if isinstance(leaf, Tensor) else fnp.asarray(leaf)
        if t.shape != like.shape:
            raise ValueError(f"{who}: a tangent of shape {t.shape} for a primal of shape {like.shape}")
        found.append(t if t.dtype == like.dtype else t.astype(like.dtype))
    return found


def jvp(fun, primals, tangents):
    """The value of a function and its derivative along a direction, by a forward sweep.

    Parameters
    ----------
    fun : callable
    primals, tangents : tuples of pytrees of float arrays, of the same shapes

    Returns
    -------
    out, tangent_out : pytree

    Examples
    --------
    >>> import fastgrad as fg
    >>> out, slope = fg.jvp(lambda x: x * x, (3.0,), (1.0,))
    >>> float(out), float(slope)
    (9.0, 6.0)
    """
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise TypeError("jvp: primals and tangents are tuples, one entry an argument")
    call = _Call("jvp", fun, tuple(primals), {}, tuple(range(len(primals))))
    pushed = call.push(_tangents("jvp", call, tangents))
    return call.value(), tree_unflatten(call.out_structure, pushed)


def linearize(fun, *primals):
    """The value of a function and its linear approximation there, to be applied to many tangents.

    Parameters
    ----------
    fun : callable
    *primals : pytrees of float arrays

    Returns
    -------
    out : pytree
    jvp_fn : callable
        ``jvp_fn(*tangents)`` returns the tangent of out; sweeps the one recording.

    Examples
    --------
    >>> import fastgrad as fg
    >>> out, push = fg.linearize(lambda x: x * x, 3.0)
    >>> float(push(1.0)), float(push(2.0))
    (6.0, 12.0)
    """
    call = _Call("linearize", fun, primals, {}, tuple(range(len(primals))))

    def jvp_fn(*tangents):
        return tree_unflatten(call.out_structure, call.push(_tangents("linearize", call, tangents)))

    return call.value(), jvp_fn


def _basis(t):
    """The unit tangents of a Tensor's shape, below each other."""
    return np.eye(t.size, dtype=t.dtype).reshape((t.size,) + tuple(t.shape))


# Microseconds (benches/jacobians.py) of one compiled pull, and of one push, which goes by rules on Tensors: at all, for each node
# that is a number, for each that is an array.  And of all sweeps traced once and replayed as one batch.
PULL_COSTS, PUSH_COSTS, BATCH_COSTS = (3.0, 0.005, 0.3), (2.0, 0.7, 1.5), (45.0, 2.5, 4.0)


def _pays(call, count, costs):
    """Whether that many sweeps are faster as one batch."""
    if engine.tracing() or call.connected:
        return count > 1
    numbers, arrays = call.line.size()
    one, batch = (start + numbers * number + arrays * array for start, number, array in (costs, BATCH_COSTS))
    return count * one > batch


def _sweeps(call, pull, k):
    """All sweeps from output k backwards, or from input k forwards: for each input or output an array whose first axis is the
    sweeps (a Tensor, or an ndarray where nobody can differentiate it)."""
    ends, others = (call.outputs, call.line.inputs) if pull else (call.line.inputs, call.outputs)
    sweep = call.pulled if pull else call.pushed
    basis = _basis(ends[k])

    def one(e):
        seeds = [None] * len(ends)
        seeds[k] = e
        return sweep(seeds)

    if len(basis) and _pays(call, len(basis), PULL_COSTS if pull else PUSH_COSTS):
        found, leads = batched_call(one, [fnp.asarray(basis)], len(basis), splits=not call.connected)
        return [t if lead else fnp.copy(fnp.broadcast_to(t, (len(basis),) + t.shape)) for t, lead in zip(found, leads)]
    rows = [one(fnp.asarray(e)) for e in basis]
    if not rows:
        return [fnp.zeros((0,) + t.shape, t.dtype) for t in others]
    if call.connected or engine.tracing():
        return [fnp.stack(column) for column in zip(*rows)]
    return [np.stack([engine.lower_to(t, AN_ARRAY) for t in column]) for column in zip(*rows)]


def _by_rows(call):
    """The Jacobian of a recording by reverse sweeps."""
    blocks = []
    for k, out in enumerate(call.outputs):
        found = _sweeps(call, True, k)
        blocks.append(call.by_argument([
            call.block(rows.reshape(out.shape + t.shape), isinstance(like, Tensor))
            for rows, t, like in zip(found, call.line.inputs, call.given)]))
    return tree_unflatten(call.out_structure, blocks)


def _by_columns(call):
    """The Jacobian of a recording by forward sweeps."""
    columns = [_sweeps(call, False, j) for j in range(len(call.line.inputs))]
    blocks = []
    for k, out in enumerate(call.outputs):
        parts = []
        for j, t in enumerate(call.line.inputs):
            block = columns[j][k].reshape(t.shape + out.shape)
            n = len(t.shape)
            axes = tuple(range(n, n + len(out.shape))) + tuple(range(n))
            parts.append(call.block(block.transpose(axes) if axes else block, call.any_tensor))
        blocks.append(call.by_argument(parts))
    return tree_unflatten(call.out_structure, blocks)


def jacrev(fun, argnums=0):
    """The Jacobian, row by row: a reverse sweep an element of the result.

    Parameters
    ----------
    fun : callable
        Returns an array or a pytree of arrays.
    argnums : int or tuple of int

    Returns
    -------
    callable
        Returns, for each leaf of the result, a tree like the argument whose leaves have the shape
        ``result.shape + argument.shape``.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import numpy as np
    >>> fg.jacrev(lambda x: x * x)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """

    def jacobian_of(*arguments, **keywords):
        return _by_rows(_Call("jacrev", fun, arguments, keywords, argnums))

    return _named(jacobian_of, "jacrev", fun)


def jacfwd(fun, argnums=0):
    """The Jacobian, column by column: a forward sweep an element of the argument.

    Parameters
    ----------
    fun, argnums
        As for ``jacrev``.

    Returns
    -------
    callable
        As ``jacrev`` returns.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import numpy as np
    >>> fg.jacfwd(lambda x: x * x)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """

    def jacobian_of(*arguments, **keywords):
        return _by_columns(_Call("jacfwd", fun, arguments, keywords, argnums))

    return _named(jacobian_of, "jacfwd", fun)


def jacobian(fun, argnums=0):
    """The Jacobian, by rows or by columns, whichever are fewer.

    Parameters
    ----------
    fun, argnums
        As for ``jacrev``.

    Returns
    -------
    callable
        As ``jacrev`` returns.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import numpy as np
    >>> fg.jacobian(lambda x: x.sum())(np.array([1.0, 2.0]))
    array([1., 1.])
    """

    def jacobian_of(*arguments, **keywords):
        call = _Call("jacobian", fun, arguments, keywords, argnums)
        n_in, n_out = (sum(t.size for t in tensors) for tensors in (call.line.inputs, call.outputs))
        return _by_columns(call) if n_in < n_out else _by_rows(call)

    return _named(jacobian_of, "jacobian", fun)


def hessian(fun, argnums=0):
    """The matrix of second derivatives: a forward sweep an element over the recorded reverse sweep.

    Parameters
    ----------
    fun : callable
        Returns one number.
    argnums : int or tuple of int

    Returns
    -------
    callable
        Returns an array of shape ``argument.shape + argument.shape``; trees of trees for pytrees and several arguments.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import numpy as np
    >>> fg.hessian(lambda x: (x * x * x).sum())(np.array([1.0, 2.0]))
    array([[ 6.,  0.],
           [ 0., 12.]])
    """
    return _named(jacfwd(grad(fun, argnums), argnums), "hessian", fun)


def hvp(fun, primals, tangents):
    """The Hessian of a function times a vector: a forward sweep over the recorded reverse sweep.

    Parameters
    ----------
    fun : callable
        Returns one number.
    primals, tangents : tuples of pytrees of float arrays

    Returns
    -------
    pytree
        Like the primal; a tuple of them for several primals.

    Examples
    --------
    >>> import fastgrad as fg
    >>> import numpy as np
    >>> fg.hvp(lambda x: (x * x * x).sum(), (np.array([1.0, 2.0]),), (np.array([1.0, 0.0]),))
    array([6., 0.])
    """
    argnums = 0 if len(primals) == 1 else tuple(range(len(primals)))
    return jvp(grad(fun, argnums), primals, tangents)[1]


def _named(function, name, of):
    function.__name__ = f"{name}_{getattr(of, '__name__', 'f')}"
    function.__doc__ = f"{name} of {getattr(of, '__name__', 'a function')}."
    function.__wrapped__ = of
    return function


from fastgrad.transforms import programs  # noqa: E402
from fastgrad.transforms.compile import compile  # noqa: E402
from fastgrad.transforms.custom import checkpoint, custom_jvp, custom_vjp, remat, stop_gradient  # noqa: E402,F401
from fastgrad.transforms.programs import ProgramFormatError, load_program  # noqa: E402
from fastgrad.transforms.ravel import ravel_pytree  # noqa: E402,F401

engine.install(lower_aux=lower_aux, tree_flatten=tree_flatten, tree_unflatten=tree_unflatten, count_leaves=count_leaves,
               programs=programs)
