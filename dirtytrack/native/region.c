// Regions: which memory is tracked, who shares pages with whom, and what happens when it is gone.
#include <errno.h>
#include <string.h>

#include "internal.h"

uint64_t dt_region_pages(const struct dt_region *region)
{
	return (region->stop - region->start) >> region->page_shift;
}

static uint64_t most_runs(const struct dt_region *region)
{
	return (dt_region_pages(region) + 1) / 2;
}

struct dt_region *dt_find_region(const struct dt_tracker *tracker, uint64_t id)
{
	uint32_t slot = (uint32_t)id;
	struct dt_region *region = slot < tracker->slot_room ? tracker->slots[slot] : NULL;
	return region && region->id == id ? region : NULL;
}

size_t dt_first_touching(const struct dt_tracker *tracker, uint64_t start)
{
	size_t low = 0, high = tracker->region_count; // reach never falls, so it can be searched
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (tracker->regions[middle]->reach > start)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

void dt_feed(struct dt_tracker *tracker, uint64_t start, uint64_t stop)
{
	struct dt_run run = {start, stop};
	struct dt_region *region;
	for_each_touching(region, tracker, start, stop)
		dt_feed_region(tracker, region, &run, 1, -1);
}

static void lose(struct dt_tracker *tracker, struct dt_region *region)
{
	if (region->flags & DT_LOST)
		return;
	region->flags |= DT_LOST;
	tracker->lost_count++;
}

void dt_find_losses(struct dt_tracker *tracker, uint64_t start, uint64_t stop)
{
	struct dt_region *region;
	for_each_touching(region, tracker, start, stop)
		if (!(region->flags & DT_LOST) && !tracker->backend->check(tracker, region->start, region->stop))
			lose(tracker, region);
}

int dt_harvest(struct dt_tracker *tracker, const struct dt_region *kind, uint64_t start, uint64_t stop)
{
	uint64_t most = ((stop - start) >> tracker->page_shift) / 2 + 1;
	int error = dt_make_room(&tracker->scratch, &tracker->scratch_room, most, sizeof *tracker->scratch);
	if (error)
		return error;
	struct dt_run *runs = tracker->scratch;
	long n = tracker->backend->scan(tracker, kind, start, stop, true, runs);
	if (n < 0) { // some of it may have been re-armed already: all of it counts as written
		dt_feed(tracker, start, stop);
		return (int)n;
	}
	struct dt_region *region;
	for_each_touching(region, tracker, start, stop)
		dt_feed_region(tracker, region, runs, (size_t)n, -1);
	return 0;
}

// Calls act on every piece of [start, stop) that no tracked region holds.
static int for_each_unheld(struct dt_tracker *tracker, uint64_t start, uint64_t stop,
			   int (*act)(struct dt_tracker *, uint64_t, uint64_t))
{
	struct dt_region *region;
	int result = 0, error;
	for_each_touching(region, tracker, start, stop) {
		if (region->flags & DT_LOST)
			continue;
		if (start < region->start && (error = act(tracker, start, region->start)) < 0)
			result = error;
		if (start < region->stop)
			start = region->stop;
	}
	if (start < stop && (error = act(tracker, start, stop)) < 0)
		result = error;
	return result;
}

static int release(struct dt_tracker *tracker, uint64_t start, uint64_t stop)
{
	return tracker->backend->remove(tracker, start, stop);
}

static int arm_huge(struct dt_tracker *tracker, uint64_t start, uint64_t stop)
{
	return tracker->backend->arm_huge(tracker, start, stop);
}

static void free_region(struct dt_tracker *tracker, struct dt_region *region)
{
	for (size_t slot = 0; slot < tracker->cursor_room; slot++) {
		const struct dt_cursor *cursor = &tracker->cursors[slot];
		if (!cursor->id || (uint32_t)region->id >= cursor->pending_room)
			continue; // memory ran out before it had room for this region
		struct dt_bits *pending = dt_pending(tracker, slot, region);
		dt_free(pending->words, dt_bits_bytes(dt_region_pages(region)));
		*pending = (struct dt_bits){0};
	}
	dt_free(region, sizeof *region);
}

// All the memory that a region needs, before the first system call of its own.
static int new_region(struct dt_tracker *tracker, const struct dt_region *like, struct dt_region **region_ret)
{
	size_t slot = tracker->first_free_slot;
	while (slot < tracker->slot_room && tracker->slots[slot])
		slot++;
	int error = dt_grow(&tracker->slots, &tracker->slot_room, slot + 1, sizeof *tracker->slots);
	if (!error)
		error = dt_grow(&tracker->regions, &tracker->region_room, tracker->region_count + 1,
				sizeof *tracker->regions);
	if (error)
		return error;
	struct dt_region *region = dt_alloc(sizeof *region);
	if (!region)
		return -ENOMEM;
	*region = *like;
	region->id = ++tracker->next_serial << 32 | slot;
	for (size_t i = 0; i < tracker->cursor_room && !error; i++)
		if (tracker->cursors[i].id)
			error = dt_make_pending(&tracker->cursors[i], region);
	if (error)
		free_region(tracker, region);
	else
		*region_ret = region;
	return error;
}

static void update_reach(struct dt_tracker *tracker, size_t from)
{
	uint64_t reach = from ? tracker->regions[from - 1]->reach : 0;
	for (size_t i = from; i < tracker->region_count; i++) {
		if (tracker->regions[i]->stop > reach)
			reach = tracker->regions[i]->stop;
		tracker->regions[i]->reach = reach;
	}
}

static void insert(struct dt_tracker *tracker, struct dt_region *region)
{
	size_t at = tracker->region_count;
	while (at && tracker->regions[at - 1]->start > region->start)
		at--;
	memmove(tracker->regions + at + 1, tracker->regions + at,
		(tracker->region_count - at) * sizeof *tracker->regions);
	tracker->regions[at] = region;
	tracker->region_count++;
	tracker->slots[(uint32_t)region->id] = region;
	tracker->first_free_slot = (uint32_t)region->id + 1;
	tracker->worst_runs += most_runs(region);
	tracker->generation++;
	update_reach(tracker, at);
}

static void take_out(struct dt_tracker *tracker, struct dt_region *region)
{
	size_t at = dt_first_touching(tracker, region->start);
	while (tracker->regions[at] != region)
		at++;
	tracker->region_count--;
	memmove(tracker->regions + at, tracker->regions + at + 1,
		(tracker->region_count - at) * sizeof *tracker->regions);
	tracker->slots[(uint32_t)region->id] = NULL;
	if ((uint32_t)region->id < tracker->first_free_slot)
		tracker->first_free_slot = (uint32_t)region->id;
	tracker->worst_runs -= most_runs(region);
	tracker->lost_count -= !!(region->flags & DT_LOST);
	tracker->generation++;
	update_reach(tracker, at);
}

// Registers and arms what the region covers. What older regions have coming in shared pages stays theirs.
static int acquire(struct dt_tracker *tracker, const struct dt_region *region, struct dt_failure *failure)
{
	bool huge;
	int error = tracker->backend->add(tracker, region->start, region->stop, &huge, failure);
	if (error)
		return error;
	if (huge && region->page_shift == tracker->page_shift)
		return -DT_EHUGETLB;
	error = dt_harvest(tracker, region, region->start, region->stop);
	if (!error && huge)
		error = for_each_unheld(tracker, region->start, region->stop, arm_huge);
	if (error)
		*failure = (struct dt_failure){"PAGEMAP_SCAN", region->start, region->stop};
	return error;
}

int dt_tracker_add(struct dt_tracker *tracker, uint64_t start, uint64_t stop, uint32_t page_shift, uint32_t flags,
		   uint64_t *region_ret, struct dt_failure *failure)
{
	struct dt_region like = {.start = start, .stop = stop, .page_shift = page_shift, .flags = flags & DT_SPARSE};
	struct dt_region *other;
	int error = dt_enter(tracker);
	if (error)
		return error;
	dt_find_losses(tracker, start, stop); // before anything is registered there anew
	for_each_touching(other, tracker, start, stop)
		if (!(other->flags & DT_LOST) && (other->page_shift != page_shift || other->flags != like.flags))
			return dt_leave(tracker, -DT_EMIXED);

	*failure = (struct dt_failure){"mmap", start, stop};
	struct dt_region *region;
	error = new_region(tracker, &like, &region);
	if (error)
		return dt_leave(tracker, error);
	error = acquire(tracker, region, failure);
	if (error) {
		for_each_unheld(tracker, start, stop, release);
		free_region(tracker, region);
		return dt_leave(tracker, error);
	}
	insert(tracker, region);
	*region_ret = region->id;
	return dt_leave(tracker, 0);
}

static int remove_region(struct dt_tracker *tracker, struct dt_region *region)
{
	take_out(tracker, region);
	int error = for_each_unheld(tracker, region->start, region->stop, release);
	free_region(tracker, region);
	return error;
}

int dt_tracker_remove(struct dt_tracker *tracker, uint64_t id)
{
	int error = dt_enter(tracker);
	if (error)
		return error;
	struct dt_region *region = dt_find_region(tracker, id);
	if (!region)
		return dt_leave(tracker, -DT_ECLOSED);
	return dt_leave(tracker, remove_region(tracker, region) ? 1 : 0);
}

int dt_tracker_release_range(struct dt_tracker *tracker, uint64_t start, uint64_t stop)
{
	int error = dt_enter(tracker);
	if (error)
		return error;
	for_each_unheld(tracker, start, stop, release);
	return dt_leave(tracker, 0);
}

int dt_tracker_holds(struct dt_tracker *tracker, uint64_t start, uint64_t stop)
{
	int error = dt_enter(tracker);
	if (error)
		return error;
	return dt_leave(tracker, tracker->backend->check(tracker, start, stop));
}

int dt_tracker_lose(struct dt_tracker *tracker, uint64_t start, uint64_t stop)
{
	int error = dt_enter(tracker);
	if (error)
		return error;
	struct dt_region *region;
	for_each_touching(region, tracker, start, stop)
		lose(tracker, region);
	return dt_leave(tracker, 0);
}

int dt_tracker_lose_region(struct dt_tracker *tracker, uint64_t id)
{
	int error = dt_enter(tracker);
	if (error)
		return error;
	struct dt_region *region = dt_find_region(tracker, id);
	if (region)
		lose(tracker, region);
	return dt_leave(tracker, region ? 0 : -DT_ECLOSED);
}

int dt_tracker_is_lost(struct dt_tracker *tracker, uint64_t id)
{
	int error = dt_enter(tracker);
	if (error)
		return error;
	struct dt_region *region = dt_find_region(tracker, id);
	return dt_leave(tracker, region ? !!(region->flags & DT_LOST) : -DT_ECLOSED);
}

int dt_tracker_mark(struct dt_tracker *tracker, uint64_t id, uint64_t first, uint64_t last)
{
	int error = dt_enter(tracker);
	if (error)
		return error;
	struct dt_region *region = dt_find_region(tracker, id);
	if (!region)
		return dt_leave(tracker, -DT_ECLOSED);
	if (region->flags & DT_LOST)
		return dt_leave(tracker, -DT_ELOST);
	dt_feed(tracker, region->start + (first << region->page_shift), region->start + (last << region->page_shift));
	return dt_leave(tracker, 0);
}

void dt_remove_all(struct dt_tracker *tracker)
{
	while (tracker->region_count)
		remove_region(tracker, tracker->regions[tracker->region_count - 1]);
}
