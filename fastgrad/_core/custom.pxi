# What functions with derivatives of their own (fg.custom_vjp, fg.custom_jvp, fg.checkpoint) need of the tape: a node for a
# value that was computed off it, and a look at what a function reads from outside.

def record(Rule rule, list operands, Tensor value):
    """Puts a value that was computed off the tape on it, as what the rule gives for these Tensors.

    An open trace is told that its values' derivatives are not those of what it saw.
    """
    if fg_mark:
        open_trace().cuts = True
    return record_rule(rule, operands, {}, value)


def transform_depth():
    """How many transforms are recording around this line."""
    return current_tape().depth


def tracing_example():
    """Whether this thread traces a function of one example, for fg.vmap."""
    return fg_mark != 0 and open_trace().of_example


cdef class Segment:
    """What a function records, for the length of a with block, during which nodes keep their places."""
    cdef CTape* tape
    cdef index_t first

    def __enter__(self):
        self.tape = current_tape()
        self.tape.sweeps += 1
        self.first = self.tape.n
        return self

    def __exit__(self, *exception):
        self.tape.sweeps -= 1
        return False

    def was_there(self, Tensor t):
        """Whether t is differentiated and was made before."""
        return tracked(t) and (t.requires or t.node < self.first)

    def outside(self):
        """The differentiated Tensors made before that the recorded operations read; each once."""
        cdef CTape* tape = self.tape
        cdef index_t i, o
        cdef list found = []
        cdef set seen = set()
        for i in range(self.first, tape.n):
            if tape.nodes[i].op == OP_FREE or tape.nodes[i].refcount == 0:
                continue
            for id in node_operands(tape, i):
                o = id
                if o == 0 or o in seen:
                    continue
                seen.add(o)
                if tape.nodes[o].op == OP_CONSTANT or (o >= self.first and tape.nodes[o].op != OP_LEAF):
                    continue
                if tape.nodes[o].tensor == NULL or (<Tensor>tape.nodes[o].tensor).node != o \
                        or (<Tensor>tape.nodes[o].tensor).tape != tape:
                    raise RuntimeError(
                        "checkpoint: the function reads a Tensor from outside that it also changes, that is gone, or that "
                        "another thread uses; pass it as an argument")
                found.append(<Tensor>tape.nodes[o].tensor)
        return found


cdef class StandIns:
    """While it is open, Tensors stand where inputs of a recording stand, so that its sweeps end at them."""
    cdef list tensors, inputs
    cdef list nodes

    def __init__(self, list tensors, list inputs):
        self.tensors, self.inputs = tensors, inputs

    def __enter__(self):
        cdef Tensor t, u
        for t, u in zip(self.tensors, self.inputs):
            if not t.node or t.tape != u.tape:
                raise RuntimeError("checkpoint: the function reads a Tensor from outside that another thread uses; pass it as "
                                   "an argument")
        self.nodes = []
        for t, u in zip(self.tensors, self.inputs):
            exchange_places(t, u)
            self.nodes.append(t.node)
        return self

    def __exit__(self, *exception):
        cdef Tensor t, u
        for t, u, i in zip(self.tensors, self.inputs, self.nodes):
            if t.node != <index_t>i:
                raise RuntimeError("checkpoint: the function changes a Tensor from outside in place; return the new value")
            exchange_places(t, u)
        return False


cdef void exchange_places(Tensor t, Tensor u) noexcept:
    t.node, u.node = u.node, t.node
    t.requires, u.requires = u.requires, t.requires
    t.tape.nodes[t.node].tensor = <PyObject*>t
    t.tape.nodes[u.node].tensor = <PyObject*>u
