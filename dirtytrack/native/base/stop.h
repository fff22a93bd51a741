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
#include "stop_signal.h"

#pragma GCC visibility push(hidden)

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

// Stops the other threads, but for the library's own; waits for another stop to end. Until its end no handler runs in
// this thread. 0; or -EBUSY: the signal has another handler now, and no thread was stopped.
int dt_stop_begin(const struct dt_stopping *stopping, struct dt_stop *stop);
// They go on. *unstopped: those that were not stopped all the time. 0 or -ENOMEM: then it is empty.
int dt_stop_end(struct dt_stop *stop, struct dt_threads *unstopped);

void dt_free_threads(struct dt_threads *threads);

#pragma GCC visibility pop
