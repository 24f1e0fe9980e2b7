"""The derivatives of a recording: what a compiled function does where it is itself differentiated.

A replay leaves one node on the tape for each result.  Its pullback is a Program too: of the gradients of the values that
were traced, by the arguments and by the Tensors and arrays from outside, all as they were at the call.  So it does not ask
the function again, which may read other things by then.  Higher orders and forward mode do the traced operations again as
ordinary operations on Tensors.
"""

from fastgrad._core import engine
from fastgrad._core.engine import Rule
from fastgrad.transforms.batching import Replay

# A pullback does the operations of the function anew.  So a node for a whole function pays where there are many operations,
# whose ways through memory and whose nodes are saved, and not where most of the work is in products of matrices.
LEAST_OPERATIONS = 100
SMALL_PRODUCTS = 10_000     # multiplications
MOST_RESULTS = 4            # with a node each


def pays(program, n_results):
    """Whether nodes for whole results cost less than one for each operation."""
    facts = engine.program_facts(program)
    products = sum(step["flops"] for step in facts["steps"] if step["step"] == "product")
    work = sum(step["flops"] + step["bytes"] for step in facts["steps"])
    return facts["instructions"] >= LEAST_OPERATIONS and n_results <= MOST_RESULTS and products <= max(SMALL_PRODUCTS, work / 4)


def rules_of(name, trace, flowing, wanted):
    """For each result the Rule of its node, or None.

    Parameters
    ----------
    name : str
    trace : Trace
    flowing : list of int
        The results' values; 0 for those through which no gradient flows.
    wanted : list of int
        Which of the inputs (arguments, slots, arrays) are differentiated.
    """
    found = []
    for value in flowing:
        rule = None
        if value:
            derivative = Derivative(trace, value, wanted)
            rule = Rule(name, None, derivative.vjp, derivative.jvp, saves="operands")
        found.append(rule)
    return found


class Again(Replay):
    """A value of a trace, computed again on other inputs."""

    def __init__(self, trace, value):
        inputs = engine.places_of_inputs(trace)
        given = {i for i, _ in inputs}
        self.trace, self.value = trace, value
        steps = engine.replay_steps(trace, (value,))
        self.length = 1 + max(i for i, _, _ in steps)
        self.steps = [step for step in steps if step[0] not in given]
        self.inputs = [(i, place) for i, place in inputs if i < self.length]

    def __call__(self, inputs):
        values = [None] * self.length
        for i, place in self.inputs:
            values[i] = inputs[place]
        self.fill(values, bytearray(self.length), [], 1)
        return values[self.value]


class Derivative:
    """The vjp and the jvp of one result by the inputs that are differentiated."""

    def __init__(self, trace, value, wanted):
        self.again = Again(trace, value)
        self.wanted = wanted
        self.program = None         # of (inputs, cotangent); False where there can be none
        self.connected = None       # which of the wanted inputs the result depends on

    def call(self, inputs):
        """The result with what lies between it and the wanted inputs."""
        from fastgrad.transforms import _Call       # which stands on fg.compile

        def result(*wanted):
            passed = list(inputs)
            for k, t in zip(self.wanted, wanted):
                passed[k] = t
            return self.again(passed)

        return _Call("compile", result, [inputs[k] for k in self.wanted], {}, range(len(self.wanted)))

    def gradients(self, inputs, g):
        """For each wanted input its gradient, or None."""
        call = self.call(inputs)
        return call.line.pull_recorded([g]) if call.recorded([g]) else call.line.pull([g])

    def connected_gradients(self, leaves):
        """The gradients that are there, of (inputs, cotangent)."""
        found = self.gradients(leaves[:-1], leaves[-1])
        self.connected = [k for k, t in zip(self.wanted, found) if t is not None]
        return [t for t in found if t is not None]

    def vjp(self, g, out, *inputs):
        leaves = (*inputs, g)
        answer = [None] * len(inputs)
        if self.program is None and not engine.watched(leaves):
            self.program = engine.program_of_tensors(self.connected_gradients, list(leaves)) or False
        found = engine.replay_tensors(self.program, leaves) if self.program and not engine.watched(leaves) else None
        if found is None:
            found, places = self.gradients(inputs, g), self.wanted
        else:
            places = self.connected
        for k, t in zip(places, found):
            answer[k] = t
        return tuple(answer)

    def jvp(self, tangents, out, *inputs):
        return self.call(inputs).pushed([tangents[k] for k in self.wanted])[0]
