# The planner: from a trace to the steps that a Program replays.
#
# Values that nobody needs go.  What is left is laid out: views cost nothing, 0-d numbers live in cells, elementwise
# operations of one shape gather into groups that pass over memory once, sums ride along with the group that makes their
# operand, everything else is a step of its own.  Groups are numbered by stage, the length of the longest way from the
# inputs through other groups, so that sorting by stage is a valid order.  Last, every value that lies in memory gets its
# place in one arena, and the code for lanes.c, scalars.c and products.c is written.

cdef enum:
    # what becomes of a value
    SITE_NONE = 0               # nobody needs it
    SITE_NUMBER                 # a constant that is one number throughout
    SITE_CONSTANT
    SITE_INPUT
    SITE_VIEW                   # another look at its root's memory
    SITE_SCALAR                 # 0-d float64 and bool, in a cell
    SITE_LANE                   # elementwise over an array
    SITE_SUM                    # in the group of its operand's shape
    SITE_KERNEL                 # a step of its own

    # the order of work within a stage
    RANK_SCALAR = 0
    RANK_LANE
    RANK_SUM
    RANK_KERNEL
    RANK_GUARD

    # steps
    STEP_SCALARS = 0
    STEP_GROUP
    STEP_PRODUCT
    STEP_COPY
    STEP_EXTREME
    STEP_ROWS
    STEP_ROW_PULL
    STEP_CROSS_ENTROPY
    STEP_CROSS_ENTROPY_PULL
    STEP_EXTREME_PULL
    STEP_ASSEMBLE
    STEP_JOIN
    STEP_SUM
    STEP_HOST
    STEP_GUARD
    STEP_GATHER
    STEP_SCATTER

    BASE_ARENA = 0
    SMALL_INPUT = 2048          # bytes up to which an input is copied into the arena
    ALIGNMENT = 64
    ALIGNED_FROM = 512          # bytes from which a value begins a cache line
    MOST_FITTED = 3000          # values that are fitted into the arena one by one

cdef struct Site:
    unsigned char kind
    unsigned char rank
    bint memory                 # somebody reads it from memory
    index_t stage
    index_t step
    index_t last                # the last step that reads it
    bint celled                 # scalar code reads its elements, so it lies in the arena
    index_t root                # of a view
    Py_ssize_t offset           # of a view, in elements
    Py_ssize_t* strides         # in elements; NULL: contiguous
    index_t from_root           # of a view that became a copy: what it is a view of
    Py_ssize_t* from_strides
    int base                    # where it lies, of what is no view
    Py_ssize_t place
    index_t* operands           # of an assembly what is added up, of a product with its bias all three: instead of the
    index_t n_operands          # value's own operands
    bint assembles              # a scatter, or a sum with one in it
    bint dense                  # and there is a whole array among what it adds up, the first operand
    bint laid                   # somebody reads it who cannot be in a group with it
    bint grouped                # somebody reads it who can
    bint outer                  # rows times columns, by the step of a product
    index_t product             # of a bias that is added by the step of a product: that product
    index_t activated           # and the activation that the step does, too
    index_t maker               # a value whose step makes this one, too
    int number                  # in the group that is being written
    index_t stamp

cdef struct Step:
    int kind
    int type
    index_t value               # what it makes, or looks at
    index_t stage
    fg_group* group
    fg_scalars* scalars
    fg_product product
    int base[6]
    Py_ssize_t place[6]
    Py_ssize_t size[6]
    Py_ssize_t* numbers         # owned
    Py_ssize_t n_numbers
    double flops
    double bytes


cdef struct Life:               # of a value in the arena
    index_t first, last         # steps
    index_t value
    Py_ssize_t size, align, place


cdef inline int loop_type(const Value* v) noexcept:
    """In which precision an elementwise value is computed."""
    if v.op == OP_CAST:
        return type_index(v.dtype)
    return <int>v.parameter


cdef inline bint is_elementwise(int op) noexcept:
    return op < FG_N_ELEMENTARY or op >= V_PULL or op == OP_CAST


cdef inline bint in_cell(const Value* v) noexcept:
    """Whether a value is a number that lives in a cell."""
    return v.shape.ndim == 0 and (v.dtype == NPY_DOUBLE or v.dtype == NPY_BOOL)


cdef Py_ssize_t rounded_up(Py_ssize_t n, Py_ssize_t to) noexcept:
    return (n + to - 1) // to * to


@cython.final
cdef class Planner:
    """Plans one Program; a scratch pad that goes afterwards."""
    cdef Trace trace
    cdef Value* values
    cdef Site* sites
    cdef index_t n
    cdef Program program
    cdef list roots                     # values that must be there at the end
    cdef list guards                    # (value, truth)
    cdef dict clusters                  # (stage, shape) -> list of values
    cdef list order                     # (stage, rank, kind, members)
    cdef dict number_cells              # (number bits, type) -> place in the arena
    cdef dict natives                   # of calls of a rule that a step does itself: what it has to know
    cdef bytearray template             # the arena's first bytes: constants
    cdef Py_ssize_t arena_size
    cdef Py_ssize_t live_peak
    cdef index_t n_steps
    cdef list wanted                    # (first step, last step, bytes, value): what needs a place in the arena
    cdef dict direct                    # result -> the base of the memory it is computed straight into

    def __dealloc__(self):
        cdef index_t i
        if self.sites != NULL:
            for i in range(self.n):
                PyMem_RawFree(self.sites[i].strides)
                PyMem_RawFree(self.sites[i].from_strides)
                PyMem_RawFree(self.sites[i].operands)
            PyMem_RawFree(self.sites)

    cdef int plan(self, Program program, Trace trace, list roots, list guards) except -1:
        self.trace = trace
        self.values = trace.values
        self.n = trace.n
        self.program = program
        self.roots = roots
        self.guards = guards
        self.clusters, self.order, self.number_cells, self.natives, self.template = {}, [], {}, {}, bytearray()
        self.sites = <Site*>PyMem_RawCalloc(self.n, sizeof(Site))
        if self.sites == NULL:
            raise MemoryError("cannot plan a program")
        self.find_needed()
        self.find_assemblies()
        self.find_readers()
        self.find_epilogues()
        self.find_outer()
        self.lay_out()
        self.arrange()
        self.place_all()
        self.write_steps()
        return 0

    # -- what is needed

    cdef int need(self, index_t i) noexcept:
        if self.sites[i].kind == SITE_NONE:
            self.sites[i].kind = SITE_KERNEL        # for now: needed
        return 0

    cdef int find_needed(self) except -1:
        cdef index_t i
        cdef Value* v
        cdef Py_ssize_t k
        for i in range(self.n):
            self.values[i].uses = 0
        for i in self.roots:
            self.need(i)
            self.values[i].uses += 1
        for i, _ in self.guards:
            self.need(i)
            self.values[i].uses += 1
        for i in self.trace.impure:
            self.need(i)
        i = self.n
        while i > 1:
            i -= 1
            if self.sites[i].kind == SITE_NONE:
                continue
            v = self.values + i
            for k in range(5):
                if v.o[k]:
                    self.need(v.o[k])
                    self.values[v.o[k]].uses += 1
            if v.op == V_HOST:
                for k in range(v.extra.n_operands):
                    self.need(v.extra.operands[k])
                    self.values[v.extra.operands[k]].uses += 1
        return 0

    # -- assemblies: sums of scatters, as the gradients of an array's parts make them, in one step

    cdef bint can_join(self, index_t i) noexcept:
        """Whether an assembly can be part of a larger one."""
        return self.sites[i].assembles and self.values[i].uses == 1

    cdef int find_assemblies(self) except -1:
        cdef index_t i, a, b
        cdef Value* v
        cdef Site* s
        cdef int dense
        cdef bint found = False
        for i in range(1, self.n):
            s = self.sites + i
            v = self.values + i
            if s.kind == SITE_NONE or (v.op != OP_SCATTER and v.op != FG_ADD):
                continue
            if v.op == OP_SCATTER:
                s.assembles = found = True
                continue
            a, b = v.o[0], v.o[1]
            if not found or not (self.can_join(a) or self.can_join(b)) or not same_shape(v.shape, self.values[a].shape) \
                    or not same_shape(v.shape, self.values[b].shape) or self.values[a].dtype != v.dtype \
                    or self.values[b].dtype != v.dtype:
                continue
            dense = (self.sites[a].dense if self.can_join(a) else 1) + (self.sites[b].dense if self.can_join(b) else 1)
            if dense <= 1:
                s.assembles = True
                s.dense = dense
        if found:
            i = self.n
            while i > 1:
                i -= 1
                if self.sites[i].assembles and self.sites[i].kind != SITE_NONE:
                    self.assemble(i)
        return 0

    cdef int assemble(self, index_t root) except -1:
        """Gathers what a sum of scatters adds up: a whole array first, if there is one, then the scatters in order."""
        cdef list stack = [root], parts = []
        cdef index_t i
        cdef Value* v
        cdef Site* s = self.sites + root
        cdef Py_ssize_t k
        whole = []
        while stack:
            i = stack.pop()
            v = self.values + i
            if i != root and not self.can_join(i):
                whole.append(i)
            elif v.op == OP_SCATTER:
                parts.append(i)
            else:
                stack.append(v.o[1])
                stack.append(v.o[0])
            if i != root and self.can_join(i):
                self.sites[i].kind = SITE_NONE
        parts = whole + parts
        s.n_operands = <index_t>len(parts)
        s.operands = <index_t*>PyMem_RawMalloc(2 * <size_t>s.n_operands * sizeof(index_t))
        if s.operands == NULL:
            raise MemoryError("cannot plan a program")
        for k in range(len(parts)):         # the operands, then the scatters they came by
            i = parts[k]
            s.operands[k] = i if k < len(whole) else self.values[i].o[0]
            s.operands[s.n_operands + k] = i
        return 0

    cdef int find_readers(self) except -1:
        """Whether those who read a value can be in a group with it."""
        cdef index_t i, k, n
        cdef index_t few[5]
        cdef index_t* operands
        for i in self.roots:
            self.sites[i].laid = True
        for i in range(1, self.n):
            if self.sites[i].kind == SITE_NONE:
                continue
            n = self.operands_of(i, &operands, few)
            for k in range(n):
                if self.values[i].op == OP_SUM or (is_elementwise(self.values[i].op) and not self.sites[i].assembles):
                    self.sites[operands[k]].grouped = True
                else:
                    self.sites[operands[k]].laid = True
        return 0

    # -- epilogues: a bias and an activation after a product, done by its step while the numbers are in the cache

    cdef int find_epilogues(self) except -1:
        """Where the value lies in memory anyway: else it goes by in a group at no cost."""
        cdef index_t i
        cdef Value* v
        cdef Value* x
        for i in range(1, self.n):
            v = self.values + i
            x = self.values + v.o[0]
            if self.sites[i].laid and self.sites[i].kind != SITE_NONE and v.op < FG_N_ELEMENTARY and fg_arity[v.op] == 1 \
                    and not fg_is_bool[v.op] and x.op == FG_ADD and x.dtype == v.dtype and not self.sites[v.o[0]].activated:
                self.sites[v.o[0]].activated = i
        for i in range(1, self.n):
            v = self.values + i
            if v.op != FG_ADD or self.sites[i].kind == SITE_NONE:
                continue
            if not (self.sites[i].laid or self.sites[i].activated) or not (self.add_bias(i, v.o[0], v.o[1]) or self.add_bias(i, v.o[1], v.o[0])):
                self.sites[i].activated = 0
            elif self.sites[i].activated:
                self.sites[self.sites[i].activated].maker = i
        return 0

    cdef bint add_bias(self, index_t i, index_t product, index_t bias) except -1:
        """Makes the sum i of a product and a bias one step with the product, if that can be."""
        cdef Site* s = self.sites + i
        cdef index_t view = 0
        cdef Value* p = self.values + product
        cdef Shape* shape = p.shape
        cdef Shape* row = self.values[bias].shape
        if p.op == OP_RESHAPE and p.uses == 1 and shape.ndim and p.shape.dims[shape.ndim - 1] > 1:     # the same rows
            view, product = product, p.o[0]
            p = self.values + product
            if p.shape.ndim == 0 or p.shape.dims[p.shape.ndim - 1] != shape.dims[shape.ndim - 1]:
                return False
        if p.op != OP_MATMUL or p.uses != 1 or s.operands != NULL or s.assembles or not same_shape(shape, self.values[i].shape) \
                or p.dtype != self.values[i].dtype or self.values[bias].dtype != p.dtype or self.values[p.o[1]].shape.ndim < 2 \
                or row.ndim == 0 or row.dims[row.ndim - 1] != shape.dims[shape.ndim - 1] or row.size != row.dims[row.ndim - 1]:
            return False
        s.operands = <index_t*>PyMem_RawMalloc(3 * sizeof(index_t))
        if s.operands == NULL:
            raise MemoryError("cannot plan a program")
        s.operands[0], s.operands[1], s.operands[2] = p.o[0], p.o[1], bias
        s.n_operands = 3
        s.product = product
        self.sites[product].kind = SITE_NONE
        self.sites[product].maker = i
        if view:
            self.sites[view].kind = SITE_NONE
            self.sites[view].maker = i
        return True

    cdef int find_outer(self) except -1:
        """Rows times columns that no group computes with: the loops of a product read each number once for a whole row."""
        cdef index_t i
        cdef Value* v
        cdef Site* s
        cdef Py_ssize_t d
        for i in range(1, self.n):
            v, s = self.values + i, self.sites + i
            if s.kind == SITE_NONE or v.op != FG_MULTIPLY or v.shape.ndim < 2 or s.grouped or v.dtype != self.values[v.o[0]].dtype \
                    or v.dtype != self.values[v.o[1]].dtype or type_index(v.dtype) != loop_type(v):
                continue
            d = v.shape.ndim
            s.outer = v.shape.dims[d - 1] > 1 and v.shape.dims[d - 2] > 1 and (
                self.broadcasts(v.o[0], d, 1) and self.broadcasts(v.o[1], d, 2) or
                self.broadcasts(v.o[0], d, 2) and self.broadcasts(v.o[1], d, 1))
        return 0

    cdef bint broadcasts(self, index_t p, Py_ssize_t ndim, Py_ssize_t back) noexcept:
        """Whether value p has length 1 along the axis that is so far from the end of ndim axes, or lacks it."""
        cdef Shape* shape = self.values[p].shape
        return shape.ndim < back or shape.dims[shape.ndim - back] == 1

    # -- layouts

    cdef bint contiguous(self, index_t i) noexcept:
        return self.sites[i].strides == NULL

    cdef int strides_in_elements(self, index_t i, Py_ssize_t* strides) noexcept:
        cdef Shape* shape = self.values[i].shape
        cdef Py_ssize_t d, step = 1
        if self.sites[i].strides != NULL:
            memcpy(strides, self.sites[i].strides, <size_t>shape.ndim * sizeof(Py_ssize_t))
            return 0
        for d in range(shape.ndim - 1, -1, -1):
            strides[d] = step
            step *= shape.dims[d]
        return 0

    cdef int make_contiguous(self, index_t i) noexcept:
        """A view whose reader wants it contiguous becomes a copy; earlier readers keep looking at its root."""
        cdef Site* s = self.sites + i
        if s.strides != NULL and s.kind == SITE_VIEW:
            s.kind = SITE_KERNEL
            s.rank = RANK_KERNEL
            s.from_root = s.root
            s.from_strides = s.strides
            s.strides = NULL
            s.root = i
        return 0

    cdef int view(self, index_t i, index_t of, Py_ssize_t offset, const Py_ssize_t* strides) except -1:
        """Value i is a look at value `of`, whose own offset is added; strides NULL: contiguous."""
        cdef Site* s = self.sites + i
        cdef Shape* shape = self.values[i].shape
        s.kind = SITE_VIEW
        s.root = self.sites[of].root
        s.offset = offset + (self.sites[of].offset if self.sites[of].kind == SITE_VIEW else 0)
        if strides != NULL and not strides_are_contiguous(shape, strides, 1):
            s.strides = <Py_ssize_t*>PyMem_RawMalloc(<size_t>(shape.ndim + 1) * sizeof(Py_ssize_t))
            if s.strides == NULL:
                raise MemoryError("cannot plan a program")
            memcpy(s.strides, strides, <size_t>shape.ndim * sizeof(Py_ssize_t))
        return 0

    cdef int lay_out(self) except -1:
        """Says for every needed value what becomes of it."""
        cdef index_t i, a
        cdef Value* v
        cdef Value* x
        cdef Site* s
        cdef int op, k
        cdef Py_ssize_t strides[FG_MAX_NDIM]
        cdef Py_ssize_t own[FG_MAX_NDIM]
        cdef Py_ssize_t d, gap
        cdef bint all_cells
        for i in range(1, self.n):
            s = self.sites + i
            if s.kind == SITE_NONE:
                continue
            v = self.values + i
            op = v.op
            a = v.o[0]
            x = self.values + a
            s.root = i
            s.rank = RANK_KERNEL
            if op == V_CONSTANT:
                s.kind = SITE_NUMBER if v.array == NULL else SITE_CONSTANT
            elif op == V_ARGUMENT or op == V_SLOT or op == V_ARRAY:
                s.kind = SITE_INPUT
            elif s.maker or op == V_PICK:
                s.kind = SITE_KERNEL
                s.maker = s.maker if s.maker else a
            elif s.operands != NULL:
                s.kind = SITE_KERNEL
                for k in range(2 if s.product else 0, <int>s.n_operands):
                    if not self.contiguous(s.operands[k]):
                        self.make_contiguous(s.operands[k])
            elif s.outer:
                s.kind = SITE_KERNEL
            elif is_elementwise(op):
                all_cells = in_cell(v) and loop_type(v) != FG_F32
                for k in range(5):
                    if v.o[k] and not in_cell(self.values + v.o[k]):
                        all_cells = False
                if v.op == OP_CAST and type_index(x.dtype) < 0:     # integers
                    s.kind = SITE_KERNEL
                    self.make_contiguous(a)
                elif all_cells:
                    s.kind, s.rank = SITE_SCALAR, RANK_SCALAR
                else:
                    s.kind, s.rank = SITE_LANE, RANK_LANE
            elif op == OP_SUM:
                s.kind = SITE_KERNEL
                if x.shape.size and (axes_lead(v.parameter) or axes_trail(v.parameter, x.shape.ndim)):
                    s.kind, s.rank = SITE_SUM, RANK_SUM
            elif op == OP_RESHAPE:
                if not self.contiguous(a):
                    self.make_contiguous(a)
                if self.sites[a].kind == SITE_NUMBER:
                    s.kind = SITE_NUMBER
                    self.become_number(i, x.number)
                else:
                    self.view(i, a, 0, NULL)
                    self.split_truth(i, a)
            elif op == OP_TRANSPOSE:
                self.strides_in_elements(a, own)
                for d in range(v.extra.n_numbers):
                    strides[d] = own[v.extra.numbers[d]]
                self.view(i, a, 0, strides)
            elif op == OP_BROADCAST:
                self.strides_in_elements(a, own)
                gap = v.shape.ndim - x.shape.ndim
                for d in range(v.shape.ndim):
                    strides[d] = 0 if d < gap or x.shape.dims[d - gap] == 1 else own[d - gap]
                self.view(i, a, 0, strides)
                self.split_truth(i, a)
            elif op == OP_INDEX:
                if not self.contiguous(a):
                    self.make_contiguous(a)
                self.view(i, a, v.extra.numbers[0], v.extra.numbers + 1)
                self.split_truth(i, a)
            else:
                s.kind = SITE_KERNEL
                if op == V_HOST:
                    self.find_native(i)
                elif op == OP_SCATTER or OP_LOGSUMEXP <= op <= OP_CROSS_ENTROPY or V_ROW_PULL <= op <= V_EXTREME_PULL:
                    for k in range(5):          # these run over rows that lie one after the other
                        if v.o[k] and not self.contiguous(v.o[k]):
                            self.make_contiguous(v.o[k])
        return 0

    cdef int find_native(self, index_t i) except -1:
        """Whether a call of Python is one of the engine's own rules, in a form that a step does itself."""
        cdef Value* v = self.values + i
        cdef index_t x
        cdef object call = <object>v.extra.rule
        cdef str kind = HOOKS["native"].get(call.function) if isinstance(call.function, Rule) else None
        if kind is None or v.extra.n_operands == 0:
            return 0
        x = v.extra.operands[0]
        if kind == "concatenate":
            if self.is_join(v):
                self.natives[i] = Picks()
            return 0
        picks = self.picked(v, self.values[x].shape, v.shape) if kind == "getitem" else self.picked(v, v.shape, self.values[x].shape)
        if picks is None or v.dtype != self.values[x].dtype or (in_cell(v) and v.dtype == NPY_BOOL) \
                or (kind != "getitem" and type_index(v.dtype) != FG_F64 and type_index(v.dtype) != FG_F32):
            return 0
        if not self.contiguous(x):
            self.make_contiguous(x)
        self.natives[i] = picks
        return 0

    cdef Picks picked(self, const Value* v, const Shape* whole, const Shape* part):
        """How the index of a rule leads from `whole` to `part`: None where it is more than arrays of integers for axes side by side.

        The shapes are compared with what the index gives: a file may say anything.
        """
        cdef Picks picks = Picks()
        cdef object index = (<object>v.extra.rule).keywords["index"], item, closed = False
        cdef tuple parts = index if type(index) is tuple else (index,)
        cdef tuple dims = shape_tuple(whole)
        cdef index_t p
        cdef list shapes = []
        for item in parts:
            if item is Ellipsis or (type(item) is slice and item.start is None and item.stop is None and item.step is None):
                closed = len(picks.arrays) > 0
                picks.axis += 0 if closed else 1 if item is not Ellipsis else len(dims) - (len(parts) - 1)
                continue
            if closed:
                return None
            if type(item) is Hole:
                p = v.extra.operands[<Py_ssize_t>item.place]
                if type_index(self.values[p].dtype) >= 0 or self.sites[p].kind == SITE_NUMBER:
                    return None
                picks.arrays.append(p)
                shapes.append(shape_tuple(self.values[p].shape))
                continue
            try:
                item = np.asarray(item)
                if item.dtype.kind not in "iu":
                    return None
            except (ValueError, TypeError, OverflowError):      # what NumPy cannot index by, either
                return None
            picks.arrays.append(item.astype(np.int64))
            shapes.append(item.shape)
        last = picks.axis + len(picks.arrays)
        if not picks.arrays or picks.axis < 0 or last > len(dims):
            return None
        try:
            picks.shape = np.broadcast_shapes(*shapes)
        except ValueError:
            return None
        picks.count, picks.outer, picks.inner = prod_of(picks.shape), prod_of(dims[:picks.axis]), prod_of(dims[last:])
        picks.among = prod_of(dims[picks.axis:last])
        picks.lengths = dims[picks.axis:last]
        if picks.count == 0 or picks.among == 0 or 8 * (picks.count + whole.size) > MAX_BLOCK \
                or dims[:picks.axis] + picks.shape + dims[last:] != shape_tuple(part):
            return None
        return picks

    cdef int split_truth(self, index_t i, index_t a) noexcept:
        """A truth value is a double in a cell and a byte in an array: between the two there is no view."""
        if self.values[i].dtype == NPY_BOOL and in_cell(self.values + i) != in_cell(self.values + a):
            self.sites[i].kind = SITE_KERNEL
            self.sites[i].root = i
        return 0

    cdef int become_number(self, index_t i, double number) except -1:
        self.values[i].op = V_CONSTANT
        self.values[i].number = number
        memset(self.values[i].o, 0, sizeof(self.values[i].o))
        return 0

    # -- stages

    cdef index_t operands_of(self, index_t i, index_t** list, index_t* few) noexcept:
        """How many operands a value has, and where they stand."""
        cdef Value* v = self.values + i
        cdef index_t n = 0
        cdef int k
        if v.op == V_HOST:
            list[0] = v.extra.operands
            return <index_t>v.extra.n_operands
        if self.sites[i].operands != NULL:
            list[0] = self.sites[i].operands
            return self.sites[i].n_operands
        for k in range(5):
            if v.o[k]:
                few[n] = v.o[k]
                n += 1
        list[0] = few
        return n

    cdef int arrange(self) except -1:
        """Stages, groups, and their order."""
        cdef index_t i, p, r, stage, n, k, due
        cdef index_t few[5]
        cdef index_t* operands
        cdef Site* s
        cdef Site* source
        cdef Shape* shape
        cdef list members
        for i in range(1, self.n):
            s = self.sites + i
            if s.kind < SITE_SCALAR:
                continue
            if s.maker:
                s.stage = self.sites[s.maker].stage
                continue
            stage = 0
            shape = self.values[i].shape if s.kind != SITE_SUM else self.values[self.values[i].o[0]].shape
            n = self.operands_of(i, &operands, few)
            for k in range(n):
                p = operands[k]
                r = self.sites[p].root if not self.sites[i].from_root else self.sites[i].from_root
                source = self.sites + r
                if source.kind < SITE_SCALAR:
                    continue
                due = source.stage
                if s.rank < source.rank or (s.rank == source.rank and not self.together(i, p, shape)) \
                        or (s.kind == SITE_SUM and source.kind == SITE_LANE and not self.together(i, p, shape)):
                    due += 1
                stage = due if due > stage else stage
            s.stage = stage
            if s.kind == SITE_SCALAR:
                key = stage
            elif s.kind == SITE_LANE or s.kind == SITE_SUM:
                key = (stage, shape_tuple(shape))
            else:
                self.order.append((stage, s.rank, i, i))
                continue
            members = self.clusters.get(key)
            if members is None:
                members = self.clusters[key] = []
                self.order.append((stage, RANK_SCALAR if s.kind == SITE_SCALAR else RANK_LANE, i, members))
            members.append(i)
        for i, truth in self.guards:
            r = self.sites[i].root
            self.order.append((self.sites[r].stage if self.sites[r].kind >= SITE_SCALAR else 0, RANK_GUARD, i, bool(truth)))
        self.order.sort(key=_by_stage)
        self.number_steps()
        return 0

    cdef bint together(self, index_t i, index_t p, Shape* shape) noexcept:
        """Whether value i and its operand p can be in one group."""
        cdef Site* s = self.sites + i
        cdef Site* source = self.sites + p
        if source.kind == SITE_VIEW:
            return False
        if s.kind == SITE_SCALAR:
            return source.kind == SITE_SCALAR
        return (s.kind == SITE_LANE or s.kind == SITE_SUM) and source.kind == SITE_LANE \
            and same_shape(shape, self.values[p].shape)

    cdef int number_steps(self) except -1:
        """Gives every value its step, and finds who must lie in memory and how long."""
        cdef index_t step = 0, i, k, n, p, r
        cdef index_t few[5]
        cdef index_t* operands
        cdef int rank
        for stage, rank, first, members in self.order:
            if type(members) is list:
                for i in members:
                    self.sites[i].step = step
            elif rank != RANK_GUARD:
                i = members
                self.sites[i].step = step
            step += 1
        for i in range(1, self.n):
            if self.sites[i].maker:
                self.sites[i].step = self.sites[self.sites[i].maker].step
        for i in range(1, self.n):
            if self.sites[i].kind < SITE_SCALAR:
                continue
            n = 0 if self.sites[i].maker else self.operands_of(i, &operands, few)
            for k in range(n):
                p = operands[k]
                r = self.sites[p].root
                if self.sites[i].from_root and k == 0:      # a copy reads what its operand looks at
                    self.read(self.sites[i].from_root, self.sites[i].step)
                    continue
                if self.sites[p].kind == SITE_NUMBER and self.sites[i].kind != SITE_KERNEL:
                    continue
                if self.sites[i].kind == SITE_SCALAR and self.sites[p].kind == SITE_VIEW:
                    self.sites[r].celled = True
                if self.sites[r].step != self.sites[i].step or self.sites[i].kind == SITE_KERNEL or self.sites[r].kind < SITE_SCALAR \
                        or self.sites[p].kind == SITE_VIEW:
                    self.read(p, self.sites[i].step)
            if (self.sites[i].kind == SITE_KERNEL or self.sites[i].kind == SITE_SUM) and not self.sites[i].activated:
                self.sites[i].memory = True
                if self.sites[i].last < self.sites[i].step:
                    self.sites[i].last = self.sites[i].step
        step = 0
        for stage, rank, first, members in self.order:
            if rank == RANK_GUARD:
                self.read(first, step)
            step += 1
        for i in self.roots:
            self.read(i, step)
        self.n_steps = step
        return 0

    cdef void read(self, index_t p, index_t step) noexcept:
        cdef Site* root = self.sites + self.sites[p].root
        root.memory = True
        if root.last < step:
            root.last = step

    # -- places

    cdef Py_ssize_t bytes_of(self, index_t i) except -1:
        cdef Value* v = self.values + i
        if in_cell(v):
            return 8
        return v.shape.size * item_size(v.dtype)

    cdef Py_ssize_t constant_place(self, const void* data, Py_ssize_t n, Py_ssize_t align) except -1:
        """Bytes put into the part of the arena that never changes."""
        cdef Py_ssize_t place = rounded_up(len(self.template), align)
        self.template.extend(bytes(place - len(self.template)))
        self.template.extend((<const char*>data)[:n])
        return place

    cdef Py_ssize_t number_place(self, double number, int type) except -1:
        """A number in a cell of the constant part, in the given precision."""
        cdef double wide = number
        cdef float narrow = <float>number
        cdef unsigned long long bits
        memcpy(&bits, &wide, 8)
        key = (bits, type)
        place = self.number_cells.get(key)
        if place is None:
            wide = 0 if type == FG_F32 else wide
            if type == FG_F32:
                memcpy(&wide, &narrow, 4)
            place = self.number_cells[key] = self.constant_place(&wide, 8, 8)
        return place

    cdef int place_all(self) except -1:
        """Constants first, then inputs that are copied in, then what steps make, by their life times."""
        cdef index_t i
        cdef Site* s
        cdef Value* v
        cdef Array* a
        cdef Program program = self.program
        cdef list wanted = []
        cdef double number
        cdef Py_ssize_t size
        for i in range(1, self.n):
            s = self.sites + i
            v = self.values + i
            if s.kind == SITE_NUMBER and s.memory and in_cell(v):
                s.place = self.number_place(v.number, FG_F64)
            elif (s.kind == SITE_CONSTANT or s.kind == SITE_NUMBER) and s.memory:
                a = constant_array(v)
                try:
                    s.place = self.constant_place(a.data, a.shape.size * item_size(a.dtype), ALIGNMENT)
                finally:
                    array_drop(a)
        for picks in self.natives.values():
            for k, item in enumerate((<Picks>picks).arrays):
                if type(item) is not int:
                    data = item.tobytes()
                    (<Picks>picks).arrays[k] = (self.constant_place(<const char*>data, len(data), ALIGNMENT), item.shape)
        program.constant_bytes = rounded_up(len(self.template), 8)
        self.arena_size = program.constant_bytes
        # the numbers of groups and scalar code come while steps are written, so their room is kept by writing twice
        self.direct = {}
        self.choose_direct()
        for i in range(1, self.n):
            s = self.sites + i
            if s.kind == SITE_INPUT and s.memory:
                size = self.bytes_of(i)
                program.inputs[input_place(program, self.values + i)].used = True
                if size <= SMALL_INPUT or s.celled:
                    wanted.append((0, s.last, size, i))
                else:
                    s.base = program.n_bases
                    program.inputs[input_place(program, self.values + i)].base = s.base
                    program.n_bases += 1
            elif s.kind >= SITE_SCALAR and s.memory and s.base == BASE_ARENA:
                wanted.append((s.step, s.last, self.bytes_of(i), i))
        self.wanted = wanted
        return 0

    cdef int choose_direct(self) except -1:
        """Large results are computed straight into the memory that the caller gets."""
        cdef index_t i
        cdef Site* s
        for i in self.roots:
            s = self.sites + i
            if s.kind >= SITE_LANE and not s.celled and s.base == BASE_ARENA and self.bytes_of(i) > SMALL_INPUT:
                s.base = self.program.n_bases
                self.direct[i] = s.base
                self.program.n_bases += 1
        return 0

    cdef int allocate(self, Py_ssize_t start) except -1:
        """Places in the arena from `start` on: values whose lives do not meet may share theirs.

        The largest first, each at the lowest place where nothing lies meanwhile; thousands of small ones, which scalar code
        leaves, one after the other.
        """
        cdef index_t n = <index_t>len(self.wanted), i, j, k, n_placed, last, first
        cdef Life* lives = <Life*>PyMem_RawCalloc(2 * <size_t>n + 1, sizeof(Life))
        cdef Life* meeting = lives + n
        cdef Py_ssize_t place, top = start, live = 0
        if lives == NULL:
            raise MemoryError("cannot plan a program")
        self.wanted.sort(key=_largest_first)
        for i in range(n):
            first, last, size, value = self.wanted[i]
            lives[i].first, lives[i].last, lives[i].value = first, last, value
            lives[i].align = ALIGNMENT if size >= ALIGNED_FROM else 8
            lives[i].size = rounded_up(size if size else 1, 8)
        for i in range(n):
            place = top
            if i < MOST_FITTED:
                n_placed = 0
                for j in range(i):
                    if lives[j].first <= lives[i].last and lives[i].first <= lives[j].last:
                        k = n_placed
                        while k and meeting[k - 1].place > lives[j].place:
                            meeting[k] = meeting[k - 1]
                            k -= 1
                        meeting[k] = lives[j]
                        n_placed += 1
                place = start
                for k in range(n_placed):
                    if rounded_up(place, lives[i].align) + lives[i].size <= meeting[k].place:
                        break
                    if meeting[k].place + meeting[k].size > place:
                        place = meeting[k].place + meeting[k].size
            place = rounded_up(place, lives[i].align)
            lives[i].place = place
            if place + lives[i].size > top:
                top = place + lives[i].size
            self.sites[lives[i].value].place = place
            if self.sites[lives[i].value].kind == SITE_INPUT:
                self.program.inputs[input_place(self.program, self.values + lives[i].value)].place = place
        self.arena_size = top
        self.live_peak = largest_live(lives, n, self.n_steps)
        PyMem_RawFree(lives)
        return 0

    # -- steps

    cdef int write_steps(self) except -1:
        """Writes the code.  Numbers that code needs are constants too, so they are collected before places are given."""
        cdef Program program = self.program
        cdef index_t step = 0
        cdef index_t stage
        cdef int rank
        self.collect_numbers()
        program.constant_bytes = rounded_up(len(self.template), 8)
        self.allocate(program.constant_bytes)
        program.steps = <Step*>PyMem_RawCalloc(self.n_steps + 1, sizeof(Step))
        if program.steps == NULL:
            raise MemoryError("cannot plan a program")
        for stage, rank, first, members in self.order:
            program.steps[step].stage = stage
            program.steps[step].value = first
            program.n_steps = step + 1
            if rank == RANK_GUARD:
                self.write_guard(program.steps + step, first, members)
            elif rank == RANK_SCALAR:
                self.write_scalars(program.steps + step, members)
            elif rank == RANK_LANE:
                self.write_group(program.steps + step, members)
            else:
                self.write_kernel(program.steps + step, members)
            step += 1
        program.template = bytes(self.template)
        program.arena_bytes = self.arena_size
        program.live_peak = self.live_peak
        return 0

    cdef int collect_numbers(self) except -1:
        cdef index_t i, p
        cdef int k, type
        cdef Value* v
        for i in range(1, self.n):
            v = self.values + i
            if self.sites[i].kind == SITE_SCALAR or self.sites[i].kind == SITE_LANE:
                for k in range(5):
                    p = v.o[k]
                    if p and self.sites[p].kind == SITE_NUMBER:
                        type = FG_F64 if self.sites[i].kind == SITE_SCALAR else loop_type(v)
                        self.number_place(self.values[p].number, FG_F32 if type == FG_F32 else FG_F64)
            elif self.sites[i].kind == SITE_SUM:
                p = v.o[0]
                if self.sites[p].kind == SITE_NUMBER:
                    self.number_place(self.values[p].number, FG_F32 if v.dtype == NPY_FLOAT else FG_F64)
        return 0

    cdef int locate(self, index_t p, int* base, Py_ssize_t* place) noexcept:
        """Where the first element of a value lies."""
        cdef Site* s = self.sites + p
        cdef Site* root = self.sites + s.root
        base[0] = root.base
        place[0] = root.place + (s.offset * item_size(self.values[p].dtype) if s.kind == SITE_VIEW else 0)
        return 0

    cdef int write_guard(self, Step* step, index_t i, bint truth) except -1:
        step.kind = STEP_GUARD
        step.value = i
        self.locate(i, &step.base[0], &step.place[0])
        step.size[0] = truth
        step.size[1] = item_size(self.values[i].dtype)
        step.type = FG_F64 if in_cell(self.values + i) else type_index(self.values[i].dtype)
        return 0

    cdef int write_scalars(self, Step* step, list members) except -1:
        cdef index_t n = <index_t>len(members), i, p, j
        cdef int k, n_given = 0
        cdef fg_scalars_spec spec
        cdef fg_instruction* code = <fg_instruction*>PyMem_RawCalloc(n + 1, sizeof(fg_instruction))
        cdef int64_t* cells = <int64_t*>PyMem_RawMalloc((6 * <size_t>n + 1) * sizeof(int64_t))
        cdef Value* v
        cdef int base
        cdef Py_ssize_t place
        cdef list given = []
        cdef index_t stamp = step.value
        if code == NULL or cells == NULL:
            PyMem_RawFree(code)
            PyMem_RawFree(cells)
            raise MemoryError("cannot plan a program")
        # first the values that come from elsewhere
        for i in members:
            v = self.values + i
            for k in range(5):
                p = v.o[k]
                if not p or (self.sites[p].kind == SITE_SCALAR and self.sites[p].step == self.sites[i].step) \
                        or self.sites[p].stamp == stamp:
                    continue
                self.sites[p].stamp = stamp
                self.sites[p].number = n_given
                if self.sites[p].kind == SITE_NUMBER:
                    place = self.number_place(self.values[p].number, FG_F64)
                else:
                    self.locate(p, &base, &place)
                cells[n_given] = place // 8
                n_given += 1
        j = 0
        for i in members:
            v = self.values + i
            self.sites[i].stamp = stamp
            self.sites[i].number = n_given + <int>j
            code[j].op = <unsigned short>(FG_CAST if v.op == OP_CAST else v.op)
            code[j].type = FG_F64 if v.dtype != NPY_BOOL or v.op != OP_CAST else FG_BOOL
            for k in range(5):
                code[j].operand[k] = self.sites[v.o[k]].number if v.o[k] else FG_NO_VALUE
            cells[n_given + j] = self.sites[i].place // 8 if self.sites[i].memory else FG_NO_VALUE
            j += 1
        spec.n_given = n_given
        spec.n_code = <int>n
        spec.cells = cells
        spec.code = code
        spec.first_temporary = rounded_up(self.arena_size, 8) // 8
        step.kind = STEP_SCALARS
        step.scalars = fg_scalars_new(&spec)
        PyMem_RawFree(code)
        PyMem_RawFree(cells)
        if step.scalars == NULL:
            raise MemoryError("cannot plan a program")
        place = fg_scalars_temporaries(step.scalars)
        if place > self.program.temporaries:
            self.program.temporaries = place
        step.flops = fg_scalars_length(step.scalars)
        step.size[0] = n
        return 0

    cdef int write_group(self, Step* step, list members) except -1:
        cdef GroupWriter writer = GroupWriter()
        cdef index_t i = members[0]
        cdef Shape* shape = self.values[self.values[i].o[0] if self.sites[i].kind == SITE_SUM else i].shape
        writer.write(self, step, members, shape)
        return 0

    cdef int write_kernel(self, Step* step, index_t i) except -1:
        cdef Value* v = self.values + i
        cdef Value* x = self.values + v.o[0]
        cdef int k
        cdef int op = v.op
        cdef Py_ssize_t n
        step.value = i
        step.type = type_index(v.dtype)
        self.locate(i, &step.base[0], &step.place[0])
        for k in range(5):
            if v.o[k]:
                self.locate(v.o[k], &step.base[1 + k], &step.place[1 + k])
        step.bytes = v.shape.size * item_size(v.dtype) + (x.shape.size * item_size(x.dtype) if v.o[0] else 0)
        if self.sites[i].assembles:
            return self.write_assembly(step, i)
        if op == OP_MATMUL or self.sites[i].product:
            return self.write_product(step, i)
        if self.sites[i].outer:
            return self.write_outer(step, i)
        if op == V_HOST:
            step.kind = STEP_HOST
            if i not in self.natives:
                return self.write_host(step, i)
            return self.write_picks(step, i, self.natives[i]) if (<Picks>self.natives[i]).arrays else self.write_join(step, i)
        if op == OP_TRANSPOSE or op == OP_BROADCAST or op == OP_INDEX or op == OP_RESHAPE or op == OP_CAST:
            return self.write_copy(step, i)
        if op == OP_SUM:
            step.kind = STEP_SUM
            self.room_for_rows(v, x)
            return self.operand_strides(step, v.o[0])
        if op == OP_MAX or op == OP_MIN:
            step.kind = STEP_EXTREME
            step.size[2] = op
            self.room_for_rows(v, x)
            return self.operand_strides(step, v.o[0])
        n = x.shape.dims[x.shape.ndim - 1] if x.shape.ndim else 1
        step.size[1] = n
        step.size[0] = x.shape.size // n if n else 0
        step.size[2] = op
        if op == V_ROW_PULL:
            step.kind = STEP_ROW_PULL
            step.size[2] = v.parameter
            n = v.shape.dims[v.shape.ndim - 1]
            step.size[1] = n
            step.size[0] = v.shape.size // n if n else 0
        elif op == OP_CROSS_ENTROPY:
            step.kind = STEP_CROSS_ENTROPY
        elif op == V_CROSS_ENTROPY_PULL:
            step.kind = STEP_CROSS_ENTROPY_PULL
            n = v.shape.dims[v.shape.ndim - 1]
            step.size[1] = n
            step.size[0] = v.shape.size // n if n else 0
        elif op == V_EXTREME_PULL:
            step.kind = STEP_EXTREME_PULL
            step.size[1] = size_over(v.shape, v.parameter)
            step.size[0] = v.shape.size // step.size[1] if step.size[1] else 0
        elif op == OP_LOGSUMEXP or op == OP_SOFTMAX or op == OP_LOG_SOFTMAX:
            step.kind = STEP_ROWS
        else:
            raise NotImplementedError(f"fg.compile: {value_name(v)} has no step")
        return 0

    cdef int room_for_rows(self, const Value* v, const Value* x) noexcept:
        """Scratch for one row of a reduction, after a Shape."""
        cdef Py_ssize_t bytes = 1024 + size_over(x.shape, v.parameter) * item_size(v.dtype)
        if bytes > self.program.scratch_bytes:
            self.program.scratch_bytes = bytes
        return 0

    cdef int numbers_of(self, Step* step, const Py_ssize_t* numbers, Py_ssize_t n) except -1:
        step.numbers = <Py_ssize_t*>PyMem_RawMalloc(<size_t>(n + 1) * sizeof(Py_ssize_t))
        if step.numbers == NULL:
            raise MemoryError("cannot plan a program")
        memcpy(step.numbers, numbers, <size_t>n * sizeof(Py_ssize_t))
        step.n_numbers = n
        return 0

    cdef int operand_strides(self, Step* step, index_t p) except -1:
        """A step's numbers are the strides of an operand in bytes."""
        cdef Py_ssize_t strides[FG_MAX_NDIM]
        cdef Py_ssize_t d
        self.strides_in_elements(p, strides)
        for d in range(self.values[p].shape.ndim):
            strides[d] *= item_size(self.values[p].dtype)
        return self.numbers_of(step, strides, self.values[p].shape.ndim)

    cdef int write_copy(self, Step* step, index_t i) except -1:
        """A view made contiguous: read as it would have been looked at."""
        cdef Site* s = self.sites + i
        cdef Py_ssize_t strides[FG_MAX_NDIM]
        cdef Py_ssize_t d
        cdef Value* v = self.values + i
        cdef index_t r
        step.kind = STEP_COPY
        step.size[3] = item_size(v.dtype)
        if v.op == OP_CAST:
            step.size[2] = self.values[v.o[0]].dtype
            return 0
        if s.from_strides == NULL:              # truth values between a cell and bytes
            step.size[4] = in_cell(self.values + v.o[0])
            step.size[5] = in_cell(v)
            if v.op == OP_INDEX:
                step.place[1] += v.extra.numbers[0]
            return 0
        r = s.from_root
        for d in range(v.shape.ndim):
            strides[d] = s.from_strides[d] * item_size(v.dtype)
        step.base[1] = self.sites[r].base
        step.place[1] = self.sites[r].place + s.offset * item_size(v.dtype)
        return self.numbers_of(step, strides, v.shape.ndim)

    cdef bint is_join(self, const Value* v) except -1:
        """Whether a concatenation is one of contiguous parts."""
        cdef Py_ssize_t k
        for k in range(v.extra.n_operands):
            if not self.contiguous(v.extra.operands[k]) or self.values[v.extra.operands[k]].dtype != v.dtype \
                    or (v.dtype != NPY_DOUBLE and v.dtype != NPY_FLOAT):
                return False
        return True

    cdef int write_assembly(self, Step* step, index_t i) except -1:
        """For each part its place, its number of axes, where it goes, its lengths and strides; -1 axes: a whole array."""
        cdef Site* s = self.sites + i
        cdef list numbers = []
        cdef index_t k, p
        cdef Py_ssize_t d
        cdef int base
        cdef Py_ssize_t place
        cdef Shape* shape
        cdef Extra* extra
        step.kind = STEP_ASSEMBLE
        for k in range(s.n_operands):
            self.locate(s.operands[k], &base, &place)
            shape = self.values[s.operands[k]].shape
            if s.operands[k] == s.operands[s.n_operands + k]:
                numbers += [base, place, -1]
                continue
            extra = self.values[s.operands[s.n_operands + k]].extra
            numbers += [base, place, shape.ndim, extra.numbers[0]]
            numbers += [shape.dims[d] for d in range(shape.ndim)]
            numbers += [extra.numbers[1 + d] for d in range(shape.ndim)]
        return self.numbers_from(step, numbers)

    cdef int numbers_from(self, Step* step, list numbers) except -1:
        cdef Py_ssize_t k
        step.numbers = <Py_ssize_t*>PyMem_RawMalloc(<size_t>(len(numbers) + 1) * sizeof(Py_ssize_t))
        if step.numbers == NULL:
            raise MemoryError("cannot plan a program")
        for k in range(len(numbers)):
            step.numbers[k] = numbers[k]
        step.n_numbers = len(numbers)
        return 0

    cdef int write_host(self, Step* step, index_t i) except -1:
        """For each operand its place and strides, then for each result its place, value and number."""
        cdef Value* v = self.values + i
        cdef list numbers = []
        cdef Py_ssize_t strides[FG_MAX_NDIM]
        cdef Py_ssize_t k, d
        cdef index_t p
        cdef int base
        cdef Py_ssize_t place
        for k in range(v.extra.n_operands):
            p = v.extra.operands[k]
            self.locate(p, &base, &place)
            self.strides_in_elements(p, strides)
            numbers += [base, place] + [strides[d] * item_size(self.values[p].dtype) for d in range(self.values[p].shape.ndim)]
        numbers += [self.sites[i].base, self.sites[i].place, i, 0]
        for p in range(i + 1, self.n):
            if self.values[p].op != V_PICK or self.values[p].o[0] != i:
                break
            if self.sites[p].kind != SITE_NONE:
                numbers += [self.sites[p].base, self.sites[p].place, p, self.values[p].parameter]
        return self.numbers_from(step, numbers)

    cdef int write_picks(self, Step* step, index_t i, Picks picks) except -1:
        """x[index] and its transpose.  Numbers: the lengths of the index, then for each of its arrays base, place, dtype, the axis,
        its length, how many elements of the index's axes one step along it passes, and strides in bytes."""
        cdef Value* v = self.values + i
        cdef index_t x = v.extra.operands[0], p
        cdef Py_ssize_t strides[FG_MAX_NDIM]
        cdef Py_ssize_t d, k, weight = picks.among, size = v.shape.size if v.shape.size > self.values[x].shape.size else self.values[x].shape.size
        cdef int base, dtype
        cdef Py_ssize_t place, bytes
        cdef list numbers = list(picks.shape)
        cdef tuple own
        step.kind = STEP_GATHER if HOOKS["native"][(<object>v.extra.rule).function] == "getitem" else STEP_SCATTER
        step.type = type_index(v.dtype)
        self.locate(x, &step.base[1], &step.place[1])
        step.size[0], step.size[1], step.size[2] = picks.outer, picks.count, picks.among
        step.size[3] = picks.inner if step.kind == STEP_SCATTER else picks.inner * item_size(v.dtype)
        step.size[4], step.size[5] = len(picks.arrays), len(picks.shape)
        for k in range(len(picks.arrays)):
            item = picks.arrays[k]
            if type(item) is int:
                p = item
                dtype, own = self.values[p].dtype, shape_tuple(self.values[p].shape)
                self.locate(p, &base, &place)
                self.strides_in_elements(p, strides)
            else:
                base, dtype = BASE_ARENA, cnp.NPY_INT64
                place, own = item
                weight_of = 1
                for d in range(len(own) - 1, -1, -1):
                    strides[d] = weight_of
                    weight_of *= own[d]
            weight //= picks.lengths[k]
            numbers += [base, place, dtype, picks.axis + k, picks.lengths[k], weight]
            d = len(own) - len(picks.shape)
            numbers += [0 if d + j < 0 or own[d + j] == 1 else strides[d + j] * item_size(dtype) for j in range(len(picks.shape))]
        bytes = 8 * (picks.count + (v.shape.size if step.kind == STEP_SCATTER else 0)) + ALIGNMENT
        if bytes > self.program.scratch_bytes:
            self.program.scratch_bytes = bytes
        step.bytes = 16.0 * (<double>v.shape.size + <double>picks.count)
        return self.numbers_from(step, numbers)

    cdef int write_join(self, Step* step, index_t i) except -1:
        """concatenate: for each part its place, its bytes a row, and how many rows; parts are contiguous."""
        cdef Value* v = self.values + i
        cdef Value* part
        cdef Py_ssize_t n = v.extra.n_operands, k, d, at = 0, outer = 1, inner = item_size(v.dtype), axis
        cdef int base
        cdef Py_ssize_t place
        axis = (<object>v.extra.rule).keywords["axis"]
        step.kind = STEP_JOIN
        step.numbers = <Py_ssize_t*>PyMem_RawMalloc(<size_t>(4 * n + 1) * sizeof(Py_ssize_t))
        if step.numbers == NULL:
            raise MemoryError("cannot plan a program")
        for d in range(axis):
            outer *= v.shape.dims[d]
        for d in range(axis + 1, v.shape.ndim):
            inner *= v.shape.dims[d]
        step.n_numbers = 4 * n
        step.size[0] = outer
        step.size[1] = inner * v.shape.dims[axis]
        for k in range(n):
            part = self.values + v.extra.operands[k]
            self.locate(v.extra.operands[k], &base, &place)
            step.numbers[4 * k] = base
            step.numbers[4 * k + 1] = place
            step.numbers[4 * k + 2] = at
            step.numbers[4 * k + 3] = inner * part.shape.dims[axis]
            at += step.numbers[4 * k + 3]
        return 0

    cdef int write_product(self, Step* step, index_t i) except -1:
        """A matrix product, or a stack of them: numbers are, for each axis of the stack, its length and two strides.

        With a bias (place 3) and an activation, what is activated is kept (place 4, size 1) if somebody reads it.
        """
        cdef Site* s = self.sites + i
        cdef Value* v = self.values + (s.product if s.product else i)
        cdef Value* x = self.values + v.o[0]
        cdef Value* y = self.values + v.o[1]
        cdef Py_ssize_t xs[FG_MAX_NDIM]
        cdef Py_ssize_t ys[FG_MAX_NDIM]
        cdef Py_ssize_t d, item = item_size(v.dtype), xn = x.shape.ndim, yn = y.shape.ndim, stack, k
        cdef fg_product* p = &step.product
        for k in range(2):
            self.locate(v.o[k], &step.base[1 + k], &step.place[1 + k])
        step.bytes = <double>item * (<double>x.shape.size + <double>y.shape.size + <double>v.shape.size)
        if s.product:
            p.bias = True
            self.locate(s.operands[2], &step.base[3], &step.place[3])
        if s.activated:
            p.activation = self.values[s.activated].op
            self.locate(s.activated, &step.base[0], &step.place[0])
            step.size[1] = s.memory
            self.locate(i, &step.base[4], &step.place[4])
        self.strides_in_elements(v.o[0], xs)
        self.strides_in_elements(v.o[1], ys)
        step.kind = STEP_PRODUCT
        p.type = step.type
        p.m = x.shape.dims[xn - 2] if xn > 1 else 1
        p.k = x.shape.dims[xn - 1]
        p.n = y.shape.dims[yn - 1] if yn > 1 else 1
        p.a_row = xs[xn - 2] if xn > 1 else 0
        p.a_column = xs[xn - 1]
        p.b_row = ys[yn - 2] if yn > 1 else ys[0]
        p.b_column = ys[yn - 1] if yn > 1 else 0
        p.to_row = p.n
        step.flops = 2.0 * p.m * p.k * p.n
        stack = v.shape.ndim - (1 if xn > 1 else 0) - (1 if yn > 1 else 0)
        numbers = []
        step.size[0] = 1
        for d in range(stack):
            step.size[0] *= v.shape.dims[d]
            k = d - (stack - (xn - 2))
            x_step = 0 if k < 0 or xn < 2 or x.shape.dims[k] == 1 else xs[k] * item
            k = d - (stack - (yn - 2))
            y_step = 0 if k < 0 or yn < 2 or y.shape.dims[k] == 1 else ys[k] * item
            numbers += [v.shape.dims[d], x_step, y_step]
        step.flops *= step.size[0]
        return self.room_for_product(step, numbers)

    cdef int room_for_product(self, Step* step, list numbers) except -1:
        cdef size_t bytes = fg_product_scratch(&step.product)
        if bytes > <size_t>MAX_BLOCK:
            raise MemoryError("cannot plan a program: a product needs more memory than there is")
        if <Py_ssize_t>bytes > self.program.scratch_bytes:
            self.program.scratch_bytes = <Py_ssize_t>bytes
        return self.numbers_from(step, numbers)

    cdef int write_outer(self, Step* step, index_t i) except -1:
        """A stack of columns times a stack of rows, as products."""
        cdef Value* v = self.values + i
        cdef Py_ssize_t strides[2][FG_MAX_NDIM]
        cdef Py_ssize_t own[FG_MAX_NDIM]
        cdef Py_ssize_t d, n = v.shape.ndim, gap, item = item_size(v.dtype)
        cdef fg_product* p = &step.product
        cdef int k, column = 0 if self.broadcasts(v.o[0], n, 1) and self.broadcasts(v.o[1], n, 2) else 1
        cdef Shape* shape
        for k in range(2):
            self.locate(v.o[k ^ column], &step.base[1 + k], &step.place[1 + k])
            self.strides_in_elements(v.o[k ^ column], own)
            shape = self.values[v.o[k ^ column]].shape
            gap = n - shape.ndim
            for d in range(n):
                strides[k][d] = 0 if d < gap or shape.dims[d - gap] == 1 else own[d - gap]
        step.kind = STEP_PRODUCT
        p.type = step.type
        p.m, p.k, p.n = v.shape.dims[n - 2], 1, v.shape.dims[n - 1]
        p.a_row, p.b_column = strides[0][n - 2], strides[1][n - 1]
        p.to_row = p.n
        p.accumulate = -1
        step.flops = <double>v.shape.size
        numbers = []
        step.size[0] = 1
        for d in range(n - 2):
            numbers += [v.shape.dims[d], strides[0][d] * item, strides[1][d] * item]
            step.size[0] *= v.shape.dims[d]
        return self.room_for_product(step, numbers)


@cython.final
cdef class Picks:
    """An index of arrays of integers, broadcast, for axes side by side; no arrays: of a step that needs nothing of this."""
    cdef list arrays                    # the value of an operand, or an array; then its (place in the arena, shape)
    cdef tuple shape, lengths           # of the index; of the axes
    cdef Py_ssize_t axis                # the first of them
    cdef object outer, among, count, inner      # elements: of the axes before, of these axes, of the index, of the axes after

    def __cinit__(self):
        self.arrays, self.shape, self.lengths = [], (), ()


cdef object prod_of(tuple dims):
    """Without overflow."""
    product = 1
    for n in dims:
        product *= n
    return product


def _by_stage(item):
    return item[:3]


def _largest_first(item):
    return (-item[2], item[0])


cdef Py_ssize_t largest_live(const Life* lives, index_t n, index_t n_steps) except -1:
    """The most bytes that are needed at one step."""
    cdef Py_ssize_t* change = <Py_ssize_t*>PyMem_RawCalloc(<size_t>n_steps + 2, sizeof(Py_ssize_t))
    cdef Py_ssize_t live = 0, most = 0
    cdef index_t i
    if change == NULL:
        raise MemoryError("cannot plan a program")
    for i in range(n):
        change[lives[i].first] += lives[i].size
        change[lives[i].last + 1] -= lives[i].size
    for i in range(n_steps + 1):
        live += change[i]
        most = live if live > most else most
    PyMem_RawFree(change)
    return most


cdef Array* constant_array(const Value* v) except NULL:
    """A constant's numbers, contiguous."""
    cdef Array* a
    if v.array != NULL:
        return array_contiguous(v.array)
    a = array_new(v.shape, v.dtype)
    if v.dtype == NPY_DOUBLE or v.dtype == NPY_FLOAT:
        fg_kernels.fill[type_index(v.dtype)](v.shape.size, v.number, a.data)
    else:
        memset(a.data, <int>v.number, <size_t>v.shape.size * <size_t>item_size(v.dtype))
    return a


@cython.final
cdef class GroupWriter:
    """Writes the code of one group."""
    cdef Planner planner
    cdef Shape* shape
    cdef list loads                     # (base, place, kind, type, strides or None)
    cdef list code                      # (op, type, operands)
    cdef dict given                     # (value, type) -> value number, for what is loaded, and for casts
    cdef index_t stamp

    cdef int write(self, Planner planner, Step* step, list members, Shape* shape) except -1:
        cdef index_t i, p
        cdef Value* v
        cdef Site* s
        cdef int k, type, n_stores = 0, n_sums = 0
        cdef list stores = [], sums = []
        cdef fg_group_spec spec
        self.planner, self.shape = planner, shape
        self.loads, self.code, self.given = [], [], {}
        self.stamp = step.value
        # loads are numbered before code, so a first look finds them
        for i in members:
            v = planner.values + i
            type = loop_type(v) if planner.sites[i].kind == SITE_LANE else type_index(v.dtype)
            for k in range(5):
                if v.o[k]:
                    self.find_load(i, v.o[k], type)
        for i in members:
            v = planner.values + i
            s = planner.sites + i
            if s.kind == SITE_SUM:
                p = v.o[0]
                sums.append((self.operand(i, p, type_index(v.dtype)), s.base, s.place,
                             FG_SUM_ALL if size_over(planner.values[p].shape, v.parameter) == planner.values[p].shape.size
                             else FG_SUM_COLUMNS if axes_lead(v.parameter) else FG_SUM_ROWS,
                             v.shape.size if axes_lead(v.parameter) else size_over(planner.values[p].shape, v.parameter)))
                continue
            type = loop_type(v)
            operands = [self.operand(i, v.o[k], type) if v.o[k] else FG_NO_VALUE for k in range(5)]
            if v.op == OP_CAST:
                operands[0] = self.raw(i, v.o[0])
            s.number = <int>(len(self.loads) + len(self.code))
            s.stamp = self.stamp
            self.code.append((FG_CAST if v.op == OP_CAST else v.op, type, operands))
            if s.memory:
                number = s.number
                if in_cell(v) and v.dtype == NPY_BOOL:          # a cell holds a double
                    number = len(self.loads) + len(self.code)
                    self.code.append((FG_CAST, FG_F64, [s.number] + 4 * [FG_NO_VALUE]))
                stores.append((number, s.base, s.place))
        return self.build(step, stores, sums)

    cdef bint inside(self, index_t i, index_t p) noexcept:
        """Whether p is computed in this group, for i to read it."""
        cdef Site* s = self.planner.sites + p
        return s.kind == SITE_LANE and s.step == self.planner.sites[i].step and same_shape(self.planner.values[p].shape, self.shape)

    cdef int memory_type(self, index_t p) noexcept:
        """In which type a value lies in memory."""
        cdef Value* v = self.planner.values + p
        return FG_F64 if in_cell(v) else type_index(v.dtype)

    cdef int find_load(self, index_t i, index_t p, int type) except -1:
        cdef Site* s = self.planner.sites + p
        cdef Py_ssize_t strides[FG_MAX_NDIM]
        cdef Py_ssize_t own[FG_MAX_NDIM]
        cdef Py_ssize_t d, gap, place
        cdef Shape* shape = self.planner.values[p].shape
        cdef int base
        cdef bint one = True
        if self.inside(i, p):
            return 0
        if s.kind == SITE_NUMBER:
            key = (p, type)
            if key not in self.given:
                self.given[key] = len(self.loads)
                self.loads.append((BASE_ARENA, self.planner.number_place(self.planner.values[p].number, type), FG_ONE, type, None))
            return 0
        key = (p, -1)
        if key in self.given:
            return 0
        self.planner.locate(p, &base, &place)
        self.planner.strides_in_elements(p, own)
        gap = self.shape.ndim - shape.ndim
        for d in range(self.shape.ndim):
            strides[d] = 0
            if d >= gap and shape.dims[d - gap] != 1:
                strides[d] = own[d - gap]
            if strides[d] and self.shape.dims[d] != 1:
                one = False
        self.given[key] = len(self.loads)
        if one:
            self.loads.append((base, place, FG_ONE, self.memory_type(p), None))
        elif strides_are_contiguous(self.shape, strides, 1):
            self.loads.append((base, place, FG_CONTIGUOUS, self.memory_type(p), None))
        else:
            item = 1 if self.memory_type(p) == FG_BOOL else 4 if self.memory_type(p) == FG_F32 else 8
            self.loads.append((base, place, FG_STRIDED, self.memory_type(p),
                               [strides[d] * item for d in range(self.shape.ndim)]))
        return 0

    cdef int raw(self, index_t i, index_t p) except -1:
        """The value number of an operand in the type it has."""
        if self.inside(i, p):
            return self.planner.sites[p].number
        found = self.given.get((p, -1))
        if found is None:
            for type in (FG_F64, FG_F32):
                found = self.given.get((p, type), found)
        return found

    cdef int operand(self, index_t i, index_t p, int type) except -1:
        """The value number of an operand in the type of the loop that reads it."""
        cdef int number, have
        if self.planner.sites[p].kind == SITE_NUMBER:
            return self.given[(p, type)]
        number = self.raw(i, p)
        have = type_index(self.planner.values[p].dtype) if self.inside(i, p) else self.memory_type(p)
        if have == type:
            return number
        key = (p, 10 + type)
        found = self.given.get(key)
        if found is None:
            found = self.given[key] = len(self.loads) + len(self.code)
            self.code.append((FG_CAST, type, [number, FG_NO_VALUE, FG_NO_VALUE, FG_NO_VALUE, FG_NO_VALUE]))
        return found

    cdef int build(self, Step* step, list stores, list sums) except -1:
        cdef fg_group_spec spec
        cdef Py_ssize_t k, d, n_loads = len(self.loads), n_code = len(self.code), ndim = self.shape.ndim
        cdef size_t bytes = <size_t>(n_loads + 1) * (sizeof(fg_load) + <size_t>ndim * sizeof(Py_ssize_t)) \
            + <size_t>(n_code + 1) * sizeof(fg_instruction) + <size_t>(len(stores) + len(sums) + 1) * sizeof(fg_result)
        cdef char* memory = <char*>PyMem_RawCalloc(bytes + 64, 1)
        cdef fg_load* loads
        cdef fg_instruction* code
        cdef fg_result* results
        cdef Py_ssize_t* strides
        cdef int j
        if memory == NULL:
            raise MemoryError("cannot plan a program")
        strides = <Py_ssize_t*>memory
        loads = <fg_load*>(strides + (n_loads + 1) * ndim)
        results = <fg_result*>(loads + n_loads + 1)
        code = <fg_instruction*>(results + len(stores) + len(sums) + 1)
        k = 0
        for base, place, kind, type, steps in self.loads:
            loads[k].at.base = base
            loads[k].at.offset = place
            loads[k].kind = kind
            loads[k].type = type
            if steps is not None:
                loads[k].strides = strides
                for d in range(ndim):
                    strides[d] = steps[d]
                strides += ndim
            k += 1
        k = 0
        for op, type, operands in self.code:
            code[k].op = op
            code[k].type = type
            for j in range(5):
                code[k].operand[j] = operands[j]
            k += 1
        k = 0
        for value, base, place in stores:
            results[k].value = value
            results[k].at.base = base
            results[k].at.offset = place
            k += 1
        for value, base, place, kind, columns in sums:
            results[k].value = value
            results[k].at.base = base
            results[k].at.offset = place
            results[k].kind = kind
            results[k].columns = columns
            k += 1
        extent_of(self.shape, &spec.extent)
        spec.n_loads, spec.n_code, spec.n_stores, spec.n_sums = <int>n_loads, <int>n_code, <int>len(stores), <int>len(sums)
        spec.loads, spec.code, spec.stores, spec.sums = loads, code, results, results + len(stores)
        step.kind = STEP_GROUP
        step.group = fg_group_new(&spec)
        PyMem_RawFree(memory)
        if step.group == NULL:
            raise MemoryError("cannot plan a program")
        if <Py_ssize_t>fg_group_scratch(step.group) > self.planner.program.scratch_bytes:
            self.planner.program.scratch_bytes = <Py_ssize_t>fg_group_scratch(step.group)
        step.flops = <double>n_code * self.shape.size
        for base, place, kind, type, steps in self.loads:
            if kind != FG_ONE:
                step.bytes += self.shape.size * (8 if type == FG_F64 else 4 if type == FG_F32 else 1)
        step.bytes += 8.0 * len(stores) * self.shape.size
        step.size[0], step.size[1], step.size[2], step.size[3] = n_loads, n_code, len(stores), len(sums)
        return 0
