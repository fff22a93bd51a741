// The other threads of this process, stopped for a moment. Each is sent a signal, and waits in its handler for the end.
//
// A thread is stopped wherever it is, and may hold any lock: malloc's, the loader's, Python's GIL, a session's. So
// between the beginning and the end of a stop its caller takes no lock but those that nobody is stopped with (see
// quiet.h), and gives nothing up that others wait for. Nothing here waits for ever: what does not stop in time is let
// go, and whoever waits in the handler leaves it a second after that. Either is told.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "patience.h"
#include "quiet.h"

#pragma GCC visibility push(hidden)

// How somebody stops threads. All zero: not at all.
struct dt_stopping {
	int signal;        // that is sent; 0: no thread is stopped
	int tasks;         // a descriptor of /proc/self/task; owned
	uint64_t limit_ns; // how long a stop waits for threads
};

enum { DT_STOP_LIMIT_NS = 10000000 }; // for who does not choose

// Identifiers of threads (gettid(2)).
struct dt_threads {
	int32_t *ids; // count of them; owned
	size_t room;
	size_t count;
};

// A stop under way.
struct dt_stop {
	struct dt_quiet quiet;
	struct dt_patience *patience; // of the caller's call: whoever wants what it holds is stopped
};

// Prepares stopping by a signal, which gets a handler; it may be shared. tasks: a descriptor of /proc/self/task to
// copy; -1: it is opened. -EBUSY: it has somebody else's. -EINVAL: it can't be used: none can be handled, or it tells
// of a fault, or of children. -ENOMEM, or -errno of open(2).
int dt_stopping_open(struct dt_stopping *stopping, int signal, uint64_t limit_ns, int tasks);
// Ends that; the last one to use the signal gives it its old meaning back. All zero is ignored.
void dt_stopping_close(struct dt_stopping *stopping);
// The same in a forked child, which owns nothing but the descriptor.
void dt_stopping_forget(struct dt_stopping *stopping);

// Stops the other threads, but for the library's own; waits for another stop to end. Until its end no handler runs in
// this thread. 0; or -EBUSY: the signal has another handler now, and no thread was stopped.
int dt_stop_begin(const struct dt_stopping *stopping, struct dt_stop *stop);
// They go on. *unstopped: those that were not stopped all the time. 0 or -ENOMEM: then it is empty.
int dt_stop_end(struct dt_stop *stop, struct dt_threads *unstopped);

// The calling thread is about to wait for a lock. It stores nothing until it has it, and counts as stopped: it may be
// the stopper's, and its own signals are blocked.
struct dt_waiting {
	uint32_t *word; // NULL: nobody has ever stopped threads
	uint32_t before;
};
struct dt_waiting dt_begin_to_wait(void);
// It has the lock. If a stop is under way, whose stopper does not need it, it waits for the end of that.
void dt_have_waited(const struct dt_waiting *waiting);

void dt_free_threads(struct dt_threads *threads);

// The calling thread is the library's own from here on: it never writes to its user's memory, and is not stopped. It
// can't be said (-ENOMEM): then it is stopped like others, which does no harm.
int dt_own_thread(void);

#pragma GCC visibility pop
