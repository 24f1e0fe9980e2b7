# The tape: a flat, append-only list of what was done, and who still needs each entry.
#
# A node names its operation and its operands by index; indices grow, so the list read backwards is a topological
# order.  A node is counted by its Tensor and by the nodes that read it; it goes the moment nobody counts it, without
# recursion.  Holes are squeezed out when the list would otherwise have to grow.  A node keeps the numbers of its
# value only once somebody asks for them (`node_save`).
#
# Knows nothing about what an operation computes.

cdef enum:
    # operations beyond the table; those of the table are FG_NEGATIVE, ...
    OP_FREE = 0
    OP_LEAF = FG_N_ELEMENTARY       # a Tensor that asked for gradients
    OP_INPUT                        # an argument of fg.grad and its kin
    OP_CONSTANT                     # a number or array that a derivative reads
    OP_ALIAS                        # the same value under another name
    OP_CAST
    OP_SUM
    OP_MEAN
    OP_MAX
    OP_MIN
    OP_RESHAPE
    OP_TRANSPOSE
    OP_BROADCAST
    OP_INDEX
    OP_MATMUL
    OP_LOGSUMEXP
    OP_SOFTMAX
    OP_LOG_SOFTMAX
    OP_CROSS_ENTROPY
    OP_SCATTER                      # zeros with the operand added at a basic index
    OP_RULE                         # a rule written in Python
    N_OPS

    STRONG = 1                      # the node of a leaf holds a reference on the Tensor
    PINNED = 2                      # an open fg.Tape looks at it: never swept away
    RETAINS = 4                     # t.retain_grad()
    NEEDED = 8                      # scratch of a sweep: on the way to what is asked for
    SWEPT = 16                      # backward has been here and kept nothing
    # 32, 64: REACHED and STOPS, the sweep's (sweep.pxi)
    PLAIN = 128                     # an elementwise operation from 0-d numbers to one, so that run_numbers takes it
    FLOWS_A = 256                   # of a PLAIN node: a cotangent flows to the first operand,
    FLOWS_B = 512                   # and to the second

    FIRST_CAPACITY = 1024
    DOUBLED_CAPACITY = 1 << 20      # above this a tape grows by a quarter
    KEPT_CAPACITY = 1 << 16         # a tape that ran empty gives back what is larger

ctypedef unsigned int index_t

cdef union NodeValue:
    double number                   # of a 0-d float64
    Array* array                    # of any other; NULL until somebody needs it

cdef struct Node:                   # 48 bytes, one cache line: recording writes it once, a sweep reads it once
    unsigned char op
    unsigned char dtype
    unsigned short flags
    index_t refcount
    index_t a
    index_t b                       # the second operand, or a small parameter of a one-operand operation
    NodeValue value
    Shape* shape                    # NULL: a 0-d float64
    PyObject* tensor                # borrowed; NULL when it is gone
    Extra* extra

cdef struct Extra:                  # what does not fit a node
    Py_ssize_t n_operands           # all of them, where there are more than two
    index_t* operands
    Py_ssize_t n_numbers            # parameters: an offset and strides, ...
    Py_ssize_t* numbers
    PyObject* rule                  # of OP_RULE
    PyObject* parameters
    PyObject* note                  # a Note (notes.pxi)

cdef union Adjoint:
    double number
    Array* array

cdef struct CTape:
    Node* nodes
    index_t n                       # one past the last node; node 0 stands for "not on the tape"
    index_t capacity
    index_t live
    int recording                   # False inside no_grad; more than True where nodes are watched (notes.pxi)
    int watching                    # for what: WATCH_...
    int sweeps                      # under way: nodes must keep their places
    int pins                        # open views
    int depth                       # of nested transforms
    size_t marking                  # counts whatever changes marks on nodes: see Linearization.mark
    bint orphaned                   # its thread has ended
    Adjoint* adjoints               # spare, all empty
    index_t adjoints_capacity
    PyObject* holders               # the first Holder of nodes on this tape, borrowed; it knows the next


cdef extern from *:
    """
    #if defined(_MSC_VER)
    #define FG_THREAD_LOCAL __declspec(thread)
    #elif defined(__ELF__)
    #define FG_THREAD_LOCAL __thread __attribute__((tls_model("initial-exec")))
    #else
    #define FG_THREAD_LOCAL __thread
    #endif
    static FG_THREAD_LOCAL void *fg_this_thread_tape = 0;
    static FG_THREAD_LOCAL void *fg_trace = 0;              /* the open Trace of this thread, */
    static FG_THREAD_LOCAL unsigned long long fg_mark = 0;  /* and what a Tensor made now gets as `traced` */
    """
    void* fg_this_thread_tape
    void* fg_trace
    unsigned long long fg_mark


cdef inline CTape* current_tape() except NULL:
    if fg_this_thread_tape != NULL:
        return <CTape*>fg_this_thread_tape
    return first_tape_of_thread()


@cython.final
cdef class TapeOwner:
    """Lives in the thread's dictionary: when the thread ends, so does its tape."""
    cdef CTape* tape

    def __dealloc__(self):
        global fg_this_thread_tape
        if self.tape != NULL:
            if fg_this_thread_tape == self.tape:
                fg_this_thread_tape = NULL
            self.tape.orphaned = True
            tape_free_if_unused(self.tape)


cdef CTape* first_tape_of_thread() except NULL:
    global fg_this_thread_tape
    cdef CTape* tape = <CTape*>PyMem_RawMalloc(sizeof(CTape))
    cdef TapeOwner owner
    if tape == NULL:
        raise MemoryError("cannot allocate a tape")
    memset(tape, 0, sizeof(CTape))
    tape.n = 1
    tape.marking = 1
    tape.recording = True
    owner = TapeOwner.__new__(TapeOwner)
    owner.tape = tape
    (<dict>PyThreadState_GetDict())["fastgrad.tape"] = owner
    fg_this_thread_tape = tape
    return tape


cdef void tape_free_if_unused(CTape* tape) noexcept:
    if tape.orphaned and tape.live == 0 and tape.sweeps == 0 and tape.holders == NULL:
        PyMem_RawFree(tape.nodes)
        PyMem_RawFree(tape.adjoints)
        PyMem_RawFree(tape)


# ------------------------------------------------------------------------------------------------------------- adding

cdef inline int tape_reserve(CTape* tape, size_t more) except -1:
    """Room for that many nodes, so that until they are there no node moves."""
    if <size_t>tape.n + more > tape.capacity:
        return tape_make_room(tape, more)
    return 0


cdef inline index_t node_new(CTape* tape, int op, index_t a, index_t b) noexcept:
    """Appends a node, counted once for the Tensor that will hold it; counts its operands a and b (0: none).

    The caller has reserved the room.
    """
    cdef index_t i = tape.n
    cdef Node* node = tape.nodes + i
    node.op = op
    node.dtype = NPY_DOUBLE
    node.flags = PINNED if tape.pins else 0
    node.refcount = 1 + tape.pins
    node.a = a
    node.b = b
    node.shape = NULL
    node.value.array = NULL
    node.tensor = NULL
    node.extra = NULL
    tape.nodes[a].refcount += 1     # node 0 is counted too, and never looked at
    if op_has_b(op):
        tape.nodes[b].refcount += 1
    tape.n = i + 1
    tape.live += 1
    return i


cdef inline bint op_has_b(int op) noexcept:
    return op < FG_N_ELEMENTARY or op == OP_MATMUL or op == OP_CROSS_ENTROPY


cdef int tape_make_room(CTape* tape, size_t more) except -1:
    """Squeezes out holes if they are more than half, else extends the list."""
    cdef size_t capacity = tape.capacity
    cdef Node* nodes
    if tape.sweeps == 0 and tape.capacity > 0 and tape.live < tape.capacity // 2:
        tape_squeeze(tape)
        if tape.n + more <= tape.capacity:
            return 0
    if capacity < FIRST_CAPACITY:
        capacity = FIRST_CAPACITY
    while capacity < tape.n + more:
        capacity += capacity if capacity < DOUBLED_CAPACITY else capacity // 4
    if capacity > <size_t>0xFFFFFFFE:
        raise MemoryError("a tape holds at most 2**32 - 2 nodes")
    nodes = <Node*>PyMem_RawRealloc(tape.nodes, capacity * sizeof(Node))
    if nodes == NULL:
        raise MemoryError(f"cannot extend the tape to {capacity} nodes")
    if tape.capacity == 0:
        memset(nodes, 0, sizeof(Node))
    tape.nodes = nodes
    tape.capacity = <index_t>capacity
    return 0


cdef int tape_squeeze(CTape* tape) except -1:
    """Moves every live node down over the holes; tells Tensors, operands and views."""
    cdef index_t i, k, to = 1
    cdef Py_ssize_t j
    cdef Node* node
    cdef index_t* map = <index_t*>PyMem_RawMalloc(<size_t>tape.n * sizeof(index_t) + sizeof(index_t))
    cdef Tensor tensor
    cdef PyObject* holder
    if map == NULL:
        raise MemoryError("cannot squeeze the tape")
    map[0] = 0
    for i in range(1, tape.n):
        map[i] = to
        node = tape.nodes + i
        if node.op == OP_FREE:
            continue
        node.a = map[node.a]
        if op_has_b(node.op) or node.op == OP_LEAF:
            node.b = map[node.b]
        if node.extra != NULL:
            for j in range(node.extra.n_operands):
                node.extra.operands[j] = map[node.extra.operands[j]]
        if node.tensor != NULL:
            tensor = <Tensor>node.tensor
            if tensor.tape == tape:
                if tensor.node == i:
                    tensor.node = to
                elif tensor.stale == i:
                    tensor.stale = to
        tape.nodes[to] = node[0]
        to += 1
    map[tape.n] = to
    tape.marking += 1
    holder = tape.holders
    while holder != NULL:
        for j in range((<Holder>holder).n):
            (<Holder>holder).nodes[j] = map[(<Holder>holder).nodes[j]]
        holder = (<Holder>holder).next
    tape.n = to
    PyMem_RawFree(map)
    return 0


cdef Extra* extra_new(Py_ssize_t n_operands, Py_ssize_t n_numbers) except NULL:
    cdef Extra* extra = <Extra*>PyMem_RawMalloc(
        sizeof(Extra) + <size_t>n_numbers * sizeof(Py_ssize_t) + <size_t>n_operands * sizeof(index_t))
    if extra == NULL:
        raise MemoryError("cannot allocate a node")
    extra.n_operands = n_operands
    extra.n_numbers = n_numbers
    extra.numbers = <Py_ssize_t*>(<char*>extra + sizeof(Extra))
    extra.operands = <index_t*>(<char*>extra.numbers + <size_t>n_numbers * sizeof(Py_ssize_t))
    extra.rule = NULL
    extra.parameters = NULL
    extra.note = NULL
    return extra


# ------------------------------------------------------------------------------------------------------------ leaving

cdef void node_forget_value(Node* node) noexcept:
    """Gives back the numbers of a node's value; a 0-d number stays."""
    cdef Array* array
    if node.shape != NULL and node.value.array != NULL:
        array = node.value.array
        node.value.array = NULL
        array_drop(array)


cdef void node_drop(CTape* tape, index_t i) noexcept:
    """Counts node i once less; frees it and all that only it needed.

    The dead wait in a list threaded through their own value fields: no recursion, no allocation.
    """
    cdef Node* node
    cdef index_t dead = 0, a, b
    cdef Extra* extra
    cdef Py_ssize_t j
    cdef Shape* shape
    node = tape.nodes + i
    node.refcount -= 1
    if node.refcount != 0:
        return
    node_forget_value(node)
    node.value.array = NULL
    dead = i
    while dead:
        i = dead
        node = tape.nodes + i
        dead = <index_t><size_t>node.value.array
        a = node.a
        b = node.b if op_has_b(node.op) else 0
        extra = node.extra
        shape = node.shape
        if node.op == OP_LEAF and node.tensor != NULL:
            leaf_left_tape(tape, node, i)
            node = tape.nodes + i
        node.op = OP_FREE
        node.flags = 0
        tape.live -= 1
        if shape != NULL:
            node.shape = NULL
            shape_drop(shape)
        if a:
            dead = count_down(tape, a, dead)
        if b:
            dead = count_down(tape, b, dead)
        if extra != NULL:
            tape.nodes[i].extra = NULL
            for j in range(extra.n_operands):
                if extra.operands[j]:
                    dead = count_down(tape, extra.operands[j], dead)
            Py_XDECREF(extra.rule)
            Py_XDECREF(extra.parameters)
            Py_XDECREF(extra.note)
            PyMem_RawFree(extra)
    tape_trim(tape)


cdef inline index_t count_down(CTape* tape, index_t i, index_t dead) noexcept:
    """Counts node i once less; if it died, puts it before `dead`.  Returns the head of the list."""
    cdef Node* node = tape.nodes + i
    node.refcount -= 1
    if node.refcount != 0:
        return dead
    node_forget_value(node)
    node.value.array = <Array*><size_t>dead
    return i


cdef inline void tape_trim(CTape* tape) noexcept:
    """Takes holes off the end; an empty tape gives back a large list."""
    cdef Node* nodes
    if tape.live == 0:
        tape.n = 1
        if tape.capacity > KEPT_CAPACITY and tape.sweeps == 0:
            nodes = <Node*>PyMem_RawRealloc(tape.nodes, KEPT_CAPACITY * sizeof(Node))
            if nodes != NULL:
                tape.nodes = nodes
                tape.capacity = KEPT_CAPACITY
            if tape.adjoints_capacity > KEPT_CAPACITY:
                PyMem_RawFree(tape.adjoints)
                tape.adjoints = NULL
                tape.adjoints_capacity = 0
        if tape.orphaned:
            tape_free_if_unused(tape)
    else:
        while tape.n > 1 and tape.nodes[tape.n - 1].op == OP_FREE:
            tape.n -= 1


cdef void leaf_left_tape(CTape* tape, Node* node, index_t i) noexcept:
    """Node i of a leaf is about to go: the leaf forgets it."""
    cdef PyObject* held = node.tensor
    cdef Tensor leaf = <Tensor>held
    cdef index_t* link
    if node.flags & STRONG:
        node.tensor = NULL
        Py_DECREF(<object>held)
        return
    if leaf.node == i:
        leaf.node = 0
    else:
        link = &leaf.stale
        while link[0] != i:
            link = &tape.nodes[link[0]].b
        link[0] = node.b
    node.b = 0
    if leaf.node == 0 and leaf.stale == 0:
        leaf.tape = NULL


cdef inline int node_save(Node* node, Array* value) except -1:
    """Keeps the numbers of a node's value, because a derivative reads them."""
    if node.shape != NULL and node.value.array == NULL:
        node.value.array = array_owned(value)
    return 0


# ------------------------------------------------------------------------------------------- those who hold on to nodes

cdef class Holder:
    """Holds nodes by index, and hears when they move."""
    cdef CTape* tape
    cdef PyObject* next
    cdef index_t* nodes
    cdef Py_ssize_t n

    cdef int hold(self, CTape* tape, Py_ssize_t n) except -1:
        """Room for n nodes of a tape, all 0 at first."""
        self.nodes = <index_t*>PyMem_RawCalloc(<size_t>n + 1, sizeof(index_t))
        if self.nodes == NULL:
            raise MemoryError("cannot allocate a recording")
        self.tape = tape
        self.n = n
        self.next = tape.holders
        tape.holders = <PyObject*>self
        return 0

    cdef void let_go(self) noexcept:
        """Out of the tape's list; the caller has dropped what it counted."""
        cdef PyObject** link
        if self.tape == NULL:
            return
        link = &self.tape.holders
        while link[0] != <PyObject*>self:
            link = &(<Holder>link[0]).next
        link[0] = self.next
        PyMem_RawFree(self.nodes)
        tape_free_if_unused(self.tape)
        self.tape = NULL


@cython.final
cdef class TapeView(Holder):
    """A look at what is recorded: ``with fg.Tape() as tape: ...``.

    Records nothing by itself: it keeps what the block records, so that it can be looked at.  A block's nodes stay
    until the view goes, and sweeping them leaves them in place.  A sequence of nodes with ``op``, ``operands``,
    ``shape``, ``dtype``, ``value`` and ``note``.

    Not for use by several threads at once.

    Parameters
    ----------
    lines : bool
        Whether each node keeps its value, all of its operands and, as ``note.place``, the line of code that recorded it;
        ``fg.explain`` and ``fg.draw`` tell them.  Costs some microseconds a node.

    Examples
    --------
    >>> import fastgrad as fg
    >>> x = fg.tensor(2.0, requires_grad=True)
    >>> with fg.Tape() as tape:
    ...     y = x * x + 1.0
    >>> [node.op for node in tape]
    ['leaf', 'multiply', 'add']
    """
    # nodes[0] holds the place before the first node of the block, nodes[1] is one past the last, 0 while open
    cdef Watch watch

    def __init__(self, bint lines=False):
        self.watch = Watch() if lines else None

    def __enter__(self):
        cdef CTape* tape = current_tape()
        if self.tape != NULL:
            raise RuntimeError("fg.Tape: this tape was used before; make a new one")
        tape_reserve(tape, 1)
        self.hold(tape, 2)
        self.nodes[0] = node_new(tape, OP_CONSTANT, 0, 0)   # so that the list cannot shrink below the block
        tape.pins += 1
        if self.watch is not None:
            self.watch.__enter__()
        return self

    def __exit__(self, *exception):
        if self.watch is not None:
            self.watch.__exit__()
        self.tape.pins -= 1
        self.nodes[1] = self.tape.n
        return False

    def __dealloc__(self):
        cdef index_t i, end
        if self.tape == NULL:
            return
        end = self.nodes[1]
        if not end:
            self.tape.pins -= 1
            end = self.tape.n
        i = end
        while i > self.nodes[0]:
            i -= 1
            node_drop(self.tape, i)
        self.let_go()

    def __len__(self):
        return 0 if self.tape == NULL else (self.nodes[1] or self.tape.n) - self.nodes[0] - 1

    def __getitem__(self, Py_ssize_t k):
        cdef Py_ssize_t n = len(self)
        if k < 0:
            k += n
        if k < 0 or k >= n:
            raise IndexError(f"node {k} of a tape of {n} nodes")
        return node_record(self.tape, self.nodes[0] + 1 + <index_t>k, self.nodes[0] + 1)

    def __iter__(self):
        for k in range(len(self)):
            yield self[k]

    def __repr__(self):
        return f"<fg.Tape of {len(self)} nodes>"
