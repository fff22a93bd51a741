// Buffers, and the spare ones.
#define _GNU_SOURCE
#include "buffers.h"

#include <stdbool.h>
#include <sys/mman.h>

#include "../base/memory.h"

enum { KEPT_BYTES = 1 << 19 }; // of the run memory of spare buffers stay populated, each

void dt_free_buffers(struct dt_epoch_buffers *buffers)
{
	dt_free(buffers->entries, buffers->entry_room * sizeof *buffers->entries);
	dt_free(buffers->runs, buffers->run_room * sizeof *buffers->runs);
	dt_free(buffers->assumed, buffers->assumed_room * sizeof *buffers->assumed);
	*buffers = (struct dt_epoch_buffers){0};
}

enum { FREE, FULL, IN_HANDS };

// Takes a place into the caller's hands if it is as expected.
static bool take_place(struct dt_spare_buffers *spare, int place, uint8_t expected)
{
	return __atomic_compare_exchange_n(&spare->places[place], &expected, IN_HANDS, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

static void leave_place(struct dt_spare_buffers *spare, int place, uint8_t state)
{
	__atomic_store_n(&spare->places[place], state, __ATOMIC_RELEASE);
}

void dt_take_buffers(struct dt_spare_buffers *spare, struct dt_epoch_buffers *buffers)
{
	for (int i = 0; i < DT_SPARE_BUFFERS && !buffers->run_room; i++) {
		if (!take_place(spare, i, FULL))
			continue;
		*buffers = spare->items[i];
		leave_place(spare, i, FREE);
	}
}

void dt_leave_buffers(struct dt_spare_buffers *spare, struct dt_epoch_buffers *buffers, uint64_t used_runs)
{
	size_t used = used_runs * sizeof *buffers->runs, bytes = buffers->run_room * sizeof *buffers->runs;
	for (int i = 0; i < DT_SPARE_BUFFERS && buffers->run_room; i++) {
		if (!take_place(spare, i, FREE))
			continue;
		if (used > KEPT_BYTES)
			madvise((char *)buffers->runs + KEPT_BYTES, bytes - KEPT_BYTES, MADV_DONTNEED);
		spare->items[i] = *buffers;
		*buffers = (struct dt_epoch_buffers){0};
		leave_place(spare, i, FULL);
	}
}

void dt_free_spare_buffers(struct dt_spare_buffers *spare)
{
	struct dt_epoch_buffers buffers = {0};
	for (int i = 0; i < DT_SPARE_BUFFERS; i++) {
		dt_take_buffers(spare, &buffers);
		dt_free_buffers(&buffers);
	}
}
