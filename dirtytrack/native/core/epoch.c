// The life of an epoch once it is filled.
#include "epoch.h"

#include "../base/memory.h"

void *dt_epoch_new(size_t size)
{
	return dt_alloc(size);
}

void dt_epoch_end(struct dt_epoch *epoch)
{
	struct dt_session *session = epoch->session;
	if (session) {
		if (!epoch->settled)
			dt_epoch_abort(epoch);
		if (dt_lock_usable(&session->lock) == 0) // one that is closed meanwhile frees them with the rest
			dt_leave_buffers(&session->spare, &epoch->buffers, epoch->run_count);
	}
	dt_free_buffers(&epoch->buffers);
	dt_free_threads(&epoch->unstopped);
	if (session)
		dt_session_drop(session);
}

void dt_epoch_release(void *epoch)
{
	dt_epoch_end(epoch);
	dt_free(epoch, sizeof(struct dt_epoch));
}

static void set_runs(struct dt_bits *bits, const struct dt_run *runs, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		dt_bits_set(bits, runs[i].start, runs[i].stop);
}

static void give_back_assumed(struct dt_session *session, const struct dt_epoch *epoch, struct dt_cursor *cursor)
{
	for (size_t i = 0; session->backend.ops->assumes && i < epoch->entry_count; i++) {
		const struct dt_entry *entry = &epoch->buffers.entries[i];
		const struct dt_region *region = dt_find_region(&session->regions, entry->region);
		if (region)
			set_runs(dt_assumed(cursor, region), epoch->buffers.assumed + entry->first_assumed,
				 entry->assumed_count);
	}
}

void dt_give_back(struct dt_session *session, const struct dt_epoch *epoch, struct dt_cursor *cursor)
{
	for (size_t i = 0; i < epoch->entry_count; i++) {
		const struct dt_entry *entry = &epoch->buffers.entries[i];
		const struct dt_region *region = dt_find_region(&session->regions, entry->region);
		if (region)
			set_runs(dt_pending(cursor, region), epoch->buffers.runs + entry->first_run, entry->run_count);
	}
	give_back_assumed(session, epoch, cursor);
}

int dt_epoch_abort(struct dt_epoch *epoch)
{
	struct dt_session *session = epoch->session;
	int error = session ? dt_enter(&session->lock) : -DT_ECLOSED;
	if (error)
		return error == -DT_EFORKED ? error : 0; // what is closed has no use for pages
	struct dt_cursor *cursor = dt_find_cursor(&session->cursors, epoch->cursor);
	if (cursor && !epoch->aborted)
		dt_give_back(session, epoch, cursor);
	epoch->aborted = epoch->settled = 1;
	return dt_leave(&session->lock, 0);
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
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	struct dt_cursor *cursor = dt_find_cursor(&session->cursors, epoch->cursor);
	for (size_t i = 0; cursor && !epoch->aborted && i < epoch->entry_count; i++) {
		const struct dt_entry *entry = &epoch->buffers.entries[i];
		const struct dt_run *run = epoch->buffers.runs + entry->first_run;
		const struct dt_run *known = runs + entries[i].first_run;
		const struct dt_region *region = dt_find_region(&session->regions, entry->region);
		if (region)
			give_back_rest(dt_pending(cursor, region), run, run + entry->run_count, known,
				       known + entries[i].run_count);
	}
	if (cursor && !epoch->aborted)
		give_back_assumed(session, epoch, cursor);
	epoch->settled = 1;
	return dt_leave(&session->lock, 0);
}

// Leaves the first so many pages of an entry in it, and gives the others back.
static void trim(struct dt_epoch *epoch, struct dt_entry *entry, struct dt_bits *pending, uint64_t pages)
{
	struct dt_run *runs = epoch->buffers.runs + entry->first_run;
	uint64_t left = pages, kept = 0;
	for (uint64_t i = 0; i < entry->run_count; i++) {
		uint64_t stop = runs[i].stop - runs[i].start > left ? runs[i].start + left : runs[i].stop;
		if (pending && stop < runs[i].stop)
			dt_bits_set(pending, stop, runs[i].stop);
		left -= stop - runs[i].start;
		runs[i].stop = stop;
		kept += runs[i].start < stop;
	}
	entry->run_count = kept;
	entry->pages = pages;
}

int dt_epoch_trim(struct dt_epoch *epoch, uint64_t pages)
{
	struct dt_session *session = epoch->session;
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	struct dt_cursor *cursor = dt_find_cursor(&session->cursors, epoch->cursor);
	bool is_given_back = cursor && !epoch->settled;
	uint64_t left = pages;
	for (size_t i = 0; i < epoch->entry_count; i++) {
		struct dt_entry *entry = &epoch->buffers.entries[i];
		const struct dt_region *region = dt_find_region(&session->regions, entry->region);
		uint64_t keep = entry->pages < left ? entry->pages : left;
		left -= keep;
		trim(epoch, entry, is_given_back && region ? dt_pending(cursor, region) : NULL, keep);
	}
	epoch->pages = pages - left;
	if (is_given_back)
		give_back_assumed(session, epoch, cursor);
	return dt_leave(&session->lock, 0);
}
