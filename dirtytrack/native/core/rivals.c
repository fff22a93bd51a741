// One list for the process.
#include "rivals.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "../base/quiet.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // of all below
static struct dt_quiet quiet_holder;                     // of the thread that holds it
static struct dt_rival *newest;
static uint64_t last_number;

static void take_lock(void)
{
	struct dt_quiet quiet = dt_quiet_begin();
	pthread_mutex_lock(&lock);
	quiet_holder = quiet;
}

static void give_lock_back(void)
{
	struct dt_quiet quiet = quiet_holder;
	pthread_mutex_unlock(&lock);
	dt_quiet_end(&quiet);
}

__attribute__((constructor)) static void keep_consistent_over_fork(void)
{
	pthread_atfork(take_lock, give_lock_back, give_lock_back);
}

void dt_enter_rivals(struct dt_rival *rival)
{
	take_lock();
	rival->number = ++last_number;
	rival->next = newest;
	if (newest)
		newest->previous = rival;
	newest = rival;
	give_lock_back();
}

void dt_leave_rivals(struct dt_rival *rival)
{
	take_lock();
	if (rival->number) {
		if (rival->next)
			rival->next->previous = rival->previous;
		*(rival->previous ? &rival->previous->next : &newest) = rival->next;
		rival->number = 0;
	}
	give_lock_back();
}

void dt_claim(struct dt_rival *rival, uint64_t start, uint64_t stop)
{
	if (!rival->stop || start < rival->start)
		__atomic_store_n(&rival->start, start, __ATOMIC_SEQ_CST);
	if (stop > rival->stop)
		__atomic_store_n(&rival->stop, stop, __ATOMIC_SEQ_CST);
}

static bool may_hold(const struct dt_rival *rival, uint64_t start, uint64_t stop)
{
	return start < __atomic_load_n(&rival->stop, __ATOMIC_SEQ_CST) &&
	       __atomic_load_n(&rival->start, __ATOMIC_SEQ_CST) < stop;
}

struct dt_rival *dt_next_rival(uint64_t start, uint64_t stop, uint64_t *number, void (*hold)(struct dt_rival *rival))
{
	take_lock();
	struct dt_rival *rival = newest;
	while (rival && (rival->number >= *number || !may_hold(rival, start, stop)))
		rival = rival->next;
	if (rival) {
		hold(rival);
		*number = rival->number;
	}
	give_lock_back();
	return rival;
}
