// The lock of a session, or of a card table, and who may not take it: a forked child, whose copy a thread of the parent
// may have held at the instant of the fork, and anybody after closing.
//
// A native runtime stops its threads by a signal, or cancels them, and then calls us: so no signal stops the thread
// that holds a lock which such a runtime may want, and nobody cancels it. Whoever waits for it waits no longer than for
// one call; a signal handler may take it, too. Python's own calls are as safe without, and a call of 2 us would pay a
// fourth of its time for the two system calls: Python runs handlers between its bytecodes, where no native lock is
// held. So the lock of a session that Python opens becomes quiet when a native runtime is let in.
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "../base/patience.h"
#include "../base/quiet.h"

#pragma GCC visibility push(hidden)

struct dt_lock {
	pthread_mutex_t mutex;
	bool is_quiet;   // no signal stops the thread that holds it; stays so; atomic
	uint32_t loud;   // how many threads hold it, or want it, that a signal can stop; atomic
	bool is_native;  // it is taken by native runtimes alone. Set before anybody else can see the lock
	struct dt_held { // of the thread that holds it
		struct dt_quiet quiet;
		struct dt_patience *patience; // of a call that this one has interrupted: it is not told of this one
		bool is_loud;
	} held;
	uint64_t address_space; // of the process that made it, see dt_address_space; never changes
	bool closed; // stays so. Written with the mutex held, but for forked children; read atomically without it
};

// 0, or -ENOMEM if the kernel can't tell processes apart.
int dt_lock_init(struct dt_lock *lock);
// 0 if this process may take the lock, else -DT_EFORKED or -DT_ECLOSED. Takes nothing.
int dt_lock_usable(const struct dt_lock *lock);
bool dt_lock_is_quiet(const struct dt_lock *lock);
// Takes the lock: 0, else as above; then it is not held.
int dt_enter(struct dt_lock *lock);
// The same for who holds another such lock, which may be quiet already.
int dt_enter_within(struct dt_lock *lock, const struct dt_lock *outer);
// Gives it back, and returns the result.
int dt_leave(struct dt_lock *lock, int result);
// The lock is quiet from here on. Waits for who was about to take it, or has it, until nobody has it that is not.
void dt_lock_become_quiet(struct dt_lock *lock);
// Nobody enters any more. The caller holds the lock, or is a forked child.
void dt_lock_close(struct dt_lock *lock);

#pragma GCC visibility pop
