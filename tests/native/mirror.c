// Mirrors, of two regions that share a page.
#include "snapshot/mirror.h"

#include <errno.h>
#include <sys/mman.h>

#include "driver.h"

enum { ROUNDS = 100 };

static struct dt_extent extents[REGIONS];
static struct dt_slice slices[REGIONS];
static uint64_t cursors[REGIONS];
static uint8_t *copies[REGIONS];

static const void *memory_of(int i)
{
	return (const void *)(uintptr_t)extents[i].address;
}

static int update(int i, struct dt_failure *failure)
{
	uint64_t copied;
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	check(epoch);
	int error = dt_mirror_update(session, cursors[i], &slices[i], &extents[i], copies[i], epoch, &copied);
	check(epoch->settled == !error);
	check(error || copied <= extents[i].nbytes);
	if (failure)
		*failure = epoch->failure;
	dt_epoch_release(epoch);
	return error;
}

// The range is named, and what was written is found by the next call.
static void try_unreadable(void)
{
	struct dt_failure failure;
	char *page = memory + (extents[0].address - (uintptr_t)memory) / page_size * page_size + 2 * page_size;
	uint64_t start = (uintptr_t)page;
	page[0]++;
	check(mprotect(page, page_size, PROT_NONE) == 0);
	check(update(0, &failure) == -EFAULT);
	check(failure.start == start && failure.stop == start + page_size);
	check(dt_mirror_fill(session, &extents[0], 0, extents[0].nbytes, copies[0], &failure) == -EFAULT);
	check(failure.start == start);
	check(mprotect(page, page_size, PROT_READ | PROT_WRITE) == 0);
	check(update(0, NULL) == 0);
	check(memcmp(copies[0], memory_of(0), extents[0].nbytes) == 0);
}

static void try_session(struct dt_session *opened, bool compares, uint64_t *random)
{
	struct dt_failure failure;
	session = opened;
	make_extents(extents, slices);
	for (int i = 0; i < REGIONS; i++) {
		copies[i] = calloc(1, extents[i].nbytes);
		check(copies[i]);
		check(dt_cursor_open(session, &cursors[i]) == 0);
		check(dt_mirror_fill(session, &extents[i], 0, extents[i].nbytes, copies[i], &failure) == 0);
		check(memcmp(copies[i], memory_of(i), extents[i].nbytes) == 0);
	}
	for (int round = 0; round < ROUNDS; round++) {
		for (uint64_t n = draw(random, 200); n; n--)
			memory[draw(random, PAGES * page_size)] = (char)draw(random, 256);
		for (int i = 0; i < REGIONS; i++) {
			check(update(i, NULL) == 0);
			check(memcmp(copies[i], memory_of(i), extents[i].nbytes) == 0);
		}
	}
	if (!compares) // which waits until it can be read
		try_unreadable();
	dt_session_release(session);
	for (int i = 0; i < REGIONS; i++)
		free(copies[i]);
}

void try_mirror(uint64_t *random)
{
	try_session(open_tracker(DT_HOLES_REPORTED), false, random);
	try_session(open_compare(), true, random);
}
