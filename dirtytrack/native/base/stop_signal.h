// The signals that threads are stopped by, and their handlers.
#pragma once

#include "stop_words.h"

#pragma GCC visibility push(hidden)

// Takes the lock of the process; whoever waits for it counts as stopped.
void dt_stop_take_lock(struct dt_stop_process *process);
// Sees to it that a signal has our handler: somebody may have changed that. The caller holds the lock. -EBUSY.
int dt_stop_take_signal(struct dt_stop_process *process, int signal);

#pragma GCC visibility pop
