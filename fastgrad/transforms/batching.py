"""How each operation of a trace is done on a whole batch: the rules of fg.vmap, and the replay that applies them.

A rule gets the operands of one operation, some with a batch axis in front, and gives the result with one.  All are
operations on Tensors, so what they compute is recorded by whatever is around.  The operations of the table and their
pullbacks, which broadcast anyway, are done by the engine (``replay_elementary``).  Knows nothing about arguments, trees or
NumPy's arrays: that is vmap.py.
"""

from math import prod

import numpy as np

import fastgrad.numpy as fnp
from fastgrad._core import engine
from fastgrad._core.engine import Batched, Hole, Rule, Tensor, fill_holes
from fastgrad.numpy.sorting import OF_ROWS

OPERATION = engine.operations()
BY_ENGINE = frozenset(OPERATION[name] for name in (*filter(None, engine.NAMES), "pull", "argument", "slot", "array", "number"))
NEVER_TRACED = frozenset(OPERATION[name] for name in ("leaf", "input", "constant", "rule"))

RULES = {}      # operation -> rule(node, operands, leads, size); leads: 1 for an operand with a batch axis, else 0


def batching(*names):
    """Registers the rule of some operations."""
    def register(rule):
        for name in names:
            RULES[OPERATION[name]] = rule
        return rule
    return register


def align(t, rank):
    """A batched operand with axes of length 1 after the batch axis, so that the example has the rank."""
    gap = rank + 1 - t.ndim
    return t if gap <= 0 else fnp.reshape(t, t.shape[:1] + (1,) * gap + t.shape[1:])


def spread(t, lead, size):
    """An operand with a batch axis, repeated if it had none."""
    return t if lead else fnp.broadcast_to(t, (size,) + t.shape)


# ------------------------------------------------------------------------------------------------------------- structured

@batching("sum", "mean", "max", "min")
def reduction(node, operands, leads, size):
    x, lead = operands[0], leads[0]
    axes = tuple(d + lead for d in range(x.ndim - lead) if node.parameter >> d & 1)
    result = getattr(fnp, node.name)(x, axes)
    return fnp.reshape(result, result.shape[:lead] + node.shape) if result.ndim != lead + len(node.shape) else result


@batching("reshape")
def reshape(node, operands, leads, size):
    return fnp.reshape(operands[0], operands[0].shape[: leads[0]] + node.shape)


@batching("transpose")
def transpose(node, operands, leads, size):
    lead = leads[0]
    return fnp.transpose(operands[0], (*range(lead), *[d + lead for d in node.numbers]))


@batching("broadcast_to")
def broadcast_to(node, operands, leads, size):
    if not leads[0]:
        return fnp.broadcast_to(operands[0], node.shape)
    return fnp.broadcast_to(align(operands[0], len(node.shape)), (size,) + node.shape)


@batching("getitem")
def basic_index(node, operands, leads, size):
    """An offset and strides over the contiguous operand: the batch axis strides over an example."""
    x, numbers = operands[0], node.numbers
    if not leads[0]:
        return engine.apply_index(x, numbers, node.shape)
    return engine.apply_index(x, numbers[:1] + (prod(x.shape[1:]),) + numbers[1:], (size,) + node.shape)


@batching("scatter")
def scatter(node, operands, leads, size):
    numbers = node.numbers
    if not leads[0]:
        return engine.apply_scatter(operands[0], numbers, node.shape)
    return engine.apply_scatter(operands[0], numbers[:1] + (prod(node.shape),) + numbers[1:], (size,) + node.shape)


@batching("astype")
def cast(node, operands, leads, size):
    return operands[0].astype(node.dtype)


@batching("alias")
def detached(node, operands, leads, size):
    return operands[0].detach()


@batching("matmul")
def matmul(node, operands, leads, size):
    """One product of matrices where one operand is the same for all examples, else a stack of products."""
    (x, y), (x_lead, y_lead) = operands, leads
    x_rank, y_rank = x.ndim - x_lead, y.ndim - y_lead
    if not (x_lead or y_lead):
        return fnp.matmul(x, y)
    shape = (size,) + node.shape
    if not y_lead and y_rank <= 2:
        return fnp.reshape(fnp.matmul(flat_rows(x), y), shape)
    if not x_lead and x_rank <= 2:
        turned = x if x_rank == 1 else fnp.transpose(x)
        if y_rank == 1:
            return fnp.matmul(y, turned)
        y = fnp.swapaxes(y, -1, -2)
        product = fnp.matmul(flat_rows(y), turned)
        if x_rank == 1:
            return fnp.reshape(product, shape)
        return fnp.swapaxes(fnp.reshape(product, y.shape[:-1] + (x.shape[0],)), -1, -2)
    if x_rank == y_rank == 1:
        return fnp.sum(fnp.multiply(x, y), -1)
    # As stacks of matrices: a row on the left, a column on the right.
    if x_rank == 1:
        x, x_rank = fnp.expand_dims(x, -2), 2
    if y_rank == 1:
        y, y_rank = fnp.expand_dims(y, -1), 2
    rank = max(x_rank, y_rank)
    x = align(x, rank) if x_lead else x
    y = align(y, rank) if y_lead else y
    # Outer products, a gradient's usual ones, need no sums.
    product = fnp.multiply(x, y) if x.shape[-1] == 1 else fnp.matmul(x, y)
    return fnp.reshape(product, shape) if product.shape != shape else product


def flat_rows(x):
    """A stack of matrices as one, rows below each other."""
    return x if x.ndim <= 2 else fnp.reshape(x, (prod(x.shape[:-1]), x.shape[-1]))


@batching("logsumexp", "softmax", "log_softmax")
def rows(node, operands, leads, size):
    return getattr(fnp, node.name)(operands[0], axis=-1)


@batching("softmax_cross_entropy")
def cross_entropy(node, operands, leads, size):
    if any(leads):
        operands = [spread(t, lead, size) for t, lead in zip(operands, leads)]
    return engine.softmax_cross_entropy(*operands)


@batching("row_pull", "cross_entropy_pull", "extreme_pull")
def rows_pull(node, operands, leads, size):
    """Of (g, x, -, -, out or labels)."""
    if any(leads):
        operands = [t if t is None else spread(t, lead, size) for t, lead in zip(operands, leads)]
    g, x, _, _, out = operands
    parameter = node.parameter << any(leads) if node.name == "extreme_pull" else node.parameter
    return engine.apply_rows_pull(node.op, parameter, g, x, out)


# ------------------------------------------------------------------------------------------------------------- host calls

@batching("host")
def host(node, operands, leads, size):
    """A call of Python: by its own rule, or example by example."""
    call = node.value
    if not any(leads):
        return again(call, operands)
    marked = [Batched(t) if lead else t for t, lead in zip(operands, leads)]
    if isinstance(call.function, Rule):
        if call.function.batch is not None:
            result = call.function.batch(size, *fill_holes(call.arguments, marked), **fill_holes(call.keywords, marked))
            if result is not NotImplemented:
                return result
        return each(node, operands, leads, size)
    if isinstance(call.function, np.ufunc) and call.function.signature is None and not (call.many or call.keywords):
        rank = len(node.shape)
        return again(call, [align(t, rank) if lead else t for t, lead in zip(operands, leads)])
    if call.function in LIKEWISE:
        return again(call, operands)
    if call.function in ALONG_AXES and len(operands) == 1 and type(call.arguments[0]) is Hole:
        return along_axes(node, operands[0], size)
    return engine.call_host(EachExample(call, leads, size), operands, pure=call.pure)


def again(call, operands):
    """The call on other operands."""
    if not isinstance(call.function, Rule):
        return engine.call_host(call.function, fill_holes(call.arguments, operands), fill_holes(call.keywords, operands),
                                call.pure)
    parameters = operands if engine.tracing() else [np.array(t.detach().numpy()) for t in operands]
    return call.function(*fill_holes(call.arguments, operands), **fill_holes(call.keywords, parameters))


def each(node, operands, leads, size):
    """A rule applied example by example."""
    if size == 0:
        return fnp.zeros((0,) + node.shape, node.dtype)
    return fnp.stack([again(node.value, [t[i] if lead else t for t, lead in zip(operands, leads)]) for i in range(size)])


class EachExample:
    """A NumPy function of one example as one of the batch: calls it example by example and stacks."""

    def __init__(self, call, leads, size):
        self.call, self.leads, self.size = call, leads, size
        self.__name__ = f"{call.name} of each example"

    def __call__(self, *arrays):
        if self.size == 0:
            arrays = [np.zeros((1,) + a.shape[1:], a.dtype) if lead else a for a, lead in zip(arrays, self.leads)]
        return self.stacked([self.call([a[i] if lead else a for a, lead in zip(arrays, self.leads)])
                             for i in range(max(self.size, 1))])

    def stacked(self, results):
        if not isinstance(results[0], (tuple, list)):
            return self.stack(results)
        return [self.stack(column) for column in zip(*results)]

    def stack(self, results):
        shapes = {np.shape(r) for r in results}
        if len(shapes) > 1:
            raise ValueError(f"vmap: the results of {self.call.name} have another shape for each example, such as "
                             f"{' and '.join(map(str, sorted(shapes)[:2]))}, and cannot be one array; use "
                             "fastgrad.numpy.where instead of picking by a mask")
        return np.stack(results)[: self.size]


# NumPy's functions that take a batch as they take an example, and those that need their axes moved.
LIKEWISE = {np.round, np.asarray, engine.one_hot, *OF_ROWS}
ALONG_AXES = {np.sum, np.mean, np.max, np.min, np.prod, np.any, np.all, np.argmax, np.argmin, np.argsort, np.sort, np.ptp,
              np.cumsum, np.cumprod, np.count_nonzero, np.nanargmax, np.nanargmin}


def along_axes(node, x, size):
    call, rank = node.value, x.ndim - 1
    keywords, more = dict(call.keywords), call.arguments[2:]
    axis = keywords.pop("axis", None) if len(call.arguments) < 2 else call.arguments[1]
    if axis is None:
        x, axis = fnp.reshape(x, (size, prod(x.shape[1:]))), 1
    elif isinstance(axis, (tuple, list)):
        axis = tuple(a % rank + 1 for a in axis)
    else:
        axis = axis % rank + 1 if rank else 1
    if not rank:
        x = fnp.reshape(x, (size, 1))
    return fnp.reshape(engine.call_host(call.function, (x, axis, *more), keywords), (size,) + node.shape)


# ----------------------------------------------------------------------------------------------------------------- replay

class Replay:
    """A trace whose arguments are one example, to be done on batches.

    Parameters
    ----------
    trace : Trace
        From ``engine.trace_function`` with ``of_example=True``.
    """

    def __init__(self, trace):
        self.trace = trace
        # What an open trace around this one must check at its replays; here it has just been seen to hold.
        self.guards = dict(trace.guards) if engine.tracing() else {}
        self.steps = engine.replay_steps(trace, (*trace.outputs, *self.guards, *trace.impure))
        self.length = 1 + max((i for i, _, _ in self.steps), default=0)

    def run(self, batches, size):
        """The outputs.

        Parameters
        ----------
        batches : list of Tensor
            The arguments, with the batch axis first.
        size : int
            Of the batch.

        Returns
        -------
        outputs : list of Tensor
        leads : list of int
            1 for an output with a batch axis, 0 for one that is the same for all examples.
        """
        values, leads = [None] * self.length, bytearray(self.length)
        self.fill(values, leads, batches, size)
        for i, truth in self.guards.items():
            if bool(values[i]) != truth:
                node = engine.trace_nodes(self.trace)[i - 1]
                raise RuntimeError(f"vmap: a truth value changed while the function ran: {node!r}")
        return [values[i] for i in self.trace.outputs], [leads[i] for i in self.trace.outputs]

    def fill(self, values, leads, batches, size):
        """Does the steps: each value of the trace, and whether it has a batch axis."""
        steps, several, place = self.steps, {}, 0
        while (place := engine.replay_elementary(self.trace, steps, place, values, leads, batches, size)) < len(steps):
            i, node, dies = steps[place]
            operands = [values[o] if o else None for o in node.operands]
            which = [leads[o] for o in node.operands]
            if node.op == PICK:
                result = several[node.operands[0]][node.parameter]
            else:
                result = RULES[node.op](node, operands, which, size)
            if type(result) is not Tensor:      # a host call's several results
                several[i] = result
                result = result[0]
            values[i] = result
            leads[i] = 1 in which
            for o in dies or ():
                values[o] = None
            place += 1


PICK = OPERATION["pick"]        # Replay reads it where the call left it


LARGE = 2**22       # elements of the largest value in a replay that goes piece by piece


def batched_call(function, batches, size, splits=False):
    """A function of Tensors, done once on an example and replayed on a batch.

    Parameters
    ----------
    function : callable
        Takes Tensors, returns a list of Tensors.
    batches : list of Tensor
        Its arguments with the batch axis first.
    size : int
        Of the batch.
    splits : bool
        Whether a large batch may go in pieces, so that what is between arguments and results needs less memory; for replays
        that are not recorded.

    Returns
    -------
    outputs : list of Tensor
    leads : list of int
        1 for an output with a batch axis, 0 for one that is the same for all examples.
    """
    with engine.no_grad():
        trace, _ = engine.trace_function(function, [engine.example_of(t) for t in batches], True)
    replay = Replay(trace)
    step = size
    if splits and not engine.tracing():
        step = max(1, LARGE // max(1, engine.largest_value(trace)))
    if step >= size:
        return replay.run(batches, size)
    pieces = []
    for start in range(0, size, step):
        outputs, leads = replay.run([t[start : start + step] for t in batches], min(step, size - start))
        pieces.append(outputs)
    return [fnp.concatenate(parts) if lead else parts[0] for parts, lead in zip(zip(*pieces), leads)], leads
