// A thread that waits, and others that give it something to do: none is forgotten, and each errand is done once.
#define _GNU_SOURCE
#include "checkpoint/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "driver.h"

enum { ROUNDS = 3000, POSTERS = 2 };

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
	dt_mailbox_post(&mailbox, &errand);
	check(!dt_mailbox_is_waited_at(&mailbox));
	dt_mailbox_wait(&mailbox); // at once, since something was posted
	check(!errand.is_done);
	check(pthread_create(&waiter, NULL, wait_once, NULL) == 0);
	while (!dt_mailbox_is_waited_at(&mailbox))
		sched_yield();
	dt_mailbox_post(&mailbox, &errand);
	dt_mailbox_post(&mailbox, &second);
	pthread_join(waiter, NULL);
	check(errand.is_done && errand.error == 0 && !second.is_done);
	revoked = true;
	check(dt_errand_run(&errand) == 0); // it was done before
	check(dt_errand_run(&other) == -ECANCELED && other.is_done);
}

void try_mailbox(uint64_t *random)
{
	post_from_many(random);
	post_errands();
}
