// The name of this address space, in a page that the kernel zeroes in every child that gets a copy of it
// (madvise(2), Linux 4.14). No lock: a thread of the parent might hold it at the instant of a fork.
#define _GNU_SOURCE
#include "address_space.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

static uint64_t *wiped_on_fork; // made once, then never changed
static uint64_t last_name;

static uint64_t *make_page(void)
{
	void *page = mmap(NULL, sizeof *wiped_on_fork, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return NULL;
	uint64_t *none = NULL;
	if (madvise(page, sizeof *wiped_on_fork, MADV_WIPEONFORK) == 0 &&
	    __atomic_compare_exchange_n(&wiped_on_fork, &none, page, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return page;
	munmap(page, sizeof *wiped_on_fork);
	return none; // another thread was first, or NULL
}

uint64_t dt_address_space(void)
{
	uint64_t *page = __atomic_load_n(&wiped_on_fork, __ATOMIC_ACQUIRE);
	if (!page && !(page = make_page()))
		return 0;
	uint64_t name = __atomic_load_n(page, __ATOMIC_RELAXED);
	if (name)
		return name;
	uint64_t fresh = __atomic_add_fetch(&last_name, 1, __ATOMIC_RELAXED);
	if (__atomic_compare_exchange_n(page, &name, fresh, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		return fresh;
	return name; // that of another thread, which was first
}

int dt_is_address_space(uint64_t name)
{
	const uint64_t *page = __atomic_load_n(&wiped_on_fork, __ATOMIC_ACQUIRE);
	return page && __atomic_load_n(page, __ATOMIC_RELAXED) == name;
}
