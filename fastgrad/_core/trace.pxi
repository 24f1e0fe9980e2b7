# The trace: what a function did, as a list of values in single-assignment form, for fg.compile and fg.vmap.
#
# While a Trace is open every operation of this thread appends a value to it, whether or not gradients flow: sweeps run by
# the rules on Tensors, so that forward and backward stand in one list.  Equal operations become one value (hash-consing);
# operations on constants become constants.  A Tensor knows its value by `traced`, a number no other trace ever uses.
#
# Tensors and arrays that come from outside are slots: read again at every replay.  Truth values that Python asked for
# are guards.  Knows nothing about how values are replayed.

ctypedef unsigned long long mark_t      # the serial number of a trace, and the place of a value in it

cdef enum:
    MARK_BITS = 26                      # 67 million values a trace
    # operations of a trace beyond those of a tape
    V_ARGUMENT = 200                    # parameter: which
    V_SLOT                              # a Tensor from outside; parameter: which
    V_ARRAY                             # an ndarray from outside, read where it lies; parameter: which
    V_CONSTANT
    V_HOST                              # Python computes it: extra.rule the callable, extra.parameters how to call it
    V_PICK                              # one of the results of a host call; parameter: which
    V_ROW_PULL                          # the pullback of softmax and its kin; parameter: the operation
    V_CROSS_ENTROPY_PULL
    V_EXTREME_PULL                      # of max and min over trailing axes
    V_PULL = FG_PULL                    # V_PULL + 3 * op + k: the pullback of the table's operation op by operand k

cdef struct Value:
    unsigned short op
    short dtype
    index_t uses                        # the planner's
    index_t o[5]                        # operands, 0: none.  Of a pull: g, x, y, z, out
    index_t parameter                   # of elementwise operations the type of the loop: FG_F64, FG_F32
    Shape* shape
    double number                       # of a constant that is one number throughout; of a slot whether gradients stop
    Array* array                        # of any other constant
    Extra* extra

cdef mark_t traces_made = 0


@cython.final
cdef class Trace:
    """A function's operations between its arguments and its results."""
    cdef Value* values
    cdef index_t n, capacity
    cdef index_t* table                 # hash -> value
    cdef size_t table_size
    cdef mark_t mark
    cdef index_t* at_node               # the value of each node that was recorded meanwhile
    cdef index_t at_node_capacity
    cdef index_t first_node
    cdef CTape* tape
    cdef TapeView view                  # keeps those nodes in their places
    cdef object outer                   # the Trace around this one
    cdef mark_t outer_mark
    cdef readonly list arguments        # Tensors
    cdef readonly list slots            # Tensors from outside
    cdef readonly list arrays           # ndarrays from outside
    cdef readonly list guards           # (value, truth, how it was asked)
    cdef readonly list gradients        # (leaf, its gradient when first looked at): whose .grad was looked at or changed
    cdef readonly list written          # Tensors from outside that were assigned to
    cdef dict known                     # id(Tensor or ndarray from outside) -> its value
    cdef dict gradients_seen            # id(leaf)
    cdef set outsiders                  # ids of Tensors from outside that have a value of this trace: arguments, assigned ones
    cdef set guarded
    cdef bint cuts                      # something was done outside the tape, or detached: derivatives are not those of the values
    cdef bint broken                    # a value is missing: nothing may be replayed
    cdef list kept                      # what must live while its id counts
    cdef Py_ssize_t alive               # Tensors made inside that are still there
    cdef readonly list impure           # host calls that must run though nobody reads them
    cdef readonly list outputs          # value numbers, set by finish
    cdef readonly bint of_example       # for fg.vmap: the arguments are one example of many, all else is the same for all
    cdef bint gradients_changed
    cdef bint hidden                    # inside fg.no_grad(): what is done has no derivative
    cdef bint detaching                 # a sweep that is not recorded reads saved values: no gradient flows to them
    cdef bytearray varying              # whether a value depends on the arguments; as far as somebody asked

    def __cinit__(self):
        self.arguments, self.slots, self.arrays, self.guards, self.gradients = [], [], [], [], []
        self.written, self.known, self.gradients_seen, self.kept, self.impure, self.outputs = [], {}, {}, [], [], []
        self.guarded, self.outsiders = set(), set()
        self.varying = bytearray(1)
        self.n = 1
        self.capacity = 256
        self.values = <Value*>PyMem_RawCalloc(self.capacity, sizeof(Value))
        self.table_size = 512
        self.table = <index_t*>PyMem_RawCalloc(self.table_size, sizeof(index_t))
        if self.values == NULL or self.table == NULL:
            raise MemoryError("cannot allocate a trace")

    def __dealloc__(self):
        cdef index_t i
        if self.values != NULL:
            for i in range(1, self.n):
                value_clear(self.values + i)
        PyMem_RawFree(self.values)
        PyMem_RawFree(self.table)
        PyMem_RawFree(self.at_node)

    # -- opening and closing

    cdef int open(self) except -1:
        global fg_trace, fg_mark, traces_made
        cdef CTape* tape = current_tape()
        self.tape = tape
        self.view = TapeView()
        self.view.__enter__()
        self.first_node = self.view.nodes[0]
        tape.sweeps += 1                    # nodes keep their places
        traces_made += 1
        self.mark = traces_made << MARK_BITS
        self.outer = <object>fg_trace if fg_trace != NULL else None
        self.outer_mark = fg_mark
        fg_trace = <void*>self
        fg_mark = self.mark
        return 0

    cdef int close(self) except -1:
        global fg_trace, fg_mark
        fg_trace = <void*>self.outer if self.outer is not None else NULL
        fg_mark = self.outer_mark
        self.outer = None
        self.let_nodes_go()
        self.tape.sweeps -= 1
        PyMem_RawFree(self.at_node)
        self.at_node = NULL
        self.at_node_capacity = 0
        PyMem_RawFree(self.table)
        self.table = NULL
        return 0

    cdef int let_nodes_go(self) except -1:
        if self.view is not None:
            self.view.__exit__(None, None, None)
            self.view = None
        return 0

    # -- which value something is

    cdef index_t of_tensor(self, Tensor t) except 0:
        cdef mark_t place = t.traced ^ self.mark
        if not self.tape.recording:
            self.cuts = True
        if place < (<mark_t>1 << MARK_BITS):
            if place:
                return <index_t>place
            return self.constant_of(t)
        return self.slot_of(t)

    cdef index_t constant_of(self, Tensor t) except 0:
        """A Tensor made inside of nothing that changes."""
        cdef index_t i
        cdef double number
        if t.array == NULL:
            i = self.of_number(t.number, t.dtype_number, SCALAR_SHAPE)
        elif is_uniform(t.array, &number):
            i = self.of_number(number, t.dtype_number, t.array.shape)
        elif t.array.foreign:               # somebody's memory: read again at each replay
            i = self.of_array(t.array)
        else:
            i = self.append(V_CONSTANT, t.dtype_number, t.array.shape)
            self.values[i].array = array_keep(t.array)
        t.traced = self.mark | i
        return i

    cdef index_t slot_of(self, Tensor t) except 0:
        key = -<Py_ssize_t><PyObject*>t if self.detaching else <Py_ssize_t><PyObject*>t
        found = self.known.get(key)
        cdef index_t i
        if found is not None:
            return found
        i = self.append(V_SLOT, t.dtype_number, shape_of(t))
        self.values[i].parameter = <index_t>len(self.slots)
        self.values[i].number = self.detaching
        self.slots.append(t)
        self.known[key] = i
        return i

    cdef index_t of_array(self, Array* a) except 0:
        """Memory that others can write."""
        cdef index_t i
        cdef object key = (<size_t>a.data, shape_tuple(a.shape), a.dtype, strides_tuple(a))
        found = self.known.get(key)
        if self.of_example and self.keeps_snapshots():
            return self.snapshot(a, key, found)
        if found is not None:
            return found
        array = view_ndarray(a, False)
        i = self.append(V_ARRAY, a.dtype, a.shape)
        self.values[i].parameter = <index_t>len(self.arrays)
        self.arrays.append(array)
        self.known[key] = i
        return i

    cdef bint keeps_snapshots(self):
        """Whether no trace around this one will read arrays from outside again."""
        cdef Trace trace = self
        while trace is not None and trace.of_example:
            trace = trace.outer
        return trace is None

    cdef index_t snapshot(self, Array* a, object key, object found) except 0:
        """The numbers that somebody's memory has now, as a constant; the one of before if they are the same."""
        cdef Array* own = array_new(a.shape, a.dtype)
        cdef index_t i
        array_copy_into(a, own)
        if found is not None:
            i = found
            if memcmp(own.data, self.values[i].array.data, <size_t>(a.shape.size * item_size(a.dtype))) == 0:
                array_drop(own)
                return i
        i = self.append(V_CONSTANT, a.dtype, a.shape)
        self.values[i].array = own
        self.known[key] = i
        return i

    cdef index_t of_number(self, double number, int dtype, Shape* shape) except 0:
        cdef Value key
        memset(&key, 0, sizeof(Value))
        key.op = V_CONSTANT
        key.dtype = dtype
        key.shape = shape
        key.number = number
        return self.find(&key, NULL)

    cdef index_t of_operand(self, Operand* o) except 0:
        if o.tensor != NULL:
            return self.of_tensor(<Tensor>o.tensor)
        if o.array != NULL:
            return self.of_array(o.array)
        return self.of_number(o.number, NPY_DOUBLE, SCALAR_SHAPE)

    cdef index_t as_loops_read(self, index_t i, int type) except 0:
        """Integers as floats of a loop's type; anything else as it is."""
        cdef Value key
        if type_index(self.values[i].dtype) >= 0:
            return i
        memset(&key, 0, sizeof(Value))
        key.op = OP_CAST
        key.dtype = NPY_FLOAT if type == FG_F32 else NPY_DOUBLE
        key.shape = self.values[i].shape
        key.o[0] = i
        return self.find(&key, NULL)

    cdef index_t detached(self, index_t i) except 0:
        """A value through which no gradient flows.

        In the trace of an example that is a value of its own, since derivatives of the replay are taken; elsewhere sweeps
        stand in the trace, and have been told already.
        """
        cdef Value key
        if not self.of_example or self.values[i].op == OP_ALIAS:
            return i
        memset(&key, 0, sizeof(Value))
        key.op = OP_ALIAS
        key.dtype = self.values[i].dtype
        key.shape = self.values[i].shape
        key.o[0] = i
        return self.find(&key, NULL)

    # -- adding values

    cdef int grow(self) except -1:
        cdef size_t capacity = 2 * <size_t>self.capacity
        cdef Value* values
        if capacity > (<size_t>1 << MARK_BITS):
            raise MemoryError("a trace holds at most 2**26 values")
        values = <Value*>PyMem_RawRealloc(self.values, capacity * sizeof(Value))
        if values == NULL:
            raise MemoryError("cannot extend a trace")
        self.values = values
        self.capacity = <index_t>capacity
        return 0

    cdef index_t append(self, int op, int dtype, Shape* shape) except 0:
        """A value that nothing else can be equal to."""
        cdef Value* v
        if self.n == self.capacity:
            self.grow()
        v = self.values + self.n
        memset(v, 0, sizeof(Value))
        v.op = op
        v.dtype = dtype
        v.shape = shape_keep(shape)
        self.n += 1
        return self.n - 1

    cdef index_t find(self, const Value* key, const Extra* extra) except 0:
        """The value equal to the key, or a new one.  Shapes are counted, numbers in extra are copied."""
        cdef size_t mask, place
        cdef index_t i
        cdef Extra* own = NULL
        if 2 * <size_t>self.n >= self.table_size:
            self.rehash()
        mask = self.table_size - 1
        place = value_hash(key, extra) & mask
        while True:
            i = self.table[place]
            if i == 0:
                break
            if values_equal(self.values + i, key, extra):
                return i
            place = (place + 1) & mask
        if self.n == self.capacity:
            self.grow()
        if extra != NULL:
            own = extra_new(0, extra.n_numbers)
            memcpy(own.numbers, extra.numbers, <size_t>extra.n_numbers * sizeof(Py_ssize_t))
        i = self.n
        self.values[i] = key[0]
        self.values[i].shape = shape_keep(key.shape)
        self.values[i].extra = own
        self.n += 1
        self.table[place] = i
        return i

    cdef int rehash(self) except -1:
        cdef size_t size = 2 * self.table_size, place
        cdef index_t i
        cdef index_t* table = <index_t*>PyMem_RawCalloc(size, sizeof(index_t))
        if table == NULL:
            raise MemoryError("cannot extend a trace")
        for i in range(1, self.n):
            if not is_shared(self.values + i):
                continue
            place = value_hash(self.values + i, self.values[i].extra) & (size - 1)
            while table[place]:
                place = (place + 1) & (size - 1)
            table[place] = i
        PyMem_RawFree(self.table)
        self.table = table
        self.table_size = size
        return 0

    cdef int note(self, int op, Tensor result, const index_t* o, index_t parameter, const Extra* extra) except -1:
        """An operation that gave `result`: finds or appends its value."""
        cdef Value key
        cdef int k
        cdef bint constant = True
        cdef index_t same
        memset(&key, 0, sizeof(Value))
        key.op = op
        key.dtype = result.dtype_number
        key.shape = shape_of(result)
        key.parameter = parameter
        for k in range(5):
            key.o[k] = o[k]
            if o[k] and self.values[o[k]].op != V_CONSTANT:
                constant = False
            if o[k] and (op < FG_N_ELEMENTARY or op >= V_PULL):
                key.o[k] = self.as_loops_read(o[k], <int>parameter)
        if constant and o[0]:
            result.traced = self.mark       # its value is known for good
            return 0
        same = simplify(self, &key, extra)
        if same == 0:
            same = self.find(&key, extra)
        result.traced = self.mark | (self.detached(same) if self.hidden else same)
        return 0

    cdef int note_node(self, index_t node, index_t value) except -1:
        """Remembers which value a node of the tape has."""
        cdef size_t place = node - self.first_node, capacity
        cdef index_t* grown
        if node < self.first_node:
            return 0
        if place >= self.at_node_capacity:
            capacity = 2 * place + 1024
            grown = <index_t*>PyMem_RawRealloc(self.at_node, capacity * sizeof(index_t))
            if grown == NULL:
                raise MemoryError("cannot extend a trace")
            memset(grown + self.at_node_capacity, 0, (capacity - self.at_node_capacity) * sizeof(index_t))
            self.at_node = grown
            self.at_node_capacity = <index_t>capacity
        self.at_node[place] = value
        return 0

    cdef index_t of_node(self, index_t node) noexcept:
        """The value of a node; 0 where it was recorded before, or is a number of its own."""
        if node < self.first_node or node - self.first_node >= self.at_node_capacity:
            return 0
        return self.at_node[node - self.first_node]

    cdef bint reaches(self, index_t node):
        """Whether a sweep from this node can be replayed: not where only the outermost compiled function saw less of it."""
        cdef Trace trace = self
        while trace is not None and trace.of_example:      # replayed once, at once
            trace = trace.outer
        return trace is None or node >= trace.first_node

    cdef bint varies(self, index_t i) except -1:
        """Whether a value depends on the arguments."""
        cdef index_t j, operand
        cdef Value* v
        cdef Py_ssize_t k
        cdef bint found
        for j in range(<index_t>len(self.varying), i + 1):
            v = self.values + j
            found = v.op == V_ARGUMENT
            for k in range(5):
                found = found or self.varying[v.o[k]]
            if v.op == V_HOST:
                for k in range(v.extra.n_operands):
                    found = found or self.varying[v.extra.operands[k]]
            self.varying.append(found)
        return self.varying[i]

    # -- what Python saw

    cdef bint truth(self, Tensor t) except -1:
        """bool(t), remembered as a guard."""
        global fg_mark
        cdef index_t i = self.of_tensor(t)
        cdef bint truth
        if self.of_example and self.varies(i):
            raise TypeError(
                f"vmap: the function branches on a value that differs from example to example (the truth of a result of "
                f"{value_name(self.values + i)}); compute both branches and choose with fastgrad.numpy.where(condition, a, b)")
        fg_mark = 0
        try:
            truth = bool(t)
        finally:
            fg_mark = self.mark
        if self.values[i].op != V_CONSTANT and i not in self.guarded:
            self.guarded.add(i)
            self.guards.append((i, truth))
        return truth

    cdef int look_at_gradient(self, Tensor leaf) except -1:
        """Before leaf.grad is read or changed."""
        if <size_t><PyObject*>leaf in self.gradients_seen:
            return 0
        if made_inside(leaf) and <size_t><PyObject*>leaf not in self.outsiders:
            return 0                        # gone with the call, or the call is no candidate for a replay
        self.gradients_seen[<size_t><PyObject*>leaf] = len(self.gradients)
        self.gradients.append((leaf, leaf.gradient))
        return 0

    cdef int put_gradients_back(self) except -1:
        """Of Tensors from outside, as they were before."""
        cdef Tensor leaf
        for leaf, gradient in self.gradients:
            if (leaf.traced ^ self.mark) >> MARK_BITS and leaf.gradient is not gradient:
                leaf.gradient = gradient
                self.gradients_changed = True
        return 0

    cdef int assigned(self, Tensor t, mark_t traced) except -1:
        """A Tensor takes a new value in place."""
        cdef size_t key = <size_t><PyObject*>t
        if (t.traced ^ self.mark) >> MARK_BITS:         # from outside: what it was before stays its slot
            if self.of_example:
                raise TypeError(
                    "vmap: the function changes a Tensor from outside in place, and each example would do so; return the "
                    "new value instead, or change a copy")
            self.slot_of(t)
            self.written.append(t)
            self.outsiders.add(key)
        t.traced = traced
        return 0


cdef inline Trace open_trace():
    return <Trace>fg_trace


cdef bint made_inside(Tensor t) noexcept:
    return fg_mark != 0 and (t.traced ^ fg_mark) >> MARK_BITS == 0


cdef inline bint is_shared(const Value* v) noexcept:
    """Whether an equal value can be found by hashing."""
    if v.op == V_CONSTANT:
        return v.array == NULL
    return v.op < V_ARGUMENT or v.op >= V_ROW_PULL


cdef bint is_uniform(const Array* a, double* number) noexcept:
    """Whether all elements of an array that nobody else can write are one float, by their bits."""
    cdef Py_ssize_t i, n = a.shape.size
    cdef const double* x = <const double*>a.data
    cdef const float* y = <const float*>a.data
    if a.foreign or n == 0 or (a.dtype != NPY_DOUBLE and a.dtype != NPY_FLOAT):
        return False
    if a.strides != NULL:
        for i in range(a.shape.ndim):
            if a.strides[i] != 0 and a.shape.dims[i] != 1:
                return False
        n = 1
    if a.dtype == NPY_DOUBLE:
        for i in range(1, n):
            if memcmp(x, x + i, 8) != 0:
                return False
        number[0] = x[0]
    else:
        for i in range(1, n):
            if memcmp(y, y + i, 4) != 0:
                return False
        number[0] = y[0]
    return True


cdef void value_clear(Value* v) noexcept:
    if v.shape != NULL:
        shape_drop(v.shape)
    if v.array != NULL:
        array_drop(v.array)
    if v.extra != NULL:
        Py_XDECREF(v.extra.rule)
        Py_XDECREF(v.extra.parameters)
        PyMem_RawFree(v.extra)


cdef tuple strides_tuple(Array* a):
    cdef Py_ssize_t strides[FG_MAX_NDIM]
    strides_of(a, strides)
    return tuple([strides[d] for d in range(a.shape.ndim)])


cdef inline size_t mix(size_t h, size_t x) noexcept:
    h = (h ^ x) * <size_t>0x9E3779B97F4A7C15
    return h ^ (h >> 29)


cdef size_t value_hash(const Value* v, const Extra* extra) noexcept:
    cdef size_t h = mix(v.op, v.parameter), bits
    cdef int k
    cdef Py_ssize_t j
    h = mix(h, <size_t>v.dtype)
    for k in range(5):
        h = mix(h, v.o[k])
    if v.op == V_CONSTANT:
        memcpy(&bits, &v.number, sizeof(size_t))
        h = mix(h, bits)
    h = mix(h, <size_t>v.shape.size)
    if extra != NULL:
        for j in range(extra.n_numbers):
            h = mix(h, <size_t>extra.numbers[j])
    return h ^ (h >> 32)


cdef bint values_equal(const Value* a, const Value* b, const Extra* extra) noexcept:
    """a is in the trace; b and its extra are a key."""
    if a.op != b.op or a.dtype != b.dtype or a.parameter != b.parameter or memcmp(a.o, b.o, sizeof(a.o)) != 0 \
            or memcmp(&a.number, &b.number, sizeof(double)) != 0 or a.array != b.array or not same_shape(a.shape, b.shape):
        return False
    if extra == NULL or a.extra == NULL:
        return extra == NULL and a.extra == NULL
    return a.extra.n_numbers == extra.n_numbers and \
        memcmp(a.extra.numbers, extra.numbers, <size_t>extra.n_numbers * sizeof(Py_ssize_t)) == 0


# ----------------------------------------------------------------------------------------------------- simplification

cdef inline bint is_number_value(const Value* v, double number) noexcept:
    return v.op == V_CONSTANT and v.array == NULL and v.number == number


cdef bint is_power_of_two(double x) noexcept:
    cdef unsigned long long bits
    memcpy(&bits, &x, 8)
    return (bits & 0xFFFFFFFFFFFFF) == 0 and 1e-300 < x < 1e300


cdef inline bint stands_for(const Value* v, const Value* key) noexcept:
    """Whether v can take the place of the key's result."""
    return v.dtype == key.dtype and same_shape(v.shape, key.shape)


cdef index_t simplify(Trace trace, Value* key, const Extra* extra) except? 0:
    """A value that the operation comes to, bit for bit but for the sign of a zero; or the key rewritten, and 0."""
    cdef Value* a = trace.values + key.o[0]
    cdef Value* b = trace.values + key.o[1]
    cdef int op = key.op
    cdef index_t swap
    cdef Py_ssize_t d
    if op == FG_GUARDED_MULTIPLY and b.op == V_CONSTANT and b.array == NULL and b.number != 0 and \
            b.number - b.number == 0:
        op = key.op = FG_MULTIPLY
    elif op == FG_GUARDED_MULTIPLY and a.op == V_CONSTANT and a.array == NULL and a.number != 0:
        op = key.op = FG_MULTIPLY
    if op == FG_MULTIPLY:
        if is_number_value(b, 1.0) and stands_for(a, key):
            return key.o[0]
        if is_number_value(a, 1.0) and stands_for(b, key):
            return key.o[1]
        if is_number_value(b, -1.0) and stands_for(a, key) or is_number_value(a, -1.0) and stands_for(b, key):
            key.op = FG_NEGATIVE
            key.o[0] = key.o[0] if is_number_value(b, -1.0) else key.o[1]
            key.o[1] = 0
            return simplify(trace, key, extra)
        if key.o[0] == key.o[1]:
            key.op = FG_SQUARE
            key.o[1] = 0
            return 0
    elif op == FG_GUARDED_MULTIPLY:
        if is_number_value(a, 1.0) and stands_for(b, key):
            return key.o[1]
    elif op == FG_DIVIDE:
        if b.op == V_CONSTANT and b.array == NULL and is_power_of_two(b.number) \
                and (key.parameter != FG_F32 or 1e-37 < b.number < 1e37):
            if b.number == 1.0 and stands_for(a, key):
                return key.o[0]
            key.op = FG_MULTIPLY
            key.o[1] = trace.of_number(1.0 / b.number, b.dtype, b.shape)
            op = FG_MULTIPLY
    elif op == FG_SUBTRACT:
        if is_number_value(b, 0.0) and stands_for(a, key):
            return key.o[0]
        if b.op == FG_NEGATIVE and b.dtype == key.dtype:
            key.op = op = FG_ADD
            key.o[1] = b.o[0]
    elif op == FG_ADD:
        if b.op == FG_NEGATIVE and b.dtype == key.dtype:
            key.op = op = FG_SUBTRACT
            key.o[1] = b.o[0]
        elif a.op == FG_NEGATIVE and a.dtype == key.dtype:
            key.op = op = FG_SUBTRACT
            key.o[0], key.o[1] = key.o[1], a.o[0]
    elif op == FG_NEGATIVE:
        if a.op == FG_NEGATIVE and a.dtype == key.dtype:
            return a.o[0]
    elif op == FG_POSITIVE:
        if stands_for(a, key):
            return key.o[0]
    elif op == OP_RESHAPE:
        if a.op == OP_RESHAPE:
            key.o[0] = a.o[0]
            a = trace.values + key.o[0]
        if same_shape(a.shape, key.shape):
            return key.o[0]
    elif op == OP_BROADCAST:
        if same_shape(a.shape, key.shape):
            return key.o[0]
    elif op == OP_TRANSPOSE:
        for d in range(extra.n_numbers):
            if extra.numbers[d] != d:
                break
        else:
            return key.o[0]
        if a.op == OP_TRANSPOSE:
            for d in range(extra.n_numbers):
                if a.extra.numbers[extra.numbers[d]] != d:
                    break
            else:
                return a.o[0]
    if (op == FG_ADD or op == FG_MULTIPLY) and key.o[0] > key.o[1]:
        swap = key.o[0]
        key.o[0] = key.o[1]
        key.o[1] = swap
    return 0


# ------------------------------------------------------------------------- called by the operations while a trace is open

cdef int note_elementwise(int op, int type, Tensor result, Operand* o, int n) except -1:
    cdef Trace trace = open_trace()
    cdef index_t id[5]
    cdef int k
    cdef bint weak = True
    memset(id, 0, sizeof(id))
    for k in range(n):
        id[k] = trace.of_operand(o + k)
        weak = weak and o[k].dtype == WEAK
    trace.note(op, result, id, <index_t>type, NULL)
    result.weak = weak
    return 0


cdef int note_numbers(int op, Tensor result, PyObject* x, double xv, PyObject* y, double yv) except -1:
    cdef Trace trace = open_trace()
    cdef index_t id[5]
    memset(id, 0, sizeof(id))
    id[0] = trace.of_tensor(<Tensor>x) if x != NULL else trace.of_number(xv, NPY_DOUBLE, SCALAR_SHAPE)
    if fg_arity[op] == 2:
        id[1] = trace.of_tensor(<Tensor>y) if y != NULL else trace.of_number(yv, NPY_DOUBLE, SCALAR_SHAPE)
    trace.note(op, result, id, FG_F64, NULL)
    result.weak = (x == NULL or (<Tensor>x).weak) and (y == NULL or (<Tensor>y).weak)
    return 0


cdef int note_structured(int op, Tensor x, Tensor result, index_t parameter, const Extra* extra) except -1:
    cdef Trace trace = open_trace()
    cdef index_t id[5]
    memset(id, 0, sizeof(id))
    id[0] = trace.of_tensor(x)
    if op == OP_ALIAS:
        result.traced = trace.mark | id[0]
        return 0
    if op == OP_MEAN:                       # a sum, divided
        trace.note(OP_SUM, result, id, parameter, NULL)
        id[0] = trace.of_tensor(result)
        id[1] = trace.of_number(<double>size_over(shape_of(x), parameter), NPY_DOUBLE, SCALAR_SHAPE)
        trace.note(FG_DIVIDE, result, id, <index_t>type_index(result.dtype_number), NULL)
        return 0
    trace.note(op, result, id, parameter, extra)
    return 0


cdef int note_two(int op, Tensor result, Tensor x, Tensor y, index_t parameter) except -1:
    cdef Trace trace = open_trace()
    cdef index_t id[5]
    memset(id, 0, sizeof(id))
    id[0] = trace.of_tensor(x)
    id[1] = trace.of_tensor(y)
    trace.note(op, result, id, parameter, NULL)
    return 0


cdef int note_pull(int op, Tensor result, Tensor g, Tensor x, Tensor y, Tensor z, Tensor out, index_t parameter) except -1:
    """A compiled pullback."""
    cdef Trace trace = open_trace()
    cdef index_t id[5]
    cdef int k = 0
    memset(id, 0, sizeof(id))
    for t in (g, x, y, z, out):
        if t is not None:
            id[k] = trace.of_tensor(<Tensor>t)
            if op >= V_PULL:
                id[k] = trace.as_loops_read(id[k], <int>parameter)
        k += 1
    trace.note(op, result, id, parameter, NULL)
    return 0


cdef int refuse_reading(Tensor t, str how) except -1:
    """Numbers of a traced value, which the next replay would not look at again."""
    cdef mark_t place = t.traced ^ fg_mark
    if place == 0:
        return 0                            # a constant made inside
    if place < (<mark_t>1 << MARK_BITS) and open_trace().values[<index_t>place].op == V_CONSTANT:
        return 0
    raise TypeError(
        f"{how} while fg.compile or fg.vmap records a function: the number would be frozen into what is replayed. Keep it "
        "a Tensor (write the computation with Tensors, fastgrad.numpy or NumPy's functions), return it and read it "
        "outside, or pass it as a static argument")


cdef int note_place(Tensor t, index_t node) except -1:
    """A Tensor was put on a node of the tape."""
    return open_trace().note_node(node, open_trace().of_tensor(t))


cdef void note_leaf(Tensor t, index_t node) noexcept:
    """The same for a leaf, where nothing may fail: its value is in the trace already."""
    try:
        open_trace().note_node(node, open_trace().of_tensor(t))
    except BaseException:
        open_trace().broken = True


cdef int note_constant(Operand* o, index_t node) except -1:
    """A node for an operand that no gradient flows to."""
    return open_trace().note_node(node, open_trace().of_operand(o))


cdef mark_t traced_of_node(index_t node) noexcept:
    """What a Tensor made of a node's saved value gets as `traced`: of the innermost trace that was open when the node
    was recorded."""
    cdef Trace trace = open_trace()
    cdef mark_t mark = fg_mark
    while trace is not None:
        if node >= trace.first_node:
            return mark | trace.of_node(node)
        mark = trace.outer_mark
        trace = <Trace>trace.outer
    return 0


cdef object operand_object(Operand* o):
    """An operand as what it was."""
    if o.tensor != NULL:
        return <object>o.tensor
    if o.array != NULL:
        return view_ndarray(o.array, False)
    if o.dtype == NPY_BOOL:
        return np.bool_(o.number != 0)
    if o.whole:
        return int(o.number)
    return o.number


cdef object untraced(object function, Tensor t, object argument=None):
    """repr and the like, of the numbers of the recording itself."""
    global fg_mark
    cdef mark_t mark = fg_mark
    fg_mark = 0
    try:
        return function(t) if argument is None else function(t, argument)
    finally:
        fg_mark = mark


# ----------------------------------------------------------------------------------------------------------- host calls

class HostCall:
    """How Python computes a value: a function, and its arguments with holes where the operands go."""
    __slots__ = ("function", "arguments", "keywords", "many", "pure")

    def __init__(self, function, arguments, keywords, many, pure=True):
        self.function, self.arguments, self.keywords = function, arguments, keywords
        self.many, self.pure = many, pure

    def __call__(self, operands):
        function = self.function.value if isinstance(self.function, Rule) else self.function
        return function(*fill_holes(self.arguments, operands), **fill_holes(self.keywords, operands))

    @property
    def name(self):
        return getattr(self.function, "__name__", None) or getattr(self.function, "name", None) or repr(self.function)


class Hole:
    """Where an operand goes."""
    __slots__ = ("place",)

    def __init__(self, place):
        self.place = place


def fill_holes(value, operands):
    """A tree of arguments with the operands in their places."""
    kind = type(value)
    if kind is Hole:
        return operands[value.place]
    if kind is tuple:
        return tuple([fill_holes(item, operands) for item in value])
    if kind is list:
        return [fill_holes(item, operands) for item in value]
    if kind is dict:
        return {key: fill_holes(item, operands) for key, item in value.items()}
    return value


cdef object make_holes(object value, list operands):
    """The same tree with holes for the Tensors, which are appended to operands; arrays that can change count as such."""
    cdef object kind = type(value)
    if kind is Tensor:
        operands.append(value)
        return Hole(len(operands) - 1)
    if kind is np.ndarray and is_supported(cnp.PyArray_TYPE(value)) and fg_mark:
        operands.append(from_ndarray(value))
        return Hole(len(operands) - 1)
    if kind is tuple:
        return tuple([make_holes(item, operands) for item in value])
    if kind is list:
        return [make_holes(item, operands) for item in value]
    if kind is dict:
        return {key: make_holes(item, operands) for key, item in value.items()}
    return value


cdef list plain_operands(list operands):
    """Their numbers, looked at without the trace noticing."""
    global fg_mark
    cdef mark_t mark = fg_mark
    fg_mark = 0
    try:
        return [to_ndarray(bare(<Tensor>t)) for t in operands]
    finally:
        fg_mark = mark


def call_host(function, arguments, keywords=None, bint pure=True):
    """A NumPy function of Tensors, without gradients: its result as Tensors.  Traced as a call of Python."""
    global fg_mark
    cdef list operands = []
    cdef mark_t mark = fg_mark
    cdef Trace trace
    cdef Py_ssize_t k
    cdef list results
    keywords = {} if keywords is None else keywords
    if not mark:
        return with_tensors(function(*without_tensors(tuple(arguments)), **without_tensors(keywords)))
    call = HostCall(function, make_holes(tuple(arguments), operands), make_holes(keywords, operands), False, pure)
    trace = open_trace()
    ids = [trace.of_tensor(<Tensor>t) for t in operands]
    fg_mark = 0
    try:
        value = call([to_ndarray(bare(<Tensor>t)) for t in operands])
        result = with_tensors(np.asarray(value) if isinstance(value, (float, int)) else value)
    finally:
        fg_mark = mark
    return note_host(call, ids, result)


cdef object note_host(object call, list ids, object result):
    """Makes what a host call gave values of the trace."""
    cdef Trace trace = open_trace()
    cdef index_t i, p
    cdef Py_ssize_t k
    cdef Extra* extra
    cdef Tensor t
    cdef bint constant = call.pure and len(ids) > 0
    for i in ids:
        if trace.values[i].op != V_CONSTANT:
            constant = False
    results = list(result) if type(result) in (tuple, list) else [result]
    for item in results:
        if type(item) is not Tensor:
            raise TypeError(f"{call.name}: gave {type(item).__name__}, which fg.compile and fg.vmap cannot record; call it "
                            "outside, on plain arrays")
    if constant:
        for t in results:
            t.traced = trace.mark
        return result
    call.many = type(result) in (tuple, list)
    t = results[0]
    i = trace.append(V_HOST, t.dtype_number, shape_of(t))
    extra = extra_new(<Py_ssize_t>len(ids), 0)
    for k in range(len(ids)):
        extra.operands[k] = ids[k]
    Py_INCREF(call)
    extra.rule = <PyObject*>call
    trace.values[i].extra = extra
    if not call.pure:
        trace.impure.append(i)
    t.traced = trace.mark | i
    for k in range(1, len(results)):
        t = results[k]
        p = trace.append(V_PICK, t.dtype_number, shape_of(t))
        trace.values[p].o[0] = i
        trace.values[p].parameter = <index_t>k
        t.traced = trace.mark | p
    if trace.hidden:
        for t in results:
            t.traced = trace.mark | trace.detached(trace.of_tensor(t))
    return result


# -------------------------------------------------------------------------------------------------- for Python to look at

def is_recorded(Tensor t):
    """Whether t depends on what an open trace takes for variable."""
    cdef mark_t place = t.traced ^ fg_mark
    if not fg_mark or place == 0:
        return False
    if place < (<mark_t>1 << MARK_BITS):
        return open_trace().values[<index_t>place].op != V_CONSTANT
    return True


def tracing():
    """Whether this thread traces a function."""
    return fg_mark != 0


cdef str value_name(const Value* v):
    """The name of an operation of a trace."""
    cdef int op = v.op
    if op < FG_N_ELEMENTARY:
        return NAMES[op]
    if op >= V_PULL:
        return f"pull_{NAMES[(op - V_PULL) // 3]}_{'xyz'[(op - V_PULL) % 3]}"
    if op == V_HOST:
        return (<object>v.extra.rule).name
    if op < V_ARGUMENT:
        return STRUCTURED_NAMES[op - OP_LEAF]
    return ("argument", "slot", "array", "constant", "host", "pick", "row_pull", "cross_entropy_pull",
            "extreme_pull")[op - V_ARGUMENT]


class TraceNode:
    """One value of a Trace, for fg.vmap, explain and tests.

    Attributes
    ----------
    op : int
        The operation's number; ``name`` its name.
    operands : tuple of int
        The values it reads (places in the trace), 0 for one that it does not.
    parameter : int
    numbers : tuple of int
        Axes, or an offset and strides.
    shape, dtype
    value : float, ndarray, Tensor, HostCall or None
        Of a constant its value, of a slot or array what it is, of a host call the call.
    number : float or None
        Of a constant that is one number throughout, that number.
    """
    __slots__ = ("op", "name", "operands", "parameter", "numbers", "shape", "dtype", "value", "number")

    def __repr__(self):
        return f"{self.name}{self.operands} -> {self.dtype}{list(self.shape)}"


cdef object trace_node(Trace trace, index_t i):
    cdef Value* v = trace.values + i
    node = TraceNode()
    node.op = v.op
    node.name = value_name(v)
    if v.op == V_HOST:
        node.operands = tuple([v.extra.operands[k] for k in range(v.extra.n_operands)])
    else:
        last = 5
        while last and not v.o[last - 1]:
            last -= 1
        node.operands = tuple([v.o[k] for k in range(last)])
    node.parameter = v.parameter
    node.numbers = () if v.extra == NULL else tuple([v.extra.numbers[k] for k in range(v.extra.n_numbers)])
    node.shape = shape_tuple(v.shape)
    node.dtype = cnp.PyArray_DescrFromType(v.dtype)
    node.value = node.number = None
    if v.op == V_CONSTANT:
        if v.array != NULL:
            node.value = view_ndarray(v.array, False)
        else:
            node.number = v.number
            node.value = v.number if v.shape.ndim == 0 and v.dtype == NPY_DOUBLE else np.full(node.shape, v.number, node.dtype)
    elif v.op == V_SLOT:
        node.value = trace.slots[v.parameter]
    elif v.op == V_ARRAY:
        node.value = trace.arrays[v.parameter]
    elif v.op == V_HOST:
        node.value = <object>v.extra.rule
    return node


def trace_nodes(Trace trace):
    """All values of a trace in order; the first is value 1."""
    cdef index_t i
    return [trace_node(trace, i) for i in range(1, trace.n)]


def trace_function(function, list arguments, bint of_example=False):
    """Runs a function on Tensors and traces it.

    Parameters
    ----------
    function : callable
        Called with the Tensors; returns a list of Tensors.
    arguments : list of Tensor
        Taken as they are; their traced places are put back afterwards.
    of_example : bool
        Whether the arguments stand for many (fg.vmap): truth values of what depends on them, and changes of what is
        outside, are errors.

    Returns
    -------
    trace : Trace
    results : list of Tensor
    """
    cdef Trace trace = Trace()
    cdef Tensor t
    cdef index_t i
    cdef list before = [(<Tensor>t).traced for t in arguments]
    trace.of_example = of_example
    trace.open()
    try:
        for t in arguments:
            i = trace.append(V_ARGUMENT, t.dtype_number, shape_of(t))
            trace.values[i].parameter = <index_t>len(trace.arguments)
            trace.arguments.append(t)
            t.traced = trace.mark | i
        results = function(*arguments)
        for t in results:
            trace.outputs.append(trace.of_tensor(t))
    finally:
        if of_example:
            trace.put_gradients_back()
        trace.close()
        for t, place in zip(arguments, before):
            t.traced = place
    if of_example and trace.gradients_changed:
        raise TypeError(
            "vmap: the function changes the gradient of a Tensor from outside (by backward() or by assignment), and each "
            "example would do so; use fg.grad inside, or call backward() on a result of the mapped function")
    if trace.broken:
        raise MemoryError("a trace lost a value")
    return trace, results


# ------------------------------------------------------------------------- operations by number, for replays on other Tensors

cdef bint recorded_through(list operands):
    """Whether gradients flow through an operation on these."""
    if not current_tape().recording:
        return False
    for t in operands:
        if t is not None and tracked(<Tensor>t):
            return True
    return False


def as_operand(x):
    """An array or number as a Tensor on its memory; a Python float takes the dtype of what it meets."""
    cdef Tensor t = as_tensor(x, "vmap")
    t.weak = PyFloat_CheckExact(x)
    return t


def example_of(Tensor t):
    """The first element along the first axis (zeros where there is none), as a Tensor that no trace has seen."""
    global fg_mark
    cdef mark_t mark = fg_mark
    cdef Tensor result
    fg_mark = 0
    try:
        if t.shape[0]:
            result = get_item(bare(t), 0)
        else:
            result = from_ndarray(np.zeros(t.shape[1:], t.dtype))
    finally:
        fg_mark = mark
    result.traced = 0
    return result


def value_tensor(Trace trace, index_t i):
    """The Tensor of a slot, an array or a constant (value i of the trace)."""
    cdef Value* v = trace.values + i
    cdef Tensor t
    if v.op == V_SLOT:
        t = trace.slots[v.parameter]
        return bare(t) if v.number else t
    if v.op == V_ARRAY:
        return from_ndarray(trace.arrays[v.parameter])
    if v.array != NULL:
        return new_tensor(array_keep(v.array))
    if v.shape.ndim == 0 and v.dtype == NPY_DOUBLE:
        return new_number(v.number)
    t = from_ndarray(np.broadcast_to(np.array(v.number, cnp.PyArray_DescrFromType(v.dtype)), shape_tuple(v.shape)))
    if t.array != NULL:
        t.array.foreign = 0
    return t


cdef Tensor align(Tensor t, Py_ssize_t rank):
    """With axes of length 1 after the batch axis, so that an example has at least the rank."""
    cdef Py_ssize_t n = shape_of(t).ndim
    if n > rank:
        return t
    shape = shape_tuple(t.array.shape)
    return reshape(t, shape[:1] + (1,) * (rank + 1 - n) + shape[1:])


cdef Tensor elementwise_of(Trace trace, Value* v, list values, bytearray leads):
    """A value of the table, of operands of which some have a batch axis in front."""
    cdef Operand o[3]
    cdef int k, n = fg_arity[v.op]
    cdef Tensor t
    for k in range(3):
        o[k].array = NULL
        o[k].number = 0
    if n == 1:
        t = values[v.o[0]]
        if is_number(t) and v.parameter == FG_F64:
            return number1(v.op, t)
    given = []                              # until it is recorded
    for k in range(n):
        t = values[v.o[k]]
        if leads[v.o[k]] and v.shape.ndim:
            t = align(t, v.shape.ndim)
        given.append(t)
    for k in range(n):
        coerce(given[k], o + k)
    return elementwise_as(v.op, <int>v.parameter, o, n)


cdef Tensor pull_of(Trace trace, Value* v, list values, bytearray leads, Py_ssize_t size):
    """The same for a pullback of the table, of (g, x, y, z, out).  Differentiates again."""
    cdef int j, type = <int>v.parameter, op = (v.op - V_PULL) // 3, k = (v.op - V_PULL) % 3
    cdef int dtype = NPY_DOUBLE if type == FG_F64 else NPY_FLOAT
    cdef Tensor t
    cdef bint lead = False
    cdef list given = [None] * 5
    for j in range(5):
        if v.o[j] == 0:
            continue
        t = values[v.o[j]]
        if leads[v.o[j]]:
            lead = True
            if v.shape.ndim:
                t = align(t, v.shape.ndim)
        if t.dtype_number != dtype and (j == 0 or t.dtype_number != NPY_BOOL):
            t = cast(t, cnp.PyArray_DescrFromType(dtype))
        given[j] = t
    if lead and not leads[v.o[0]]:
        given[0] = broadcast_to(given[0], (size,) + shape_tuple(v.shape))
    if recorded_through(given):
        return rule_function(op, k)(*given)
    return pull_by_kernel(op, k, type, given)


def replay_steps(Trace trace, roots):
    """What computes some values of a trace: a list of (value, its TraceNode, values that nobody reads afterwards).

    In the place of the TraceNode stands None for what ``replay_elementary`` does.
    """
    cdef bytearray needed = bytearray(trace.n)
    cdef Value* v
    cdef index_t i, o
    cdef Py_ssize_t k, n
    cdef list steps = []
    for i in roots:
        needed[i] = 1
    for i in range(trace.n - 1, 0, -1):
        if not needed[i]:
            continue
        v = trace.values + i
        dies = None
        n = v.extra.n_operands if v.op == V_HOST else 5
        for k in range(n):
            o = v.extra.operands[k] if v.op == V_HOST else v.o[k]
            if o and not needed[o]:
                needed[o] = 1
                dies = [o] if dies is None else dies + [o]
        node = None if is_elementary(v.op) else trace_node(trace, i)
        steps.append((i, node, dies))
    steps.reverse()
    return steps


def largest_value(Trace trace):
    """The number of elements of the largest value."""
    cdef index_t i
    cdef Py_ssize_t largest = 0
    for i in range(1, trace.n):
        if trace.values[i].shape.size > largest:
            largest = trace.values[i].shape.size
    return largest


cdef inline bint is_elementary(int op) noexcept:
    return op < FG_N_ELEMENTARY or op >= V_PULL or V_ARGUMENT <= op <= V_CONSTANT


def replay_elementary(Trace trace, list steps, Py_ssize_t start, list values, bytearray leads, list batches, Py_ssize_t size):
    """Does the steps from ``start`` up to the first that is another's, and returns its place.

    Sources, operations of the table and their pullbacks: an operand with a batch axis in front (``leads``) gets further axes
    after it where an example's rank is lower than the result's.
    """
    cdef index_t i
    cdef Value* v
    cdef int k
    cdef bint lead
    for place in range(start, len(steps)):
        i, node, dies = steps[place]
        if node is not None:
            return place
        v = trace.values + i
        if v.op == V_ARGUMENT:
            values[i] = batches[v.parameter]
            leads[i] = 1
            continue
        if v.op <= V_CONSTANT and v.op >= V_ARGUMENT:
            values[i] = value_tensor(trace, i)
            continue
        lead = False
        for k in range(5):
            lead = lead or leads[v.o[k]]
        values[i] = elementwise_of(trace, v, values, leads) if v.op < V_PULL else pull_of(trace, v, values, leads, size)
        leads[i] = lead
        if dies is not None:
            for o in dies:
                values[o] = None
    return len(steps)


def apply_rows_pull(int op, index_t parameter, Tensor g, Tensor x, Tensor out):
    """V_ROW_PULL, V_EXTREME_PULL or, with the labels as out, V_CROSS_ENTROPY_PULL.  Differentiates again."""
    cdef Tensor result
    if not recorded_through([g, x, out]):
        result = pull_rows_by_kernel(op, g, x, out, parameter)
        if result is not None:
            return result
    if op == V_CROSS_ENTROPY_PULL:
        return pull_cross_entropy(g, x, out)
    if op == V_EXTREME_PULL:
        return pull_extreme(g, x, out, <unsigned int>parameter)
    return pull_row(<int>parameter, g, x, out)


cdef Extra* extra_of(tuple numbers) except NULL:
    cdef Extra* extra = extra_new(0, len(numbers))
    cdef Py_ssize_t k
    for k in range(len(numbers)):
        extra.numbers[k] = numbers[k]
    return extra


def apply_index(Tensor x, tuple numbers, tuple shape):
    """The part of x, taken as contiguous, that an offset and strides lead to, both in elements."""
    cdef Extra* extra = extra_of(numbers)
    cdef Shape* to = NULL
    cdef Py_ssize_t dims[FG_MAX_NDIM]
    cdef Py_ssize_t d
    try:
        for d in range(len(shape)):
            dims[d] = shape[d]
        to = shape_new(len(shape), dims)
        return index_again(x, extra, to)
    finally:
        PyMem_RawFree(extra)
        if to != NULL:
            shape_drop(to)


def apply_scatter(Tensor g, tuple numbers, tuple shape):
    """Zeros of a shape with g added where an offset and strides lead: the transpose of apply_index."""
    cdef Extra* extra = extra_of(numbers)
    cdef Shape* to = NULL
    cdef Py_ssize_t dims[FG_MAX_NDIM]
    cdef Py_ssize_t d
    try:
        for d in range(len(shape)):
            dims[d] = shape[d]
        to = shape_new(len(shape), dims)
        return scatter(g, extra, to)
    finally:
        PyMem_RawFree(extra)
        if to != NULL:
            shape_drop(to)


def operations():
    """The numbers of all operations that a trace can hold, by name; V_PULL stands for every pullback of the table."""
    return {
        **{name: op for op, name in enumerate(NAMES) if name},
        **{name: OP_LEAF + k for k, name in enumerate(STRUCTURED_NAMES)},
        "argument": V_ARGUMENT, "slot": V_SLOT, "array": V_ARRAY, "number": V_CONSTANT, "host": V_HOST, "pick": V_PICK,
        "row_pull": V_ROW_PULL, "cross_entropy_pull": V_CROSS_ENTROPY_PULL, "extreme_pull": V_EXTREME_PULL, "pull": V_PULL,
    }
