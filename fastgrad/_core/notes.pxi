# Notes: what a node tells whoever looks at it, a name and the line of the user's code that recorded it.
#
# As a rule nobody looks, and nothing is written.  While a tape is watched (`Watch`), every new node gets a note, keeps its
# numbers and all of its operands, and, where NaN and infinity are looked for, is checked, as are its cotangents.
#
# Knows nothing about what is told from it: fastgrad.learn installs what finds the line and what words the error.

cdef enum:
    WATCH_PLACES = 1
    WATCH_NUMBERS = 2       # NaN and infinity are errors,
    WATCH_NAN = 4           # or NaN alone


class Note:
    """What a node tells about itself.

    Attributes
    ----------
    name : str or None
        Given by ``fg.mark`` or ``fg.names``.
    place : Place or None
        The line of the user's code that recorded it.
    """
    __slots__ = ("name", "place")

    def __init__(self):
        self.name = self.place = None


cdef inline int recording_of(CTape* tape) noexcept:
    """The state of a tape that records: what is not just True takes no shortcuts."""
    return 2 if tape.watching else True


cdef object note_of(CTape* tape, index_t i):
    """The note of a node, a new one if it has none."""
    cdef Extra* extra = tape.nodes[i].extra
    if extra == NULL:
        extra = extra_new(1, 0)         # operations of three operands alone read this one
        extra.operands[0] = 0
        tape.nodes[i].extra = extra
    if extra.note == NULL:
        note = Note()
        Py_INCREF(note)
        extra.note = <PyObject*>note
    return <object>extra.note


cdef int watch(Tensor t, CTape* tape, index_t i) except -1:
    """A node of a watched tape, just recorded as t."""
    note_of(tape, i).place = HOOKS["place"]()
    if t.array != NULL:
        node_save(tape.nodes + i, t.array)
    if tape.watching & WATCH_NUMBERS and not is_given(tape.nodes[i].op) and not is_sound(tape, numbers_of(t)):
        raise HOOKS["anomaly"](node_story(tape, i), tape.watching & WATCH_NAN != 0)
    return 0


cdef int watch_cotangents(Sweep* s, index_t i) except -1:
    """What node i of a watched tape has just added to."""
    cdef Py_ssize_t j
    for j, id in enumerate(node_operands(s.tape, i)):
        if id and s.tape.nodes[<index_t>id].flags & REACHED:
            made = adjoint_numbers(s, id)
            if not is_sound(s.tape, made):
                raise cotangent_anomaly(s.tape, i, j, adjoint_numbers(s, i), made)
    return 0


cdef inline bint is_given(int op) noexcept:
    """Whether an operation computes nothing; what is wrong with an argument is found where it is used."""
    return op == OP_LEAF or op == OP_INPUT or op == OP_CONSTANT or op == OP_ALIAS


cdef object numbers_of(Tensor t):
    """What t holds, read although a trace may be open: it does not get into what is replayed."""
    return t.number if t.array == NULL else view_ndarray(t.array, False)


cdef object adjoint_numbers(Sweep* s, index_t i):
    if s.tape.nodes[i].shape == NULL:
        return s.adjoints[i].number
    return 0.0 if s.adjoints[i].array == NULL else view_ndarray(s.adjoints[i].array, False)


cdef int watch_cotangent(CTape* tape, index_t i, index_t operand, Tensor g, Tensor c) except -1:
    """What node i sends to an operand where g arrives, in the sweep on Tensors."""
    made = numbers_of(c)
    if not is_sound(tape, made):
        raise cotangent_anomaly(tape, i, node_operands(tape, i).index(operand), numbers_of(g), made)
    return 0


cdef object cotangent_anomaly(CTape* tape, index_t i, Py_ssize_t position, object arrived, object made):
    return HOOKS["anomaly"](node_story(tape, i), tape.watching & WATCH_NAN != 0,
                            (position, np.asarray(arrived), np.asarray(made)))


cdef list watched_pull(Sweep* s, index_t i, Tensor g):
    """pull_tensors on a watched tape: what a pullback computes on its way is checked when it arrives at an operand."""
    cdef CTape* tape = s.tape
    cdef int watching = tape.watching
    tape.watching = watching & ~WATCH_NUMBERS
    try:
        return pull_tensors(s, i, g)
    finally:
        tape.watching = watching


cdef bint is_sound(CTape* tape, object value):
    return not (np.isnan(value) if tape.watching & WATCH_NAN else ~np.isfinite(value)).any()


cdef object node_story(CTape* tape, index_t i):
    """A node and its operands, for the words of an error."""
    return node_record(tape, i, 0), [node_record(tape, id, 0) if id else None for id in node_operands(tape, i)]


@cython.final
cdef class Watch:
    """A context manager in which this thread's tape is watched."""
    cdef CTape* tape
    cdef int purpose, before, recording

    def __init__(self, bint numbers=False, bint infinities=True):
        self.purpose = WATCH_PLACES | (WATCH_NUMBERS if numbers else 0) | (0 if infinities else WATCH_NAN)

    def __enter__(self):
        self.tape = current_tape()
        self.before, self.recording = self.tape.watching, self.tape.recording
        self.tape.watching = self.purpose if self.purpose & WATCH_NUMBERS else self.purpose | self.before
        if self.tape.recording:
            self.tape.recording = recording_of(self.tape)
        return self

    def __exit__(self, *exception):
        self.tape.watching, self.tape.recording = self.before, self.recording
        return False


def mark(Tensor t, str name):
    """Gives the place of t on the tape a name; t itself, or, where t is a leaf that nobody has used, t under that name."""
    cdef CTape* tape = current_tape()
    cdef Tensor named
    if fg_mark or not tape.recording or not tracked(t):
        return t
    check_tape(t, tape)
    if not t.node or t.tape != tape:
        named = t.detach()
        tape_reserve(tape, 2)
        put_on_tape(named, tape, node_new(tape, OP_ALIAS, node_of(t, tape), 0))
        t = named
    note_of(tape, t.node).name = name
    return t
