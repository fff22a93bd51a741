// Loops over the pages of an epoch, in memory and in the copies.
#include "copies.h"

#include <string.h>
#include <sys/mman.h>

#include "../base/bytes.h"
#include "../base/patience.h"
#include "../core/access.h"
#include "../core/tracking.h"
#include "../kernel/pagemap.h"
#include "rewrite.h"

enum {
	PIECE = 1 << 14,     // bytes read at once where they can't be read in place
	HUGE_PAGE = 1 << 21, // bytes that get a huge page if half of their pages are not zeros
	SMALL_PAGE = 4096,
	MOST_STRETCHES = 256, // of huge pages
};

// Bytes of one region, in memory (or in a buffer) and in the copy.
struct stretch {
	size_t region;  // its place
	uint64_t start; // in the region, of the first one
	uint64_t nbytes;
	const uint8_t *memory;
	uint8_t *copy;
};

// What is done with them: 0 to go on.
typedef int action(const struct stretch *stretch, void *context);

// A loop over the bytes of regions.
struct walk {
	struct dt_session *session;
	struct dt_session *seen; // the same: what its last scan that armed has seen; NULL: what is there now
	const struct dt_copies *snapshot;
	action *act;
	void *context;
	struct dt_failure *failure;
};

static int act_in_place(const struct walk *walk, size_t region, struct dt_run bytes)
{
	const uint8_t *memory = (const uint8_t *)(uintptr_t)walk->snapshot->extents[region].address;
	return walk->act(&(struct stretch){region, bytes.start, bytes.stop - bytes.start, memory + bytes.start,
					   walk->snapshot->copies[region] + bytes.start},
			 walk->context);
}

// Reads them piece by piece.
static int act_on_pieces(const struct walk *walk, size_t region, struct dt_run bytes)
{
	uint8_t buffer[PIECE];
	int error = 0;
	for (uint64_t at = bytes.start, stop; !error && at < bytes.stop; at = stop) {
		stop = bytes.stop - at < PIECE ? bytes.stop : at + PIECE;
		struct stretch piece = {region, at, stop - at, buffer, walk->snapshot->copies[region] + at};
		error = dt_view(walk->seen, &walk->snapshot->extents[region], (struct dt_run){at, stop}, buffer,
				&piece.memory, walk->failure);
		if (!error)
			error = walk->act(&piece, walk->context);
	}
	return error;
}

static int act_on_bytes(const struct walk *walk, size_t region, struct dt_run bytes)
{
	bool in_place = dt_is_in_place(walk->seen, &walk->snapshot->extents[region]);
	return (in_place ? act_in_place : act_on_pieces)(walk, region, bytes);
}

static void look_ahead(const struct walk *walk, size_t region, struct dt_run pages)
{
	const struct dt_extent *extent = &walk->snapshot->extents[region];
	struct dt_run bytes = dt_extent_bytes(extent, pages);
	dt_look_ahead((const void *)(uintptr_t)(extent->address + bytes.start));
	dt_look_ahead(walk->snapshot->copies[region] + bytes.start);
}

// The pages of an epoch, which are checked before the first one is touched.
static int walk_epoch(const struct walk *walk, const struct dt_epoch *epoch)
{
	const struct dt_copies *snapshot = walk->snapshot;
	const struct dt_entry *entries = epoch->buffers.entries;
	const struct dt_run *runs = epoch->buffers.runs;
	int error = dt_check_entries(walk->session, snapshot->maps, false, snapshot->extents, snapshot->n, entries,
				     runs, walk->failure);
	dt_begin_reading(walk->session);
	for (size_t i = 0; !error && i < snapshot->n; i++) {
		const struct dt_run *run = runs + entries[i].first_run, *end = run + entries[i].run_count;
		for (; !error && run < end; run++) {
			if (run + 1 < end)
				look_ahead(walk, i, run[1]);
			error = act_on_bytes(walk, i, dt_extent_bytes(&snapshot->extents[i], *run));
		}
	}
	dt_end_reading(walk->session);
	return error;
}

// Bytes that are zeros, and are not to be touched: against what of the copy may be anything else.
static int act_on_hole(const struct walk *walk, size_t region, struct dt_run bytes)
{
	static const uint8_t zeros[SMALL_PAGE];
	uint8_t *copy = walk->snapshot->copies[region];
	uint64_t page = SMALL_PAGE, base = (uintptr_t)copy, stop = base + bytes.stop;
	struct dt_run found;
	int n = 0;
	for (uint64_t at = base + bytes.start; at < stop; at = found.stop) {
		n = dt_next_populated(walk->session->backend.pagemap, at & -page, (stop + page - 1) & -page, &found);
		if (n <= 0)
			break;
		found = dt_run_clip(found, (struct dt_run){at, stop});
		for (uint64_t from = found.start, to; from < found.stop; from = to) {
			to = found.stop - from < page ? found.stop : from + page;
			int error = walk->act(
				&(struct stretch){region, from - base, to - from, zeros, copy + (from - base)},
				walk->context);
			if (error)
				return error;
		}
	}
	return n < 0 ? n : 0;
}

// Bytes that may not be populated; what lies between those that are is left out, or a hole to act on.
static int act_on_populated(const struct walk *walk, struct dt_touch *touch, size_t region, struct dt_run bytes,
			    bool with_holes)
{
	const struct dt_extent *extent = &walk->snapshot->extents[region];
	struct dt_run piece;
	int error = 0, n;
	while (!error && (n = dt_next_nonzero(walk->session, extent, bytes, &piece)) != 0) {
		if (n < 0)
			return n;
		struct dt_run pages = dt_extent_pages_of(extent, piece);
		if (with_holes)
			error = act_on_hole(walk, region, (struct dt_run){bytes.start, piece.start});
		if (!error)
			error = dt_check_runs(touch, extent, &pages, &pages + 1, walk->failure);
		if (!error)
			error = act_on_bytes(walk, region, piece);
		bytes.start = piece.stop;
	}
	return error || !with_holes ? error : act_on_hole(walk, region, bytes);
}

static int mark_dropped(const struct stretch *stretch, void *context)
{
	const struct walk *walk = context;
	const struct dt_extent *extent = &walk->snapshot->extents[stretch->region];
	struct dt_run bytes = {stretch->start, stretch->start + stretch->nbytes};
	struct dt_run pages = dt_extent_pages_of(extent, bytes);
	bool is_same = dt_is_zero(stretch->copy, stretch->nbytes);
	return is_same ? 0 : dt_session_mark(walk->session, extent->region, pages.start, pages.stop);
}

static int find_dropped(const struct walk *walk, size_t region)
{
	const struct dt_extent *extent = &walk->snapshot->extents[region];
	struct dt_run rest = {0, extent->nbytes}, piece;
	int error = 0;
	for (int n = 1; !error && n; rest.start = piece.stop) {
		n = dt_next_nonzero(walk->session, extent, rest, &piece);
		if (n < 0)
			return n;
		error = act_on_hole(walk, region, (struct dt_run){rest.start, n ? piece.start : rest.stop});
	}
	return error;
}

int dt_copies_find_dropped(struct dt_session *session, const struct dt_copies *snapshot)
{
	struct walk walk = {.session = session, .snapshot = snapshot, .act = mark_dropped, .context = &walk};
	int error = 0;
	for (size_t i = 0; !error && i < snapshot->n; i++)
		error = find_dropped(&walk, i);
	return error;
}

static struct dt_touch touch_of(const struct walk *walk)
{
	return (struct dt_touch){.maps = walk->snapshot->maps, .pagemap = walk->session->backend.pagemap};
}

// Copies what is not zeros.
static void copy_pages(const uint8_t *memory, uint64_t nbytes, uint8_t *copy)
{
	for (uint64_t at = 0; at < nbytes; at += SMALL_PAGE) {
		uint64_t length = nbytes - at < SMALL_PAGE ? nbytes - at : SMALL_PAGE;
		if (!dt_is_zero(memory + at, length))
			memcpy(copy + at, memory + at, length);
	}
}

// Looks at the beginnings of pages only, mostly: few of those that are not zeros begin with many.
static bool is_dense(const uint8_t *memory)
{
	size_t filled = 0;
	for (uint64_t at = 0; at < HUGE_PAGE; at += SMALL_PAGE)
		filled += !dt_is_zero(memory + at, SMALL_PAGE);
	return filled >= HUGE_PAGE / SMALL_PAGE / 2;
}

// Each stretch of huge pages is a mapping, of which a process has 65,530 by default.
struct filling {
	const uint8_t *huge_end; // of the last stretch
	unsigned stretches;      // that there may still be
};

// Without huge pages, it is only slower.
static void ask_for_huge_page(struct filling *filling, uint8_t *copy)
{
	if (copy != filling->huge_end && filling->stretches-- == 0) {
		filling->stretches = 0;
		return;
	}
	madvise(copy, HUGE_PAGE, MADV_HUGEPAGE);
	filling->huge_end = copy + HUGE_PAGE;
}

static int fill(const struct stretch *stretch, void *context)
{
	dt_takes_copy(stretch->nbytes);
	for (uint64_t at = 0, length; at < stretch->nbytes; at += length) {
		uint8_t *copy = stretch->copy + at;
		uint64_t left = stretch->nbytes - at;
		length = HUGE_PAGE - (uintptr_t)copy % HUGE_PAGE;
		length = left < length ? left : length;
		if (length == HUGE_PAGE && is_dense(stretch->memory + at))
			ask_for_huge_page(context, copy);
		copy_pages(stretch->memory + at, length, copy);
	}
	return 0;
}

int dt_copies_fill(struct dt_session *session, uint64_t cursor, const struct dt_copies *snapshot,
		   struct dt_failure *failure)
{
	struct filling filling = {NULL, MOST_STRETCHES};
	const struct walk walk = {session, session, snapshot, fill, &filling, failure};
	int error = 0;
	(void)cursor;
	dt_begin_reading(session);
	for (size_t i = 0; !error && i < snapshot->n; i++) {
		struct dt_touch touch = touch_of(&walk);
		error = act_on_populated(&walk, &touch, i, (struct dt_run){0, snapshot->extents[i].nbytes}, false);
	}
	dt_end_reading(session);
	return error;
}

struct comparison {
	struct dt_changes *changes;
	const struct dt_comparing *how;
};

static int compare(const struct stretch *stretch, void *context)
{
	const struct comparison *in = context;
	return dt_changes_compare(in->changes, in->how, stretch->region, stretch->start, stretch->copy, stretch->memory,
				  stretch->nbytes);
}

// Makes the copies of what has changed equal to one of its contents.
static void set_copies(const struct dt_copies *snapshot, const struct dt_changes *changes, const uint8_t *contents)
{
	dt_takes_copy(changes->bytes);
	for (size_t i = 0; i < changes->change_count; i++) {
		const struct dt_change *change = &changes->changes[i];
		memcpy(snapshot->copies[change->region] + change->start, contents + change->at,
		       change->stop - change->start);
	}
}

int dt_copies_diff(struct dt_session *session, uint64_t cursor, const struct dt_copies *snapshot, int verb,
		   struct dt_changes *changes, const struct dt_comparing *how, struct dt_epoch *epoch)
{
	struct comparison comparison = {changes, how};
	struct dt_session *seen = verb == DT_PEEK ? NULL : session;
	const struct walk walk = {session, seen, snapshot, compare, &comparison, &epoch->failure};
	int error = dt_collect(session, cursor, verb, snapshot->slices, snapshot->n, epoch);
	if (!error)
		error = walk_epoch(&walk, epoch);
	if (!error && verb != DT_PEEK) {
		set_copies(snapshot, changes, changes->after);
		changes->taken_on = 1;
	}
	return changes->error ? 0 : error;
}

void dt_copies_take_back(const struct dt_copies *snapshot, struct dt_changes *changes, struct dt_epoch *epoch)
{
	if (!changes->taken_on)
		return;
	set_copies(snapshot, changes, changes->before);
	changes->taken_on = 0;
	dt_epoch_abort(epoch);
}

static int update(const struct stretch *stretch, void *context)
{
	(void)context;
	dt_takes_copy(stretch->nbytes);
	memcpy(stretch->copy, stretch->memory, stretch->nbytes);
	return 0;
}

int dt_copies_advance(struct dt_session *session, uint64_t cursor, const struct dt_copies *snapshot,
		      struct dt_epoch *epoch)
{
	const struct walk walk = {session, session, snapshot, update, NULL, &epoch->failure};
	int error = dt_collect(session, cursor, DT_COLLECT, snapshot->slices, snapshot->n, epoch);
	return error ? error : walk_epoch(&walk, epoch);
}

static const uint8_t *copied(const void *context, size_t region, struct dt_run bytes)
{
	const struct dt_copies *snapshot = context;
	return snapshot->copies[region] + bytes.start;
}

int dt_copies_rollback(struct dt_session *session, uint64_t cursor, const struct dt_copies *snapshot,
		       struct dt_epoch *open, struct dt_epoch *taken)
{
	int error = dt_collect(session, cursor, DT_PEEK, snapshot->slices, snapshot->n, open);
	if (!error)
		error = dt_check_entries(session, snapshot->maps, true, snapshot->extents, snapshot->n,
					 open->buffers.entries, open->buffers.runs, &taken->failure);
	if (error)
		return error;
	const struct dt_rewrite rewrite = {
		.slices = snapshot->slices,
		.extents = snapshot->extents,
		.n = snapshot->n,
		.apart = snapshot->apart,
		.entries = open->buffers.entries,
		.runs = open->buffers.runs,
		.contents = copied,
		.context = snapshot,
	};
	return dt_rewrite(session, cursor, &rewrite, taken);
}

int dt_copies_verify(struct dt_session *session, uint64_t cursor, const struct dt_copies *snapshot,
		     const struct dt_entry *entries, const struct dt_run *runs, struct dt_changes *changes,
		     struct dt_failure *failure)
{
	const struct dt_comparing all = {.limit = UINT64_MAX};
	struct comparison comparison = {changes, &all};
	const struct walk walk = {session, NULL, snapshot, compare, &comparison, failure};
	int error = 0;
	(void)cursor;
	for (size_t i = 0; !error && i < snapshot->n; i++) {
		const struct dt_run *run = runs + entries[i].first_run, *end = run + entries[i].run_count;
		struct dt_touch touch = touch_of(&walk);
		for (; !error && run < end; run++)
			error = act_on_populated(&walk, &touch, i, dt_extent_bytes(&snapshot->extents[i], *run), true);
	}
	return changes->error ? 0 : error;
}
