// Epochs: one scan feeds every cursor, and the cursor that asked is given what it has coming.
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "internal.h"

enum { KEPT_BYTES = 1 << 19 }; // spare buffers keep so much of the run memory populated, each

void *dt_epoch_new(size_t size)
{
	return dt_alloc(size);
}

static void free_buffers(struct dt_epoch_buffers *buffers)
{
	dt_free(buffers->entries, buffers->entry_room * sizeof *buffers->entries);
	dt_free(buffers->runs, buffers->run_room * sizeof *buffers->runs);
	dt_free(buffers->assumed, buffers->assumed_room * sizeof *buffers->assumed);
}

void dt_free_spare_buffers(struct dt_session *session)
{
	for (int i = 0; i < DT_SPARE_BUFFERS; i++) {
		free_buffers(&session->spare_buffers[i]);
		session->spare_buffers[i] = (struct dt_epoch_buffers){0};
	}
}

// Gives the epoch a session, and buffers that an earlier epoch of it has populated.
static void attach(struct dt_session *session, struct dt_epoch *epoch)
{
	epoch->session = session;
	dt_session_hold(session);
	for (int i = 0; i < DT_SPARE_BUFFERS && !epoch->buffers.run_room; i++) {
		epoch->buffers = session->spare_buffers[i];
		session->spare_buffers[i] = (struct dt_epoch_buffers){0};
	}
}

// Leaves the buffers to later epochs of the session, if there is need for them.
static void leave_buffers(struct dt_session *session, struct dt_epoch *epoch)
{
	size_t used = epoch->run_count * sizeof(struct dt_run), room = epoch->buffers.run_room * sizeof(struct dt_run);
	if (dt_enter(session) < 0)
		return;
	for (int i = 0; i < DT_SPARE_BUFFERS && epoch->buffers.run_room; i++) {
		if (session->spare_buffers[i].run_room)
			continue;
		if (used > KEPT_BYTES)
			madvise((char *)epoch->buffers.runs + KEPT_BYTES, room - KEPT_BYTES, MADV_DONTNEED);
		session->spare_buffers[i] = epoch->buffers;
		epoch->buffers = (struct dt_epoch_buffers){0};
	}
	dt_leave(session, 0);
}

void dt_epoch_end(struct dt_epoch *epoch)
{
	struct dt_session *session = epoch->session;
	if (session) {
		if (!epoch->settled)
			dt_epoch_abort(epoch);
		leave_buffers(session, epoch);
		dt_session_drop(session);
	}
	free_buffers(&epoch->buffers);
}

void dt_epoch_release(void *epoch)
{
	dt_epoch_end(epoch);
	dt_free(epoch, sizeof(struct dt_epoch));
}

static void clear(struct dt_epoch *epoch)
{
	epoch->pages = epoch->entry_count = epoch->run_count = epoch->assumed_count = 0;
}

static int make_room(struct dt_session *session, struct dt_epoch *epoch, uint64_t entries, uint64_t runs)
{
	if (epoch->session)
		clear(epoch);
	else
		attach(session, epoch);
	epoch->settled = epoch->aborted = 0;
	epoch->failure = (struct dt_failure){"mmap", 0, 0};
	struct dt_epoch_buffers *buffers = &epoch->buffers;
	int error = dt_make_room(&buffers->entries, &buffers->entry_room, entries, sizeof *buffers->entries);
	return error ? error : dt_make_room(&buffers->runs, &buffers->run_room, runs, sizeof *buffers->runs);
}

static void end_entry(struct dt_epoch *epoch, struct dt_entry *entry)
{
	entry->run_count = epoch->run_count - entry->first_run;
	entry->pages = dt_runs_count(epoch->buffers.runs + entry->first_run, entry->run_count);
	epoch->pages += entry->pages;
}

static struct dt_entry *begin_entry(struct dt_epoch *epoch, const struct dt_region *region)
{
	struct dt_entry *entry = &epoch->buffers.entries[epoch->entry_count++];
	*entry = (struct dt_entry){.region = region->id, .first_run = epoch->run_count};
	return entry;
}

// Moves (for a peek: copies) pages [first, last) of what a cursor has coming into the epoch.
static void give(struct dt_epoch *epoch, struct dt_bits *pending, uint64_t first, uint64_t last, int verb)
{
	epoch->run_count += dt_bits_runs(pending, first, last, epoch->buffers.runs + epoch->run_count);
	if (verb != DT_PEEK)
		dt_bits_clear(pending, first, last);
}

static void give_whole(struct dt_session *session, struct dt_epoch *epoch, const struct dt_region *region, size_t slot,
		       int verb)
{
	struct dt_entry *entry = begin_entry(epoch, region);
	struct dt_bits *pending = dt_pending(session, slot, region);
	if (pending->low < pending->high)
		give(epoch, pending, 0, dt_region_pages(region), verb);
	end_entry(epoch, entry);
}

// A maximal chain of regions that share pages; lost ones are not part of any.
struct span {
	size_t first, last; // indexes into session->regions
	uint64_t start, stop;
};

static bool next_span(const struct dt_session *session, struct span *span)
{
	size_t at = span->last;
	while (at < session->region_count && session->regions[at]->flags & DT_LOST)
		at++;
	if (at == session->region_count)
		return false;
	*span = (struct span){.first = at, .start = session->regions[at]->start, .stop = session->regions[at]->stop};
	for (; at < session->region_count && session->regions[at]->start < span->stop; at++) {
		if (session->regions[at]->flags & DT_LOST)
			continue;
		if (session->regions[at]->stop > span->stop)
			span->stop = session->regions[at]->stop;
	}
	span->last = at;
	return true;
}

// What a failed scan leaves behind: some of the range may have been re-armed, so all of it counts as written.
static int scan_failed(struct dt_session *session, struct dt_epoch *epoch, uint64_t start, uint64_t stop, long error)
{
	dt_feed(session, start, stop);
	dt_find_losses(session, start, stop);
	if (error == -EPERM) // an unregistered mapping, or one that has come back: the regions' flags say which
		return 0;
	epoch->failure = (struct dt_failure){session->backend->call, start, stop};
	return (int)error;
}

// Scans [start, stop) into the runs behind the epoch's last one; returns their number.
static long scan(struct dt_session *session, struct dt_epoch *epoch, const struct dt_region *kind, uint64_t start,
		 uint64_t stop, int verb)
{
	struct dt_run *runs = epoch->buffers.runs + epoch->run_count;
	enum dt_scan_mode mode = verb == DT_PEEK ? DT_LOOK : verb == DT_PROVE ? DT_ARM_ALL : DT_ARM;
	long n = session->backend->scan(session, kind, start, stop, mode, runs);
	dt_feed_assumed(session, start, stop);
	if (n >= 0 && !session->backend->verify(session, start, stop))
		dt_find_losses(session, start, stop);
	return n;
}

// Where the runs of a scan go: to all cursors, but those of a peek only to its own; the others will find them.
static void feed(struct dt_session *session, struct dt_region *region, const struct dt_run *runs, size_t n, size_t slot,
		 int verb)
{
	if (verb == DT_PEEK)
		dt_feed_cursor(session, region, runs, n, slot);
	else
		dt_feed_region(session, region, runs, n, -1);
}

// One region that shares no page, to a cursor that has nothing else coming from it: the scan is the answer.
static bool give_directly(struct dt_session *session, struct dt_epoch *epoch, const struct span *span, size_t n,
			  size_t slot, int verb)
{
	struct dt_region *region = session->regions[span->first];
	struct dt_bits *pending = dt_pending(session, slot, region);
	if (span->last - span->first > 1 || pending->low < pending->high)
		return false;
	struct dt_run *runs = epoch->buffers.runs + epoch->run_count;
	if (verb != DT_PEEK)
		dt_feed_region(session, region, runs, n, (long)slot);
	struct dt_entry *entry = begin_entry(epoch, region);
	for (size_t i = 0; i < n; i++) {
		runs[i].start = (runs[i].start - region->start) >> region->page_shift;
		runs[i].stop = (runs[i].stop - region->start) >> region->page_shift;
	}
	epoch->run_count += n;
	end_entry(epoch, entry);
	return true;
}

static int collect_span(struct dt_session *session, struct dt_epoch *epoch, const struct span *span, size_t slot,
			int verb)
{
	int error = 0;
	long n = scan(session, epoch, session->regions[span->first], span->start, span->stop, verb);
	if (n < 0)
		error = scan_failed(session, epoch, span->start, span->stop, n);
	else if (give_directly(session, epoch, span, (size_t)n, slot, verb))
		return 0;
	for (size_t i = span->first; n > 0 && i < span->last; i++)
		feed(session, session->regions[i], epoch->buffers.runs + epoch->run_count, (size_t)n, slot, verb);
	for (size_t i = span->first; i < span->last; i++)
		if (!(session->regions[i]->flags & DT_LOST))
			give_whole(session, epoch, session->regions[i], slot, verb);
	return error;
}

static void give_back(struct dt_session *session, const struct dt_epoch *epoch, size_t slot)
{
	for (const struct dt_entry *entry = epoch->buffers.entries; entry < epoch->buffers.entries + epoch->entry_count;
	     entry++) {
		struct dt_region *region = dt_find_region(session, entry->region);
		if (!region)
			continue;
		const struct dt_run *runs = epoch->buffers.runs + entry->first_run;
		for (size_t i = 0; i < entry->run_count; i++)
			dt_bits_set(dt_pending(session, slot, region), runs[i].start, runs[i].stop);
	}
	dt_give_back_assumed(session, epoch, slot);
}

// The end of every verb: an error gives everything back, a reset forgets it.
static int finish(struct dt_session *session, struct dt_epoch *epoch, size_t slot, int verb, int error)
{
	struct dt_cursor *cursor = &session->cursors[slot];
	bool is_collect = verb == DT_COLLECT || verb == DT_PROVE;
	if (!error && session->adaptive)
		error = dt_list_assumed(session, epoch, slot, verb);
	if (error && verb != DT_PEEK && epoch->entry_count)
		give_back(session, epoch, slot);
	if (error || verb == DT_RESET)
		clear(epoch);
	epoch->settled = epoch->aborted = !is_collect; // nothing but a collect holds pages
	if (!error && is_collect)
		cursor->epochs++;
	epoch->cursor = cursor->id;
	epoch->number = cursor->epochs + (verb == DT_PEEK);
	return dt_leave(session, error);
}

int dt_collect_all(struct dt_session *session, uint64_t cursor, int verb, uint64_t generation, struct dt_epoch *epoch)
{
	struct span span = {0};
	int error = dt_enter(session);
	if (error)
		return error;
	long slot = dt_find_cursor(session, cursor);
	if (slot < 0)
		return dt_leave(session, (int)slot);
	if (generation != session->generation)
		return dt_leave(session, -DT_ESTALE);
	error = make_room(session, epoch, session->region_count, session->worst_runs + 1);
	if (error)
		return dt_leave(session, error);
	while (next_span(session, &span)) {
		int failed = collect_span(session, epoch, &span, (size_t)slot, verb);
		error = error ? error : failed;
	}
	if (!error && session->lost_count)
		error = -DT_ELOST;
	if (!error && verb != DT_PEEK && session->verified_share > 0)
		error = dt_check_samples(session, (size_t)slot, epoch, NULL, 0);
	return finish(session, epoch, (size_t)slot, verb, error);
}

// The span of a region that is asked for whole and shares no page, so that the quick way is open to it.
static bool alone(const struct dt_session *session, const struct dt_region *region, const struct dt_slice *slice,
		  struct span *span)
{
	size_t at = dt_first_touching(session, region->start);
	*span = (struct span){.first = at, .last = at + 1, .start = region->start, .stop = region->stop};
	return session->regions[at] == region && slice->first == 0 && slice->last == dt_region_pages(region) &&
	       (at + 1 == session->region_count || session->regions[at + 1]->start >= region->stop);
}

static int collect_slice(struct dt_session *session, struct dt_epoch *epoch, const struct dt_region *region,
			 const struct dt_slice *slice, size_t slot, int verb)
{
	struct span span;
	if (alone(session, region, slice, &span))
		return collect_span(session, epoch, &span, slot, verb);
	uint64_t start = region->start + (slice->first << region->page_shift);
	uint64_t stop = region->start + (slice->last << region->page_shift);
	int error = 0;
	long n = scan(session, epoch, region, start, stop, verb);
	if (n < 0)
		error = scan_failed(session, epoch, start, stop, n);
	const struct dt_run *runs = epoch->buffers.runs + epoch->run_count;
	struct dt_region *touching;
	for_each_touching(touching, session, start, stop)
		feed(session, touching, runs, n > 0 ? (size_t)n : 0, slot, verb);
	struct dt_entry *entry = epoch->entry_count ? &epoch->buffers.entries[epoch->entry_count - 1] : NULL;
	if (!entry || entry->region != region->id)
		entry = begin_entry(epoch, region);
	else
		epoch->pages -= entry->pages;
	give(epoch, dt_pending(session, slot, region), slice->first, slice->last, verb);
	end_entry(epoch, entry);
	return error;
}

int dt_collect(struct dt_session *session, uint64_t cursor, int verb, const struct dt_slice *slices, size_t n,
	       struct dt_epoch *epoch)
{
	uint64_t runs = 1;
	int error = dt_enter(session);
	if (error)
		return error;
	long slot = dt_find_cursor(session, cursor);
	if (slot < 0)
		return dt_leave(session, (int)slot);
	for (const struct dt_slice *slice = slices; slice < slices + n; slice++) {
		if (!dt_find_region(session, slice->region))
			return dt_leave(session, -DT_ECLOSED);
		runs += (slice->last - slice->first + 1) / 2
			<< (dt_find_region(session, slice->region)->page_shift - session->page_shift);
	}
	error = make_room(session, epoch, n, runs);
	if (error)
		return dt_leave(session, error);
	bool lost = false;
	for (const struct dt_slice *slice = slices; slice < slices + n; slice++) {
		const struct dt_region *region = dt_find_region(session, slice->region);
		if (!(region->flags & DT_LOST)) {
			int failed = collect_slice(session, epoch, region, slice, (size_t)slot, verb);
			error = error ? error : failed;
		}
		lost |= region->flags & DT_LOST;
	}
	if (!error && lost)
		error = -DT_ELOST;
	if (!error && verb != DT_PEEK && session->verified_share > 0)
		error = dt_check_samples(session, (size_t)slot, epoch, slices, n);
	return finish(session, epoch, (size_t)slot, verb, error);
}

int dt_epoch_abort(struct dt_epoch *epoch)
{
	struct dt_session *session = epoch->session;
	int error = session ? dt_enter(session) : -DT_ECLOSED;
	if (error)
		return error == -DT_EFORKED ? error : 0; // what is closed has no use for pages
	long slot = dt_find_cursor(session, epoch->cursor);
	if (slot >= 0 && !epoch->aborted)
		give_back(session, epoch, (size_t)slot);
	epoch->aborted = epoch->settled = 1;
	return dt_leave(session, 0);
}

// Gives back the pages of one entry that are not in a list of runs.
static void give_back_rest(struct dt_bits *pending, const struct dt_run *run, const struct dt_run *end,
			   const struct dt_run *known, const struct dt_run *known_end)
{
	for (; run < end; run++) {
		uint64_t start = run->start;
		while (known < known_end && known->stop <= start)
			known++;
		for (const struct dt_run *at = known; at < known_end && at->start < run->stop; at++) {
			dt_bits_set(pending, start, at->start);
			start = at->stop;
		}
		dt_bits_set(pending, start, run->stop);
	}
}

int dt_epoch_settle(struct dt_epoch *epoch, const struct dt_entry *entries, const struct dt_run *runs)
{
	struct dt_session *session = epoch->session;
	int error = dt_enter(session);
	if (error)
		return error;
	long slot = dt_find_cursor(session, epoch->cursor);
	for (size_t i = 0; slot >= 0 && !epoch->aborted && i < epoch->entry_count; i++) {
		const struct dt_entry *entry = &epoch->buffers.entries[i];
		const struct dt_run *run = epoch->buffers.runs + entry->first_run, *known = runs + entries[i].first_run;
		struct dt_region *region = dt_find_region(session, entry->region);
		if (region)
			give_back_rest(dt_pending(session, (size_t)slot, region), run, run + entry->run_count, known,
				       known + entries[i].run_count);
	}
	if (slot >= 0 && !epoch->aborted)
		dt_give_back_assumed(session, epoch, (size_t)slot);
	epoch->settled = 1;
	return dt_leave(session, 0);
}
