// A store to a page that is being put back comes
//
//	- before its bytes are: it is undone;
//	- after that, and before the page is armed: the comparison finds it, unless it stored what was there;
//	- after the page is armed: it faults, and the next scan finds it.
//
// So writing, arming and comparing leave no gap, and stop nobody. They go by groups that stay in the processor's cache,
// where a comparison costs a tenth of what it costs later; and between the groups nothing is scanned.
#include "rewrite.h"

#include <errno.h>
#include <string.h>

#include "../base/bytes.h"
#include "../base/memory.h"
#include "../core/access.h"
#include "../core/tracking.h"

enum {
	PIECE = 4096, // bytes handled at once; no page is smaller
	GROUP_BYTES = 1 << 18,
	GROUP_RUNS = 64,
	LONG_RUN = 4, // pages from which on opening a run costs less than a fault for each
};

// Pages that are written, armed and compared together: those of the entries.
struct group {
	struct dt_session *session;
	const struct dt_rewrite *rewrite;
	const struct dt_slice *slices; // one for each entry, around its pages
	const struct dt_entry *entries;
	const struct dt_run *runs; // of the entries
	const size_t *regions;     // of which each entry is
	size_t n;                  // entries
	struct dt_failure *failure;
};

typedef int piece_action(const struct group *group, size_t region, struct dt_run bytes, const uint8_t *contents);
typedef int run_action(const struct group *group, size_t region, struct dt_run run);

// Calls act for the bytes of a run, piece by piece, until it fails.
static int for_each_piece(const struct group *group, size_t region, struct dt_run run, piece_action *act)
{
	const struct dt_rewrite *rewrite = group->rewrite;
	const struct dt_extent *extent = &rewrite->extents[region];
	uint64_t stop = run.stop * extent->page_size;
	int error = 0;
	for (uint64_t at = run.start * extent->page_size; !error && at < stop; at += PIECE) {
		struct dt_run bytes = dt_extent_clip(extent, (struct dt_run){at, at + PIECE});
		if (bytes.start < bytes.stop)
			error = act(group, region, bytes, rewrite->contents(rewrite->context, region, bytes));
	}
	return error;
}

// The beginning of a run that comes next.
static void look_ahead(const struct group *group, size_t region, struct dt_run run)
{
	const struct dt_rewrite *rewrite = group->rewrite;
	const struct dt_extent *extent = &rewrite->extents[region];
	uint64_t start = run.start * extent->page_size;
	struct dt_run bytes = dt_extent_clip(extent, (struct dt_run){start, start + PIECE});
	if (bytes.start == bytes.stop)
		return;
	const uint8_t *contents = rewrite->contents(rewrite->context, region, bytes);
	dt_look_ahead((const void *)(uintptr_t)(extent->address + bytes.start));
	if (contents)
		dt_look_ahead(contents);
}

static int for_each_run(const struct group *group, run_action *act)
{
	int error = 0;
	for (size_t i = 0; !error && i < group->n; i++) {
		const struct dt_run *run = group->runs + group->entries[i].first_run;
		for (uint64_t left = group->entries[i].run_count; !error && left; left--, run++) {
			if (left > 1)
				look_ahead(group, group->regions[i], run[1]);
			error = act(group, group->regions[i], *run);
		}
	}
	return error;
}

static int put(const struct group *group, size_t region, struct dt_run bytes, const uint8_t *contents)
{
	return dt_put(&group->rewrite->extents[region], bytes, contents, group->failure);
}

static int write_run(const struct group *group, size_t region, struct dt_run run)
{
	const struct dt_extent *extent = &group->rewrite->extents[region];
	uint64_t base = extent->address - extent->offset;
	int error = 0;
	if (group->rewrite->armed && run.stop - run.start >= LONG_RUN)
		error = dt_session_disarm(group->session, base + run.start * extent->page_size,
					  base + run.stop * extent->page_size);
	return error ? error : for_each_piece(group, region, run, put);
}

// 1: the bytes differ.
static int compare(const struct group *group, size_t region, struct dt_run bytes, const uint8_t *contents)
{
	uint8_t buffer[PIECE];
	const uint8_t *memory;
	uint64_t length = bytes.stop - bytes.start;
	int error = dt_view(group->session, &group->rewrite->extents[region], bytes, buffer, &memory, group->failure);
	if (error)
		return error;
	bool same = contents ? memcmp(memory, contents, length) == 0 : dt_is_zero(memory, length);
	return same ? 0 : 1;
}

static int compare_run(const struct group *group, size_t region, struct dt_run run)
{
	int error = 0;
	for (uint64_t page = run.start; !error && page < run.stop; page++) {
		error = for_each_piece(group, region, (struct dt_run){page, page + 1}, compare);
		if (error > 0)
			error = dt_session_mark(group->session, group->rewrite->extents[region].region, page, page + 1);
	}
	return error;
}

static int rewrite_group(const struct group *group, uint64_t cursor, struct dt_epoch *taken)
{
	int error = for_each_run(group, write_run);
	if (!error)
		error = dt_collect(group->session, cursor, DT_COLLECT | DT_BESIDE, group->slices, group->n, taken);
	dt_begin_reading(group->session);
	if (!error)
		error = for_each_run(group, compare_run);
	dt_end_reading(group->session);
	return error ? error : dt_epoch_settle(taken, group->entries, group->runs);
}

// Moves pages from the front of a list of runs, of which the first may have begun already at *start, to a group's: as
// many as stay in the cache. Their number of runs.
static size_t take_runs(const struct dt_run **run, const struct dt_run *end, uint64_t *start, uint64_t most,
			struct dt_run *out)
{
	size_t n = 0;
	for (uint64_t room = most ? most : 1; room && n < GROUP_RUNS && *run < end; n++) {
		uint64_t left = (*run)->stop - *start, count = left < room ? left : room;
		out[n] = (struct dt_run){*start, *start + count};
		room -= count;
		*start += count;
		if (*start == (*run)->stop && ++*run < end)
			*start = (*run)->start;
	}
	return n;
}

static int rewrite_region(const struct dt_rewrite *rewrite, size_t region, struct group *group, uint64_t cursor,
			  struct dt_epoch *taken)
{
	const struct dt_extent *extent = &rewrite->extents[region];
	const struct dt_run *run = rewrite->runs + rewrite->entries[region].first_run;
	const struct dt_run *end = run + rewrite->entries[region].run_count;
	struct dt_run runs[GROUP_RUNS];
	uint64_t start = run < end ? run->start : 0;
	int error = 0;
	while (!error && run < end) {
		size_t n = take_runs(&run, end, &start, GROUP_BYTES / extent->page_size, runs);
		group->slices = &(struct dt_slice){extent->region, runs[0].start, runs[n - 1].stop};
		group->entries = &(struct dt_entry){.region = extent->region, .run_count = n};
		group->runs = runs;
		group->regions = &region;
		group->n = 1;
		error = rewrite_group(group, cursor, taken);
	}
	return error;
}

// The regions that have pages to be written, side by side.
struct compact {
	struct dt_slice *slices;
	struct dt_entry *entries;
	size_t *regions;
	size_t n;
};

static int make_compact(const struct dt_rewrite *rewrite, struct compact *compact)
{
	size_t n = 0;
	for (size_t i = 0; i < rewrite->n; i++)
		n += rewrite->entries[i].run_count > 0;
	*compact = (struct compact){
		.slices = dt_alloc(n * sizeof *compact->slices),
		.entries = dt_alloc(n * sizeof *compact->entries),
		.regions = dt_alloc(n * sizeof *compact->regions),
		.n = n,
	};
	if (!compact->slices || !compact->entries || !compact->regions)
		return -ENOMEM;
	for (size_t i = 0, at = 0; at < n; i++) {
		if (!rewrite->entries[i].run_count)
			continue;
		compact->slices[at] = rewrite->slices[i];
		compact->entries[at] = rewrite->entries[i];
		compact->regions[at++] = i;
	}
	return 0;
}

static void free_compact(struct compact *compact)
{
	dt_free(compact->slices, compact->n * sizeof *compact->slices);
	dt_free(compact->entries, compact->n * sizeof *compact->entries);
	dt_free(compact->regions, compact->n * sizeof *compact->regions);
}

// What is written to a page is pending for every region that shares it; only a collect of all of them settles that.
// Those of which nothing is to be written keep it.
static int rewrite_all(const struct dt_rewrite *rewrite, struct group *group, uint64_t cursor, struct dt_epoch *taken)
{
	struct compact compact;
	int error = make_compact(rewrite, &compact);
	group->slices = compact.slices;
	group->entries = compact.entries;
	group->regions = compact.regions;
	group->runs = rewrite->runs;
	group->n = compact.n;
	if (!error && compact.n)
		error = rewrite_group(group, cursor, taken);
	free_compact(&compact);
	return error;
}

int dt_rewrite(struct dt_session *session, uint64_t cursor, const struct dt_rewrite *rewrite, struct dt_epoch *taken)
{
	struct group group = {.session = session, .rewrite = rewrite, .failure = &taken->failure};
	int error = 0;
	if (!rewrite->apart)
		return rewrite_all(rewrite, &group, cursor, taken);
	for (size_t region = 0; !error && region < rewrite->n; region++)
		error = rewrite_region(rewrite, region, &group, cursor, taken);
	return error;
}
