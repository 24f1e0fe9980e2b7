# NumPy's own inner loops, called without its dispatch: matmul, which leads to its BLAS, and the vector functions whose
# AVX-512 loops are faster than ours.
#
# NumPy calls the struct that leads to them internal.  So this is the only place that looks at it, every loop is checked
# against the public function before it is trusted, and without it our own loops do the work.

cdef fg_numpy_loop numpy_matmul[2]
cdef void* numpy_matmul_data[2]


cdef bint find_loop(object ufunc, int dtype, fg_numpy_loop* loop, void** data):
    """The loop of a ufunc whose operands and result are all of one dtype."""
    cdef ufunc_fields* fields = <ufunc_fields*><PyObject*>ufunc
    cdef int k, j, n = fields.nargs
    if type(ufunc) is not np.ufunc or n != ufunc.nargs or fields.ntypes != ufunc.ntypes:
        return False
    for k in range(fields.ntypes):
        for j in range(n):
            if fields.types[n * k + j] != dtype:
                break
        else:
            loop[0] = <fg_numpy_loop>fields.functions[k]
            data[0] = fields.data[k]
            return loop[0] != NULL
    return False


cdef int borrow_matmul() except -1:
    cdef int type
    for type in range(2):
        numpy_matmul[type] = NULL
        if not find_loop(np.matmul, NPY_FLOAT if type else NPY_DOUBLE, &numpy_matmul[type], &numpy_matmul_data[type]):
            continue
        x = np.arange(6).reshape(2, 3).astype(np.float32 if type else np.float64)
        y = (x + 1).T
        z = np.empty((2, 2), dtype=x.dtype)
        call_numpy_matmul(type, 2, 3, 2, cnp.PyArray_BYTES(x), 3, 1, cnp.PyArray_BYTES(y), 1, 3, cnp.PyArray_BYTES(z))
        if not np.array_equal(z, x @ y):
            numpy_matmul[type] = NULL
    return 0


cdef void call_numpy_matmul(int type, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, char* a, Py_ssize_t a_row,
                            Py_ssize_t a_column, char* b, Py_ssize_t b_row, Py_ssize_t b_column, char* to) noexcept nogil:
    """to = a b with element strides; `to` contiguous."""
    cdef Py_ssize_t item = 4 if type else 8
    cdef char* arguments[3]
    cdef Py_ssize_t dims[4]
    cdef Py_ssize_t steps[9]
    arguments[0], arguments[1], arguments[2] = a, b, to
    dims[0], dims[1], dims[2], dims[3] = 1, m, k, n
    steps[0] = steps[1] = steps[2] = 0
    steps[3], steps[4] = a_row * item, a_column * item
    steps[5], steps[6] = b_row * item, b_column * item
    steps[7], steps[8] = n * item, item
    numpy_matmul[type](arguments, dims, steps, numpy_matmul_data[type])


cdef int use_level(const char* wanted) except -1:
    """Chooses the kernels, and puts NumPy's AVX-512 loops where a row asks for them; 0 where the level cannot run."""
    cdef int k = 0, op, type
    if not fg_use_level(wanted):
        return 0
    if fg_kernels.level != b"avx512":
        return 1
    try:
        dispatched = np.lib.introspect.opt_func_info()
    except AttributeError:          # NumPy before 2.1 does not say what it runs
        return 1
    while fg_borrowables[k].op:
        op, type = fg_borrowables[k].op, fg_borrowables[k].type
        name = NAMES[op]
        current = [loop["current"] for types, loop in dispatched.get(name, {}).items() if set(types) == {"df"[type]}]
        if current and ("AVX512" in current[0] or "X86_V4" in current[0]) and \
                find_loop(getattr(np, name), NPY_FLOAT if type else NPY_DOUBLE, fg_borrowables[k].loop, fg_borrowables[k].data):
            x = np.array([1.0, 1.5, 2.0], dtype="df"[type])
            z = np.empty(3, dtype=x.dtype)
            fg_borrowables[k].run(3, cnp.PyArray_BYTES(x), cnp.PyArray_BYTES(x), NULL, cnp.PyArray_BYTES(z))
            if np.array_equal(z, getattr(np, name)(*[x] * fg_arity[op])):
                fg_kernels.value[op][type] = fg_borrowables[k].run
        k += 1
    return 1
