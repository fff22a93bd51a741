// Who may enter. The checks come first, without the mutex: a forked child must not touch it.
#include "lock.h"

#include <errno.h>
#include <time.h>

#include "../base/address_space.h"
#include "../base/patience.h"
#include "../base/stopped.h"
#include "../include/dirtytrack.h"

int dt_lock_init(struct dt_lock *lock)
{
	*lock = (struct dt_lock){.mutex = PTHREAD_MUTEX_INITIALIZER, .address_space = dt_address_space()};
	return lock->address_space ? 0 : -ENOMEM;
}

int dt_lock_usable(const struct dt_lock *lock)
{
	if (!dt_is_address_space(lock->address_space))
		return -DT_EFORKED;
	return __atomic_load_n(&lock->closed, __ATOMIC_RELAXED) ? -DT_ECLOSED : 0;
}

bool dt_lock_is_quiet(const struct dt_lock *lock)
{
	return __atomic_load_n(&lock->is_quiet, __ATOMIC_SEQ_CST);
}

// Counts this thread, if the lock is not quiet: and then asks again, so that who makes it quiet sees it, or it that.
static bool is_loud(struct dt_lock *lock)
{
	if (dt_lock_is_quiet(lock))
		return false;
	__atomic_add_fetch(&lock->loud, 1, __ATOMIC_SEQ_CST);
	if (!dt_lock_is_quiet(lock))
		return true;
	__atomic_sub_fetch(&lock->loud, 1, __ATOMIC_SEQ_CST);
	return false;
}

static int enter(struct dt_lock *lock, bool is_within_quiet)
{
	struct dt_held held = {.quiet.is_nested = true};
	int error = dt_lock_usable(lock);
	if (error)
		return error;
	if (lock->is_native)
		held.patience = dt_patience_suspend();
	if (!is_within_quiet) {
		held.is_loud = is_loud(lock);
		if (!held.is_loud)
			held.quiet = dt_quiet_begin();
	}
	if (pthread_mutex_trylock(&lock->mutex)) {
		struct dt_waiting waiting = dt_begin_to_wait();
		dt_takes_long(); // not before: what is given up may take a lock that a stopped thread holds
		pthread_mutex_lock(&lock->mutex);
		dt_have_waited(&waiting);
	}
	lock->held = held;
	return lock->closed ? dt_leave(lock, -DT_ECLOSED) : 0;
}

int dt_enter(struct dt_lock *lock)
{
	return enter(lock, false);
}

int dt_enter_within(struct dt_lock *lock, const struct dt_lock *outer)
{
	return enter(lock, !outer->held.is_loud);
}

int dt_leave(struct dt_lock *lock, int result)
{
	struct dt_held held = lock->held;
	pthread_mutex_unlock(&lock->mutex);
	if (held.is_loud)
		__atomic_sub_fetch(&lock->loud, 1, __ATOMIC_SEQ_CST);
	dt_quiet_end(&held.quiet);
	dt_patience_resume(held.patience);
	return result;
}

void dt_lock_become_quiet(struct dt_lock *lock)
{
	const struct timespec a_while = {.tv_nsec = 100000};
	__atomic_store_n(&lock->is_quiet, true, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&lock->loud, __ATOMIC_SEQ_CST)) {
		dt_takes_long();
		nanosleep(&a_while, NULL);
	}
}

void dt_lock_close(struct dt_lock *lock)
{
	__atomic_store_n(&lock->closed, true, __ATOMIC_RELAXED);
}
