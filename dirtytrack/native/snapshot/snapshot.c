// The interface for reset loops without Python: regions, their copies and a cursor, of a session of its own or of a
// tracker's.
#define _GNU_SOURCE
#include "../include/dirtytrack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

#include "../backends/opening.h"
#include "../base/address_space.h"
#include "../base/array.h"
#include "../base/memory.h"
#include "../core/lifetime.h"
#include "../core/tracking.h"
#include "../kernel/pagemap.h"
#include "copies.h"

struct dt_snapshot {
	struct dt_lock lock; // of all below
	struct dt_session *session;
	uint64_t cursor;
	struct dt_slice *slices; // count of them, as the next two; owned
	struct dt_extent *extents;
	uint8_t **copies; // owned, as they are
	bool *sparse;     // owned
	size_t slice_room;
	size_t extent_room;
	size_t copy_room;
	size_t sparse_room;
	size_t count;
	bool apart;           // no two of the regions share a page
	int maps;             // a descriptor of /proc/self/maps; -1: none, and then memory is touched to find out
	struct dt_epoch open; // of one call after the other
	struct dt_epoch taken;
};

static struct dt_copies copies_of(const struct dt_snapshot *snapshot)
{
	return (struct dt_copies){
		.slices = snapshot->slices,
		.extents = snapshot->extents,
		.copies = snapshot->copies,
		.n = snapshot->count,
		.apart = snapshot->apart,
		.maps = snapshot->maps,
	};
}

// Those of one of the memories.
static struct dt_copies copy_at(const struct dt_snapshot *snapshot, size_t place)
{
	return (struct dt_copies){
		.slices = snapshot->slices + place,
		.extents = snapshot->extents + place,
		.copies = snapshot->copies + place,
		.n = 1,
		.apart = snapshot->apart,
		.maps = snapshot->maps,
	};
}

// Before any look: what was dropped from sparse memory counts as stored to, as it does elsewhere.
static int find_dropped(const struct dt_snapshot *snapshot)
{
	int error = 0;
	for (size_t i = 0; !error && i < snapshot->count; i++) {
		const struct dt_copies copy = copy_at(snapshot, i);
		if (snapshot->sparse[i])
			error = dt_copies_find_dropped(snapshot->session, &copy);
	}
	return error;
}

static int open_snapshot(struct dt_snapshot **snapshot_ret)
{
	struct dt_opening opening = {0};
	struct dt_snapshot *snapshot = dt_alloc(sizeof *snapshot);
	if (!snapshot)
		return -ENOMEM;
	*snapshot = (struct dt_snapshot){.apart = true, .open.settled = 1, .taken.settled = 1};
	int error = dt_lock_init(&snapshot->lock);
	if (!error)
		error = dt_open_wp_async(&opening, -1);
	if (error) {
		dt_free(snapshot, sizeof *snapshot);
		return error;
	}
	snapshot->lock.is_quiet = true; // which covers the session: it is in nobody else's hands
	snapshot->session = opening.session;
	snapshot->cursor = opening.cursor;
	snapshot->maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	*snapshot_ret = snapshot;
	return 0;
}

int dt_snapshot_open(struct dt_snapshot **snapshot_ret)
{
	if (!snapshot_ret)
		return -EINVAL;
	struct dt_quiet quiet = dt_quiet_begin();
	int error = open_snapshot(snapshot_ret);
	dt_quiet_end(&quiet);
	return error;
}

static void free_memory(struct dt_snapshot *snapshot)
{
	dt_epoch_end(&snapshot->open);
	dt_epoch_end(&snapshot->taken);
	for (size_t i = 0; i < snapshot->count; i++)
		dt_free(snapshot->copies[i], snapshot->extents[i].nbytes);
	dt_free(snapshot->slices, snapshot->slice_room * sizeof *snapshot->slices);
	dt_free(snapshot->extents, snapshot->extent_room * sizeof *snapshot->extents);
	dt_free(snapshot->copies, snapshot->copy_room * sizeof *snapshot->copies);
	dt_free(snapshot->sparse, snapshot->sparse_room * sizeof *snapshot->sparse);
}

void dt_snapshot_close(struct dt_snapshot *snapshot)
{
	if (!snapshot)
		return;
	struct dt_quiet quiet = dt_quiet_begin();
	if (dt_is_address_space(snapshot->lock.address_space))
		free_memory(snapshot);
	dt_session_release(snapshot->session);
	if (snapshot->maps >= 0)
		close(snapshot->maps);
	dt_free(snapshot, sizeof *snapshot);
	dt_quiet_end(&quiet);
}

static int make_room(struct dt_snapshot *snapshot)
{
	size_t count = snapshot->count + 1;
	int error = dt_grow(&snapshot->slices, &snapshot->slice_room, count, sizeof *snapshot->slices);
	if (!error)
		error = dt_grow(&snapshot->extents, &snapshot->extent_room, count, sizeof *snapshot->extents);
	if (!error)
		error = dt_grow(&snapshot->copies, &snapshot->copy_room, count, sizeof *snapshot->copies);
	return error ? error : dt_grow(&snapshot->sparse, &snapshot->sparse_room, count, sizeof *snapshot->sparse);
}

// Whether memory shares bytes, or pages, with some that is there.
static bool touches(const struct dt_snapshot *snapshot, struct dt_run memory, uint64_t page_size)
{
	bool any = false;
	for (size_t i = 0; i < snapshot->count; i++) {
		const struct dt_extent *other = &snapshot->extents[i];
		uint64_t start = other->address & -page_size, stop = other->address + other->nbytes;
		stop = (stop + page_size - 1) & -page_size;
		any |= start < memory.stop && memory.start < stop;
	}
	return any;
}

// Registers memory, and copies it as what the snapshot has behind the others.
static int add_memory(struct dt_snapshot *snapshot, struct dt_run bytes, struct dt_run pages, unsigned flags)
{
	const struct dt_backend *backend = &snapshot->session->backend;
	size_t place = snapshot->count, length = bytes.stop - bytes.start;
	struct dt_failure failure;
	uint64_t region;
	uint8_t *copy = dt_alloc(length);
	if (!copy)
		return -ENOMEM;
	int error = dt_session_add(snapshot->session, pages.start, pages.stop, backend->page_shift, flags, &region,
				   &failure);
	if (error) {
		dt_free(copy, length);
		return error;
	}
	snapshot->slices[place] = (struct dt_slice){region, 0, (pages.stop - pages.start) >> backend->page_shift};
	snapshot->extents[place] = (struct dt_extent){
		.region = region,
		.address = bytes.start,
		.nbytes = length,
		.offset = bytes.start - pages.start,
		.page_size = 1ULL << backend->page_shift,
		// What is not populated is not zeros there. What is not sparse is populated by being tracked.
		.fallible = flags & DT_SPARSE && dt_may_hold_files(pages.start, pages.stop - pages.start),
	};
	snapshot->sparse[place] = flags & DT_SPARSE;
	snapshot->copies[place] = copy;
	const struct dt_copies fresh = copy_at(snapshot, place);
	error = dt_copies_fill(snapshot->session, snapshot->cursor, &fresh, &failure);
	if (error) {
		dt_session_remove(snapshot->session, region);
		dt_free(copy, length);
		return error;
	}
	dt_session_take_from_rivals(snapshot->session, pages.start, pages.stop);
	snapshot->count++;
	return 0;
}

static int add(struct dt_snapshot *snapshot, struct dt_run bytes, unsigned flags)
{
	uint64_t page = 1ULL << snapshot->session->backend.page_shift;
	struct dt_run pages = {bytes.start & -page, (bytes.stop + page - 1) & -page};
	if (touches(snapshot, bytes, 1))
		return -DT_EOVERLAP;
	int error = make_room(snapshot);
	bool is_apart = !touches(snapshot, pages, page);
	if (!error)
		error = add_memory(snapshot, bytes, pages, flags);
	if (!error)
		snapshot->apart &= is_apart;
	return error;
}

int dt_snapshot_add(struct dt_snapshot *snapshot, void *start, size_t bytes, unsigned flags)
{
	uint64_t from = (uintptr_t)start;
	if (!snapshot || !start || !bytes || from + bytes < from || flags & ~(unsigned)DT_SPARSE)
		return -EINVAL;
	int error = dt_enter(&snapshot->lock);
	return error ? error : dt_leave(&snapshot->lock, add(snapshot, (struct dt_run){from, from + bytes}, flags));
}

static void give_back(struct dt_epoch *epoch)
{
	if (!epoch->settled)
		dt_epoch_abort(epoch);
}

static void tell(const struct dt_epoch *epoch, size_t *pages_ret)
{
	if (pages_ret)
		*pages_ret = epoch->pages;
}

int dt_snapshot_rollback(struct dt_snapshot *snapshot, size_t *pages)
{
	if (!snapshot)
		return -EINVAL;
	int error = dt_enter(&snapshot->lock);
	if (error)
		return error;
	const struct dt_copies copies = copies_of(snapshot);
	error = find_dropped(snapshot);
	if (!error)
		error = dt_copies_rollback(snapshot->session, snapshot->cursor, &copies, &snapshot->open,
					   &snapshot->taken);
	if (error)
		give_back(&snapshot->taken);
	snapshot->taken.settled = 1;
	if (!error)
		tell(&snapshot->open, pages);
	return dt_leave(&snapshot->lock, error);
}

int dt_snapshot_advance(struct dt_snapshot *snapshot, size_t *pages)
{
	if (!snapshot)
		return -EINVAL;
	int error = dt_enter(&snapshot->lock);
	if (error)
		return error;
	const struct dt_copies copies = copies_of(snapshot);
	error = find_dropped(snapshot);
	if (!error)
		error = dt_copies_advance(snapshot->session, snapshot->cursor, &copies, &snapshot->taken);
	if (error) // some of it may have been copied: all of it is looked at again
		give_back(&snapshot->taken);
	snapshot->taken.settled = 1;
	if (!error)
		tell(&snapshot->taken, pages);
	return dt_leave(&snapshot->lock, error);
}

// Calls the caller's function with each change; what that returns ends it.
static int report(const struct dt_snapshot *snapshot, const struct dt_changes *changes, dt_difference *function,
		  void *context)
{
	int result = 0;
	for (size_t i = 0; !result && i < changes->change_count; i++) {
		const struct dt_change *change = &changes->changes[i];
		uint64_t address = snapshot->extents[change->region].address + change->start;
		result = function(context, (void *)(uintptr_t)address, change->stop - change->start,
				  changes->before + change->at, changes->after + change->at);
	}
	return result;
}

static int diff(struct dt_snapshot *snapshot, unsigned flags, dt_difference *function, void *context)
{
	const struct dt_comparing all = {.limit = UINT64_MAX};
	const struct dt_copies copies = copies_of(snapshot);
	struct dt_changes *changes = dt_changes_new(sizeof *changes);
	int verb = flags & DT_LIST_TAKE ? DT_COLLECT : DT_PEEK;
	if (!changes)
		return -ENOMEM;
	int error = find_dropped(snapshot);
	if (!error)
		error = dt_copies_diff(snapshot->session, snapshot->cursor, &copies, verb, changes, &all,
				       &snapshot->taken);
	error = error ? error : changes->error;
	if (!error)
		error = report(snapshot, changes, function, context);
	if (error && changes->taken_on)
		dt_copies_take_back(&copies, changes, &snapshot->taken);
	else if (error)
		give_back(&snapshot->taken);
	snapshot->taken.settled = 1;
	dt_changes_free(changes);
	return error;
}

int dt_snapshot_diff(struct dt_snapshot *snapshot, unsigned flags, dt_difference *function, void *context)
{
	if (!snapshot || !function || flags & ~(unsigned)DT_LIST_TAKE)
		return -EINVAL;
	int error = dt_enter(&snapshot->lock);
	return error ? error : dt_leave(&snapshot->lock, diff(snapshot, flags, function, context));
}
