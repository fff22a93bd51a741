// What the threads do that are to be stopped, each for itself.
#pragma once

#include <stdint.h>

#pragma GCC visibility push(hidden)

struct dt_stop_process;

// The calling thread is the library's own from here on: it never writes to its user's memory, and is not stopped. It
// can't be said (-ENOMEM): then it is stopped like others, which does no harm.
int dt_own_thread(void);

// The calling thread is about to wait for a lock. It stores nothing until it has it, and counts as stopped: it may be
// the stopper's, and its own signals are blocked.
struct dt_waiting {
	uint32_t *word; // NULL: nobody has ever stopped threads
	uint32_t before;
};
struct dt_waiting dt_begin_to_wait(void);
// It has the lock. If a stop is under way, whose stopper does not need it, it waits for the end of that.
void dt_have_waited(const struct dt_waiting *waiting);

// The handler of the signal: answers what the thread was asked, and waits for the end of the stop.
void dt_stop_handle(int signal);

// The calling thread's identifier, and its word.
int32_t dt_this_thread(void);
uint32_t *dt_word_of_this_thread(struct dt_stop_process *process);

#pragma GCC visibility pop
