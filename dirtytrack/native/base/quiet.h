// Calls that nobody may stop in the middle, since others would wait for what they hold.
#pragma once

#include <signal.h>
#include <stdbool.h>

#pragma GCC visibility push(hidden)

// What a thread is to be given back at the end.
struct dt_quiet {
	sigset_t signals;
	int cancel_state;
	bool is_nested; // nothing: it did not become quiet here
};

// From here on no handler runs in this thread, and nobody cancels it: a collector's signal to stop waits for the end.
// The signals of faults stay as they are: blocked, they would end the process whoever handles them. May be nested;
// costs two system calls with its end. May be called from a signal handler.
struct dt_quiet dt_quiet_begin(void);
void dt_quiet_end(const struct dt_quiet *quiet);

#pragma GCC visibility pop
