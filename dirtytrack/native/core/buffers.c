// Buffers, and the spare ones.
#define _GNU_SOURCE
#include "buffers.h"

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

void dt_take_buffers(struct dt_spare_buffers *spare, struct dt_epoch_buffers *buffers)
{
	for (int i = 0; i < DT_SPARE_BUFFERS && !buffers->run_room; i++) {
		*buffers = spare->items[i];
		spare->items[i] = (struct dt_epoch_buffers){0};
	}
}

void dt_leave_buffers(struct dt_spare_buffers *spare, struct dt_epoch_buffers *buffers, uint64_t used_runs)
{
	size_t used = used_runs * sizeof *buffers->runs, bytes = buffers->run_room * sizeof *buffers->runs;
	for (int i = 0; i < DT_SPARE_BUFFERS && buffers->run_room; i++) {
		if (spare->items[i].run_room)
			continue;
		if (used > KEPT_BYTES)
			madvise((char *)buffers->runs + KEPT_BYTES, bytes - KEPT_BYTES, MADV_DONTNEED);
		spare->items[i] = *buffers;
		*buffers = (struct dt_epoch_buffers){0};
	}
}

void dt_free_spare_buffers(struct dt_spare_buffers *spare)
{
	for (int i = 0; i < DT_SPARE_BUFFERS; i++)
		dt_free_buffers(&spare->items[i]);
}
