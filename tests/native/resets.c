// Snapshots of the interface in C: every function at random, against copies of the bytes.
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "driver.h"

enum { MEMORIES = 3, STEPS = 600, MOST = 24 }; // pages of each

static struct dt_snapshot *snapshot;
static uint8_t *starts[MEMORIES], *before[MEMORIES];
static size_t lengths[MEMORIES];
static bool is_sparse;
static size_t unsure; // how many pages may count as stored to: those dropped that were zeros, and if sparse, read

static bool is_zeros(const uint8_t *page)
{
	return !page[0] && memcmp(page, page + 1, page_size - 1) == 0;
}

static size_t stored(bool *pages)
{
	size_t n = 0;
	for (int i = 0; i < PAGES; i++)
		n += pages[i];
	return n;
}

// Takes the contents of a page away, which is no store.
static void drop(uint64_t *random, bool *pages)
{
	uint8_t *page = starts[1] + draw(random, MOST) * page_size; // the memory that begins and ends on pages
	check(madvise(page, page_size, MADV_DONTNEED) == 0);
	bool differs = !is_zeros(before[1] + (page - starts[1]));
	pages[(size_t)(page - (uint8_t *)memory) / page_size] = differs;
	unsure += !differs;
}

static void forget(bool *pages)
{
	memset(pages, 0, PAGES);
	unsure = is_sparse ? PAGES : 0;
}

static void store(uint64_t *random, bool *pages)
{
	if (draw(random, 4) == 0)
		drop(random, pages);
	for (uint64_t n = draw(random, 6); n; n--) {
		int i = (int)draw(random, MEMORIES);
		size_t at = draw(random, lengths[i]), length = 1 + draw(random, 40);
		for (size_t j = at; j < at + length && j < lengths[i]; j++) {
			starts[i][j] = (uint8_t)draw(random, 4);
			pages[(size_t)(starts[i] + j - (uint8_t *)memory) / page_size] = true;
		}
	}
}

static bool is_as_before(void)
{
	bool same = true;
	for (int i = 0; i < MEMORIES; i++)
		same &= memcmp(starts[i], before[i], lengths[i]) == 0;
	return same;
}

static void keep(void)
{
	for (int i = 0; i < MEMORIES; i++)
		memcpy(before[i], starts[i], lengths[i]);
}

// A diff applied to the copies gives the memory, and names nothing that is the same.
struct diff {
	uint8_t *copies[MEMORIES];
	const uint8_t *last;
	long left; // differences until it is to end
};

static int apply(void *context, void *start, size_t bytes, const void *old, const void *new)
{
	struct diff *diff = context;
	uint8_t *at = start;
	int i = 0;
	if (diff->left-- == 0)
		return 7;
	while (i < MEMORIES && !(starts[i] <= at && at + bytes <= starts[i] + lengths[i]))
		i++;
	check(i < MEMORIES && bytes && memcmp(old, before[i] + (at - starts[i]), bytes) == 0);
	for (size_t j = 0; j < bytes; j++)
		check(((const uint8_t *)old)[j] != ((const uint8_t *)new)[j]);
	memcpy(diff->copies[i] + (at - starts[i]), new, bytes);
	return 0;
}

static void try_diff(uint64_t *random, bool *pages)
{
	struct diff diff = {.left = draw(random, 4) ? -1 : (long)draw(random, 3)};
	unsigned flags = draw(random, 2) ? DT_LIST_TAKE : 0;
	for (int i = 0; i < MEMORIES; i++) {
		diff.copies[i] = malloc(lengths[i]);
		check(diff.copies[i]);
		memcpy(diff.copies[i], before[i], lengths[i]);
	}
	int ended = dt_snapshot_diff(snapshot, flags, apply, &diff);
	check(ended == 0 || ended == 7);
	for (int i = 0; i < MEMORIES; i++) {
		check(ended || memcmp(diff.copies[i], starts[i], lengths[i]) == 0);
		free(diff.copies[i]);
	}
	if (!ended && flags) {
		keep();
		forget(pages);
	}
}

static void step(uint64_t *random, bool *pages)
{
	size_t n = 0;
	switch (draw(random, 6)) {
	case 0:
		check(dt_snapshot_rollback(snapshot, &n) == 0 && is_as_before());
		check(n >= stored(pages) && n <= stored(pages) + unsure + 1); // a shared one for both
		forget(pages);
		break;
	case 1:
		check(dt_snapshot_advance(snapshot, draw(random, 2) ? &n : NULL) == 0);
		keep();
		forget(pages);
		break;
	case 2:
		try_diff(random, pages);
		break;
	default:
		store(random, pages);
	}
}

// Two memories share a page, or none do.
static void add_memories(bool is_shared, unsigned flags)
{
	size_t at[MEMORIES] = {100, 30 * page_size, 60 * page_size + 7};
	lengths[0] = 9 * page_size + 1;
	lengths[1] = MOST * page_size;
	lengths[2] = 50;
	if (is_shared)
		at[2] = at[0] + lengths[0] + 3;
	check(dt_snapshot_open(&snapshot) == 0);
	for (int i = 0; i < MEMORIES; i++) {
		starts[i] = (uint8_t *)memory + at[i];
		before[i] = malloc(lengths[i]);
		check(before[i] && dt_snapshot_add(snapshot, starts[i], lengths[i], flags) == 0);
	}
	keep();
	check(dt_snapshot_add(snapshot, starts[1] + 5, 1, flags) == -DT_EOVERLAP);
}

static void refuse(void)
{
	check(dt_snapshot_open(NULL) == -EINVAL && dt_snapshot_add(NULL, memory, 1, 0) == -EINVAL);
	check(dt_snapshot_add(snapshot, NULL, 1, 0) == -EINVAL && dt_snapshot_add(snapshot, memory, 0, 0) == -EINVAL);
	check(dt_snapshot_add(snapshot, memory, SIZE_MAX, 0) == -EINVAL);
	check(dt_snapshot_add(snapshot, memory + 90 * page_size, 1, 8) == -EINVAL);
	check(dt_snapshot_add(snapshot, (void *)(16 * page_size), 1, 0) == -ENOMEM);
	check(dt_snapshot_rollback(NULL, NULL) == -EINVAL && dt_snapshot_advance(NULL, NULL) == -EINVAL);
	check(dt_snapshot_diff(snapshot, 0, NULL, NULL) == -EINVAL &&
	      dt_snapshot_diff(NULL, 0, apply, NULL) == -EINVAL);
	check(dt_snapshot_diff(snapshot, 2, apply, NULL) == -EINVAL);
	dt_snapshot_close(NULL);
}

// What can't be written is found before anything is, and nothing is forgotten.
static void try_protected(void)
{
	uint8_t *page = starts[1] + 3 * page_size;
	starts[0][0] ^= 1;
	*page ^= 1;
	check(mprotect(page, page_size, PROT_READ) == 0);
	check(dt_snapshot_rollback(snapshot, NULL) == -EACCES && !is_as_before());
	check(mprotect(page, page_size, PROT_READ | PROT_WRITE) == 0);
	check(dt_snapshot_rollback(snapshot, NULL) == 0 && is_as_before());
}

static void try_child(void)
{
	int status;
	pid_t child = fork();
	if (child == 0) {
		check(dt_snapshot_rollback(snapshot, NULL) == -DT_EFORKED);
		check(dt_snapshot_advance(snapshot, NULL) == -DT_EFORKED);
		check(dt_snapshot_add(snapshot, memory, 1, 0) == -DT_EFORKED);
		check(dt_snapshot_diff(snapshot, 0, apply, NULL) == -DT_EFORKED);
		dt_snapshot_close(snapshot);
		_exit(0);
	}
	check(waitpid(child, &status, 0) == child && status == 0);
	starts[2][0] ^= 1;
	check(dt_snapshot_rollback(snapshot, NULL) == 0 && is_as_before());
}

static void lose(void)
{
	char *page = (char *)starts[1] + page_size;
	check(mmap(page, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page);
	check(dt_snapshot_rollback(snapshot, NULL) == -DT_ELOST);
	check(dt_snapshot_advance(snapshot, NULL) == -DT_ELOST);
}

// Memory that a tracker had, and that was mapped anew, is the snapshot's: the tracker takes none of its stores.
static void try_rival(void)
{
	struct dt_tracker *old;
	uint8_t map;
	check(dt_tracker_open(page_size, DT_BITS, &old) == 0);
	check(dt_tracker_add(old, arena, 4 * page_size, DT_DENSE, NULL) == 0);
	check(mmap(arena, 4 * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
	      arena);
	check(dt_snapshot_open(&snapshot) == 0 && dt_snapshot_add(snapshot, arena, 4 * page_size, DT_DENSE) == 0);
	arena[page_size] = 1;
	check(dt_tracker_take(old, &map, 1, NULL) == 0);
	check(dt_snapshot_rollback(snapshot, NULL) == 0 && arena[page_size] == 0);
	dt_snapshot_close(snapshot);
	dt_tracker_close(old);
}

void try_resets(uint64_t *random)
{
	try_rival();
	bool pages[PAGES];
	for (int kind = 0; kind < 4; kind++) {
		is_sparse = kind & 2;
		forget(pages);
		add_memories(kind & 1, is_sparse ? DT_SPARSE : DT_DENSE);
		for (int i = 0; i < STEPS; i++)
			step(random, pages);
		check(dt_snapshot_rollback(snapshot, NULL) == 0 && is_as_before());
		refuse();
		try_protected();
		try_child();
		lose();
		dt_snapshot_close(snapshot);
		for (int i = 0; i < MEMORIES; i++)
			free(before[i]);
	}
}
