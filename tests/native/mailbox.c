// A thread that waits, and others that give it something to do: none is forgotten, and each errand is done once.
#define _GNU_SOURCE
#include "checkpoint/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "base/clock.h"
#include "driver.h"

enum { ROUNDS = 3000, POSTERS = 2, IDLING = 100 };

static const uint64_t alone_ns = 1000000000, lost_ns = 30000000000; // how long that is tried; no post takes so long

static struct dt_mailbox mailbox;
static uint32_t posted, seen; // what was put in a queue before it was posted, and what was found there

// As a thread of Python's does: after each wait it looks for all that was put.
static void *wait_for_all(void *argument)
{
	(void)argument;
	while (__atomic_load_n(&seen, __ATOMIC_ACQUIRE) < POSTERS * ROUNDS) {
		dt_mailbox_wait(&mailbox);
		__atomic_store_n(&seen, __atomic_load_n(&posted, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
	}
	return NULL;
}

static void *post_all(void *argument)
{
	uint64_t *random = argument;
	for (int i = 0; i < ROUNDS; i++) {
		__atomic_add_fetch(&posted, 1, __ATOMIC_ACQ_REL);
		dt_mailbox_post(&mailbox, NULL);
		if (draw(random, 8) == 0)
			sched_yield();
	}
	return NULL;
}

static void post_from_many(uint64_t *random)
{
	pthread_t waiter, posters[POSTERS];
	uint64_t seeds[POSTERS];
	check(pthread_create(&waiter, NULL, wait_for_all, NULL) == 0);
	for (int i = 0; i < POSTERS; i++) {
		seeds[i] = draw(random, UINT32_MAX);
		check(pthread_create(&posters[i], NULL, post_all, &seeds[i]) == 0);
	}
	for (int i = 0; i < POSTERS; i++)
		pthread_join(posters[i], NULL);
	pthread_join(waiter, NULL);
	check(seen == POSTERS * ROUNDS);
}

static void idle(uint64_t *random)
{
	for (volatile uint64_t left = draw(random, IDLING); left; left--)
		;
}

static void *wait_for_each(void *argument)
{
	uint64_t *random = argument;
	for (uint32_t found = 0; found != UINT32_MAX; idle(random)) {
		dt_mailbox_wait(&mailbox);
		found = __atomic_load_n(&posted, __ATOMIC_ACQUIRE);
		__atomic_store_n(&seen, found, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void post_alone(uint32_t number)
{
	__atomic_store_n(&posted, number, __ATOMIC_RELEASE);
	dt_mailbox_post(&mailbox, NULL);
	for (uint64_t begun = dt_now(); __atomic_load_n(&seen, __ATOMIC_ACQUIRE) != number;)
		check(dt_now() - begun < lost_ns);
}

// Nobody posts later, who would wake one that was about to wait just then, and was not woken.
static void post_one_by_one(uint64_t *random)
{
	pthread_t waiter;
	uint64_t seed = draw(random, UINT32_MAX), begun = dt_now();
	mailbox = (struct dt_mailbox){0};
	posted = seen = 0;
	check(pthread_create(&waiter, NULL, wait_for_each, &seed) == 0);
	for (uint32_t number = 1; dt_now() - begun < alone_ns; number++) {
		post_alone(number);
		idle(random);
	}
	post_alone(UINT32_MAX);
	pthread_join(waiter, NULL);
}

static void *wait_once(void *argument)
{
	(void)argument;
	dt_mailbox_wait(&mailbox);
	return NULL;
}

// By a thread that waits it is done; without one it is left alone.
static void post_errands(void)
{
	bool revoked = false;
	struct dt_errand errand = {.revoked = &revoked}, second = {0}, other = {.revoked = &revoked};
	pthread_t waiter;
	mailbox = (struct dt_mailbox){0};
	check(!dt_mailbox_is_waited_at(&mailbox));
	check(!dt_mailbox_post(&mailbox, &errand));
	check(!dt_mailbox_is_waited_at(&mailbox));
	dt_mailbox_wait(&mailbox); // at once, since something was posted
	check(!errand.is_done);
	check(pthread_create(&waiter, NULL, wait_once, NULL) == 0);
	while (!dt_mailbox_is_waited_at(&mailbox))
		sched_yield();
	check(dt_mailbox_post(&mailbox, &errand));
	check(!dt_mailbox_post(&mailbox, &second));
	pthread_join(waiter, NULL);
	check(errand.is_done && errand.error == 0 && !second.is_done);
	revoked = true;
	check(dt_errand_run(&errand) == 0); // it was done before
	check(dt_errand_run(&other) == -ECANCELED && other.is_done);
}

void try_mailbox(uint64_t *random)
{
	post_from_many(random);
	post_one_by_one(random);
	post_errands();
}
