// The lock of a session, or of a card table, and who may not take it: a forked child, whose copy a thread of the parent
// may have held at the instant of the fork, and anybody after closing.
//
// A native runtime stops its threads by a signal, or cancels them, and then calls us: so no signal stops the thread
// that holds a lock which such a runtime may want, and nobody cancels it. Whoever waits for it waits no longer than for
// one call; a signal handler may take it, too. Python's own calls are as safe without, and a call of 2 us would pay a
// fourth of its time for the two system calls: Python runs handlers between its bytecodes, where no native lock is
// held.
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "../base/quiet.h"

struct dt_lock {
	pthread_mutex_t mutex;
	bool is_quiet;          // no signal stops the thread that holds it. Set before anybody else can see the lock
	struct dt_quiet quiet;  // of that thread, if it is
	uint64_t address_space; // of the process that made it, see dt_address_space; never changes
	bool closed; // stays so. Written with the mutex held, but for forked children; read atomically without it
};

// 0, or -ENOMEM if the kernel can't tell processes apart.
int dt_lock_init(struct dt_lock *lock);
// 0 if this process may take the lock, else -DT_EFORKED or -DT_ECLOSED. Takes nothing.
int dt_lock_usable(const struct dt_lock *lock);
// Takes the lock: 0, else as above; then it is not held.
int dt_enter(struct dt_lock *lock);
// The same for who holds another such lock, of the same quiet.
int dt_enter_within(struct dt_lock *lock);
// Gives it back, and returns the result.
int dt_leave(struct dt_lock *lock, int result);
// Nobody enters any more. The caller holds the lock, or is a forked child.
void dt_lock_close(struct dt_lock *lock);
