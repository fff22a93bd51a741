// Each thread's patience. Not in thread-local storage: its first use may allocate, and a thread that stopped all others
// (a collector) must never do that.
#include "patience.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

static pthread_key_t key;
static bool has_key;

__attribute__((constructor)) static void make_key(void)
{
	has_key = pthread_key_create(&key, NULL) == 0; // without one, nothing is held during any call
}

void dt_patience_begin(struct dt_patience *patience)
{
	if (!has_key || pthread_setspecific(key, patience))
		patience->give_up(patience);
}

void dt_patience_end(void)
{
	if (has_key)
		pthread_setspecific(key, NULL);
}

static struct dt_patience *of_this_call(void)
{
	return has_key ? pthread_getspecific(key) : NULL;
}

struct dt_patience *dt_patience_suspend(void)
{
	struct dt_patience *patience = of_this_call();
	dt_patience_end();
	return patience;
}

void dt_patience_resume(struct dt_patience *patience)
{
	if (patience)
		pthread_setspecific(key, patience); // which it was: that can't fail
}

void dt_be_patient(int64_t ns)
{
	struct dt_patience *patience = of_this_call();
	if (patience && patience->left < ns)
		patience->left = ns;
}

void dt_takes(uint64_t ns)
{
	struct dt_patience *patience = of_this_call();
	if (!patience)
		return;
	if (ns <= (uint64_t)patience->left) {
		patience->left -= (int64_t)ns;
		return;
	}
	dt_patience_end();
	patience->give_up(patience);
}

void dt_takes_long(void)
{
	dt_takes(UINT64_MAX);
}
