// Python's GIL in a call: kept while it is short, given up once when it is long. cffi, which would give it up in every
// call, writes these two macros around each, and has no other way to be told.
#pragma once

#include <Python.h>

#include "../base/patience.h"

struct dt_gil {
	struct dt_patience patience; // first, so that it can be found from it
	PyThreadState *thread;       // NULL: the GIL is held
};

static inline void dt_gil_give_up(struct dt_patience *patience)
{
	((struct dt_gil *)patience)->thread = PyEval_SaveThread();
}

static inline struct dt_gil dt_gil_held(void)
{
	return (struct dt_gil){{DT_SHORT_NS, dt_gil_give_up}, NULL};
}

static inline void dt_gil_take_back(const struct dt_gil *gil)
{
	if (gil->thread)
		PyEval_RestoreThread(gil->thread);
}

#undef Py_BEGIN_ALLOW_THREADS
#undef Py_END_ALLOW_THREADS
#define Py_BEGIN_ALLOW_THREADS                     \
	{                                          \
		struct dt_gil gil = dt_gil_held(); \
		dt_patience_begin(&gil.patience);
#define Py_END_ALLOW_THREADS    \
	dt_patience_end();      \
	dt_gil_take_back(&gil); \
	}
