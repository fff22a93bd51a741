// The signals that threads are stopped by, and their handlers.
#pragma once

#include <stdint.h>

#pragma GCC visibility push(hidden)

struct dt_stop_process;

// How somebody stops threads. All zero: not at all.
struct dt_stopping {
	int signal;        // that is sent; 0: no thread is stopped
	int tasks;         // a descriptor of /proc/self/task; owned
	uint64_t limit_ns; // how long a stop waits for threads
};

enum { DT_STOP_LIMIT_NS = 10000000 }; // for who does not choose

// Prepares stopping by a signal, which gets a handler; it may be shared. tasks: a descriptor of /proc/self/task to
// copy; -1: it is opened. -EBUSY: it has somebody else's. -EINVAL: it can't be used: none can be handled, or it tells
// of a fault, or of children. -ENOMEM, or -errno of open(2).
int dt_stopping_open(struct dt_stopping *stopping, int signal, uint64_t limit_ns, int tasks);
// Ends that; the last one to use the signal gives it its old meaning back. All zero is ignored.
void dt_stopping_close(struct dt_stopping *stopping);
// The same in a forked child, which owns nothing but the descriptor.
void dt_stopping_forget(struct dt_stopping *stopping);

// Takes the lock of the process; whoever waits for it counts as stopped.
void dt_stop_take_lock(struct dt_stop_process *process);
// Sees to it that a signal has our handler: somebody may have changed that. The caller holds the lock. -EBUSY.
int dt_stop_take_signal(struct dt_stop_process *process, int signal);

#pragma GCC visibility pop
