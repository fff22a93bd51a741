// A collect of a range of addresses, of which only as much is kept as there is room for.
#include "writewatch.h"

#include <errno.h>

#include "../base/array.h"
#include "../base/memory.h"
#include "../core/collect.h"

// What is asked of each region, and where that begins.
struct plan {
	struct dt_slice *slices; // count of them, by address; owned
	uint64_t *starts;        // the address of the first page of the region of each; owned
	size_t count;
	size_t slice_room;
	size_t start_room;
	uint32_t page_shift; // of all of them
};

static void free_plan(struct plan *plan)
{
	dt_free(plan->slices, plan->slice_room * sizeof *plan->slices);
	dt_free(plan->starts, plan->start_room * sizeof *plan->starts);
}

static int add(struct plan *plan, const struct dt_region *region, uint64_t start, uint64_t stop)
{
	if (plan->count && plan->page_shift != region->page_shift)
		return -DT_EMIXED; // there is one granularity to tell
	int error = dt_grow(&plan->slices, &plan->slice_room, plan->count + 1, sizeof *plan->slices);
	if (!error)
		error = dt_grow(&plan->starts, &plan->start_room, plan->count + 1, sizeof *plan->starts);
	if (error)
		return error;
	plan->slices[plan->count] = (struct dt_slice){
		.region = region->id,
		.start = (start - region->start) >> region->page_shift,
		.stop = (stop - region->start + (1ULL << region->page_shift) - 1) >> region->page_shift,
	};
	plan->starts[plan->count++] = region->start;
	plan->page_shift = region->page_shift;
	return 0;
}

// One slice for each region that has addresses of [start, stop); a page that regions share is the first one's.
static int make_plan(struct dt_session *session, uint64_t start, uint64_t stop, struct plan *plan)
{
	const struct dt_region *region;
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	plan->count = 0;
	for_each_touching(region, &session->regions, start, stop) {
		if (region->start > start || region->flags & DT_LOST || error)
			break;
		if (region->stop <= start)
			continue;
		error = add(plan, region, start, region->stop < stop ? region->stop : stop);
		start = region->stop;
	}
	return dt_leave(&session->lock, error ? error : start < stop ? -DT_EUNTRACKED : 0);
}

// Lists up to room pages of the epoch, by address; returns how many.
static uint64_t list(const struct dt_epoch *epoch, const struct plan *plan, uint64_t *addresses, uint64_t room)
{
	uint64_t n = 0;
	for (size_t i = 0; i < epoch->entry_count; i++) {
		const struct dt_entry *entry = &epoch->buffers.entries[i];
		const struct dt_run *run = epoch->buffers.runs + entry->first_run, *end = run + entry->run_count;
		for (; run < end; run++)
			for (uint64_t page = run->start; page < run->stop && n < room; page++)
				addresses[n++] = plan->starts[i] + (page << plan->page_shift);
	}
	return n;
}

static int look(struct dt_session *session, uint64_t cursor, uint64_t start, uint64_t stop, int verb, struct plan *plan,
		struct dt_epoch *epoch)
{
	for (;;) {
		int error = make_plan(session, start, stop, plan);
		if (!error)
			error = dt_collect(session, cursor, verb, plan->slices, plan->count, epoch);
		if (error == -DT_ECLOSED && !dt_session_usable(session))
			continue; // a region went meanwhile; the next plan says so
		return error == -DT_ELOST ? -DT_EUNTRACKED : error;
	}
}

int dt_session_write_watch(struct dt_session *session, uint64_t cursor, uint64_t start, uint64_t stop, int reset,
			   uint64_t *addresses, uint64_t *count, uint64_t *granularity, struct dt_epoch *epoch)
{
	struct plan plan = {0};
	int verb = !reset ? DT_PEEK : addresses ? DT_COLLECT : DT_RESET;
	int error = look(session, cursor, start, stop, verb, &plan, epoch);
	if (!error) {
		*count = list(epoch, &plan, addresses, *count);
		*granularity = 1ULL << plan.page_shift;
		error = dt_epoch_trim(epoch, *count);
	}
	free_plan(&plan);
	return error;
}
