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

struct dt_region *dt_find_region(const struct dt_session *session, uint64_t id)
{
	uint32_t slot = (uint32_t)id;
	struct dt_region *region = slot < session->slot_room ? session->slots[slot] : NULL;
	return region && region->id == id ? region : NULL;
}

size_t dt_first_touching(const struct dt_session *session, uint64_t start)
{
	size_t low = 0, high = session->region_count; // reach never falls, so it can be searched
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (session->regions[middle]->reach > start)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

void dt_feed(struct dt_session *session, uint64_t start, uint64_t stop)
{
	struct dt_run run = {start, stop};
	struct dt_region *region;
	for_each_touching(region, session, start, stop)
		dt_feed_region(session, region, &run, 1, -1);
}

static void lose(struct dt_session *session, struct dt_region *region)
{
	if (region->flags & DT_LOST)
		return;
	region->flags |= DT_LOST;
	session->lost_count++;
}

void dt_find_losses(struct dt_session *session, uint64_t start, uint64_t stop)
{
	struct dt_region *region;
	for_each_touching(region, session, start, stop)
		if (!(region->flags & DT_LOST) && !session->backend->check(session, region->start, region->stop))
			lose(session, region);
}

int dt_harvest(struct dt_session *session, const struct dt_region *kind, uint64_t start, uint64_t stop)
{
	uint64_t most = ((stop - start) >> session->page_shift) / 2 + 1;
	int error = dt_make_room(&session->scratch, &session->scratch_room, most, sizeof *session->scratch);
	if (error)
		return error;
	struct dt_run *runs = session->scratch;
	long n = session->backend->scan(session, kind, start, stop, DT_ARM_ALL, runs);
	if (n < 0) { // some of it may have been re-armed already: all of it counts as written
		dt_feed(session, start, stop);
		return (int)n;
	}
	dt_feed_assumed(session, start, stop);
	struct dt_region *region;
	for_each_touching(region, session, start, stop)
		dt_feed_region(session, region, runs, (size_t)n, -1);
	return 0;
}

// Calls act on every piece of [start, stop) that no tracked region holds.
static int for_each_unheld(struct dt_session *session, uint64_t start, uint64_t stop,
			   int (*act)(struct dt_session *, uint64_t, uint64_t))
{
	struct dt_region *region;
	int result = 0, error;
	for_each_touching(region, session, start, stop) {
		if (region->flags & DT_LOST)
			continue;
		if (start < region->start && (error = act(session, start, region->start)) < 0)
			result = error;
		if (start < region->stop)
			start = region->stop;
	}
	if (start < stop && (error = act(session, start, stop)) < 0)
		result = error;
	return result;
}

static int release(struct dt_session *session, uint64_t start, uint64_t stop)
{
	return session->backend->remove(session, start, stop);
}

static int arm_huge(struct dt_session *session, uint64_t start, uint64_t stop)
{
	return session->backend->arm_huge(session, start, stop);
}

static void free_region(struct dt_session *session, struct dt_region *region)
{
	for (size_t slot = 0; slot < session->cursor_room; slot++) {
		if (!session->cursors[slot].id)
			continue;
		dt_free_pending(&session->cursors[slot], region);
	}
	dt_free(region, sizeof *region);
}

// All the memory that a region needs, before the first system call of its own.
static int new_region(struct dt_session *session, const struct dt_region *like, struct dt_region **region_ret)
{
	size_t slot = session->first_free_slot;
	while (slot < session->slot_room && session->slots[slot])
		slot++;
	int error = dt_grow(&session->slots, &session->slot_room, slot + 1, sizeof *session->slots);
	if (!error)
		error = dt_grow(&session->regions, &session->region_room, session->region_count + 1,
				sizeof *session->regions);
	if (error)
		return error;
	struct dt_region *region = dt_alloc(sizeof *region);
	if (!region)
		return -ENOMEM;
	*region = *like;
	region->id = ++session->next_serial << 32 | slot;
	for (size_t i = 0; i < session->cursor_room && !error; i++)
		if (session->cursors[i].id)
			error = dt_make_pending(session, &session->cursors[i], region);
	if (error)
		free_region(session, region);
	else
		*region_ret = region;
	return error;
}

static void update_reach(struct dt_session *session, size_t from)
{
	uint64_t reach = from ? session->regions[from - 1]->reach : 0;
	for (size_t i = from; i < session->region_count; i++) {
		if (session->regions[i]->stop > reach)
			reach = session->regions[i]->stop;
		session->regions[i]->reach = reach;
	}
}

static void insert(struct dt_session *session, struct dt_region *region)
{
	size_t at = session->region_count;
	while (at && session->regions[at - 1]->start > region->start)
		at--;
	memmove(session->regions + at + 1, session->regions + at,
		(session->region_count - at) * sizeof *session->regions);
	session->regions[at] = region;
	session->region_count++;
	session->slots[(uint32_t)region->id] = region;
	session->first_free_slot = (uint32_t)region->id + 1;
	session->worst_runs += most_runs(region);
	session->generation++;
	update_reach(session, at);
}

static void take_out(struct dt_session *session, struct dt_region *region)
{
	size_t at = dt_first_touching(session, region->start);
	while (session->regions[at] != region)
		at++;
	session->region_count--;
	memmove(session->regions + at, session->regions + at + 1,
		(session->region_count - at) * sizeof *session->regions);
	session->slots[(uint32_t)region->id] = NULL;
	if ((uint32_t)region->id < session->first_free_slot)
		session->first_free_slot = (uint32_t)region->id;
	session->worst_runs -= most_runs(region);
	session->lost_count -= !!(region->flags & DT_LOST);
	session->generation++;
	update_reach(session, at);
}

// Registers and arms what the region covers. What older regions have coming in shared pages stays theirs.
static int acquire(struct dt_session *session, const struct dt_region *region, struct dt_failure *failure)
{
	bool huge;
	int error = session->backend->add(session, region->start, region->stop, &huge, failure);
	if (error)
		return error;
	if (huge && region->page_shift == session->page_shift)
		return -DT_EHUGETLB;
	error = dt_harvest(session, region, region->start, region->stop);
	if (!error && huge)
		error = for_each_unheld(session, region->start, region->stop, arm_huge);
	if (error)
		*failure = (struct dt_failure){session->backend->call, region->start, region->stop};
	return error;
}

int dt_session_add(struct dt_session *session, uint64_t start, uint64_t stop, uint32_t page_shift, uint32_t flags,
		   uint64_t *region_ret, struct dt_failure *failure)
{
	struct dt_region like = {.start = start, .stop = stop, .page_shift = page_shift, .flags = flags & DT_SPARSE};
	struct dt_region *other;
	int error = dt_enter(session);
	if (error)
		return error;
	dt_find_losses(session, start, stop); // before anything is registered there anew
	for_each_touching(other, session, start, stop)
		if (!(other->flags & DT_LOST) && (other->page_shift != page_shift || other->flags != like.flags))
			return dt_leave(session, -DT_EMIXED);

	*failure = (struct dt_failure){"mmap", start, stop};
	struct dt_region *region;
	error = new_region(session, &like, &region);
	if (error)
		return dt_leave(session, error);
	error = acquire(session, region, failure);
	if (error) {
		for_each_unheld(session, start, stop, release);
		free_region(session, region);
		return dt_leave(session, error);
	}
	insert(session, region);
	*region_ret = region->id;
	return dt_leave(session, 0);
}

static int remove_region(struct dt_session *session, struct dt_region *region)
{
	take_out(session, region);
	int error = for_each_unheld(session, region->start, region->stop, release);
	free_region(session, region);
	return error;
}

int dt_session_remove(struct dt_session *session, uint64_t id)
{
	int error = dt_enter(session);
	if (error)
		return error;
	struct dt_region *region = dt_find_region(session, id);
	if (!region)
		return dt_leave(session, -DT_ECLOSED);
	return dt_leave(session, remove_region(session, region) ? 1 : 0);
}

int dt_session_release_range(struct dt_session *session, uint64_t start, uint64_t stop)
{
	int error = dt_enter(session);
	if (error)
		return error;
	for_each_unheld(session, start, stop, release);
	return dt_leave(session, 0);
}

int dt_session_holds(struct dt_session *session, uint64_t start, uint64_t stop)
{
	int error = dt_enter(session);
	if (error)
		return error;
	return dt_leave(session, session->backend->check(session, start, stop));
}

int dt_session_lose(struct dt_session *session, uint64_t start, uint64_t stop)
{
	int error = dt_enter(session);
	if (error)
		return error;
	struct dt_region *region;
	for_each_touching(region, session, start, stop)
		lose(session, region);
	return dt_leave(session, 0);
}

int dt_session_lose_region(struct dt_session *session, uint64_t id)
{
	int error = dt_enter(session);
	if (error)
		return error;
	struct dt_region *region = dt_find_region(session, id);
	if (region)
		lose(session, region);
	return dt_leave(session, region ? 0 : -DT_ECLOSED);
}

int dt_session_is_lost(struct dt_session *session, uint64_t id)
{
	int error = dt_enter(session);
	if (error)
		return error;
	struct dt_region *region = dt_find_region(session, id);
	return dt_leave(session, region ? !!(region->flags & DT_LOST) : -DT_ECLOSED);
}

int dt_session_locate(struct dt_session *session, uint64_t id, uint64_t address, uint64_t *offset, uint32_t *page_shift)
{
	int error = dt_enter(session);
	if (error)
		return error;
	const struct dt_region *region = dt_find_region(session, id);
	if (!region)
		return dt_leave(session, -DT_ECLOSED);
	*offset = address - region->start;
	*page_shift = region->page_shift;
	return dt_leave(session, 0);
}

int dt_session_mark(struct dt_session *session, uint64_t id, uint64_t first, uint64_t last)
{
	int error = dt_enter(session);
	if (error)
		return error;
	struct dt_region *region = dt_find_region(session, id);
	if (!region)
		return dt_leave(session, -DT_ECLOSED);
	if (region->flags & DT_LOST)
		return dt_leave(session, -DT_ELOST);
	dt_feed(session, region->start + (first << region->page_shift), region->start + (last << region->page_shift));
	return dt_leave(session, 0);
}

void dt_remove_all(struct dt_session *session)
{
	while (session->region_count)
		remove_region(session, session->regions[session->region_count - 1]);
}
