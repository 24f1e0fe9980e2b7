# Shapes, arrays and the pool they live in.
#
# An Array is a counted header over numbers: its own block behind the header, a view of another Array, or memory lent
# by a NumPy array.  All of this needs the GIL; only loops over the numbers run without it.  Knows nothing about the
# tape or Tensors.

cdef struct Shape:
    Py_ssize_t refcount
    Py_ssize_t size         # the product of dims, checked against overflow
    Py_ssize_t ndim
    Py_ssize_t dims[1]      # ndim of them


cdef struct Array:
    Py_ssize_t refcount
    char* data
    Shape* shape
    Py_ssize_t* strides     # in bytes; NULL: C-contiguous
    Array* base             # whose memory this is a view of
    PyObject* owner         # the NumPy array that lends the memory
    size_t bucket           # the pool's class of this block
    short dtype             # NumPy's type number
    short foreign           # memory that somebody else may write


# ------------------------------------------------------------------------------------------------------------ the pool

# Blocks are multiples of 64 bytes, 64-byte aligned.  Freed ones are kept in lists by size class: every multiple of 64
# up to 8 KiB, four classes an octave above.  At most POOL_LIMIT bytes are kept.
cdef enum:
    HEADER = 64
    SMALL_CLASSES = 129
    CLASSES = SMALL_CLASSES + 4 * 24
    POOL_LIMIT = 96 << 20

cdef size_t MAX_BLOCK = <size_t>1 << 37

cdef extern from *:
    """
    /* Under AddressSanitizer nothing freed is kept and every block is exactly as long as asked for: the pool would hide
       what the sanitizer looks for. */
    #if defined(__has_feature)
    #define FG_HAS_FEATURE(x) __has_feature(x)
    #else
    #define FG_HAS_FEATURE(x) 0
    #endif
    #if defined(__SANITIZE_ADDRESS__) || FG_HAS_FEATURE(address_sanitizer)
    #include <stdlib.h>
    #define FG_KEEPS_FREED 0
    static inline void *fg_take_exactly(size_t n) { void *p; return posix_memalign(&p, 64, n) ? NULL : p; }
    static inline void fg_give_exactly(void *p) { free(p); }
    #else
    #define FG_KEEPS_FREED 1
    static inline void *fg_take_exactly(size_t n) { (void)n; return NULL; }
    static inline void fg_give_exactly(void *p) { (void)p; }
    #endif
    """
    const bint FG_KEEPS_FREED
    void* fg_take_exactly(size_t n)
    void fg_give_exactly(void* p)

cdef struct FreeBlock:
    FreeBlock* next

cdef FreeBlock* pool[CLASSES]
cdef size_t pool_bytes = 0      # kept in the lists
cdef size_t bytes_in_use = 0    # handed out


cdef inline size_t class_of(size_t bytes) noexcept:
    """The class of a block of that many bytes; the size of a class comes from size_of."""
    cdef size_t octave, step
    if bytes <= 64 * (SMALL_CLASSES - 1):
        return (bytes + 63) >> 6
    octave = 63 - __builtin_clzll(bytes - 1)            # 2**octave < bytes <= 2**(octave + 1)
    step = (bytes - 1 - (<size_t>1 << octave)) >> (octave - 2)
    return SMALL_CLASSES + 4 * (octave - 13) + step


cdef inline size_t size_of(size_t bucket) noexcept:
    cdef size_t octave, step
    if bucket < SMALL_CLASSES:
        return bucket << 6
    octave = 13 + ((bucket - SMALL_CLASSES) >> 2)
    step = (bucket - SMALL_CLASSES) & 3
    return (<size_t>1 << octave) + ((step + 1) << (octave - 2))


cdef void* pool_take(size_t bytes, size_t* bucket) except NULL:
    global pool_bytes, bytes_in_use
    cdef size_t c, size
    cdef FreeBlock* block
    cdef char* raw
    cdef char* aligned
    if bytes > MAX_BLOCK:
        raise MemoryError(f"cannot allocate {bytes} bytes")
    c = class_of(bytes)
    size = size_of(c)
    bucket[0] = c
    if not FG_KEEPS_FREED:
        raw = <char*>fg_take_exactly(bytes)
        if raw == NULL:
            raise MemoryError(f"cannot allocate {bytes} bytes")
        bytes_in_use += size
        return raw
    block = pool[c]
    if block != NULL:
        pool[c] = block.next
        pool_bytes -= size
        bytes_in_use += size
        return block
    raw = <char*>PyMem_RawMalloc(size + 64)
    if raw == NULL:
        pool_clear()
        raw = <char*>PyMem_RawMalloc(size + 64)
        if raw == NULL:
            raise MemoryError(f"cannot allocate {bytes} bytes")
    aligned = raw + 64 - (<size_t>raw & 63)             # malloc aligns to 16: at least 16 bytes lie before
    (<void**>aligned)[-1] = raw
    bytes_in_use += size
    return aligned


cdef inline void pool_give(void* block, size_t bucket) noexcept:
    global pool_bytes, bytes_in_use
    cdef size_t size = size_of(bucket)
    bytes_in_use -= size
    if not FG_KEEPS_FREED:
        fg_give_exactly(block)
        return
    if pool_bytes + size > POOL_LIMIT:
        PyMem_RawFree((<void**>block)[-1])
        return
    pool_bytes += size
    (<FreeBlock*>block).next = pool[bucket]
    pool[bucket] = <FreeBlock*>block


cdef void pool_clear() noexcept:
    """Gives every kept block back to the system."""
    global pool_bytes
    cdef size_t c
    cdef FreeBlock* block
    for c in range(CLASSES):
        while pool[c] != NULL:
            block = pool[c]
            pool[c] = block.next
            PyMem_RawFree((<void**>block)[-1])
    pool_bytes = 0


# ------------------------------------------------------------------------------------------------------------- shapes

cdef Shape scalar_shape_storage
cdef Shape* SCALAR_SHAPE = &scalar_shape_storage
scalar_shape_storage.refcount = 1
scalar_shape_storage.size = 1
scalar_shape_storage.ndim = 0


cdef inline size_t shape_bytes(Py_ssize_t ndim) noexcept:
    return sizeof(Shape) + <size_t>ndim * sizeof(Py_ssize_t)


cdef Shape* shape_new(Py_ssize_t ndim, const Py_ssize_t* dims) except NULL:
    cdef size_t bucket
    cdef Py_ssize_t d, size = 1
    cdef bint empty = False
    cdef Shape* shape
    if ndim == 0:
        return shape_keep(SCALAR_SHAPE)
    if ndim > FG_MAX_NDIM:
        raise ValueError(f"an array of {ndim} dimensions: at most {FG_MAX_NDIM} are supported")
    for d in range(ndim):
        if dims[d] < 0:
            raise ValueError("negative dimensions are not allowed")
        if dims[d] == 0:
            empty = True
        elif size > (<Py_ssize_t>1 << 56) // dims[d]:
            raise ValueError(f"array is too big: {tuple([dims[i] for i in range(ndim)])}")
        else:
            size *= dims[d]
    shape = <Shape*>pool_take(shape_bytes(ndim), &bucket)
    shape.refcount = 1
    shape.ndim = ndim
    shape.size = 0 if empty else size
    memcpy(shape.dims, dims, <size_t>ndim * sizeof(Py_ssize_t))
    return shape


cdef inline Shape* shape_keep(Shape* shape) noexcept:
    shape.refcount += 1
    return shape


cdef inline void shape_drop(Shape* shape) noexcept:
    shape.refcount -= 1
    if shape.refcount == 0:
        pool_give(shape, class_of(shape_bytes(shape.ndim)))


cdef inline bint same_shape(const Shape* a, const Shape* b) noexcept:
    cdef Py_ssize_t d
    if a == b:
        return True
    if a.size != b.size or a.ndim != b.ndim:
        return False
    for d in range(a.ndim):
        if a.dims[d] != b.dims[d]:
            return False
    return True


cdef tuple shape_tuple(const Shape* shape):
    return tuple([shape.dims[d] for d in range(shape.ndim)])


# ------------------------------------------------------------------------------------------------------------- arrays

cdef inline Py_ssize_t item_size(int dtype) noexcept:
    if dtype == NPY_DOUBLE:
        return 8
    if dtype == NPY_FLOAT:
        return 4
    if dtype == NPY_BOOL:
        return 1
    return (<cnp.dtype>cnp.PyArray_DescrFromType(dtype)).itemsize


cdef Array* array_new(Shape* shape, int dtype) except NULL:
    """A contiguous array of numbers not yet written.  Shares the shape."""
    cdef size_t bucket
    cdef Array* a = <Array*>pool_take(HEADER + <size_t>shape.size * <size_t>item_size(dtype), &bucket)
    a.refcount = 1
    a.data = <char*>a + HEADER
    a.shape = shape_keep(shape)
    a.strides = NULL
    a.base = NULL
    a.owner = NULL
    a.bucket = bucket
    a.dtype = dtype
    a.foreign = 0
    return a


cdef inline Array* array_keep(Array* a) noexcept:
    a.refcount += 1
    return a


cdef inline void array_drop(Array* a) noexcept:
    a.refcount -= 1
    if a.refcount == 0:
        array_free(a)


cdef void array_free(Array* a) noexcept:
    cdef Array* base = a.base
    shape_drop(a.shape)
    if a.owner != NULL:
        Py_DECREF(<object>a.owner)
    pool_give(a, a.bucket)
    if base != NULL:
        array_drop(base)        # a view's base is never a view: at most one level


cdef bint strides_are_contiguous(Shape* shape, const Py_ssize_t* strides, Py_ssize_t item) noexcept:
    cdef Py_ssize_t d, expected = item
    if shape.size == 0:
        return True
    for d in range(shape.ndim - 1, -1, -1):
        if shape.dims[d] != 1:
            if strides[d] != expected:
                return False
            expected *= shape.dims[d]
    return True


cdef Array* array_header(Shape* shape, int dtype, char* data, const Py_ssize_t* strides) except NULL:
    """A header over memory that lies elsewhere; the caller sets base or owner."""
    cdef size_t bucket
    cdef Array* a
    cdef bint contiguous = strides == NULL or strides_are_contiguous(shape, strides, item_size(dtype))
    cdef size_t extra = 0 if contiguous else <size_t>shape.ndim * sizeof(Py_ssize_t)
    a = <Array*>pool_take(HEADER + extra, &bucket)
    a.refcount = 1
    a.data = data
    a.shape = shape_keep(shape)
    a.strides = NULL
    a.base = NULL
    a.owner = NULL
    a.bucket = bucket
    a.dtype = dtype
    a.foreign = 0
    if not contiguous:
        a.strides = <Py_ssize_t*>(<char*>a + HEADER)
        memcpy(a.strides, strides, extra)
    return a


cdef Array* array_view(Array* of, Shape* shape, char* data, const Py_ssize_t* strides) except NULL:
    """Another look at the same memory.  strides NULL: contiguous."""
    cdef Array* a = array_header(shape, of.dtype, data, strides)
    cdef Array* root = of.base if of.base != NULL else of
    a.base = array_keep(root)
    a.foreign = of.foreign
    return a


cdef inline void strides_of(const Array* a, Py_ssize_t* strides) noexcept:
    """The strides in bytes, written out where a contiguous array keeps none."""
    cdef Py_ssize_t d, step
    if a.strides != NULL:
        memcpy(strides, a.strides, <size_t>a.shape.ndim * sizeof(Py_ssize_t))
        return
    step = item_size(a.dtype)
    for d in range(a.shape.ndim - 1, -1, -1):
        strides[d] = step
        step *= a.shape.dims[d]


cdef inline int type_index(int dtype) noexcept:
    """FG_F64, FG_F32 or FG_BOOL; -1 for what the loops do not know."""
    if dtype == NPY_DOUBLE:
        return FG_F64
    if dtype == NPY_FLOAT:
        return FG_F32
    if dtype == NPY_BOOL:
        return FG_BOOL
    return -1


cdef Array* array_contiguous(Array* a) except NULL:
    """The same numbers C-contiguous: a itself (kept) or a copy."""
    cdef Array* copy
    if a.strides == NULL:
        return array_keep(a)
    copy = array_new(a.shape, a.dtype)
    array_copy_into(a, copy)
    return copy


cdef void array_copy_into(Array* a, Array* to) noexcept:
    """Numbers of a into the contiguous array `to` of the same shape and dtype."""
    cdef fg_view view
    cdef fg_extent extent
    cdef int type = type_index(a.dtype)
    if a.strides == NULL:
        memcpy(to.data, a.data, <size_t>a.shape.size * <size_t>item_size(a.dtype))
        return
    if type < 0:
        view_ndarray(to, True)[...] = view_ndarray(a, False)
        return
    view.kind = FG_STRIDED
    view.data = a.data
    view.type = type
    view.strides = a.strides
    extent.ndim = <int>a.shape.ndim
    extent.dims = a.shape.dims
    extent.size = a.shape.size
    fg_run_copy(type, &extent, &view, to.data)


cdef Array* array_owned(Array* a) except NULL:
    """Numbers that nobody else can write: a itself (kept) or a contiguous copy."""
    cdef Array* copy
    if not a.foreign:
        return array_keep(a)
    copy = array_new(a.shape, a.dtype)
    array_copy_into(a, copy)
    return copy


# -------------------------------------------------------------------------------------------------------------- NumPy

@cython.final
cdef class Lender:
    """Keeps an Array alive for a NumPy array that looks at its memory."""
    cdef Array* array

    def __dealloc__(self):
        if self.array != NULL:
            array_drop(self.array)


cdef cnp.ndarray view_ndarray(Array* a, bint writable):
    """A NumPy array on the same memory."""
    cdef Py_ssize_t strides[FG_MAX_NDIM]
    cdef Lender lender = Lender.__new__(Lender)
    cdef cnp.ndarray result
    strides_of(a, strides)
    lender.array = array_keep(a)
    result = PyArray_New(
        <PyTypeObject*>cnp.ndarray, <int>a.shape.ndim, <cnp.npy_intp*>a.shape.dims, a.dtype, <cnp.npy_intp*>strides, a.data, 0,
        cnp.NPY_ARRAY_WRITEABLE if writable else 0, NULL)
    Py_INCREF(lender)
    if PyArray_SetBaseObject(result, lender) < 0:
        raise MemoryError()
    cnp.PyArray_UpdateFlags(result, cnp.NPY_ARRAY_C_CONTIGUOUS | cnp.NPY_ARRAY_F_CONTIGUOUS | cnp.NPY_ARRAY_ALIGNED)
    return result


cdef cnp.ndarray copy_ndarray(Array* a):
    """A NumPy array with its own copy of the numbers."""
    cdef cnp.ndarray result = cnp.PyArray_EMPTY(<int>a.shape.ndim, <cnp.npy_intp*>a.shape.dims, a.dtype, 0)
    if a.strides == NULL:
        memcpy(cnp.PyArray_DATA(result), a.data, <size_t>a.shape.size * <size_t>item_size(a.dtype))
    else:
        result[...] = view_ndarray(a, False)
    return result


cdef bint is_supported(int dtype) noexcept:
    """Float64, float32, bool and the integers."""
    return dtype == NPY_DOUBLE or dtype == NPY_FLOAT or (cnp.NPY_BOOL <= dtype and dtype <= cnp.NPY_ULONGLONG)


cdef Array* array_from_numpy(cnp.ndarray source) except NULL:
    """A header on a NumPy array's memory, converted first where byte order or alignment ask for it."""
    cdef Array* a
    cdef Shape* shape
    cdef object lender
    if not is_supported(cnp.PyArray_TYPE(source)):
        raise TypeError(
            f"fastgrad has no Tensors of dtype {source.dtype}: use float64 or float32 (or integers and bool, which carry "
            "no gradient), for example x.astype(np.float64)")
    if not (cnp.PyArray_FLAGS(source) & cnp.NPY_ARRAY_ALIGNED) or not PyArray_ISNOTSWAPPED(source):
        source = source.astype(source.dtype.newbyteorder("="))
    shape = shape_new(cnp.PyArray_NDIM(source), <Py_ssize_t*>cnp.PyArray_DIMS(source))
    try:
        a = array_header(shape, cnp.PyArray_TYPE(source), <char*>cnp.PyArray_DATA(source),
                         <Py_ssize_t*>cnp.PyArray_STRIDES(source))
    finally:
        shape_drop(shape)
    Py_INCREF(source)
    a.owner = <PyObject*>source
    a.foreign = 1
    return a
