# fg.compile: recordings by signature, and what makes a recording valid for a call.
#
# A call looks for a recording made for arguments like its own.  A recording that a guard refuses is put aside for this
# call and the next one is tried; when none fits, the function runs, traced, and its own results are the answer.  So the
# first call costs a run of the function and a plan, and no call gets an answer from a recording that does not fit.

cdef enum:
    MOST_RECORDINGS = 16        # for one signature; the oldest goes
    MOST_SIGNATURES = 64        # of one function; the oldest goes
    MOST_WARM_CALLS = 3         # recordings in a row that cannot be kept, before the function counts as not compilable
    RECORDINGS_TO_WARN = 32     # of one signature


cdef struct Read:
    PyObject* container         # all three belong to the walk's lists
    PyObject* key
    PyObject* value


cdef Read* reads_of(list found) except NULL:
    """(container, key, value) of each entry, where a comparison at each call finds them soonest."""
    cdef Read* reads = <Read*>PyMem_RawCalloc(<size_t>len(found) + 1, sizeof(Read))
    cdef Py_ssize_t k
    if reads == NULL:
        raise MemoryError("fg.compile: no memory for the recording")
    for k in range(len(found)):
        container, key, value = <tuple>found[k]
        reads[k].container, reads[k].key, reads[k].value = <PyObject*>container, <PyObject*>key, <PyObject*>value
    return reads


@cython.final
cdef class Ground:
    """What a recording rests on besides the arguments: see fastgrad.transforms.bindings."""
    cdef list cells, dicts, lists, attributes       # (container, key, value)
    cdef Read* read_cells
    cdef Read* read_dicts
    cdef list arrays                    # (ndarray, shape, dtype, contents)
    cdef object contents
    cdef readonly list generators
    cdef readonly dict tensors          # those within reach, by id

    def __init__(self, walk, contents):
        self.cells, self.dicts, self.lists, self.attributes = walk.cells, walk.dicts, walk.lists, walk.attributes
        self.generators, self.tensors, self.contents = walk.generators, walk.tensors, contents
        self.arrays = [(array, array.shape, array.dtype, contents(array)) for array in walk.arrays]
        self.read_cells, self.read_dicts = reads_of(self.cells), reads_of(self.dicts)

    def __dealloc__(self):
        PyMem_RawFree(self.read_cells)
        PyMem_RawFree(self.read_dicts)

    cdef bint holds(self) except -1:
        """Whether everything is what it was."""
        cdef object now
        cdef PyObject* item
        cdef Read* read
        cdef Py_ssize_t k
        for k in range(len(self.cells)):
            read = self.read_cells + k
            item = PyCell_Get(read.container)
            if item == NULL:
                return False
            now = <object>item
            Py_DECREF(now)
            if item != read.value and not same_constant(now, <object>read.value):
                return False
        for k in range(len(self.dicts)):
            read = self.read_dicts + k
            item = PyDict_GetItemWithError(<object>read.container, <object>read.key)
            if item == NULL or (item != read.value and not same_constant(<object>item, <object>read.value)):
                return False
        for container, key, value in self.lists:
            if key == -1:
                if len(container) != value:
                    return False
            elif container[key] is not value and not same_constant(container[key], value):
                return False
        for container, key, value in self.attributes:
            now = getattr(container, key, None)
            if now is not value and not same_constant(now, value):
                return False
        for array, shape, dtype, numbers in self.arrays:
            if not same_form(array, shape, dtype) or (not same_bytes(array, numbers) and self.contents(array) != numbers):
                return False
        return True


cdef bint same_form(cnp.ndarray array, tuple shape, object dtype):
    """Whether an array still has this shape and dtype; both can be assigned to."""
    cdef Py_ssize_t d, n = cnp.PyArray_NDIM(array)
    if <PyObject*>cnp.PyArray_DESCR(array) != <PyObject*>dtype and array.dtype != dtype or n != len(shape):
        return False
    for d in range(n):
        if cnp.PyArray_DIMS(array)[d] != <Py_ssize_t>shape[d]:
            return False
    return True


cdef bint same_bytes(cnp.ndarray array, bytes numbers) noexcept:
    """Whether a contiguous array holds these bytes; False where it has more of them, or other strides."""
    return (cnp.PyArray_FLAGS(array) & cnp.NPY_ARRAY_C_CONTIGUOUS) and cnp.PyArray_NBYTES(array) == len(numbers) \
        and memcmp(cnp.PyArray_DATA(array), <const char*>numbers, <size_t>len(numbers)) == 0


def digest(const unsigned char[::1] data):
    """64 bytes that follow from all bytes of the data: another word of 8 bytes in a lane always gives others, and several
    do but for a chance of 2**-64.  About as fast as memory is read."""
    cdef unsigned long long lanes[8]
    cdef unsigned long long words[8]
    cdef Py_ssize_t i, n = data.shape[0], whole = n - n % 64
    cdef int k
    cdef const unsigned char* p = &data[0] if n else NULL
    for k in range(8):
        lanes[k] = <unsigned long long>n + <unsigned long long>k
    with nogil:
        for i in range(0, whole, 64):
            memcpy(words, p + i, 64)
            for k in range(8):
                lanes[k] = stirred(lanes[k], words[k])
        if whole != n:
            memset(words, 0, 64)
            memcpy(words, p + whole, <size_t>(n - whole))
            for k in range(8):
                lanes[k] = stirred(lanes[k], words[k])
    return (<const char*>lanes)[:64]


cdef inline unsigned long long stirred(unsigned long long h, unsigned long long word) noexcept nogil:
    """One-to-one in either of the two; every bit of the sum, the highest too, reaches others."""
    h = (h ^ word) * <unsigned long long>0x9E3779B97F4A7C15
    return h ^ (h >> 32)


cdef bint same_constant(object now, object value) except -1:
    """Whether two numbers or strings are one constant."""
    if type(now) is not type(value):
        return False
    if isinstance(now, float):              # 0.0 and -0.0 are two
        return (<object>now).hex() == (<object>value).hex()
    if isinstance(now, (int, str, complex, np.generic)):
        return bool(now == value) or (now != now and value != value)
    return False


@cython.final
cdef class Recorded:
    """What one run of a function under a trace left behind."""
    cdef Trace trace
    cdef object structure               # of the results
    cdef list leaves                    # of the results
    cdef list roots                     # values: results that are Tensors, then what is written back
    cdef list writes, cleared
    cdef bint differentiable            # a result or a Tensor from outside is on the tape: gradients would be lost
    cdef Py_ssize_t escaped             # Tensors made inside that outlive the call


cdef Recorded record_call(object function, list wrappers, object flatten, Recorded r=None):
    """Runs function(wrappers) under a new trace; the wrappers stand for the arguments.  r is filled, if given."""
    cdef Trace trace = Trace()
    cdef Tensor t
    cdef Py_ssize_t k
    cdef index_t i
    cdef set made = set()
    cdef list before = [(<Tensor>t).traced for t in wrappers]
    r = Recorded() if r is None else r
    r.trace = trace
    r.roots, r.writes, r.cleared = [], [], []
    trace.open()
    try:
        for t in wrappers:
            i = trace.append(V_ARGUMENT, t.dtype_number, shape_of(t))
            trace.values[i].parameter = <index_t>len(trace.arguments)
            trace.arguments.append(t)
            trace.outsiders.add(<size_t><PyObject*>t)
            t.traced = trace.mark | i
        result = function(wrappers)
        r.leaves, r.structure = flatten(result)
        del result
        for leaf in r.leaves:
            if type(leaf) is Tensor:
                t = leaf
                r.roots.append(trace.of_tensor(t))
                r.differentiable = r.differentiable or loses_gradient(t)
                if made_inside(t):
                    made.add(id(t))
        collect_writes(r, wrappers, made)
        for t in wrappers:
            made.discard(id(t))
        trace.let_nodes_go()
        t = None
        leaf = None
        r.escaped = trace.alive - len(made)
        if r.escaped > 0:
            gc.collect()
            r.escaped = trace.alive - len(made)
    finally:
        trace.close()
        for t, place in zip(wrappers, before):
            t.traced = place
    if trace.broken:
        raise MemoryError("fg.compile: no memory for the recording")
    return r


cdef list values_that_flow(Recorded r):
    """For each result its value if gradients flow through it, else 0; None where one is more than what the trace says."""
    cdef Tensor t
    cdef list found = []
    cdef index_t i
    for leaf in r.leaves:
        if type(leaf) is Tensor:
            t = leaf
            i = r.roots[len(found)]
            if not tracked(t):
                found.append(0)
                continue
            if t.requires or not loses_gradient(t) or t.tape.nodes[t.node].flags & RETAINS \
                    or V_ARGUMENT <= r.trace.values[i].op <= V_CONSTANT or not is_float(t):
                return None
            found.append(i)
    return found


def places_of_inputs(Trace trace):
    """(value, place) of what a Program of the trace reads, by its place: arguments, then slots, then arrays."""
    cdef index_t i
    cdef Value* v
    cdef list found = []
    n_arguments = 0
    for i in range(1, trace.n):
        if trace.values[i].op == V_ARGUMENT:
            n_arguments += 1
    for i in range(1, trace.n):
        v = trace.values + i
        if v.op == V_ARGUMENT:
            found.append((i, v.parameter))
        elif v.op == V_SLOT:
            found.append((i, n_arguments + v.parameter))
        elif v.op == V_ARRAY:
            found.append((i, n_arguments + len(trace.slots) + v.parameter))
    return found


cdef int put_results_on_tape(Program program, tuple results, tuple leaves) except -1:
    """Where the function would have left nodes, one for each result, whose pullback is a Program too."""
    cdef list inputs = [as_tensor(x, "compile") for x in (*leaves, *program.slots, *program.arrays)]
    cdef Py_ssize_t k
    for k in range(program.n_results):
        if program.rules[k] is not None:
            record_rule(<Rule>program.rules[k], inputs, {}, <Tensor>results[k])
    return 0


def program_of_tensors(function, list tensors):
    """A Program of a function from a list of Tensors to another, which rests on nothing but them; None if it would."""
    cdef Recorded r
    cdef Program program
    cdef list wrappers = [bare(<Tensor>t) for t in tensors]
    r = record_call(function, wrappers, lambda found: (found, ()))
    if r.differentiable or r.escaped > 0:
        return None
    program = plan_program(r, [FORM_TENSOR] * len(wrappers), wrappers)
    return program if program.pure else None


def watched(tuple tensors):
    """Whether somebody differentiates or records what is done with these."""
    cdef bint recording = current_tape().recording
    if fg_mark:
        return True
    for t in tensors:
        if recording and tracked(<Tensor>t):
            return True
    return False


def replay_tensors(Program program, tuple tensors):
    """What such a Program gives; None if it does not fit."""
    return program.replay(items_of(tensors), len(tensors), None, FORM_TENSOR)


cdef bint loses_gradient(Tensor t) noexcept:
    """Whether somebody could still differentiate t: it is on the tape, and backward has not been there."""
    if t.requires:
        return True
    return t.node != 0 and not t.tape.nodes[t.node].flags & SWEPT


cdef int collect_writes(Recorded r, list wrappers, set made) except -1:
    """What the function did to Tensors from outside, and to its arguments."""
    cdef Trace trace = r.trace
    cdef Tensor t, g
    cdef Py_ssize_t k
    cdef dict places = {}
    for k in range(len(wrappers)):
        places[id(wrappers[k])] = k         # of a Tensor that is passed twice the last place, as for its value
    seen = set()
    for t in trace.written:
        if id(t) not in seen and made_inside(t) and id(t) not in places:
            seen.add(id(t))
            r.roots.append(trace.of_tensor(t))
            r.writes.append(t)
            r.differentiable = r.differentiable or (t.node != 0 and not t.requires and loses_gradient(t))
    for k in range(len(wrappers)):
        t = wrappers[k]
        if places[id(t)] == k and trace.of_tensor(t) != k + 1:
            r.roots.append(trace.of_tensor(t))
            r.writes.append(k)
            r.differentiable = r.differentiable or (t.node != 0 and not t.requires and loses_gradient(t))
    for t, before in trace.gradients:
        if t.gradient is before:
            continue
        target = places.get(id(t), t)
        if t.gradient is None:
            r.cleared.append(target)
            continue
        g = t.gradient
        if made_inside(g):
            made.add(id(g))
        r.differentiable = r.differentiable or (tracked(g) and loses_gradient(g))
        r.roots.append(trace.of_tensor(g))
        r.writes.append((target,))
    return 0


cdef Program plan_program(Recorded r, list forms, list wrappers):
    """The Program of a recording."""
    cdef Trace trace = r.trace
    cdef Program program = Program()
    cdef Planner planner = Planner()
    cdef index_t i, n
    cdef Py_ssize_t k
    cdef Value* v
    cdef Input* input
    cdef dict gradient_of = {}
    cdef dict places = {id(wrappers[k]): k for k in range(len(wrappers))}
    cdef Tensor slot_
    program.trace = trace
    program.n_arguments = <index_t>len(trace.arguments)
    program.n_slots = <index_t>len(trace.slots)
    program.n_arrays = <index_t>len(trace.arrays)
    n = program.n_arguments + program.n_slots + program.n_arrays
    program.inputs = <Input*>PyMem_RawCalloc(n + 1, sizeof(Input))
    program.n_outputs = <index_t>len(r.roots)
    program.outputs = <Output*>PyMem_RawCalloc(program.n_outputs + 1, sizeof(Output))
    if program.inputs == NULL or program.outputs == NULL:
        raise MemoryError("cannot plan a program")
    for i in range(1, trace.n):
        v = trace.values + i
        if v.op < V_ARGUMENT or v.op > V_ARRAY:
            continue
        input = program.inputs + input_place(program, v)
        input.dtype = v.dtype
        input.shape = shape_keep(v.shape)
        input.bytes = v.shape.size * item_size(v.dtype)
        input.cell = in_cell(v)
        input.form = FORM_ARRAY if v.op == V_ARRAY else FORM_TENSOR if v.op == V_SLOT else forms[v.parameter]
    program.n_results = program.n_outputs - <index_t>len(r.writes)
    program.writes, program.cleared = r.writes, r.cleared
    for leaf, before in trace.gradients:
        target = places.get(id(leaf), leaf)
        program.gradient_states.append((target, before is None))
        if before is not None:
            gradient_of[id(before)] = target
    program.slots = [(gradient_of[id(slot)],) if id(slot) in gradient_of else slot for slot in trace.slots]
    for k in range(len(program.slots)):
        slot_ = trace.slots[k]
        program.inputs[program.n_arguments + k].tracked = tracked(slot_)
    program.changes = [id(slot) for slot in trace.slots] if r.writes or r.cleared else []
    for i in trace.impure:
        owner = getattr((<object>trace.values[i].extra.rule).function, "__self__", None)
        if isinstance(owner, np.random.Generator):
            program.generators.append(owner)
    program.arrays = trace.arrays
    program.pure = not (trace.slots or trace.arrays or r.writes or r.cleared or trace.impure or trace.gradients)
    planner.plan(program, trace, r.roots, trace.guards)
    for k in range(program.n_outputs):
        set_output(planner, program.outputs + k, r.roots[k])
    program.step_of = steps_of_values(planner)
    for i in range(program.n_steps):
        program.work += program.steps[i].flops + program.steps[i].bytes
    trace.arguments = []
    return program


cdef bytes steps_of_values(Planner planner):
    """For each value its step, or all ones: for explain."""
    cdef index_t i
    cdef bytearray steps = bytearray(<Py_ssize_t>planner.n * <Py_ssize_t>sizeof(index_t))
    cdef index_t* step = <index_t*><char*>steps
    for i in range(planner.n):
        step[i] = planner.sites[i].step if planner.sites[i].kind >= SITE_SCALAR or planner.sites[i].maker else <index_t>-1
    return bytes(steps)


cdef index_t input_place(Program program, const Value* v) noexcept:
    if v.op == V_ARGUMENT:
        return v.parameter
    if v.op == V_SLOT:
        return program.n_arguments + v.parameter
    return program.n_arguments + program.n_slots + v.parameter


cdef int set_output(Planner planner, Output* out, index_t i) except -1:
    cdef Value* v = planner.values + i
    cdef Site* s = planner.sites + i
    cdef Site* root = planner.sites + s.root
    cdef Py_ssize_t d
    out.value = i
    out.dtype = v.dtype
    out.shape = shape_keep(v.shape)
    out.cell = in_cell(v)
    planner.locate(i, &out.from_base, &out.place)
    if planner.direct.get(i) is not None:
        out.base = planner.direct.pop(i)        # the first result of that value; a second one is copied from it
    if s.strides != NULL:
        out.strides = <Py_ssize_t*>PyMem_RawMalloc(<size_t>(v.shape.ndim + 1) * sizeof(Py_ssize_t))
        if out.strides == NULL:
            raise MemoryError("cannot plan a program")
        for d in range(v.shape.ndim):
            out.strides[d] = s.strides[d] * item_size(v.dtype)
    return 0


# ------------------------------------------------------------------------------------------------------------- Compiled

@cython.final
cdef class Entry:
    """The recordings for one signature."""
    cdef list programs                  # most recently used first
    cdef Py_ssize_t recorded            # how often the function was recorded for it
    cdef Py_ssize_t warm                # recordings that could not be kept, one after the other
    cdef bint eager                     # cannot be replayed
    cdef bint recording                 # whether the tape records when these are right

    def __cinit__(self):
        self.programs = []


@cython.final
cdef class Compiled:
    """What fg.compile returns: a function that replays."""
    cdef readonly object __wrapped__
    cdef tuple static
    cdef dict entries
    cdef Entry last                     # of the last call, if its arguments were plain leaves
    cdef Entry last_with_rules          # the same for calls that are being differentiated
    cdef object python                  # the slow side, fastgrad.transforms.compile
    cdef bint warned
    cdef readonly bint has_own_out      # the function has a parameter `out` itself
    cdef void* vectorcall               # compiled_call: see below
    cdef dict __dict__

    def __cinit__(self):
        self.vectorcall = <void*>compiled_call

    def __init__(self, function, tuple static, bint has_own_out, python):
        self.__wrapped__ = function
        self.static = static
        self.python = python
        self.entries = {}
        self.has_own_out = has_own_out
        self.__name__ = getattr(function, "__name__", "compiled")
        self.__doc__ = getattr(function, "__doc__", None)

    def __get__(self, instance, owner):
        if instance is None:
            return self
        return functools.partial(self, instance)

    def __repr__(self):
        return f"<fg.compile of {self.__name__}: {len(self.entries)} signatures>"

    def call_slowly(self, tuple arguments, dict keywords, out=None):
        """By the whole signature; out, if given, is filled and returned."""
        cdef Entry entry
        cdef Program program
        cdef tuple results
        if fg_mark:                     # inside another recording: part of it
            if out is not None:
                raise TypeError(f"{self.__name__}: out= inside a function that is itself recorded; use the result")
            return self.__wrapped__(*arguments, **keywords)
        call = self.python.Signature(self, arguments, keywords)
        if current_tape().watching & WATCH_NUMBERS:      # each number is looked at as it is made
            return fill_out(self.__name__, out, self.__wrapped__(*arguments, **keywords))
        entry = self.entry_of(call)
        if entry.eager or (out is not None and call.differentiated):
            return fill_out(self.__name__, out, self.__wrapped__(*arguments, **keywords))
        for program in list(entry.programs):
            if out is not None and program.rules is not None:
                return fill_out(self.__name__, out, self.__wrapped__(*arguments, **keywords))
            results = None
            if out is None:
                results = program.replay(items_of(call.leaves), len(call.leaves), None, call.form)
            if results is not None or (out is not None and replay_into(program, call.leaves, call.form, out)):
                if entry.programs[0] is not program and program in entry.programs:
                    entry.programs.remove(program)
                    entry.programs.insert(0, program)
                self.last = entry if call.plain and program.plain else None
                if program.rules is not None:
                    self.last_with_rules = entry if call.flat else None
                    put_results_on_tape(program, results, call.leaves)
                return program.build(results) if out is None else out
        if call.differentiated:
            return self.record_differentiated(call, entry, arguments, keywords)
        return fill_out(self.__name__, out, self.record(call, entry))

    cdef Entry entry_of(self, object call):
        cdef Entry entry = self.entries.get(call.key)
        if entry is None:
            entry = Entry()
            entry.recording = current_tape().recording
            if len(self.entries) >= MOST_SIGNATURES:
                self.entries.pop(next(iter(self.entries)))
                self.warn_once(f"has been called with more than {MOST_SIGNATURES} signatures, and the oldest recordings "
                               "go; pass numbers that change as floats or arrays, not as ints or static arguments")
            self.entries[call.key] = entry
        return entry

    cdef int warn_once(self, str what) except -1:
        if not self.warned:
            self.warned = True
            self.python.warn(self, what)
        return 0

    cdef object record(self, object call, Entry entry):
        """Runs the function traced; keeps the recording if it can be replayed."""
        cdef Recorded r
        cdef Program program
        cdef Ground ground
        if entry.recorded == RECORDINGS_TO_WARN:
            self.warn_once(f"has been recorded {entry.recorded} times for one signature: it branches on values, or reads "
                           "ones from outside, that keep changing; use fg.numpy.where for data, pass what changes as an "
                           "argument, or leave it uncompiled")
        entry.recorded += 1
        wrappers = call.wrappers()
        ground = self.python.ground_of(call)
        states = self.python.random_states(ground.generators)
        r = record_call(call.run, wrappers, self.python.flatten)
        self.python.check_random_states(self, ground.generators, states, call.generators)
        call.give_back(wrappers, r.writes)
        holds = ground.holds()
        if r.differentiable and r.escaped <= 0 and holds and self.keep_with_rules(call, entry, r, wrappers, ground):
            return call.lowered(r.leaves, r.structure)
        if r.differentiable or r.escaped > 0 or not holds or call.aliased(ground.tensors, r.writes or r.cleared):
            entry.warm += 1
            if r.differentiable or entry.warm >= MOST_WARM_CALLS:
                entry.eager = True
                self.python.warn_eager(self, bool(r.differentiable), r.escaped, holds)
            return call.lowered(r.leaves, r.structure)
        entry.warm = 0
        try:
            program = plan_program(r, call.forms, wrappers)
            program.ground = ground
            program.keep_structure(r, call, self.python)
            program.binding = self.python.Binding.of_call(self.__name__, call, (program.structure, program.constants, program.simple))
            entry.programs.insert(0, program)
        except MemoryError:                     # the function has run, and what it gave is there
            return call.lowered(r.leaves, r.structure)
        if len(entry.programs) > MOST_RECORDINGS:
            entry.programs.pop()
        self.last = entry if call.plain and program.plain else None
        return call.lowered(r.leaves, r.structure)

    cdef object record_differentiated(self, object call, Entry entry, tuple arguments, dict keywords):
        """Runs the function on arguments in the middle of a recording; what cannot be kept runs as it is from then on."""
        cdef Recorded r = Recorded()
        cdef Ground ground
        entry.eager = True
        entry.recorded += 1
        if call.draws() or entry.recorded > MOST_RECORDINGS:
            return self.__wrapped__(*arguments, **keywords)
        wrappers = call.wrappers()
        ground = self.python.ground_of(call)
        states = self.python.random_states(ground.generators)
        try:
            record_call(call.run, wrappers, self.python.flatten, r)
        except Exception:               # it may be the trace that refuses, or a stand-in for an array that is none
            if r.trace.written or r.trace.gradients:
                raise
            return self.__wrapped__(*arguments, **keywords)
        if self.python.random_states(ground.generators) == states and r.differentiable and r.escaped <= 0 and ground.holds():
            entry.eager = not self.keep_with_rules(call, entry, r, wrappers, ground)
        return call.lowered(r.leaves, r.structure)

    cdef bint keep_with_rules(self, object call, Entry entry, Recorded r, list wrappers, Ground ground) except -1:
        """Keeps a recording whose results are being differentiated, if it does nothing else and is long enough to pay."""
        cdef list flowing = values_that_flow(r)
        cdef Program program
        cdef Tensor t
        if flowing is None or call.form != FORM_TENSOR or call.draws():
            return False
        if r.trace.cuts or r.writes or r.cleared or r.trace.impure or r.trace.gradients:
            return False
        for t in r.trace.slots:
            if tracked(t) and not t.requires:       # the middle of somebody's recording: there is another one at each call
                return False
        program = plan_program(r, call.forms, wrappers)
        if not self.python.pullbacks.pays(program, len(flowing) - flowing.count(0)):
            return False
        wanted = [k for k, t in enumerate(wrappers + program.slots) if tracked(t) and is_float(t)]
        program.rules = self.python.pullbacks.rules_of(self.__name__, program.trace, flowing, wanted)
        program.ground = ground
        program.keep_structure(r, call, self.python)
        program.plain = False
        for k, t in enumerate(wrappers):
            program.inputs[<index_t>k].tracked, program.inputs[<index_t>k].leaf = tracked(t), t.requires
        entry.programs.insert(0, program)
        if len(entry.programs) > MOST_RECORDINGS:
            entry.programs.pop()
        return True

    def program(self, *arguments, **keywords):
        """The Program that a call with these arguments replays; calls are made until there is one.

        Raises
        ------
        RuntimeError
            If the function cannot be replayed for these arguments.
        """
        cdef Entry entry
        call = self.python.Signature(self, arguments, keywords)
        for _ in range(MOST_WARM_CALLS + 1):
            entry = self.entries.get(call.key)
            if entry is not None and (entry.programs or entry.eager):
                break
            self(*arguments, **keywords)
        if entry is None or not entry.programs or (<Program>entry.programs[0]).rules is not None:
            raise RuntimeError(f"{self.__name__}: there is no Program for these arguments: what the function returns is still "
                               "being differentiated, or it changes what it reads, or keeps Tensors that it makes")
        return entry.programs[0]

    def clear(self):
        """Forgets all recordings."""
        self.entries.clear()
        self.last = self.last_with_rules = None

    @property
    def recordings(self):
        """How many recordings there are, of all signatures."""
        total = 0
        for entry in self.entries.values():
            total += len((<Entry>entry).programs)
        return total


cdef inline PyObject** items_of(tuple leaves) noexcept:
    return PySequence_Fast_ITEMS(leaves)


cdef inline bint may_replay(Entry entry) noexcept:
    """Whether the last call's Program may answer this one, if its arguments fit."""
    cdef CTape* tape = current_tape()
    return not fg_mark and entry.recording == tape.recording and not tape.watching


cdef object compiled_call(PyObject* self, PyObject** arguments, size_t flags, PyObject* names):
    """A call of a Compiled, by vectorcall: like the last one if it can be, else by the whole signature."""
    cdef Compiled compiled = <Compiled>self
    cdef Entry entry = compiled.last
    cdef Program program
    cdef Py_ssize_t n = PyVectorcall_NARGS(flags), k
    cdef tuple results
    cdef int form
    if names == NULL and entry is not None and may_replay(entry):
        program = <Program>(<list>entry.programs)[0]
        if n == <Py_ssize_t>program.n_arguments:
            form = form_of(arguments, n)
            if form >= 0:
                results = program.replay(arguments, n, None, form)
                if results is not None:
                    return program.build(results)
    positional = tuple([<object>arguments[k] for k in range(n)])
    entry = compiled.last_with_rules
    if names == NULL and entry is not None and not fg_mark and entry.programs and entry.recording == current_tape().recording:
        program = <Program>(<list>entry.programs)[0]
        if program.rules is not None and tracked_as_recorded(program, positional):
            results = program.replay(arguments, n, None, FORM_TENSOR)
            if results is not None:
                put_results_on_tape(program, results, positional)
                return program.build(results)
    entry = compiled.last
    keywords = {}
    if names != NULL:
        keywords = {name: <object>arguments[n + k] for k, name in enumerate(<tuple>names)}
        if not compiled.has_own_out and "out" in keywords:
            out = keywords.pop("out")
            if out is not None and not keywords and entry is not None and may_replay(entry):
                program = <Program>(<list>entry.programs)[0]
                form = form_of(arguments, n) if n == <Py_ssize_t>program.n_arguments else -1
                if form >= 0 and replay_into(program, positional, form, out):
                    return out
            return compiled.call_slowly(positional, keywords, out)
    return compiled.call_slowly(positional, keywords)


cdef int give_vectorcall() except -1:
    cdef Compiled some = Compiled.__new__(Compiled)
    fg_set_vectorcall(<PyTypeObject*>Compiled, <char*>&some.vectorcall - <char*><PyObject*>some)
    return 0


give_vectorcall()


cdef bint tracked_as_recorded(Program program, tuple leaves) noexcept:
    """Whether gradients flow to the leaves that they flowed to, and none has a gradient; a replay compares the rest."""
    cdef Py_ssize_t k
    cdef Input* input = program.inputs
    cdef Tensor t
    if len(leaves) != <Py_ssize_t>program.n_arguments:
        return False
    for k in range(len(leaves)):
        if type(leaves[k]) is Tensor:
            t = leaves[k]
            if tracked(t) != input[k].tracked or t.requires != input[k].leaf or t.gradient is not None:
                return False
        elif input[k].tracked:
            return False
    return True


cdef int form_of(PyObject** arguments, Py_ssize_t n) noexcept:
    """What results shall be, from plain arguments; -1 where one is tracked or asks for a gradient."""
    cdef int form = FORM_TENSOR if n == 0 else FORM_ARRAY
    cdef Py_ssize_t k
    for k in range(n):
        if Py_TYPE(arguments[k]) == <PyTypeObject*>Tensor:
            if tracked(<Tensor>arguments[k]) or (<Tensor>arguments[k]).gradient is not None:
                return -1
            form = FORM_TENSOR
    return form


cdef object unflatten_tuples(object structure, list leaves, Py_ssize_t* at):
    """tree_unflatten, quick for tuples."""
    cdef tuple parts
    if len(<tuple>structure) == 0:
        at[0] += 1
        return leaves[at[0] - 1]
    if structure[0] is tuple:
        parts = structure[2]
        return tuple([unflatten_tuples(part, leaves, at) for part in parts])
    n = at[0]
    found = HOOKS["tree_unflatten"](structure, leaves[n:])
    at[0] += HOOKS["count_leaves"](structure)
    return found


def static_places(Compiled compiled):
    """The arguments that are taken by value."""
    return compiled.static


def make_wrapper(leaf, bint weak):
    """A Tensor that stands for an argument while a function is recorded; a Tensor stands for itself."""
    cdef Tensor t
    if type(leaf) is Tensor:
        return leaf
    if isinstance(leaf, float):
        t = new_number(leaf)
        t.weak = weak
        return t
    return from_ndarray(np.array(leaf))


STEP_NAMES = ("scalars", "group", "product", "copy", "extreme", "rows", "row pullback", "cross-entropy",
              "cross-entropy pullback", "extreme pullback", "assembly", "join", "sum", "host", "guard", "gather", "scatter")


def program_facts(Program program):
    """What a Program runs, for explain and tests."""
    cdef index_t i
    cdef Step* step
    cdef int instructions, lanes, slots
    steps = []
    total = 0
    for i in range(program.n_steps):
        step = program.steps + i
        fact = {"step": STEP_NAMES[step.kind], "operation": value_name(program.trace.values + step.value),
                "shape": shape_tuple((program.trace.values + step.value).shape), "flops": step.flops, "bytes": step.bytes}
        if step.kind == STEP_GROUP:
            fg_group_facts(step.group, &instructions, &lanes, &slots)
            fact.update(instructions=instructions, lanes=lanes, slots=slots, loads=step.size[0], operations=step.size[1],
                        stores=step.size[2], sums=step.size[3])
            total += step.size[1]
        elif step.kind == STEP_SCALARS:
            fact.update(instructions=fg_scalars_length(step.scalars), operations=step.size[0])
            total += step.size[0]
        else:
            total += 1
        steps.append(fact)
    return {"steps": steps, "instructions": total, "values": program.trace.n - 1, "arena": program.arena_bytes,
            "constants": program.constant_bytes, "live": program.live_peak, "scratch": program.scratch_bytes,
            "temporaries": 8 * program.temporaries, "guards": len(program.trace.guards),
            "arguments": program.n_arguments, "slots": program.n_slots, "arrays": program.n_arrays,
            "results": program.n_results, "writes": len(program.writes), "refused": program.refused}


# --------------------------------------------------------------------------------------------------------------- threads

def set_num_threads(n=None):
    """How many threads long loops of Programs may use, the caller's included.

    Parameters
    ----------
    n : int, optional
        At least 1; by default as many as this process has processors.

    Notes
    -----
    The same threads serve all loops: products, groups of elementwise operations and lanes; they never run inside each
    other, and no BLAS runs inside them, so there are never more than n busy.  At the start n is the number of processors,
    or what FASTGRAD_NUM_THREADS or OMP_NUM_THREADS says.  Results do not depend on n, bit for bit.  Where threadpoolctl is
    installed, its ``threadpool_limits`` sets n too, from the first ``fg.compile`` or ``fg.load_program`` on; by itself it is
    ``limits={"fastgrad": n}``.

    Examples
    --------
    >>> import fastgrad as fg
    >>> before = fg.get_num_threads()
    >>> fg.set_num_threads(1)
    >>> fg.get_num_threads()
    1
    >>> fg.set_num_threads(before)
    """
    if n is None:
        n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"set_num_threads: {n!r} is no number of threads")
    if not 1 <= n.__index__() <= 1024:
        raise ValueError(f"set_num_threads: {n} threads; it takes 1 to 1024")
    fg_set_threads(n.__index__())


def get_num_threads():
    """How many threads long loops of Programs may use; see ``set_num_threads``."""
    return fg_get_threads()
