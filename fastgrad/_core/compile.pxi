# fg.compile: recordings by signature, and what makes a recording valid for a call.
#
# A call looks for a recording made for arguments like its own.  A recording that a guard refuses is put aside for this
# call and the next one is tried; when none fits, the function runs, traced, and its own results are the answer.  So the
# first call costs a run of the function and a plan, and no call gets an answer from a recording that does not fit.

cdef enum:
    MOST_RECORDINGS = 16        # for one signature; the oldest goes
    MOST_WARM_CALLS = 3         # calls that keep Tensors made inside, before the function counts as not compilable
    REFUSALS_TO_WARN = 32


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


cdef Recorded record_call(object function, list wrappers, object flatten):
    """Runs function(wrappers) under a new trace."""
    cdef Recorded r = Recorded()
    cdef Trace trace = Trace()
    cdef Tensor t
    cdef Py_ssize_t k
    cdef index_t i
    cdef set made = set()
    r.trace = trace
    r.roots, r.writes, r.cleared = [], [], []
    trace.open()
    try:
        for t in wrappers:
            i = trace.append(V_ARGUMENT, t.dtype_number, shape_of(t))
            trace.values[i].parameter = <index_t>len(trace.arguments)
            trace.arguments.append(t)
            t.traced = trace.mark | i
        result = function(wrappers)
        r.leaves, r.structure = flatten(result)
        del result
        for leaf in r.leaves:
            if type(leaf) is Tensor:
                t = leaf
                r.roots.append(trace.of_tensor(t))
                r.differentiable = r.differentiable or tracked(t)
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
    if trace.broken:
        raise MemoryError("fg.compile: no memory for the recording")
    return r


cdef int collect_writes(Recorded r, list wrappers, set made) except -1:
    """What the function did to Tensors from outside, and to its arguments."""
    cdef Trace trace = r.trace
    cdef Tensor t, g
    cdef Py_ssize_t k
    cdef dict places = {id(w): k for k, w in enumerate(wrappers)}
    seen = set()
    for t in trace.written:
        if id(t) not in seen and made_inside(t):
            seen.add(id(t))
            r.roots.append(trace.of_tensor(t))
            r.writes.append(t)
            r.differentiable = r.differentiable or (t.node != 0 and not t.requires)
    for k in range(len(wrappers)):
        t = wrappers[k]
        if trace.of_tensor(t) != k + 1:
            r.roots.append(trace.of_tensor(t))
            r.writes.append(k)
            r.differentiable = r.differentiable or (t.node != 0 and not t.requires)
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
        r.differentiable = r.differentiable or tracked(g)
        r.roots.append(trace.of_tensor(g))
        r.writes.append((target,))
    return 0


cdef Program plan_program(Recorded r, list forms):
    """The Program of a recording."""
    cdef Trace trace = r.trace
    cdef Program program = Program()
    cdef Planner planner = Planner()
    cdef index_t i, n
    cdef Py_ssize_t k
    cdef Value* v
    cdef Input* input
    cdef dict gradient_of = {}
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
        program.gradient_states.append((leaf, before is None))
        if before is not None:
            gradient_of[id(before)] = leaf
    program.slots = [(gradient_of[id(slot)],) if id(slot) in gradient_of else slot for slot in trace.slots]
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
        step[i] = planner.sites[i].step if planner.sites[i].kind >= SITE_SCALAR else <index_t>-1
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
    cdef list structures                # of their results, with their constant leaves
    cdef Py_ssize_t warm                # calls that kept Tensors made inside
    cdef bint eager                     # cannot be replayed
    cdef Py_ssize_t dropped
    cdef object key

    def __cinit__(self):
        self.programs, self.structures = [], []


@cython.final
cdef class Compiled:
    """What fg.compile returns: a function that replays."""
    cdef readonly object __wrapped__
    cdef tuple static
    cdef dict entries
    cdef Entry last                     # of the last call, if its arguments were plain leaves
    cdef object python                  # the slow side, fastgrad.transforms.compile
    cdef list bindings                  # (cell or dict, name or None, object): names the function reads
    cdef bint warned
    cdef bint owns_out                  # the function has a parameter `out` itself
    cdef dict __dict__

    def __init__(self, function, tuple static, python):
        self.__wrapped__ = function
        self.static = static
        self.python = python
        self.owns_out = python.has_parameter(function, "out")
        self.entries = {}
        self.bindings = python.bindings_of(function)
        self.__name__ = getattr(function, "__name__", "compiled")
        self.__doc__ = getattr(function, "__doc__", None)

    def __get__(self, instance, owner):
        if instance is None:
            return self
        return functools.partial(self, instance)

    def __repr__(self):
        return f"<fg.compile of {self.__name__}: {len(self.entries)} signatures>"

    def __call__(self, *arguments, **keywords):
        cdef list results
        cdef Entry entry = self.last
        cdef Program program
        cdef int form
        cdef Py_ssize_t k, n
        cdef object out = None
        if keywords and "out" in keywords and not self.owns_out:
            out = keywords.pop("out")
            if out is not None:
                return self.call_slowly(arguments, keywords, out)
        if entry is not None and not keywords and not fg_mark and entry.programs and self.bindings_hold():
            program = entry.programs[0]
            n = len(arguments)
            if n == <Py_ssize_t>program.n_arguments:
                form = form_of(arguments, n)
                if form >= 0:
                    results = []
                    k = program.replay(arguments, None, form, results)
                    if k == RUN_DONE:
                        return build_result(<tuple>entry.structures[0], results)
        return self.call_slowly(arguments, keywords)

    cdef bint bindings_hold(self) except -1:
        """Whether the names that the function reads still mean what they meant."""
        for where, name, value in self.bindings:
            if name is None:
                if where.cell_contents is value:
                    continue
                now = where.cell_contents
            else:
                now = (<dict>where).get(name)
                if now is value:
                    continue
            if isinstance(now, (float, int, str)) and type(now) is type(value) and now == value:
                continue
            return False
        return True

    def call_slowly(self, tuple arguments, dict keywords, out=None):
        """By the whole signature; out, if given, is filled and returned."""
        cdef Entry entry
        cdef Program program
        cdef Py_ssize_t k
        cdef int code, form
        cdef list results
        if fg_mark:                     # inside another recording: part of it
            if out is not None:
                raise TypeError(f"{self.__name__}: out= inside a function that is itself recorded; use the result")
            return self.__wrapped__(*arguments, **keywords)
        if not self.bindings_hold():
            self.entries.clear()
            self.last = None
            self.bindings = self.python.bindings_of(self.__wrapped__)
        call = self.python.Signature(self, arguments, keywords)
        if call.differentiated:
            return fill_out(self.__name__, out, self.__wrapped__(*arguments, **keywords))
        entry = self.entries.get(call.key)
        if entry is None:
            entry = Entry()
            entry.key = call.key
            self.entries[call.key] = entry
        if entry.eager:
            return fill_out(self.__name__, out, self.__wrapped__(*arguments, **keywords))
        form = call.form
        for k in range(len(entry.programs)):
            program = entry.programs[k]
            results = []
            if out is None:
                code = program.replay(tuple(call.leaves), None, form, results)
            else:
                code = replay_into(program, tuple(call.leaves), form, out)
            if code == RUN_DONE:
                if k:
                    entry.programs.insert(0, entry.programs.pop(k))
                    entry.structures.insert(0, entry.structures.pop(k))
                self.last = entry if call.plain else None
                return build_result(entry.structures[0], results) if out is None else out
        return fill_out(self.__name__, out, self.record(call, entry))

    cdef object record(self, object call, Entry entry):
        """Runs the function traced; keeps the recording if it can be replayed."""
        cdef Recorded r
        cdef Program program
        cdef Py_ssize_t k
        if len(entry.programs) + entry.dropped >= REFUSALS_TO_WARN and not self.warned:
            self.warned = True
            self.python.warn_recording(self, entry.dropped + len(entry.programs))
        wrappers = call.wrappers()
        state = self.python.random_state(self)
        r = record_call(call.run, wrappers, self.python.flatten)
        self.python.check_random_state(self, state)
        call.give_back(wrappers, r.writes, r.cleared)
        if r.differentiable or r.escaped > 0 or call.refuses(r.trace.slots, r.writes):
            entry.warm += 1
            if r.differentiable or entry.warm >= MOST_WARM_CALLS:
                entry.eager = True
                self.python.warn_eager(self, bool(r.differentiable), r.escaped)
            return call.lowered(r.leaves, r.structure)
        program = plan_program(r, call.forms)
        structure = (r.structure, [None if type(leaf) is Tensor else (leaf,) for leaf in r.leaves], plain_structure(r))
        program.binding = self.python.Binding.of_call(self.__name__, call, structure)
        entry.programs.insert(0, program)
        entry.structures.insert(0, structure)
        if len(entry.programs) > MOST_RECORDINGS:
            entry.programs.pop()
            entry.structures.pop()
            entry.dropped += 1
        self.last = entry if call.plain else None
        return call.lowered(r.leaves, r.structure)

    def program(self, *arguments, **keywords):
        """The Program that a call with these arguments replays; the call is made if there is none yet.

        Raises
        ------
        RuntimeError
            If the function cannot be replayed for these arguments.
        """
        cdef Entry entry
        call = self.python.Signature(self, arguments, keywords)
        entry = self.entries.get(call.key)
        if entry is None or not entry.programs:
            for _ in range(MOST_WARM_CALLS + 1):
                self(*arguments, **keywords)
                entry = self.entries.get(call.key)
                if entry is not None and (entry.programs or entry.eager):
                    break
        if entry is None or not entry.programs:
            raise RuntimeError(f"{self.__name__}: there is no Program for these arguments: the function keeps Tensors that "
                               "it makes, or returns ones that are being differentiated")
        return entry.programs[0]

    def clear(self):
        """Forgets all recordings."""
        self.entries.clear()
        self.last = None

    @property
    def recordings(self):
        """How many recordings there are, of all signatures."""
        total = 0
        for entry in self.entries.values():
            total += len((<Entry>entry).programs)
        return total


cdef int form_of(tuple arguments, Py_ssize_t n) noexcept:
    """What results shall be, from plain arguments; -1 where one is tracked or no plain leaf."""
    cdef Py_ssize_t k
    cdef int form = FORM_TENSOR
    cdef object x
    for k in range(n):
        x = arguments[k]
        if type(x) is Tensor:
            return FORM_TENSOR if all_untracked(arguments, n) else -1
        form = FORM_ARRAY
    return form


cdef bint all_untracked(tuple arguments, Py_ssize_t n) noexcept:
    cdef Py_ssize_t k
    for k in range(n):
        if type(arguments[k]) is Tensor and tracked(<Tensor>arguments[k]):
            return False
    return True


cdef object plain_structure(Recorded r):
    """0: one leaf; n: a tuple of n leaves; -1: anything else."""
    cdef Py_ssize_t k
    for leaf in r.leaves:
        if type(leaf) is not Tensor:
            return -1
    if r.structure == ():
        return 0
    if r.structure[0] is tuple and all([part == () for part in r.structure[2]]):
        return len(r.leaves)
    return -1


cdef object build_result(tuple structure, list results):
    """The results as the function returned them."""
    cdef Py_ssize_t plain = structure[2], k, at = 0
    cdef list constants
    if plain == 0:
        return results[0]
    if plain > 0:
        return tuple(results)
    constants = structure[1]
    for k in range(len(constants)):
        if constants[k] is not None:
            results.insert(k, (<tuple>constants[k])[0])
    return unflatten_tuples(structure[0], results, &at)


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
    """A Tensor that stands for an argument while a function is recorded: its value, its place among leaves."""
    cdef Tensor t, source
    if type(leaf) is Tensor:
        source = leaf
        t = source.detach()
        t.requires = source.requires
        t.gradient = source.gradient
        return t
    if isinstance(leaf, float):
        t = new_number(leaf)
        t.weak = weak
        return t
    return from_ndarray(np.array(leaf))


def give_back_value(Tensor to, Tensor value):
    """The caller's Tensor takes what its stand-in became."""
    take_value(to, value.detach())


def give_back_gradient(Tensor to, value):
    """The same for a gradient."""
    to.gradient = value


def replay_program(Program program, tuple leaves, out, int form):
    """One replay; None where the Program does not fit."""
    results = []
    code = program.replay(leaves, out, form, results)
    return results if code == RUN_DONE else None


def program_result(structure, results):
    """See build_result."""
    return build_result(structure, results)


STEP_NAMES = ("scalars", "group", "product", "copy", "extreme", "rows", "row pullback", "cross-entropy",
              "cross-entropy pullback", "extreme pullback", "scatter", "join", "sum", "host", "guard")


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
