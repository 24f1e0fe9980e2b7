# fastgrad's compiled engine, in the order in which its parts build on each other.
#
# memory -> tape -> Tensor and elementwise operations -> structured operations -> sweeps -> transforms.
# One translation unit, so that recording a number inlines into the operator that records it.

cimport cython
cimport numpy as cnp
from cpython.object cimport PyObject, PyTypeObject, Py_EQ, Py_GT, Py_LE, Py_LT, Py_NE
from cpython.exc cimport PyErr_Occurred
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.math cimport NAN
from libc.stdint cimport int64_t
from libc.string cimport memcmp, memcpy, memset

import functools
import gc
import os
import re

import numpy as np

cdef extern from "Python.h":
    void* PyMem_RawMalloc(size_t n) nogil
    void* PyMem_RawRealloc(void* p, size_t n) nogil
    void* PyMem_RawCalloc(size_t n, size_t size) nogil
    void PyMem_RawFree(void* p) nogil
    int PyErr_CheckSignals() except -1
    PyObject* PyThreadState_GetDict()
    PyObject* PyCell_Get(PyObject* cell)
    PyObject* PyDict_GetItemWithError(object container, object key) except? NULL
    void PyErr_Restore(PyObject* type, PyObject* value, PyObject* traceback)
    bint PyFloat_CheckExact(object o)
    bint PyLong_CheckExact(object o)
    bint PyBool_Check(object o)
    double PyFloat_AS_DOUBLE(object o)
    double PyLong_AsDouble(object o) except? -1.0

cdef extern from *:
    """
    static inline int fg_add_attribute(PyTypeObject *type, PyObject *name, PyObject *value) {
        if (PyDict_SetDefault(type->tp_dict, name, value) == NULL) return -1;
        PyType_Modified(type);
        return 0;
    }
    static inline void fg_set_dealloc(PyTypeObject *type, void (*dealloc)(PyObject *)) { type->tp_dealloc = dealloc; }
    /* Cython has no vectorcall for its classes. */
    static inline void fg_set_vectorcall(PyTypeObject *type, Py_ssize_t offset) {
        type->tp_vectorcall_offset = offset;
        type->tp_call = PyVectorcall_Call;
        type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
        PyType_Modified(type);
    }
    /* A new reference to a freed object whose memory was kept. */
    #ifdef Py_TRACE_REFS
    static inline PyObject *fg_revive(PyObject *o) { return PyObject_Init(o, Py_TYPE(o)); }
    #else
    static inline PyObject *fg_revive(PyObject *o) { Py_SET_REFCNT(o, 1); return o; }
    #endif
    """
    PyTypeObject* Py_TYPE(PyObject* o)
    PyObject** PySequence_Fast_ITEMS(object o)
    Py_ssize_t PyVectorcall_NARGS(size_t flags)
    int fg_add_attribute(PyTypeObject* type, object name, object value) except -1
    void fg_set_vectorcall(PyTypeObject* type, Py_ssize_t offset)
    void fg_set_dealloc(PyTypeObject* type, void (*dealloc)(PyObject*) noexcept)
    object fg_revive(PyObject* o)
    int __builtin_clzll(unsigned long long x) nogil

cdef extern from "numpy/arrayobject.h":
    bint PyArray_ISNOTSWAPPED(cnp.ndarray a)
    bint PyArray_ISWRITEABLE(cnp.ndarray a)
    cnp.ndarray PyArray_New(PyTypeObject* subtype, int nd, const cnp.npy_intp* dims, int type_num, const cnp.npy_intp* strides,
                            void* data, int itemsize, int flags, PyObject* obj)
    int PyArray_SetBaseObject(cnp.ndarray a, object base) except -1

cdef extern from *:
    """
    #include <numpy/arrayscalars.h>
    /* np.float64(x), without a look at what x is. */
    static inline PyObject *fg_float64(double x) {
        PyObject *number = PyDoubleArrType_Type.tp_alloc(&PyDoubleArrType_Type, 0);
        if (number) PyArrayScalar_ASSIGN(number, Double, x);
        return number;
    }
    """
    object fg_float64(double x)

cdef extern from "numpy/ufuncobject.h":
    ctypedef struct ufunc_fields "PyUFuncObject":
        int nargs
        int ntypes
        void** functions
        void** data
        const char* types

cdef enum:
    NPY_BOOL = cnp.NPY_BOOL
    NPY_FLOAT = cnp.NPY_FLOAT
    NPY_DOUBLE = cnp.NPY_DOUBLE
    NPY_INT64 = cnp.NPY_INT64

include "names.pxi"
include "kernels.pxi"
include "memory.pxi"
include "tape.pxi"
include "tensor.pxi"
include "notes.pxi"
include "elementwise.pxi"
include "borrowed.pxi"
include "structured.pxi"
include "rules.pxi"
include "sweep.pxi"
include "transforms.pxi"
include "graph.pxi"
include "trace.pxi"
include "plan.pxi"
include "program.pxi"
include "compile.pxi"
include "store.pxi"
include "cfunction.pxi"
include "custom.pxi"
include "functions.pxi"

borrow_matmul()
use_level(NULL)
LOOP_TYPES = (FG_F64, FG_F32)
FILE_OPERATIONS = file_operations()
