# What the C side offers: the enumeration of operations, the loops and the block driver.

cdef extern from "ops.h" nogil:
    const unsigned char fg_needs[1][3]
    const unsigned char fg_arity[1]
    const unsigned char fg_is_bool[1]

cdef extern from "kernels.h" nogil:
    ctypedef void (*fg_value_loop)(Py_ssize_t n, const void* x, const void* y, const void* z, void* out) noexcept nogil
    ctypedef void (*fg_pull_loop)(Py_ssize_t n, const void* g, const void* x, const void* y, const void* z, const void* out,
                                  void* to) noexcept nogil
    ctypedef struct fg_kernel_table:
        const char* level
        fg_value_loop value[1][2]
        fg_pull_loop pull[1][3][2]
        void (*add[2])(Py_ssize_t n, const void* x, void* to) noexcept nogil
        void (*fill[2])(Py_ssize_t n, double value, void* to) noexcept nogil
        double (*sum[2])(Py_ssize_t n, const void* x) noexcept nogil
        double (*max[2])(Py_ssize_t n, const void* x) noexcept nogil
        double (*min[2])(Py_ssize_t n, const void* x) noexcept nogil
        void (*add_rows[2])(Py_ssize_t rows, Py_ssize_t columns, const void* x, void* to) noexcept nogil
        void (*matmul[2])(Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, const void* a, Py_ssize_t a_row, Py_ssize_t a_column,
                          const void* b, Py_ssize_t b_row, Py_ssize_t b_column, void* to, int accumulate) noexcept nogil
        void (*gemm[2])(Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, const void* a, Py_ssize_t a_row, Py_ssize_t a_column,
                        const void* b, Py_ssize_t b_row, Py_ssize_t b_column, void* to) noexcept nogil
        void (*logsumexp[2])(Py_ssize_t rows, Py_ssize_t n, const void* x, void* out) noexcept nogil
        void (*softmax[2])(Py_ssize_t rows, Py_ssize_t n, const void* x, void* out) noexcept nogil
        void (*log_softmax[2])(Py_ssize_t rows, Py_ssize_t n, const void* x, void* out) noexcept nogil
        void (*softmax_pull[2])(Py_ssize_t rows, Py_ssize_t n, const void* g, const void* out, void* to) noexcept nogil
        void (*log_softmax_pull[2])(Py_ssize_t rows, Py_ssize_t n, const void* g, const void* out, void* to) noexcept nogil
        void (*logsumexp_pull[2])(Py_ssize_t rows, Py_ssize_t n, const void* g, const void* x, const void* out,
                                  void* to) noexcept nogil
        void (*cross_entropy[2])(Py_ssize_t rows, Py_ssize_t n, const void* x, const int64_t* labels, void* out) noexcept nogil
        void (*cross_entropy_pull[2])(Py_ssize_t rows, Py_ssize_t n, const void* g, const void* x, const int64_t* labels,
                                      void* to) noexcept nogil
        void (*extreme_pull[2])(Py_ssize_t rows, Py_ssize_t n, const void* g, const void* x, const void* out,
                                void* to) noexcept nogil
    fg_kernel_table* fg_kernels
    bint fg_use_level(const char* wanted)

cdef extern from "borrow.h" nogil:
    ctypedef void (*fg_numpy_loop)(char** arguments, const Py_ssize_t* dims, const Py_ssize_t* steps, void* data) noexcept
    ctypedef struct fg_borrowable:
        int op
        int type
        fg_numpy_loop* loop
        void** data
        fg_value_loop run
    const fg_borrowable fg_borrowables[1]

cdef extern from "blocks.h" nogil:
    int FG_F64, FG_F32, FG_BOOL, FG_ABSENT, FG_CONTIGUOUS, FG_ONE, FG_STRIDED, FG_TO_STORE, FG_TO_ADD, FG_TO_SUM
    enum: FG_MAX_NDIM
    ctypedef struct fg_view:
        char* data
        const Py_ssize_t* strides
        double one
        int kind
        int type
    ctypedef struct fg_extent:
        int ndim
        const Py_ssize_t* dims
        Py_ssize_t size
    void fg_run_value(int op, int type, const fg_extent* extent, const fg_view* operands, char* out)
    void fg_run_pull(int op, int k, int type, const fg_extent* extent, const fg_view* operands, fg_view* to, int mode)
    void fg_run_copy(int type, const fg_extent* extent, const fg_view* source, char* to)
    void fg_run_add(int type, const fg_extent* extent, const fg_view* source, const fg_view* to)

cdef extern from "products.h" nogil:
    ctypedef struct fg_product:
        int type
        Py_ssize_t m, k, n
        Py_ssize_t a_row, a_column, b_row, b_column
        Py_ssize_t to_row
        int accumulate, bias, activation
    size_t fg_product_scratch(const fg_product* p)
    void fg_product_run(const fg_product* p, const void* a, const void* b, const void* bias, void* pre, void* to, void* scratch)

cdef extern from "threads.h" nogil:
    void fg_set_threads(int n)
    int fg_get_threads()

cdef extern from "lanes.h" nogil:
    int FG_CAST, FG_MOVE, FG_NO_VALUE, FG_SUM_ALL, FG_SUM_COLUMNS, FG_SUM_ROWS
    enum: FG_PULL
    ctypedef struct fg_place:
        int base
        Py_ssize_t offset
    ctypedef struct fg_instruction:
        unsigned short op
        unsigned char type
        int operand[5]
    ctypedef struct fg_load:
        fg_place at
        const Py_ssize_t* strides
        unsigned char kind
        unsigned char type
    ctypedef struct fg_result:
        int value
        fg_place at
        unsigned char kind
        Py_ssize_t columns
    ctypedef struct fg_group_spec:
        fg_extent extent
        int n_loads, n_code, n_stores, n_sums
        const fg_load* loads
        const fg_instruction* code
        const fg_result* stores
        const fg_result* sums
    ctypedef struct fg_group:
        pass
    ctypedef int (*fg_interrupt)(void* context) noexcept
    fg_group* fg_group_new(const fg_group_spec* spec)
    void fg_group_free(fg_group* group)
    size_t fg_group_scratch(const fg_group* group)
    void fg_group_facts(const fg_group* group, int* instructions, int* lanes, int* slots)
    int fg_group_run(const fg_group* group, char** bases, char* scratch, fg_interrupt interrupt, void* context)
    ctypedef struct fg_scalars_spec:
        int n_given, n_code
        const int64_t* cells
        const fg_instruction* code
        int64_t first_temporary
    ctypedef struct fg_scalars:
        pass
    fg_scalars* fg_scalars_new(const fg_scalars_spec* spec)
    void fg_scalars_free(fg_scalars* code)
    int64_t fg_scalars_temporaries(const fg_scalars* code)
    int fg_scalars_length(const fg_scalars* code)
    void fg_scalars_run(const fg_scalars* code, double* cells)

cdef extern from "scalar.h" nogil:
    double fg_scalar_value(int op, double x, double y, double z)
    void fg_scalar_pulls(int op, bint want_a, bint want_b, double g, double x, double y, double out, double* a, double* b)
