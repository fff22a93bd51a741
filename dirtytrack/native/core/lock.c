// Who may enter. The checks come first, without the mutex: a forked child must not touch it.
#include "lock.h"

#include <errno.h>

#include "../base/address_space.h"
#include "../base/patience.h"
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

static int enter(struct dt_lock *lock, bool begin_quiet)
{
	int error = dt_lock_usable(lock);
	if (error)
		return error;
	struct dt_quiet quiet = begin_quiet ? dt_quiet_begin() : (struct dt_quiet){.is_nested = true};
	if (pthread_mutex_trylock(&lock->mutex)) {
		dt_takes_long();
		pthread_mutex_lock(&lock->mutex);
	}
	lock->quiet = quiet;
	return lock->closed ? dt_leave(lock, -DT_ECLOSED) : 0;
}

int dt_enter(struct dt_lock *lock)
{
	return enter(lock, lock->is_quiet);
}

int dt_enter_within(struct dt_lock *lock)
{
	return enter(lock, false);
}

int dt_leave(struct dt_lock *lock, int result)
{
	struct dt_quiet quiet = lock->quiet;
	pthread_mutex_unlock(&lock->mutex);
	dt_quiet_end(&quiet);
	return result;
}

void dt_lock_close(struct dt_lock *lock)
{
	__atomic_store_n(&lock->closed, true, __ATOMIC_RELAXED);
}
