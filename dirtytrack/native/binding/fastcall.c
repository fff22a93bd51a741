// Functions of Python's own kind: one costs 10 ns, where cffi takes 20 for each argument and 180 for a buffer.
#include "fastcall.h"

#include <Python.h>

#include "../barrier/card_map.h"
#include "gil.h"

static PyObject *cards_look(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
	(void)self;
	if (n != 5) {
		PyErr_SetString(PyExc_TypeError, "cards_look(cards, verb, number, heard, out)");
		return NULL;
	}
	struct dt_cards *cards = PyLong_AsVoidPtr(args[0]);
	int verb = (int)PyLong_AsLong(args[1]);
	uint64_t number = PyLong_AsUnsignedLongLong(args[2]), heard = PyLong_AsUnsignedLongLong(args[3]);
	Py_buffer out;
	if (PyErr_Occurred() || PyObject_GetBuffer(args[4], &out, PyBUF_WRITABLE))
		return NULL;
	int64_t found;
	Py_BEGIN_ALLOW_THREADS found = dt_cards_look(cards, verb, number, heard, out.buf, (size_t)out.len);
	Py_END_ALLOW_THREADS PyBuffer_Release(&out);
	return PyLong_FromLongLong(found);
}

// Python has a single type for all its ways to be called.
static PyMethodDef calls[] = {
	{"cards_look", (PyCFunction)(void (*)(void))cards_look, METH_FASTCALL, NULL},
};

int dt_add_fastcalls(uintptr_t module_namespace)
{
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
		PyObject *call = PyCFunction_NewEx(&calls[i], NULL, NULL);
		int error = call ? PyDict_SetItemString((PyObject *)module_namespace, calls[i].ml_name, call) : -1;
		Py_XDECREF(call);
		if (error) {
			PyErr_Clear();
			return -1;
		}
	}
	return 0;
}
