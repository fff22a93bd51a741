// From a verb to an epoch.
#include "collect.h"

#include <errno.h>

#include "../base/array.h"
#include "double_check.h"
#include "scan.h"

// One call: what it does, and into what.
struct collection {
	struct dt_session *session;
	struct dt_cursor *cursor;
	struct dt_epoch *epoch;
	int verb;
};

static void clear(struct dt_epoch *epoch)
{
	epoch->pages = epoch->entry_count = epoch->run_count = epoch->assumed_count = 0;
}

// Gives the epoch a session, or clears what it has; and room for so many entries and runs.
static int prepare(const struct collection *in, uint64_t entries, uint64_t runs)
{
	struct dt_epoch *epoch = in->epoch;
	struct dt_epoch_buffers *buffers = &epoch->buffers;
	if (epoch->session) {
		clear(epoch);
	} else {
		epoch->session = in->session;
		dt_session_hold(in->session);
		dt_take_buffers(&in->session->spare, buffers);
	}
	epoch->settled = epoch->aborted = 0;
	epoch->failure = (struct dt_failure){"mmap", 0, 0};
	int error = dt_make_room(&buffers->entries, &buffers->entry_room, entries, sizeof *buffers->entries);
	return error ? error : dt_make_room(&buffers->runs, &buffers->run_room, runs, sizeof *buffers->runs);
}

// Where the next runs of the epoch go.
static struct dt_run *next_runs(const struct collection *in)
{
	return in->epoch->buffers.runs + in->epoch->run_count;
}

static struct dt_entry *begin_entry(struct dt_epoch *epoch, const struct dt_region *region)
{
	struct dt_entry *entry = &epoch->buffers.entries[epoch->entry_count++];
	*entry = (struct dt_entry){.region = region->id, .first_run = epoch->run_count};
	return entry;
}

static void end_entry(struct dt_epoch *epoch, struct dt_entry *entry)
{
	entry->run_count = epoch->run_count - entry->first_run;
	entry->pages = dt_runs_count(epoch->buffers.runs + entry->first_run, entry->run_count);
	epoch->pages += entry->pages;
}

// Moves (for a peek: copies) pages [start, stop) of what the cursor has pending into the epoch.
static void give(const struct collection *in, struct dt_bits *pending, uint64_t start, uint64_t stop)
{
	in->epoch->run_count += dt_bits_runs(pending, start, stop, next_runs(in));
	if (in->verb != DT_PEEK)
		dt_bits_clear(pending, start, stop);
}

static void give_whole(const struct collection *in, const struct dt_region *region)
{
	struct dt_entry *entry = begin_entry(in->epoch, region);
	struct dt_bits *pending = dt_pending(in->cursor, region);
	if (pending->low < pending->high)
		give(in, pending, 0, dt_region_pages(region));
	end_entry(in->epoch, entry);
}

// A maximal chain of regions that share pages; lost ones are not part of any.
struct chain {
	size_t start; // indexes into regions.by_address
	size_t stop;  // exclusive
	struct dt_span span;
};

static bool next_chain(const struct dt_regions *regions, struct chain *chain)
{
	struct dt_region *const *all = regions->by_address;
	size_t at = chain->stop;
	while (at < regions->count && all[at]->flags & DT_LOST)
		at++;
	if (at == regions->count)
		return false;
	*chain = (struct chain){.start = at, .span = dt_span_like(all[at], all[at]->start, all[at]->stop)};
	for (; at < regions->count && all[at]->start < chain->span.stop; at++)
		if (!(all[at]->flags & DT_LOST) && all[at]->stop > chain->span.stop)
			chain->span.stop = all[at]->stop;
	chain->stop = at;
	return true;
}

// What a failed scan leaves behind: some of the range may have been re-armed, so all of it counts as written.
static int scan_failed(const struct collection *in, const struct dt_span *span, long error)
{
	dt_feed(in->session, span->start, span->stop);
	dt_find_losses(in->session, span->start, span->stop);
	if (error == -EPERM) // an unregistered mapping, or one that has come back: the regions' flags say which
		return 0;
	in->epoch->failure = (struct dt_failure){in->session->backend.ops->call, span->start, span->stop};
	return (int)error;
}

// Scans into the runs behind the epoch's last one; returns their number.
static long scan(const struct collection *in, const struct dt_span *span)
{
	struct dt_backend *backend = &in->session->backend;
	enum dt_scan_mode mode = in->verb == DT_PEEK ? DT_LOOK : in->verb == DT_PROVE ? DT_ARM_ALL : DT_ARM;
	long n = dt_scan(in->session, span, mode, next_runs(in));
	if (n >= 0 && !backend->ops->still_ours_after_scan(backend, span->start, span->stop))
		dt_find_losses(in->session, span->start, span->stop);
	return n;
}

// Where the runs of a scan go: to all cursors, but those of a peek only to its own; the others will find them.
static void feed(const struct collection *in, const struct dt_region *region, size_t n)
{
	if (in->verb == DT_PEEK)
		dt_set_runs(dt_pending(in->cursor, region), region, next_runs(in), n);
	else
		dt_feed_region(&in->session->cursors, region, next_runs(in), n, NULL);
}

// One region that shares no page, to a cursor that has nothing else pending from it: the scan is the answer.
static bool give_directly(const struct collection *in, const struct chain *chain, size_t n)
{
	const struct dt_region *region = in->session->regions.by_address[chain->start];
	const struct dt_bits *pending = dt_pending(in->cursor, region);
	if (chain->stop - chain->start > 1 || pending->low < pending->high)
		return false;
	struct dt_run *runs = next_runs(in);
	if (in->verb != DT_PEEK)
		dt_feed_region(&in->session->cursors, region, runs, n, in->cursor);
	struct dt_entry *entry = begin_entry(in->epoch, region);
	for (size_t i = 0; i < n; i++) {
		runs[i].start = (runs[i].start - region->start) >> region->page_shift;
		runs[i].stop = (runs[i].stop - region->start) >> region->page_shift;
	}
	in->epoch->run_count += n;
	end_entry(in->epoch, entry);
	return true;
}

static int collect_chain(const struct collection *in, const struct chain *chain)
{
	struct dt_region *const *all = in->session->regions.by_address;
	int error = 0;
	long n = scan(in, &chain->span);
	if (n < 0)
		error = scan_failed(in, &chain->span, n);
	else if (give_directly(in, chain, (size_t)n))
		return 0;
	for (size_t i = chain->start; n > 0 && i < chain->stop; i++)
		feed(in, all[i], (size_t)n);
	for (size_t i = chain->start; i < chain->stop; i++)
		if (!(all[i]->flags & DT_LOST))
			give_whole(in, all[i]);
	return error;
}

// Lists what of the epoch is assumed, and takes it from the cursor unless it was a peek.
static int list_assumed(const struct collection *in)
{
	struct dt_epoch *epoch = in->epoch;
	struct dt_epoch_buffers *buffers = &epoch->buffers;
	int error = dt_make_room(&buffers->assumed, &buffers->assumed_room, epoch->pages + 1, sizeof *buffers->assumed);
	for (size_t i = 0; !error && i < epoch->entry_count; i++) {
		struct dt_entry *entry = &buffers->entries[i];
		struct dt_bits *assumed = dt_assumed(in->cursor, dt_find_region(&in->session->regions, entry->region));
		entry->first_assumed = epoch->assumed_count;
		const struct dt_run *run = buffers->runs + entry->first_run, *end = run + entry->run_count;
		for (; assumed->low < assumed->high && run < end; run++) {
			struct dt_run *to = buffers->assumed + epoch->assumed_count;
			epoch->assumed_count += dt_bits_runs(assumed, run->start, run->stop, to);
			if (in->verb != DT_PEEK)
				dt_bits_clear(assumed, run->start, run->stop);
		}
		entry->assumed_count = epoch->assumed_count - entry->first_assumed;
	}
	return error;
}

// The end of every verb, on slices or (NULL) on everything: an error gives everything back, a reset forgets it.
static int finish(const struct collection *in, const struct dt_slice *slices, size_t n, int error)
{
	struct dt_session *session = in->session;
	struct dt_epoch *epoch = in->epoch;
	bool is_collect = in->verb == DT_COLLECT || in->verb == DT_PROVE;
	if (!error && in->verb != DT_PEEK && session->double_check.share > 0)
		error = dt_check_samples(session, in->cursor, epoch, slices, n);
	if (!error && session->backend.ops->assumes)
		error = list_assumed(in);
	if (error && in->verb != DT_PEEK && epoch->entry_count)
		dt_give_back(session, epoch, in->cursor);
	if (error || in->verb == DT_RESET)
		clear(epoch);
	epoch->settled = epoch->aborted = !is_collect; // nothing but a collect holds pages
	if (!error && is_collect)
		in->cursor->epochs++;
	epoch->cursor = in->cursor->id;
	epoch->number = in->cursor->epochs + (in->verb == DT_PEEK);
	return error;
}

// One on a cursor of this identifier, in a session whose lock is taken: 0, or -DT_ECLOSED.
static int begin(struct collection *in, struct dt_session *session, uint64_t cursor, int verb, struct dt_epoch *epoch)
{
	*in = (struct collection){session, dt_find_cursor(&session->cursors, cursor), epoch, verb};
	return in->cursor ? 0 : -DT_ECLOSED;
}

static int collect_all(const struct collection *in)
{
	const struct dt_regions *regions = &in->session->regions;
	struct chain chain = {0};
	int error = prepare(in, regions->count, regions->most_runs + 1);
	if (error)
		return error;
	while (next_chain(regions, &chain)) {
		int failed = collect_chain(in, &chain);
		error = error ? error : failed;
	}
	if (!error && regions->lost_count)
		error = -DT_ELOST;
	return finish(in, NULL, 0, error);
}

int dt_collect_all(struct dt_session *session, uint64_t cursor, int verb, uint64_t generation, struct dt_epoch *epoch)
{
	struct collection in;
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	error = begin(&in, session, cursor, verb, epoch);
	if (!error)
		error = generation == session->regions.generation ? collect_all(&in) : -DT_ESTALE;
	return dt_leave(&session->lock, error);
}

// The chain of a region that is asked for whole and shares no page, so that the quick way is open to it.
static bool is_alone(const struct dt_regions *regions, const struct dt_region *region, const struct dt_slice *slice,
		     struct chain *chain)
{
	size_t at = dt_first_touching(regions, region->start), next = at + 1;
	*chain = (struct chain){at, next, dt_span_like(region, region->start, region->stop)};
	return regions->by_address[at] == region && slice->start == 0 && slice->stop == dt_region_pages(region) &&
	       (next == regions->count || regions->by_address[next]->start >= region->stop);
}

static int collect_slice(const struct collection *in, const struct dt_region *region, const struct dt_slice *slice)
{
	const struct dt_regions *regions = &in->session->regions;
	struct dt_epoch *epoch = in->epoch;
	struct chain chain;
	if (is_alone(regions, region, slice, &chain))
		return collect_chain(in, &chain);
	const struct dt_span span = dt_span_like(region, region->start + (slice->start << region->page_shift),
						 region->start + (slice->stop << region->page_shift));
	int error = 0;
	long n = scan(in, &span);
	if (n < 0)
		error = scan_failed(in, &span, n);
	const struct dt_region *touching;
	for_each_touching(touching, regions, span.start, span.stop)
		feed(in, touching, n > 0 ? (size_t)n : 0);
	struct dt_entry *entry = epoch->entry_count ? &epoch->buffers.entries[epoch->entry_count - 1] : NULL;
	if (!entry || entry->region != region->id)
		entry = begin_entry(epoch, region);
	else
		epoch->pages -= entry->pages;
	give(in, dt_pending(in->cursor, region), slice->start, slice->stop);
	end_entry(epoch, entry);
	return error;
}

// The most runs that a scan of the slices can find: of pages of the system's size, which is what a backend lists.
static int count_runs(const struct dt_session *session, const struct dt_slice *slices, size_t n, uint64_t *runs_ret)
{
	uint64_t runs = 1;
	for (const struct dt_slice *slice = slices; slice < slices + n; slice++) {
		const struct dt_region *region = dt_find_region(&session->regions, slice->region);
		if (!region)
			return -DT_ECLOSED;
		runs += (slice->stop - slice->start + 1) / 2 << (region->page_shift - session->backend.page_shift);
	}
	*runs_ret = runs;
	return 0;
}

static int collect_slices(const struct collection *in, const struct dt_slice *slices, size_t n)
{
	uint64_t runs;
	int error = count_runs(in->session, slices, n, &runs);
	if (!error)
		error = prepare(in, n, runs);
	if (error)
		return error;
	bool lost = false;
	for (const struct dt_slice *slice = slices; slice < slices + n; slice++) {
		const struct dt_region *region = dt_find_region(&in->session->regions, slice->region);
		if (!(region->flags & DT_LOST)) {
			int failed = collect_slice(in, region, slice);
			error = error ? error : failed;
		}
		lost |= region->flags & DT_LOST;
	}
	if (!error && lost)
		error = -DT_ELOST;
	return finish(in, slices, n, error);
}

static int leave_with_slices(struct dt_session *session, uint64_t cursor, int verb, const struct dt_slice *slices,
			     size_t n, struct dt_epoch *epoch)
{
	struct collection in;
	int error = begin(&in, session, cursor, verb, epoch);
	return dt_leave(&session->lock, error ? error : collect_slices(&in, slices, n));
}

int dt_collect(struct dt_session *session, uint64_t cursor, int verb, const struct dt_slice *slices, size_t n,
	       struct dt_epoch *epoch)
{
	int error = dt_enter(&session->lock);
	return error ? error : leave_with_slices(session, cursor, verb, slices, n, epoch);
}

int dt_collect_within(struct dt_session *session, uint64_t cursor, int verb, const struct dt_slice *slices, size_t n,
		      struct dt_epoch *epoch)
{
	int error = dt_enter_within(&session->lock);
	return error ? error : leave_with_slices(session, cursor, verb, slices, n, epoch);
}
