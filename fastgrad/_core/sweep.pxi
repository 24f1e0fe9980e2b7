# The two sweeps over a tape: cotangents backwards, tangents forwards.
#
# The compiled sweep works on numbers and Arrays; the recorded sweep does the same on Tensors by the same rules, so that
# its result differentiates again.  A sweep touches only the nodes between its outputs and its inputs.  What reaches a
# node is kept in an array of adjoints beside the tape, which is all empty again when the sweep ends, however it ends.

cdef enum:
    REACHED = 32                    # scratch: this sweep has brought the node a cotangent
    STOPS = 64                      # an input of a transform: a sweep goes no further
    SIGNALS_EVERY = 1 << 16         # nodes between two looks for Ctrl-C

cdef struct Harvest:                # what a backward found for a leaf or a t.retain_grad()
    index_t node
    bint is_array
    Adjoint adjoint

cdef struct Sweep:
    CTape* tape
    Adjoint* adjoints
    index_t capacity
    index_t first                   # with `restricted`: nodes below are not asked for
    index_t low                     # the lowest node reached
    index_t high
    bint restricted                 # only nodes marked NEEDED are asked for
    bint consumes                   # the graph goes afterwards: REACHED stays until then
    bint done                       # every adjoint was used up
    Py_ssize_t n_harvest, harvest_capacity
    Harvest* harvest
    Harvest first_harvest[8]        # where harvest points until it has to grow


cdef void sweep_clear(Sweep* s, CTape* tape) noexcept:
    s.tape = tape
    s.adjoints = NULL
    s.capacity = 0
    s.first = s.low = s.high = 0
    s.restricted = s.consumes = s.done = False
    s.harvest = s.first_harvest
    s.n_harvest = 0
    s.harvest_capacity = 8


cdef int sweep_begin(Sweep* s, CTape* tape, index_t high) except -1:
    """Borrows the tape's adjoints, or makes new ones if a sweep around this one has them."""
    cdef size_t capacity
    sweep_clear(s, tape)
    s.low = high
    s.high = high
    if tape.adjoints_capacity > high:
        s.adjoints = tape.adjoints
        s.capacity = tape.adjoints_capacity
        tape.adjoints = NULL
        tape.adjoints_capacity = 0
    else:
        capacity = tape.capacity
        s.adjoints = <Adjoint*>PyMem_RawCalloc(capacity, sizeof(Adjoint))
        if s.adjoints == NULL:
            raise MemoryError("cannot allocate the adjoints of a sweep")
        s.capacity = <index_t>capacity
    tape.sweeps += 1
    return 0


cdef void sweep_end(Sweep* s) noexcept:
    """Empties what is left and gives the adjoints back."""
    cdef index_t i
    cdef Py_ssize_t k
    cdef CTape* tape = s.tape
    for i in range(s.low, s.high + 1 if not s.done else s.low):
        if tape.nodes[i].flags & REACHED:
            tape.nodes[i].flags &= ~REACHED
            if tape.nodes[i].shape != NULL and s.adjoints[i].array != NULL:
                array_drop(s.adjoints[i].array)
        s.adjoints[i].array = NULL
    for k in range(s.n_harvest):
        if s.harvest[k].is_array:
            array_drop(s.harvest[k].adjoint.array)
    if s.harvest != s.first_harvest:
        PyMem_RawFree(s.harvest)
    if tape.adjoints_capacity < s.capacity:
        PyMem_RawFree(tape.adjoints)
        tape.adjoints = s.adjoints
        tape.adjoints_capacity = s.capacity
    else:
        PyMem_RawFree(s.adjoints)
    tape.sweeps -= 1


cdef int harvest(Sweep* s, index_t i, bint move) except -1:
    """Sets a node's adjoint aside; `move` takes it from the sweep."""
    cdef Py_ssize_t capacity
    cdef Harvest* grown
    if s.n_harvest == s.harvest_capacity:
        capacity = 2 * s.harvest_capacity
        grown = <Harvest*>PyMem_RawMalloc(<size_t>capacity * sizeof(Harvest))
        if grown == NULL:
            raise MemoryError("cannot allocate the leaves of a sweep")
        memcpy(grown, s.harvest, <size_t>s.n_harvest * sizeof(Harvest))
        if s.harvest != s.first_harvest:
            PyMem_RawFree(s.harvest)
        s.harvest = grown
        s.harvest_capacity = capacity
    s.harvest[s.n_harvest].node = i
    s.harvest[s.n_harvest].adjoint = s.adjoints[i]
    s.harvest[s.n_harvest].is_array = s.tape.nodes[i].shape != NULL
    s.n_harvest += 1
    if move:
        s.adjoints[i].array = NULL
        s.tape.nodes[i].flags &= ~REACHED
    elif s.tape.nodes[i].shape != NULL:
        array_keep(s.adjoints[i].array)
    return 0


cdef inline bint wanted(Sweep* s, index_t i) noexcept:
    """Whether a cotangent for node i is asked for."""
    cdef Node* node = s.tape.nodes + i
    if i == 0 or node.op == OP_CONSTANT:
        return False
    return not s.restricted or (i >= s.first and node.flags & NEEDED)


cdef inline bint exclusive(const Array* a) noexcept:
    """Whether these numbers can be written: nobody else looks at them."""
    return a.refcount == 1 and a.strides == NULL and a.base == NULL and a.owner == NULL


cdef inline void reach(Sweep* s, index_t i) noexcept:
    """Notes that node i gets a cotangent."""
    s.tape.nodes[i].flags |= REACHED
    if i < s.low:
        s.low = i


cdef inline int contribute(Sweep* s, index_t i, Array* c) except -1:
    """Adds a cotangent of node i's shape and dtype; takes it over."""
    cdef Array* have = s.adjoints[i].array
    cdef Array* total
    cdef fg_view source, sink
    cdef fg_extent extent
    cdef Py_ssize_t unused[FG_MAX_NDIM]
    reach(s, i)
    if have == NULL:
        s.adjoints[i].array = c
        return 0
    if not exclusive(have):
        if exclusive(c):
            have, c = c, have
            s.adjoints[i].array = have
        else:
            try:
                total = array_new(have.shape, have.dtype)
            except BaseException:
                array_drop(c)
                raise
            array_copy_into(have, total)
            array_drop(have)
            have = total
            s.adjoints[i].array = have
    view_of_value(c, 0, c.shape, unused, &source)
    view_of_value(have, 0, have.shape, unused, &sink)
    extent_of(have.shape, &extent)
    fg_run_add(type_index(have.dtype), &extent, &source, &sink)
    array_drop(c)
    return 0


cdef inline void contribute_number(Sweep* s, index_t i, double value) noexcept:
    reach(s, i)
    s.adjoints[i].number += value


cdef int contribute_tensor(Sweep* s, index_t i, object answer, str name) except -1:
    """Adds what a rule on Tensors gave, summed over broadcast axes and cast as the operand asks."""
    cdef Node* node = s.tape.nodes + i
    cdef Shape* shape = SCALAR_SHAPE if node.shape == NULL else node.shape
    cdef Array* a
    cdef Array* fitted
    cdef Tensor c
    check_answer(answer, shape, name, "vjp")
    c = answer
    if node.shape == NULL:
        contribute_number(s, i, c.sum().item() if c.array != NULL else c.number)
        return 0
    a = array_of(c)
    try:
        fitted = unbroadcast(a, shape, node.dtype)
    finally:
        array_drop(a)
    return contribute(s, i, fitted)


cdef int check_answer(object c, Shape* shape, str name, str rule) except -1:
    """What a vjp or jvp gave: a float Tensor, of a shape that the due one was broadcast to."""
    cdef Py_ssize_t gap, d
    cdef Shape* have
    if type(c) is not Tensor or not is_float(<Tensor>c):
        raise TypeError(f"{name}: its {rule} gave {type(c).__name__ if type(c) is not Tensor else c.dtype} where a float "
                        f"Tensor of shape {shape_tuple(shape)} is due")
    have = shape_of(<Tensor>c)
    gap = have.ndim - shape.ndim
    if gap >= 0:
        for d in range(shape.ndim):
            if shape.dims[d] != have.dims[gap + d] and shape.dims[d] != 1:
                gap = -1
                break
    if gap < 0 and rule == "vjp":
        raise ValueError(f"{name}: its vjp gave a cotangent of shape {shape_tuple(have)} for an operand of shape "
                         f"{shape_tuple(shape)}")
    if rule == "jvp" and not same_shape(have, shape):
        raise ValueError(f"{name}: its {rule} gave shape {shape_tuple(have)} where shape {shape_tuple(shape)} is due")
    return 0


# ------------------------------------------------------------------------------------------------- the compiled sweep

cdef index_t run_numbers(Sweep* s, index_t i) noexcept:
    """As far down from node i as nodes are elementwise on 0-d numbers; returns the first node that is not.

    The loop that scalar code lives by (benches/test_scalars.py): everything it touches is in local variables.
    """
    cdef Adjoint* adjoints = s.adjoints
    cdef Node* nodes = s.tape.nodes
    cdef Node* node
    cdef index_t low = s.low, first = s.first, a, b
    cdef bint restricted = s.restricted, want_a, want_b
    cdef unsigned short flags, keep = 0xFFFF if s.consumes else <unsigned short>~REACHED
    cdef int plain = PLAIN if not s.tape.watching & WATCH_NUMBERS else -1       # watched: none is
    cdef double g, da = 0, db = 0
    while i >= low and i:
        node = nodes + i
        flags = node.flags
        if not flags & REACHED:
            i -= 1
            continue
        if flags & (PLAIN | SWEPT | STOPS | RETAINS) != plain:
            break
        a = node.a
        b = node.b
        g = adjoints[i].number
        adjoints[i].number = 0
        node.flags = flags & keep
        want_a = flags & FLOWS_A
        want_b = flags & FLOWS_B
        if restricted:
            want_a = want_a and a >= first and nodes[a].flags & NEEDED
            want_b = want_b and b >= first and nodes[b].flags & NEEDED
        fg_scalar_pulls(node.op, want_a, want_b, g, nodes[a].value.number, nodes[b].value.number, node.value.number, &da, &db)
        if want_a:
            adjoints[a].number += da
            nodes[a].flags |= REACHED
            low = a if a < low else low
        if want_b:
            adjoints[b].number += db
            nodes[b].flags |= REACHED
            low = b if b < low else low
        i -= 1
    s.low = low
    return i


cdef int run_backward(Sweep* s) except -1:
    """From the highest seeded node down to the lowest one reached."""
    cdef CTape* tape = s.tape
    cdef index_t i = s.high + 1, next_look = 0
    cdef Node* node
    cdef int op
    while i > s.low:
        i = run_numbers(s, i - 1)
        if i < s.low or i == 0:
            break
        if s.high - i >= next_look:
            next_look = s.high - i + SIGNALS_EVERY
            PyErr_CheckSignals()
        node = tape.nodes + i
        op = node.op
        if node.flags & STOPS:                  # an input: its adjoint stays for whoever asked
            continue
        if node.flags & SWEPT:
            raise RuntimeError(
                "backward through a graph that was swept before: its saved values are gone; "
                "use backward(retain_graph=True) the first time, or compute the value again")
        if node.flags & RETAINS and not s.restricted:
            harvest(s, i, False)
        if op == OP_LEAF or op == OP_INPUT:
            if not s.restricted:
                harvest(s, i, True)
            continue
        if op < FG_N_ELEMENTARY:
            pull_elementwise(s, i)
        else:
            pull_structured(s, i)
        if tape.watching & WATCH_NUMBERS:
            watch_cotangents(s, i)
        node = tape.nodes + i
        if node.shape != NULL:
            array_drop(s.adjoints[i].array)
        s.adjoints[i].array = NULL
        if not s.consumes:
            node.flags &= ~REACHED
    s.done = not s.restricted
    return 0


cdef inline void view_of_node(Node* node, const Shape* shape, Py_ssize_t* strides, fg_view* view) noexcept:
    if node.shape == NULL:
        view.kind = FG_ONE
        view.one = node.value.number
        view.data = NULL
    else:
        view_of_value(node.value.array, 0, shape, strides, view)


cdef int pull_elementwise(Sweep* s, index_t i) except -1:
    """The cotangents of an operation of the table, whatever its operands' shapes and dtypes."""
    cdef CTape* tape = s.tape
    cdef Node* node = tape.nodes + i
    cdef Node* operand
    cdef int op = node.op, k, type = type_index(node.dtype), needs, mode
    cdef index_t id[3]
    cdef Shape* shape = SCALAR_SHAPE if node.shape == NULL else node.shape
    cdef fg_view views[5]
    cdef fg_view to
    cdef fg_extent extent
    cdef Py_ssize_t strides[6][FG_MAX_NDIM]
    cdef Array* g = NULL if node.shape == NULL else s.adjoints[i].array
    cdef Array* have
    cdef Array* fresh
    cdef Array* whole
    cdef int j
    id[0], id[1] = node.a, node.b
    id[2] = 0 if node.extra == NULL else node.extra.operands[0]
    extent_of(shape, &extent)
    view_of_value(g, s.adjoints[i].number, shape, strides[0], views)
    for k in range(fg_arity[op]):
        needs = fg_needs[op][k]
        if not needs or not wanted(s, id[k]):
            continue
        operand = tape.nodes + id[k]
        if needs & 32 and g != NULL and operand.shape != NULL:
            contribute(s, id[k], unbroadcast(g, operand.shape, operand.dtype))
            continue
        if s.adjoints[id[k]].array == NULL and pull_alike(s, i, k, id, g):
            continue
        for j in range(3):
            if needs & (1 << j):
                view_of_node(tape.nodes + id[j], shape, strides[1 + j], views + 1 + j)
            else:
                views[1 + j].kind = FG_ABSENT
                views[1 + j].data = NULL
        if needs & 8:
            view_of_node(node, shape, strides[4], views + 4)
        else:
            views[4].kind = FG_ABSENT
            views[4].data = NULL
        if operand.shape == NULL:
            to.kind = FG_ONE
            to.one = 0
            to.type = type
            fg_run_pull(op, k, type, &extent, views, &to, FG_TO_SUM)
            contribute_number(s, id[k], to.one)
            continue
        have = s.adjoints[id[k]].array
        fresh = NULL
        if shape.size > FEW_ROWS * operand.shape.size:      # long sums, with few rounding errors
            whole = array_new(shape, node.dtype)
            try:
                view_of_value(whole, 0, shape, strides[5], &to)
                with nogil:
                    fg_run_pull(op, k, type, &extent, views, &to, FG_TO_STORE)
                fresh = unbroadcast(whole, operand.shape, operand.dtype)
            finally:
                array_drop(whole)
            contribute(s, id[k], fresh)
            continue
        if same_shape(operand.shape, shape) and operand.dtype == node.dtype:
            mode = FG_TO_ADD
            if have == NULL or not exclusive(have):
                fresh = array_new(operand.shape, operand.dtype)
                mode = FG_TO_STORE
        else:
            mode = FG_TO_ADD
            if have == NULL or not exclusive(have):
                fresh = array_new(operand.shape, operand.dtype)
                fg_kernels.fill[type_index(operand.dtype)](operand.shape.size, 0, fresh.data)
        view_of_value(fresh if fresh != NULL else have, 0, shape, strides[5], &to)
        if shape.size > LONG:
            with nogil:
                fg_run_pull(op, k, type, &extent, views, &to, mode)
        else:
            fg_run_pull(op, k, type, &extent, views, &to, mode)
        if fresh != NULL:
            contribute(s, id[k], fresh)
    return 0


cdef inline const char* numbers_if_alike(const Node* node, const Array* g) noexcept:
    """The numbers of a node's value where they lie like g's."""
    cdef const Array* a = node.value.array
    if node.shape == NULL or a == NULL or a.strides != NULL or a.dtype != g.dtype or not same_shape(a.shape, g.shape):
        return NULL
    return a.data


cdef bint pull_alike(Sweep* s, index_t i, int k, index_t* id, Array* g) except -1:
    """The first cotangent of an operand where all is contiguous and of one shape and dtype; False where it is not."""
    cdef Node* nodes = s.tape.nodes
    cdef int op = nodes[i].op, needs = fg_needs[op][k], j
    cdef const char* data[4]
    cdef Node* operand = nodes + id[k]
    cdef Array* fresh
    if g == NULL or g.strides != NULL or g.shape.size > LONG or operand.shape == NULL or operand.dtype != g.dtype \
            or not same_shape(operand.shape, g.shape):
        return False
    for j in range(4):
        data[j] = NULL
        if needs & (1 << j):
            data[j] = numbers_if_alike(nodes + (i if j == 3 else id[j]), g)
            if data[j] == NULL:
                return False
    fresh = array_new(operand.shape, g.dtype)
    fg_kernels.pull[op][k][type_index(g.dtype)](g.shape.size, g.data, data[0], data[1], data[2], data[3], fresh.data)
    s.adjoints[id[k]].array = fresh
    reach(s, id[k])
    return True


cdef int pull_structured(Sweep* s, index_t i) except -1:
    """The cotangents of any other operation, compiled where there is a compiled pullback."""
    cdef CTape* tape = s.tape
    cdef Node* node = tape.nodes + i
    cdef Node* operand = tape.nodes + node.a
    cdef int op = node.op, k
    cdef index_t id
    cdef Array* g
    cdef Array* made = NULL
    cdef Array* c = NULL
    cdef double number = 0
    cdef Shape* shape = SCALAR_SHAPE if operand.shape == NULL else operand.shape
    if op == OP_RULE or not (wanted(s, node.a) or (op == OP_MATMUL and wanted(s, node.b))):
        if op == OP_RULE:
            pull_by_tensors(s, i)
        return 0
    if op == OP_MATMUL:
        g = NULL
        if node.shape == NULL:
            number = s.adjoints[i].number
        else:
            g = s.adjoints[i].array
        for k in range(2):
            id = node.b if k else node.a
            if not wanted(s, id):
                continue
            operand = tape.nodes + id
            c = NULL
            if tape.nodes[node.a if k else node.b].value.array != NULL:
                c = matmul_back(k, g, number, tape.nodes[node.a if k else node.b].value.array, operand.shape, operand.dtype)
            if c == NULL:
                pull_by_tensors(s, i)       # both operands at once
                return 0
            contribute(s, id, c)
        return 0
    if node.shape == NULL and operand.shape == NULL:        # from number to number
        contribute_number(s, node.a, s.adjoints[i].number)
        return 0
    if op == OP_INDEX:
        index_back(s, node.a, NULL if node.shape == NULL else s.adjoints[i].array, s.adjoints[i].number, node)
        return 0
    if node.shape == NULL:
        made = array_new(SCALAR_SHAPE, NPY_DOUBLE)
        (<double*>made.data)[0] = s.adjoints[i].number
        g = made
    else:
        g = s.adjoints[i].array
    try:
        if op == OP_ALIAS:
            c = array_keep(g)
        elif op == OP_SUM or op == OP_MEAN:
            c = sum_back(g, shape, node.b, 1.0 if op == OP_SUM else 1.0 / size_over(shape, node.b))
        elif op == OP_MAX or op == OP_MIN:
            if node.shape == NULL:
                (<double*>made.data)[0] = node.value.number
                c = array_new(SCALAR_SHAPE, NPY_DOUBLE)
                (<double*>c.data)[0] = s.adjoints[i].number
                g = c
                c = extreme_back(g, operand.value.array, made, node.b)
                array_drop(g)
            else:
                c = extreme_back(g, operand.value.array, node.value.array, node.b)
        elif op == OP_RESHAPE:
            c = reshape_back(g, shape)
        elif op == OP_TRANSPOSE:
            c = permute_back(g, shape, node.extra)
        elif op == OP_BROADCAST or op == OP_CAST:
            c = unbroadcast(g, shape, operand.dtype)
        elif op == OP_LOGSUMEXP or op == OP_SOFTMAX or op == OP_LOG_SOFTMAX:
            c = row_back(op, g, operand.value.array, NULL if node.shape == NULL else node.value.array, shape,
                         node.value.number if node.shape == NULL else 0)
        elif op == OP_CROSS_ENTROPY:
            c = cross_entropy_back(g, operand.value.array, tape.nodes[node.b].value.array)
        if c == NULL:
            pull_by_tensors(s, i)
        elif operand.shape == NULL:
            contribute_number(s, node.a, (<double*>c.data)[0])
            array_drop(c)
        else:
            contribute(s, node.a, c)
    finally:
        if made != NULL:
            array_drop(made)
    return 0


cdef int index_back(Sweep* s, index_t a, Array* g, double number, Node* node) except -1:
    """Adds into the indexed part in place, so that a loop over rows costs its rows only."""
    cdef Node* operand = s.tape.nodes + a
    cdef Array* have = s.adjoints[a].array
    cdef Array* fresh
    if have == NULL or not exclusive(have):
        fresh = array_new(operand.shape, operand.dtype)
        reach(s, a)
        if have == NULL:
            fg_kernels.fill[type_index(operand.dtype)](operand.shape.size, 0, fresh.data)
        else:
            array_copy_into(have, fresh)
            array_drop(have)
        s.adjoints[a].array = fresh
        have = fresh
    return index_add(have, g, number, operand.shape, node.extra)


cdef int pull_by_tensors(Sweep* s, index_t i) except -1:
    """By the rule on Tensors, not recorded."""
    cdef CTape* tape = s.tape
    cdef Node* node = tape.nodes + i
    cdef Tensor g
    cdef int recording = tape.recording
    if node.shape == NULL:
        g = new_number(s.adjoints[i].number)
    else:
        g = new_tensor(array_keep(s.adjoints[i].array))
    tape.recording = False
    try:
        for id, c in pull_tensors(s, i, g):
            contribute_tensor(s, id, c, op_name(tape.nodes + i))
    finally:
        tape.recording = recording
    return 0


# ------------------------------------------------------------------------------------------------- the rules on Tensors

cdef dict rule_functions = {}
cdef dict rule_names = {}


cdef object rule_function(int op, int k):
    """The pullback of a row by operand k, as a function of g, x, y, z and out on Tensors."""
    key = 4 * op + k
    function = rule_functions.get(key)
    if function is None:
        if not rule_names:
            rule_names.update({name: UFUNCS_BY_NAME[name] for name in NAMES if name})
            rule_names.update(CONSTANTS, __name__="fastgrad._core.engine")      # so that no line of theirs is taken for the user's
        function = eval("lambda g, x, y, z, out: " + RULES[op][k], rule_names)
        rule_functions[key] = function
    return function


cdef Tensor saved_of_node(CTape* tape, index_t i):
    """The operand as a rule reads it: None where its numbers were not kept."""
    cdef Node* node = tape.nodes + i
    if i == 0 or (node.shape != NULL and node.value.array == NULL):
        return None
    return tensor_of_node(tape, i)


cdef list pull_tensors(Sweep* s, index_t i, Tensor g):
    """(operand, cotangent) of node i by its rule on Tensors; recorded if the tape records."""
    cdef CTape* tape = s.tape
    cdef Node* node = tape.nodes + i
    cdef int op = node.op, k, needs
    cdef index_t id[3]
    cdef Tensor x, out, c
    cdef Rule rule
    cdef Py_ssize_t j, n
    cdef list result = []
    cdef unsigned int b = node.b
    if op < FG_N_ELEMENTARY:
        id[0], id[1] = node.a, node.b
        id[2] = 0 if node.extra == NULL else node.extra.operands[0]
        for k in range(fg_arity[op]):
            if not fg_needs[op][k] or not wanted(s, id[k]):
                continue
            c = elementwise_rule(tape, i, k, g, id)
            result.append((id[k], c))
        return result
    if op == OP_RULE:
        rule = <Rule>node.extra.rule
        parameters = <dict>node.extra.parameters
        n = node.extra.n_operands
        operands = [saved_of_node(tape, tape.nodes[i].extra.operands[j]) if rule.saves_operands else None for j in range(n)]
        out = saved_of_node(tape, i) if rule.saves_out else None
        answer = rule.vjp(g, out, *operands, **parameters)
        if n == 1 and type(answer) is not tuple:
            answer = (answer,)
        if type(answer) is not tuple or len(answer) != n:
            given = len(answer) if type(answer) is tuple else 1
            raise TypeError(f"{rule.name}: its vjp gave {given} cotangents for {n} operands")
        for j in range(n):
            if answer[j] is not None and wanted(s, tape.nodes[i].extra.operands[j]):
                result.append((tape.nodes[i].extra.operands[j], answer[j]))
        return result
    if op == OP_MATMUL:
        id[0], id[1] = node.a, node.b
        for k in range(2):
            if wanted(s, id[k]):
                shape = shape_tuple(tape.nodes[id[k]].shape)
                result.append((id[k], pull_matmul(k, g, tensor_of_node(tape, id[1 - k]), shape)))
        return result
    id[0] = node.a
    if not wanted(s, id[0]):
        return result
    result.append((id[0], pull_one(tape, i, g)))
    return result


cdef Tensor elementwise_rule(CTape* tape, index_t i, int k, Tensor g, index_t* id):
    cdef int op = tape.nodes[i].op, needs = fg_needs[op][k]
    if fg_mark and not tape.recording and g.dtype_number == tape.nodes[i].dtype and not rule_is_simple(op, k):
        return pull_compiled(tape, i, k, g, id)
    cdef Tensor x = as_computed(tape, i, id[0]) if needs & 1 else None
    cdef Tensor y = as_computed(tape, i, id[1]) if needs & 2 else None
    cdef Tensor z = as_computed(tape, i, id[2]) if needs & 4 else None
    cdef Tensor out = tensor_of_node(tape, i) if needs & 8 else None
    return rule_function(op, k)(g, x, y, z, out)


cdef Tensor as_computed(CTape* tape, index_t i, index_t operand):
    """An operand of node i in the precision that node i was computed in, as the loops read it.

    Else a part of a rule that reads one operand alone would round to float32 in a float64 operation, and a number, which
    is kept as a float64, would make a float32 operation's tangent float64.
    """
    cdef int dtype = tape.nodes[i].dtype
    cdef Tensor t = tensor_of_node(tape, operand)
    if t.dtype_number == dtype or not is_float(t):
        return t
    return cast(t, cnp.PyArray_DescrFromType(dtype))


cdef dict simple_rules = {}


cdef bint rule_is_simple(int op, int k):
    """Whether a pullback is one operation of the table at most."""
    key = 4 * op + k
    simple = simple_rules.get(key)
    if simple is None:
        simple = re.fullmatch(r"g|0\.0|negative\(g\)|(guarded_)?multiply\(g, [\w.]+\)", RULES[op][k]) is not None
        simple_rules[key] = simple
    return simple


cdef Tensor pull_compiled(CTape* tape, index_t i, int k, Tensor g, index_t* id):
    """The pullback of an elementwise operation by its kernel, as one value of the open trace."""
    cdef int op = tape.nodes[i].op, needs = fg_needs[op][k], type = type_index(tape.nodes[i].dtype), j
    cdef list given = [g, None, None, None, None]
    for j in range(4):
        if needs & (1 << j):
            given[1 + j] = tensor_of_node(tape, i if j == 3 else id[j])
    return pull_by_kernel(op, k, type, given)


cdef Tensor pull_by_kernel(int op, int k, int type, list given):
    """The pullback of the table's operation op by operand k, of (g, x, y, z, out); of g's shape and dtype."""
    cdef Tensor t, result, g = given[0]
    cdef fg_view views[5]
    cdef fg_view to
    cdef fg_extent extent
    cdef Py_ssize_t strides[5][FG_MAX_NDIM]
    cdef Shape* shape = shape_of(g)
    cdef Array* out
    cdef int j
    extent_of(shape, &extent)
    for j in range(5):
        t = given[j]
        if t is None:
            views[j].kind = FG_ABSENT
            views[j].data = NULL
        else:
            view_of_value(t.array, t.number, shape, strides[j], views + j)
    if shape.ndim == 0 and type == FG_F64:
        to.kind, to.one, to.type = FG_ONE, 0, type
        fg_run_pull(op, k, type, &extent, views, &to, FG_TO_SUM)
        result = new_number(to.one)
    else:
        out = array_new(shape, g.dtype_number)
        to.kind, to.type, to.data = FG_CONTIGUOUS, type, out.data
        if shape.size > LONG:
            with nogil:
                fg_run_pull(op, k, type, &extent, views, &to, FG_TO_STORE)
        else:
            fg_run_pull(op, k, type, &extent, views, &to, FG_TO_STORE)
        result = new_tensor(out)
    if fg_mark:
        note_pull(V_PULL + 3 * op + k, result, given[0], given[1], given[2], given[3], given[4], <index_t>type)
    return result


cdef Tensor pull_rows_compiled(CTape* tape, index_t i, Tensor g):
    """The same for the operations over rows that have a compiled pullback; None where it does not cover the layout."""
    cdef int op = tape.nodes[i].op
    cdef index_t parameter = op
    cdef Tensor x = None, out
    if op == OP_LOGSUMEXP or op == OP_CROSS_ENTROPY or op == OP_MAX or op == OP_MIN:
        x = tensor_of_node(tape, tape.nodes[i].a)
    if op == OP_CROSS_ENTROPY:
        return pull_rows_by_kernel(V_CROSS_ENTROPY_PULL, g, x, tensor_of_node(tape, tape.nodes[i].b), parameter)
    out = tensor_of_node(tape, i)
    if op == OP_MAX or op == OP_MIN:
        return pull_rows_by_kernel(V_EXTREME_PULL, g, x, out, tape.nodes[i].b)
    return pull_rows_by_kernel(V_ROW_PULL, g, x, out, parameter)


cdef Tensor pull_rows_by_kernel(int op, Tensor g, Tensor x, Tensor out, index_t parameter):
    """V_ROW_PULL, V_EXTREME_PULL or, with the labels as out, V_CROSS_ENTROPY_PULL."""
    cdef Array* arrays[3]
    cdef Array* c = NULL
    cdef Array* a
    cdef Tensor t, result
    cdef int k
    memset(arrays, 0, sizeof(arrays))
    try:
        for k in range(3):
            t = g if k == 0 else x if k == 1 else out
            if t is not None:
                a = array_of(t)
                try:
                    arrays[k] = array_contiguous(a)
                finally:
                    array_drop(a)
        if op == V_CROSS_ENTROPY_PULL:
            c = cross_entropy_back(arrays[0], arrays[1], arrays[2])
        elif op == V_EXTREME_PULL:
            c = extreme_back(arrays[0], arrays[1], arrays[2], <unsigned int>parameter)
        else:
            c = row_back(<int>parameter, arrays[0], arrays[1], arrays[2],
                         (arrays[1] if arrays[1] != NULL else arrays[0]).shape, 0)
    finally:
        for k in range(3):
            if arrays[k] != NULL:
                array_drop(arrays[k])
    if c == NULL:
        return None
    result = new_tensor(c)
    if fg_mark:
        note_pull(op, result, g, x, None, None, out, parameter)
    return result


cdef Tensor pull_one(CTape* tape, index_t i, Tensor g):
    """The cotangent of the only operand of a structured operation."""
    cdef Node* node = tape.nodes + i
    cdef Tensor compiled
    cdef index_t a = node.a
    cdef int op = node.op
    cdef unsigned int b = node.b
    cdef Shape* shape = SCALAR_SHAPE if tape.nodes[a].shape == NULL else tape.nodes[a].shape
    cdef Py_ssize_t axes[FG_MAX_NDIM]
    if fg_mark and not tape.recording and (op == OP_MAX or op == OP_MIN or OP_LOGSUMEXP <= op <= OP_CROSS_ENTROPY):
        compiled = pull_rows_compiled(tape, i, g)
        if compiled is not None:
            return compiled
        node = tape.nodes + i
    if op == OP_ALIAS:
        return g
    if op == OP_SUM:
        return pull_sum(g, shape, b)
    if op == OP_MEAN:
        return pull_mean(g, shape, b)
    if op == OP_MAX or op == OP_MIN:
        return pull_extreme(g, tensor_of_node(tape, a), tensor_of_node(tape, i), b)
    if op == OP_RESHAPE:
        return reshape(g, shape_tuple(shape))
    if op == OP_TRANSPOSE:
        inverse_axes(node.extra, axes)
        return permute(g, axes)
    if op == OP_BROADCAST:
        return unbroadcast_tensor(g, shape_tuple(shape))
    if op == OP_CAST:
        return cast(g, cnp.PyArray_DescrFromType(tape.nodes[a].dtype))
    if op == OP_INDEX:
        return scatter(g, node.extra, shape)
    if op == OP_SCATTER:
        return index_again(g, node.extra, shape)
    if op == OP_CROSS_ENTROPY:
        return pull_cross_entropy(g, tensor_of_node(tape, a), tensor_of_node(tape, b))
    return pull_row(op, g, tensor_of_node(tape, a) if op == OP_LOGSUMEXP else None, tensor_of_node(tape, i))


cdef Tensor push_tensors(CTape* tape, index_t i, dict tangents):
    """The tangent of node i from those of its operands; None where all are zero."""
    cdef Node* node = tape.nodes + i
    cdef int op = node.op, k
    cdef index_t id[3]
    cdef index_t a = node.a
    cdef unsigned int b = node.b
    cdef Tensor t, total = None, x, y
    cdef Rule rule
    cdef Py_ssize_t j, n
    cdef Py_ssize_t axes[FG_MAX_NDIM]
    cdef Shape* shape = shape_keep(SCALAR_SHAPE if node.shape == NULL else node.shape)
    try:
        if op < FG_N_ELEMENTARY:
            id[0], id[1] = node.a, node.b
            id[2] = 0 if node.extra == NULL else node.extra.operands[0]
            dtype = cnp.PyArray_DescrFromType(node.dtype)
            for k in range(fg_arity[op]):
                t = tangents.get(id[k]) if id[k] and fg_needs[op][k] else None
                if t is None:
                    continue
                if t.dtype_number != tape.nodes[i].dtype:
                    t = cast(t, dtype)
                if not same_shape(shape_of(t), shape):
                    t = broadcast_to(t, shape_tuple(shape))
                t = elementwise_rule(tape, i, k, t, id)
                total = t if total is None else apply2(FG_ADD, total, t)
            return total
        if op == OP_RULE:
            rule = <Rule>node.extra.rule
            parameters = <dict>node.extra.parameters
            n = node.extra.n_operands
            given = [tangents.get(node.extra.operands[j]) if node.extra.operands[j] else None for j in range(n)]
            if all_none(given):
                return None
            if rule.jvp == "linear":
                filled = []
                for j in range(n):
                    t = given[j]
                    if t is None:
                        t = zeros_of_node(tape, tape.nodes[i].extra.operands[j])
                    filled.append(t)
                return apply_rule(rule, tuple(filled), parameters)
            operands = [saved_of_node(tape, tape.nodes[i].extra.operands[j]) if rule.saves_operands else None for j in range(n)]
            answer = rule.jvp(given, saved_of_node(tape, i) if rule.saves_out else None, *operands, **parameters)
            check_answer(answer, shape, rule.name, "jvp")
            return answer
        if op == OP_MATMUL:
            x, y = tangents.get(node.a), tangents.get(node.b) if node.b else None
            id[0], id[1] = node.a, node.b
            if x is not None:
                total = matmul(x, tensor_of_node(tape, id[1]))
            if y is not None:
                y = matmul(tensor_of_node(tape, id[0]), y)
                total = y if total is None else apply2(FG_ADD, total, y)
            return total
        t = tangents.get(a)
        if t is None:
            return None
        if op == OP_ALIAS:
            return t
        if op == OP_SUM or op == OP_MEAN:
            t = reduce(op, t, axes_of(b, t.ndim), False, "sum")
            return reshape(t, shape_tuple(shape))
        if op == OP_MAX or op == OP_MIN:
            return push_extreme(t, tensor_of_node(tape, a), tensor_of_node(tape, i), b)
        if op == OP_RESHAPE:
            return reshape(t, shape_tuple(shape))
        if op == OP_TRANSPOSE:
            memcpy(axes, node.extra.numbers, <size_t>node.extra.n_numbers * sizeof(Py_ssize_t))
            return permute(t, axes)
        if op == OP_BROADCAST:
            return broadcast_to(t, shape_tuple(shape))
        if op == OP_CAST:
            return cast(t, cnp.PyArray_DescrFromType(node.dtype))
        if op == OP_INDEX:
            return index_again(t, node.extra, shape)
        if op == OP_SCATTER:
            return scatter(t, node.extra, shape)
        if op == OP_CROSS_ENTROPY:
            return push_cross_entropy(t, tensor_of_node(tape, a), tensor_of_node(tape, b))
        return push_row(op, t, tensor_of_node(tape, a) if op == OP_LOGSUMEXP else None, tensor_of_node(tape, i))
    finally:
        shape_drop(shape)


cdef bint all_none(list values):
    for value in values:
        if value is not None:
            return False
    return True


cdef Tensor zeros_of_node(CTape* tape, index_t i):
    return from_ndarray(np.zeros(() if tape.nodes[i].shape == NULL else shape_tuple(tape.nodes[i].shape),
                                 cnp.PyArray_DescrFromType(tape.nodes[i].dtype)))


cdef str op_name(Node* node):
    """The name of what a node did."""
    if node.op == OP_RULE:
        return (<Rule>node.extra.rule).name
    if node.op < FG_N_ELEMENTARY:
        return NAMES[node.op]
    return STRUCTURED_NAMES[node.op - OP_LEAF]


STRUCTURED_NAMES = ("leaf", "input", "constant", "alias", "astype", "sum", "mean", "max", "min", "reshape", "transpose",
                    "broadcast_to", "getitem", "matmul", "logsumexp", "softmax", "log_softmax", "softmax_cross_entropy",
                    "scatter", "rule")


cdef list node_operands(CTape* tape, index_t i):
    """The operands of a node in their order; 0 for one that is no node because no derivative reads it."""
    cdef Node* node = tape.nodes + i
    cdef Py_ssize_t j
    cdef list operands = []
    if node.op == OP_RULE or node.op < FG_N_ELEMENTARY and fg_arity[node.op] == 3:
        if node.op != OP_RULE:
            operands += [node.a, node.b]
        for j in range(node.extra.n_operands):
            operands.append(node.extra.operands[j])
    elif op_has_b(node.op):
        operands += [node.a, node.b] if node.op >= FG_N_ELEMENTARY or fg_arity[node.op] == 2 else [node.a]
    elif node.op != OP_LEAF and node.op != OP_INPUT and node.op != OP_CONSTANT:
        operands.append(node.a)
    return operands


cdef object node_value(Node* node):
    """The numbers of a node's value; None where they are gone."""
    if node.shape == NULL:
        return node.value.number
    if node.value.array != NULL:
        return view_ndarray(node.value.array, False)
    if node.op != OP_FREE and node.tensor != NULL:
        return np.array(numbers_of(<Tensor>node.tensor))        # whose memory may get other numbers
    return None


cdef object node_record(CTape* tape, index_t i, index_t first):
    """A node for somebody who looks at a tape."""
    cdef Node* node = tape.nodes + i
    note = None if node.extra == NULL or node.extra.note == NULL else <object>node.extra.note
    return NodeRecord(op_name(node), tuple([<long long>o - <long long>first for o in node_operands(tape, i) if o]),
                      () if node.shape == NULL else shape_tuple(node.shape), cnp.PyArray_DescrFromType(node.dtype),
                      node_value(node), note)


class NodeRecord:
    """One entry of a tape, as ``fg.Tape`` shows it.

    Attributes
    ----------
    op : str
        What was done.
    operands : tuple of int
        Positions on the same fg.Tape; negative ones were recorded before it was opened.
    shape, dtype
        Of the value.
    value : float, ndarray or None
        None where the numbers are gone because no derivative reads them.
    note : Note or None
        Its ``name`` and ``place``, where somebody asked for them (``fg.mark``, ``fg.Tape(lines=True)``).
    """
    __slots__ = ("op", "operands", "shape", "dtype", "value", "note")

    def __init__(self, op, operands, shape, dtype, value, note=None):
        self.op, self.operands, self.shape, self.dtype, self.value, self.note = op, operands, shape, dtype, value, note

    def __repr__(self):
        return f"{self.op}{self.operands} -> {self.dtype}{list(self.shape)}"


# --------------------------------------------------------------------------------------------------------- backward()

cdef object seed_of(Tensor out, object gradient):
    """The cotangent to start from: a Tensor of out's shape and dtype."""
    cdef Tensor g
    if gradient is None:
        if out.array == NULL:
            return new_number(1.0)
        if out.array.shape.size != 1:
            raise ValueError(
                f"backward of a Tensor of shape {out.shape}: without a gradient only one element has one; "
                "pass backward(gradient) of that shape, or reduce first, for example with .sum()")
        return from_ndarray(np.ones(out.shape, out.dtype))
    g = as_tensor(gradient, "backward")
    if not same_shape(shape_of(g), shape_of(out)):
        raise ValueError(f"backward: a gradient of shape {g.shape} for a Tensor of shape {out.shape}")
    return g if g.dtype_number == out.dtype_number else cast(g, out.dtype)


cdef int backward(Tensor out, object gradient, bint retain_graph, bint create_graph) except -1:
    cdef CTape* tape = current_tape()
    cdef Sweep s
    cdef Tensor g
    if not tracked(out):
        raise RuntimeError("backward: nothing was recorded for this Tensor; set requires_grad=True on a leaf it is "
                           "computed from, outside of no_grad")
    check_tape(out, tape)
    g = seed_of(out, gradient)
    if create_graph:
        return backward_recorded(out, g, True, False)
    if out.requires:
        if fg_mark:
            open_trace().look_at_gradient(out)
        accumulate(out, copy(bare(<Tensor>g)))
        return 0
    if fg_mark:
        return backward_recorded(out, g, False, not retain_graph)
    sweep_begin(&s, tape, out.node)
    try:
        s.consumes = not retain_graph
        seed(&s, out.node, g)
        run_backward(&s)
        s.done = False
        commit(&s)
        tape.marking += 1
        if s.consumes:
            discard_swept(&s)
        s.done = True
    finally:
        sweep_end(&s)
    return 0


cdef int seed(Sweep* s, index_t i, Tensor g) except -1:
    """Starts a sweep at node i with the cotangent g, of its shape and dtype."""
    if s.tape.nodes[i].flags & SWEPT:
        raise RuntimeError(
            "backward through a graph that was swept before: its saved values are gone; "
            "use backward(retain_graph=True) the first time, or compute the value again")
    if s.tape.nodes[i].shape == NULL:
        contribute_number(s, i, g.number)
        return 0
    return contribute(s, i, array_of(g))


cdef Tensor tensor_from_adjoint(Node* node, Adjoint adjoint):
    """A Tensor of its own memory; the adjoint stays counted by its owner."""
    cdef Array* a
    cdef Array* own
    if node.shape == NULL:
        return new_number(adjoint.number)
    a = adjoint.array
    if exclusive(a):
        return new_tensor(array_keep(a))
    own = array_new(a.shape, a.dtype)
    array_copy_into(a, own)
    return new_tensor(own)


cdef int commit(Sweep* s) except -1:
    """Adds the harvest to grad of the leaves: everything that can fail first, then all of it."""
    cdef Py_ssize_t k
    cdef Harvest* h
    cdef Tensor leaf
    cdef Node* node
    cdef dict fresh = None
    for k in range(s.n_harvest):
        h = s.harvest + k
        node = s.tape.nodes + h.node
        if node.tensor == NULL or adds_in_place(<Tensor>node.tensor, node):
            continue
        g = tensor_from_adjoint(node, h.adjoint)
        leaf = <Tensor>node.tensor
        if fresh is None:
            fresh = {}
        have = fresh[id(leaf)][1] if id(leaf) in fresh else leaf.gradient if node.op == OP_LEAF else None
        fresh[id(leaf)] = (leaf, g if have is None else sum_untracked(have, g))
    for k in range(s.n_harvest):
        h = s.harvest + k
        node = s.tape.nodes + h.node
        if node.tensor != NULL and adds_in_place(<Tensor>node.tensor, node):
            add_in_place((<Tensor>node.tensor).gradient, h.adjoint)
    if fresh is not None:
        for leaf, g in fresh.values():
            leaf.gradient = g
    return 0


cdef inline bint adds_in_place(Tensor leaf, Node* node) noexcept:
    """Whether a leaf has a gradient of its own that nobody else's memory is part of."""
    cdef Tensor have
    if node.op != OP_LEAF or leaf.gradient is None:
        return False
    have = <Tensor>leaf.gradient
    return have.dtype_number == node.dtype and not tracked(have) and (have.array == NULL or exclusive(have.array))


cdef inline void add_in_place(Tensor have, Adjoint adjoint) noexcept:
    cdef fg_view source, sink
    cdef fg_extent extent
    cdef Py_ssize_t unused[FG_MAX_NDIM]
    if have.array == NULL:
        have.number += adjoint.number
        return
    if adjoint.array.strides == NULL:
        fg_kernels.add[type_index(have.dtype_number)](have.array.shape.size, adjoint.array.data, have.array.data)
        return
    view_of_value(adjoint.array, 0, have.array.shape, unused, &source)
    view_of_value(have.array, 0, have.array.shape, unused, &sink)
    extent_of(have.array.shape, &extent)
    fg_run_add(type_index(have.dtype_number), &extent, &source, &sink)


cdef Tensor sum_untracked(Tensor a, Tensor b):
    cdef CTape* tape = current_tape()
    cdef int recording = tape.recording
    tape.recording = False
    try:
        return apply2(FG_ADD, a, b)
    finally:
        tape.recording = recording


cdef int accumulate(Tensor leaf, Tensor g) except -1:
    leaf.gradient = g if leaf.gradient is None else sum_untracked(leaf.gradient, g)
    return 0


cdef void discard_swept(Sweep* s) noexcept:
    """Lets go of what the processed nodes kept; views keep theirs."""
    cdef CTape* tape = s.tape
    cdef Node* nodes = tape.nodes
    cdef Node* node
    cdef index_t i = s.high + 1, a, b
    while i > s.low:
        i -= 1
        node = nodes + i
        if not node.flags & REACHED:
            continue
        node.flags = (node.flags & ~REACHED) | SWEPT
        if node.flags & PINNED:
            continue
        if node.shape != NULL or node.extra != NULL:
            discard_node(tape, node)
            continue
        a = node.a
        b = node.b
        node.a = 0
        if a:
            if nodes[a].refcount > 1:
                nodes[a].refcount -= 1
            else:
                node_drop(tape, a)
        if op_has_b(node.op):
            node.b = 0
            if b:
                if nodes[b].refcount > 1:
                    nodes[b].refcount -= 1
                else:
                    node_drop(tape, b)


cdef void discard_node(CTape* tape, Node* node) noexcept:
    """The same for a node with an Array or parameters."""
    cdef Extra* extra = node.extra
    cdef index_t a = node.a, b = node.b if op_has_b(node.op) else 0
    cdef Py_ssize_t j
    if node.op == OP_FREE:
        return
    node_forget_value(node)
    node.a = 0
    node.extra = NULL
    if op_has_b(node.op):
        node.b = 0
    if node.op == OP_RULE:
        node.op = OP_ALIAS
    if a:
        node_drop(tape, a)
    if b:
        node_drop(tape, b)
    if extra != NULL:
        for j in range(extra.n_operands):
            if extra.operands[j]:
                node_drop(tape, extra.operands[j])
        Py_XDECREF(extra.rule)
        Py_XDECREF(extra.parameters)
        PyMem_RawFree(extra)


cdef int backward_recorded(Tensor out, Tensor g, bint recording_on, bint consumes) except -1:
    """The same sweep on Tensors: recorded for create_graph=True, or for a trace."""
    cdef CTape* tape = current_tape()
    cdef Sweep s
    cdef dict found
    cdef int recording = tape.recording
    cdef Tensor leaf
    cdef index_t i
    if out.requires:
        leaf = out
        leaf.gradient = g if leaf.gradient is None else apply2(FG_ADD, leaf.gradient, g)
        return 0
    sweep_clear(&s, tape)
    s.consumes = consumes
    tape.sweeps += 1
    tape.recording = recording_on and recording_of(tape)
    try:
        found = recorded_sweep(&s, [(out.node, g)])
        fresh = {}
        for i, c in found.items():
            if tape.nodes[i].tensor != NULL and (tape.nodes[i].op == OP_LEAF or tape.nodes[i].flags & RETAINS):
                leaf = <Tensor>tape.nodes[i].tensor
                if fg_mark:
                    open_trace().look_at_gradient(leaf)
                have = fresh[id(leaf)][1] if id(leaf) in fresh else leaf.gradient if tape.nodes[i].op == OP_LEAF else None
                fresh[id(leaf)] = (leaf, c if have is None else apply2(FG_ADD, have, c))
        for leaf, total in fresh.values():
            leaf.gradient = total
    finally:
        tape.recording = recording
        tape.sweeps -= 1
    return 0


cdef dict recorded_sweep(Sweep* s, list seeds):
    """Cotangents by node, of leaves, inputs and nodes that retain theirs."""
    cdef CTape* tape = s.tape
    cdef dict adjoints = {}, found = {}
    cdef index_t i, low, high = 0
    cdef Node* node
    cdef Tensor g
    for id, g in seeds:
        if tape.nodes[<index_t>id].flags & SWEPT:
            raise RuntimeError("backward through a graph that was swept before; use backward(retain_graph=True) the first time")
        add_adjoint(tape, adjoints, id, g)
        high = id if id > high else high
    if fg_mark and not open_trace().reaches(high):
        raise RuntimeError("backward inside a compiled function through a graph that was recorded outside of it; compile "
                           "the whole computation, or call backward outside")
    low = high
    for id in adjoints:
        low = id if id < low else low
    visited = []
    i = high + 1
    while i > low:
        i -= 1
        g = adjoints.pop(i, None)
        if g is None:
            continue
        node = tape.nodes + i
        if node.flags & STOPS or node.op == OP_LEAF or node.op == OP_INPUT:
            found[i] = g
            continue
        if node.flags & RETAINS:
            found[i] = g
        if node.flags & SWEPT:
            raise RuntimeError("backward through a graph that was swept before; use backward(retain_graph=True) the first time")
        for id, c in pull_tensors(s, i, g) if not tape.watching & WATCH_NUMBERS else watched_pull(s, i, g):
            name = op_name(tape.nodes + i)
            node = tape.nodes + <index_t>id
            check_answer(c, SCALAR_SHAPE if node.shape == NULL else node.shape, name, "vjp")
            if tape.watching & WATCH_NUMBERS:
                watch_cotangent(tape, i, id, g, c)
            add_adjoint(tape, adjoints, id, fit_tensor(tape, id, c))
            low = id if id < low else low
        if s.consumes:
            visited.append(i)
    for i in visited:
        tape.nodes[i].flags |= SWEPT
    return found


cdef Tensor fit_tensor(CTape* tape, index_t i, Tensor c):
    """A cotangent summed over broadcast axes and cast as node i asks."""
    cdef Node* node = tape.nodes + i
    cdef int dtype = node.dtype
    c = unbroadcast_tensor(c, () if node.shape == NULL else shape_tuple(node.shape))
    return c if c.dtype_number == dtype else cast(c, cnp.PyArray_DescrFromType(dtype))


cdef int add_adjoint(CTape* tape, dict adjoints, object i, Tensor c) except -1:
    have = adjoints.get(i)
    adjoints[i] = c if have is None else apply2(FG_ADD, have, c)
    return 0
