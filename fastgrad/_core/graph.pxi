# Graph: the nodes that a Tensor was computed from, for whoever explains or draws them (fastgrad.learn).

GONE = "this graph was swept by backward, and its numbers are gone; use backward(retain_graph=True), or ask before it"


@cython.final
cdef class Graph(Holder):
    """The nodes that Tensors were computed from, oldest first; held until the Graph goes.

    Parameters
    ----------
    outputs : list of Tensor
        Recorded by this thread.

    Raises
    ------
    RuntimeError
        Where one was not recorded, or was swept by backward: its numbers are gone then.
    """

    def __init__(self, list outputs):
        cdef CTape* tape = current_tape()
        cdef Tensor t
        cdef index_t i, high = 0
        cdef Py_ssize_t n = 0
        cdef set reached = set()
        for t in outputs:
            if not t.node or t.tape != tape:
                raise RuntimeError("nothing was recorded for this Tensor: it is a leaf, was computed inside no_grad or from "
                                   "nothing that asks for a gradient, or belongs to another thread")
            reached.add(t.node)
            high = t.node if t.node > high else high
        found = []
        i = high + 1
        while i > 1:
            i -= 1
            if i not in reached:
                continue
            if tape.nodes[i].flags & SWEPT:
                raise RuntimeError(GONE)
            found.append(i)
            reached.update(node_operands(tape, i))
        self.hold(tape, len(found))
        for id in reversed(found):
            self.nodes[n] = id
            tape.nodes[self.nodes[n]].refcount += 1
            n += 1

    def __dealloc__(self):
        cdef Py_ssize_t k
        if self.tape == NULL:
            return
        for k in range(self.n - 1, -1, -1):
            node_drop(self.tape, self.nodes[k])
        self.let_go()

    def __len__(self):
        return self.n

    cdef Py_ssize_t position(self, index_t i) noexcept:
        """Where node i stands in the Graph; -1: nowhere."""
        cdef Py_ssize_t low = 0, high = self.n, middle
        while low < high:
            middle = (low + high) // 2
            if self.nodes[middle] < i:
                low = middle + 1
            else:
                high = middle
        return low if i and low < self.n and self.nodes[low] == i else -1

    def position_of(self, Tensor t):
        """Where a Tensor stands; -1 where it is not in the Graph."""
        cdef index_t i
        if t.node and t.tape == self.tape and self.position(t.node) >= 0:
            return self.position(t.node)
        i = t.stale                     # a leaf that has another value by now
        while i and t.tape == self.tape:
            if self.position(i) >= 0:
                return self.position(i)
            i = self.tape.nodes[i].b
        return -1

    def node(self, Py_ssize_t k):
        """(NodeRecord, positions of its operands, parameters) of node k; -1: an operand that was not kept."""
        cdef index_t i = self.at(k)
        record = node_record(self.tape, i, 0)
        return record, [self.position(id) for id in node_operands(self.tape, i)], node_parameters(self.tape, i)

    cdef index_t at(self, Py_ssize_t k) except 0:
        if k < 0 or k >= self.n:
            raise IndexError(f"node {k} of a Graph of {self.n} nodes")
        return self.nodes[k]

    cdef index_t unswept(self, Py_ssize_t k) except 0:
        """Node k, whose numbers are still there."""
        cdef index_t i = self.at(k)
        if self.tape.nodes[i].flags & SWEPT:
            raise RuntimeError(GONE)
        return i

    def partial(self, Py_ssize_t k, Py_ssize_t j):
        """The derivative of node k of the table by operand j as an ndarray of the node's shape; None for other operations."""
        cdef CTape* tape = self.tape
        cdef index_t i = self.unswept(k)
        cdef index_t id[3]
        cdef Tensor g
        cdef Node* node = tape.nodes + i
        if node.op >= FG_N_ELEMENTARY or j >= fg_arity[node.op] or not fg_needs[node.op][j]:
            return None
        id[0], id[1] = node.a, node.b
        id[2] = 0 if node.extra == NULL else node.extra.operands[0]
        g = from_ndarray(np.ones(() if node.shape == NULL else shape_tuple(node.shape), cnp.PyArray_DescrFromType(node.dtype)))
        with Recording(False):
            return to_ndarray(broadcast_like(elementwise_rule(tape, i, j, g, id), g))

    def pull(self, Py_ssize_t k, cotangent):
        """What a cotangent of node k contributes: a list of (operand, position, contribution)."""
        cdef CTape* tape = self.tape
        cdef index_t i = self.unswept(k)
        cdef Node* node = tape.nodes + i
        cdef Sweep s
        cdef Tensor g = from_ndarray(np.array(cotangent, cnp.PyArray_DescrFromType(node.dtype)))
        cdef list operands = node_operands(tape, i), result = []
        cdef Py_ssize_t j = 0
        if node.op == OP_LEAF or node.op == OP_INPUT or node.op == OP_CONSTANT:
            return result
        sweep_clear(&s, tape)
        tape.sweeps += 1
        try:
            with Recording(False):
                for id, c in pull_tensors(&s, i, g):
                    node = tape.nodes + <index_t>id
                    check_answer(c, SCALAR_SHAPE if node.shape == NULL else node.shape, op_name(tape.nodes + i), "vjp")
                    while operands[j] != id or not flows_to(tape, i, j):      # in the order of the operands
                        j += 1
                    result.append((j, self.position(id), to_ndarray(bare(fit_tensor(tape, id, c)))))
                    j += 1
        finally:
            tape.sweeps -= 1
        return result


cdef bint flows_to(CTape* tape, index_t i, Py_ssize_t j):
    cdef int op = tape.nodes[i].op
    return op >= FG_N_ELEMENTARY or fg_needs[op][j] != 0


cdef Tensor broadcast_like(Tensor t, Tensor g):
    return t if same_shape(shape_of(t), shape_of(g)) else broadcast_to(t, shape_tuple(shape_of(g)))


cdef dict node_parameters(CTape* tape, index_t i):
    """What an operation was given besides its operands, as far as it says something to a reader."""
    cdef Node* node = tape.nodes + i
    cdef Shape* shape
    cdef Py_ssize_t j
    if node.op == OP_RULE:
        return <dict>node.extra.parameters
    if node.op == OP_TRANSPOSE:
        return {"axes": tuple([node.extra.numbers[j] for j in range(node.extra.n_numbers)])}
    if node.op == OP_INDEX or node.op == OP_SCATTER:    # in elements, over the array that is read or added to
        return {"offset": node.extra.numbers[0], "strides": tuple([node.extra.numbers[j] for j in range(1, node.extra.n_numbers)])}
    if node.op == OP_SUM or node.op == OP_MEAN or node.op == OP_MAX or node.op == OP_MIN:
        shape = tape.nodes[node.a].shape
        axes = axes_of(node.b, 0 if shape == NULL else shape.ndim)
        return {"axis": axes[0] if len(axes) == 1 else axes} if shape != NULL and len(axes) < shape.ndim else {}
    return {}
