// The buffer protocol, asked again.
#include "exports.h"

#include <Python.h>

static int holds(const struct dt_export *export)
{
	Py_buffer buffer;
	if (PyObject_GetBuffer(export->owner, &buffer, PyBUF_SIMPLE)) {
		PyErr_Clear(); // it can't tell any more
		return 0;
	}
	int result = (uintptr_t)buffer.buf == export->address && (uint64_t)buffer.len == export->nbytes;
	PyBuffer_Release(&buffer);
	return result;
}

int dt_exports_hold(const struct dt_export *exports)
{
	int hold = 1;
	for (const struct dt_export *at = exports; hold && at->owner; at++)
		hold = holds(at);
	return hold;
}
