// Loops over the pages of an epoch, in memory and in the copies.
#include "snapshot.h"

#include <errno.h>
#include <string.h>

#include "../base/bytes.h"
#include "../kernel/pagemap.h"

// The bytes of one run of pages.
struct stretch {
	size_t region;  // its place
	uint64_t start; // in the region, of its first byte
	uint64_t nbytes;
	uint8_t *memory;
	uint8_t *copy;
};

static struct stretch stretch_of(const struct dt_extent *extent, uint8_t *copy, size_t region, struct dt_run pages)
{
	struct dt_run bytes = dt_extent_bytes(extent, pages);
	uint8_t *memory = (uint8_t *)(uintptr_t)extent->address;
	return (struct stretch){region, bytes.start, bytes.stop - bytes.start, memory + bytes.start,
				copy + bytes.start};
}

// Calls act for each run of pages that the epoch has, until it fails.
static int for_each_run(const struct dt_extent *extents, uint8_t *const *copies, size_t n, const struct dt_epoch *epoch,
			int (*act)(const struct stretch *stretch, void *context), void *context)
{
	for (size_t i = 0; i < n; i++) {
		const struct dt_entry *entry = &epoch->buffers.entries[i];
		const struct dt_run *run = epoch->buffers.runs + entry->first_run, *end = run + entry->run_count;
		for (; run < end; run++) {
			struct stretch stretch = stretch_of(&extents[i], copies[i], i, *run);
			if (run + 1 < end) {
				struct stretch next = stretch_of(&extents[i], copies[i], i, run[1]);
				dt_look_ahead(next.memory);
				dt_look_ahead(next.copy);
			}
			int error = act(&stretch, context);
			if (error)
				return error;
		}
	}
	return 0;
}

struct comparison {
	struct dt_changes *changes;
	uint64_t gap;
	uint64_t limit;
};

static int compare_run(const struct stretch *stretch, void *context)
{
	const struct comparison *comparison = context;
	return dt_compare(comparison->changes, stretch->region, stretch->start, stretch->copy, stretch->memory,
			  stretch->nbytes, comparison->gap, comparison->limit);
}

int dt_compare_pages(struct dt_changes *changes, const struct dt_extent *extents, uint8_t *const *copies, size_t n,
		     const struct dt_epoch *epoch, uint64_t gap, uint64_t limit)
{
	return for_each_run(extents, copies, n, epoch, compare_run, &(struct comparison){changes, gap, limit});
}

static int update_run(const struct stretch *stretch, void *context)
{
	(void)context;
	memcpy(stretch->copy, stretch->memory, stretch->nbytes);
	return 0;
}

void dt_update(const struct dt_extent *extents, uint8_t *const *copies, size_t n, const struct dt_epoch *epoch)
{
	for_each_run(extents, copies, n, epoch, update_run, NULL);
}

static int put_back_run(const struct stretch *stretch, void *context)
{
	(void)context;
	memcpy(stretch->memory, stretch->copy, stretch->nbytes);
	return 0;
}

int dt_rollback(struct dt_session *session, uint64_t cursor, const struct dt_slice *slices, size_t n,
		const struct dt_extent *extents, uint8_t *const *copies, const struct dt_epoch *open,
		struct dt_epoch *taken)
{
	for_each_run(extents, copies, n, open, put_back_run, NULL);
	int error = dt_collect(session, cursor, DT_COLLECT, slices, n, taken);
	return error ? error : dt_epoch_settle(taken, open->buffers.entries, open->buffers.runs);
}

void dt_copy(const uint8_t *memory, uint64_t nbytes, uint64_t page_size, uint8_t *copy)
{
	for (uint64_t at = 0; at < nbytes; at += page_size) {
		uint64_t length = nbytes - at < page_size ? nbytes - at : page_size;
		if (!dt_is_zero(memory + at, length))
			memcpy(copy + at, memory + at, length);
	}
}

// 1 if all mappings that hold the pages have the flags, 0 if one has not, or -errno.
static int permitted(int maps, const struct dt_extent *extent, const struct dt_run *run, const struct dt_run *end,
		     uint64_t flags)
{
	uint64_t base = extent->address - extent->offset, asked = 0;
	struct dt_procmap_query query;
	for (; run < end; run++) {
		uint64_t start = base + run->start * extent->page_size, stop = base + run->stop * extent->page_size;
		for (asked = asked > start ? asked : start; asked < stop; asked = query.vma_end) {
			int error = dt_procmap_query(maps, asked, 0, &query, NULL, 0);
			if (error)
				return error == -ENOENT ? 0 : error;
			if ((query.vma_flags & flags) != flags)
				return 0;
		}
	}
	return 1;
}

long dt_find_protected(int maps, const struct dt_extent *extents, size_t n, const struct dt_entry *entries,
		       const struct dt_run *all, int write)
{
	uint64_t flags = DT_PROCMAP_QUERY_VMA_READABLE | (write ? DT_PROCMAP_QUERY_VMA_WRITABLE : 0);
	for (size_t i = 0; i < n; i++) {
		const struct dt_run *runs = all + entries[i].first_run;
		int result = permitted(maps, &extents[i], runs, runs + entries[i].run_count, flags);
		if (result <= 0)
			return result ? result : (long)i;
	}
	return (long)n;
}
