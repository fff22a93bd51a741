// From a verb to an epoch.
#include "collect.h"

#include <errno.h>

#include "../base/array.h"
#include "../base/patience.h"
#include "scan.h"
#ifndef DT_NATIVE_ONLY
#include "double_check.h"
#endif

// One call: what it does, and into what.
struct collection {
	struct dt_session *session;
	struct dt_cursor *cursor;
	struct dt_epoch *epoch;
	int verb;
	const struct dt_slice *slices; // n of them
	size_t n;
	bool all;                  // every region, and no slices
	bool stops;                // the other threads, for the scan
	int (*act)(void *context); // before they go on; NULL: nothing
	void *context;
};

// The first run of an entry that has not got its pages yet.
#define NOT_GIVEN UINT64_MAX

static void clear(struct dt_epoch *epoch)
{
	epoch->pages = epoch->entry_count = epoch->run_count = epoch->assumed_count = 0;
}

// Gives the epoch a session, or clears what it has; and an entry for each region asked for, and room for their runs.
static int prepare(const struct collection *in)
{
	const struct dt_requests *requests = &in->session->requests;
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
	epoch->unstopped.count = 0;
	epoch->failure = (struct dt_failure){"mmap", 0, 0};
	uint64_t runs = dt_requests_most_runs(requests, in->session->backend.page_shift) + 1;
	int error = dt_make_room(&buffers->entries, &buffers->entry_room, requests->entries, sizeof *buffers->entries);
	if (!error)
		error = dt_make_room(&buffers->runs, &buffers->run_room, runs, sizeof *buffers->runs);
	if (error)
		return error;
	for (const struct dt_request *at = requests->items; at < dt_requests_end(requests); at++)
		buffers->entries[at->entry] = (struct dt_entry){.region = at->region->id, .first_run = NOT_GIVEN};
	epoch->entry_count = requests->entries;
	return 0;
}

// Where the next runs of the epoch go.
static struct dt_run *next_runs(const struct collection *in)
{
	return in->epoch->buffers.runs + in->epoch->run_count;
}

static struct dt_entry *begin_entry(const struct collection *in, const struct dt_request *request)
{
	struct dt_entry *entry = &in->epoch->buffers.entries[request->entry];
	entry->first_run = in->epoch->run_count;
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
	if (pending->low >= pending->high)
		return;
	in->epoch->run_count += dt_bits_runs(pending, start, stop, next_runs(in));
	if (in->verb != DT_PEEK)
		dt_bits_clear(pending, start, stop);
}

static void give_whole(const struct collection *in, const struct dt_request *request)
{
	struct dt_entry *entry = begin_entry(in, request);
	give(in, dt_pending(in->cursor, request->region), 0, dt_region_pages(request->region));
	end_entry(in->epoch, entry);
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

// Scans into out; returns the number of runs.
static long scan(const struct collection *in, const struct dt_span *span, struct dt_run *out)
{
	struct dt_backend *backend = &in->session->backend;
	enum dt_scan_mode mode = in->verb == DT_PEEK ? DT_LOOK : in->verb == DT_PROVE ? DT_ARM_ALL : DT_ARM;
	long n = dt_scan(in->session, span, mode, out);
	if (n >= 0 && !backend->ops->still_ours_after_scan(backend, span->start, span->stop))
		dt_find_losses(in->session, span->start, span->stop);
	return n;
}

// What a scan has found, worked off by ascending addresses.
struct finding {
	const struct dt_run *runs;
	size_t n;
};

// The runs that touch a region, which does not begin before those asked about earlier.
static struct finding runs_of(struct finding *found, const struct dt_region *region)
{
	struct finding own = {0};
	for (; found->n && found->runs->stop <= region->start; found->n--)
		found->runs++;
	for (own.runs = found->runs; own.n < found->n && own.runs[own.n].start < region->stop; own.n++)
		;
	return own;
}

// Where the runs of a scan go: to all cursors, but those of a peek only to its own; the others will find them.
static void feed(const struct collection *in, const struct dt_region *region, struct finding found)
{
	if (in->verb == DT_PEEK)
		dt_set_runs(dt_pending(in->cursor, region), region, found.runs, found.n);
	else
		dt_feed_region(&in->session->cursors, region, found.runs, found.n, NULL);
}

// A region asked for whole, to a cursor that has nothing else pending from it: what was found is the answer.
static bool give_directly(const struct collection *in, const struct dt_request *request, struct finding found)
{
	const struct dt_region *region = request->region;
	const struct dt_bits *pending = dt_pending(in->cursor, region);
	if (pending->low < pending->high)
		return false;
	if (in->verb != DT_PEEK)
		dt_feed_region(&in->session->cursors, region, found.runs, found.n, in->cursor);
	struct dt_entry *entry = begin_entry(in, request);
	struct dt_run *out = next_runs(in); // which may be where the runs are
	for (size_t i = 0; i < found.n; i++) {
		struct dt_run run = dt_run_clip(found.runs[i], (struct dt_run){region->start, region->stop});
		out[i].start = (run.start - region->start) >> region->page_shift;
		out[i].stop = (run.stop - region->start) >> region->page_shift;
	}
	in->epoch->run_count += found.n;
	end_entry(in->epoch, entry);
	return true;
}

// The batch asks for all that touches it, and for all of that.
static void give_batch(const struct collection *in, const struct dt_batch *batch, struct finding found)
{
	for (const struct dt_request *at = batch->first; at < batch->stop; at++) {
		if (at->region->flags & DT_LOST)
			continue;
		struct finding own = runs_of(&found, at->region);
		if (give_directly(in, at, own))
			continue;
		feed(in, at->region, own);
		give_whole(in, at);
	}
}

// Regions that touch a batch, by their index.
struct touching {
	size_t first;
	size_t stop; // exclusive
};

// Those of this batch, of which the ones before end where the last batch's do.
static struct touching find_touching(const struct dt_regions *regions, const struct dt_span *span, size_t hint)
{
	struct dt_region *const *all = regions->by_address;
	bool is_next = hint < regions->count && all[hint]->reach > span->start &&
		       (!hint || all[hint - 1]->reach <= span->start);
	size_t first = is_next ? hint : dt_first_touching(regions, span->start), stop = first;
	while (stop < regions->count && all[stop]->start < span->stop)
		stop++;
	return (struct touching){first, stop};
}

// Whether the batch asks for all that touches it, and for all of that. Both are in the same order.
static bool asks_for_all(const struct dt_regions *regions, const struct dt_batch *batch, struct touching touching)
{
	if (touching.stop - touching.first != (size_t)(batch->stop - batch->first))
		return false; // at most for want of a lost region that could have been left out
	for (size_t i = 0; touching.first + i < touching.stop; i++)
		if (regions->by_address[touching.first + i] != batch->first[i].region || !dt_is_whole(&batch->first[i]))
			return false;
	return true;
}

static int collect_batch(const struct collection *in, const struct dt_batch *batch, struct touching touching)
{
	struct dt_session *session = in->session;
	struct dt_run *out = next_runs(in); // but what may belong to several regions is divided
	int error = 0;
	if (batch->stop - batch->first > 1) {
		struct dt_run_buffer *buffer = &session->scan.found;
		error = dt_run_buffer_fit(buffer,
					  (batch->span.stop - batch->span.start) >> session->backend.page_shift);
		if (error)
			return error;
		out = buffer->runs;
	}
	long n = scan(in, &batch->span, out);
	if (n < 0)
		error = scan_failed(in, &batch->span, n);
	struct finding found = {out, n < 0 ? 0 : (size_t)n};
	if (asks_for_all(&session->regions, batch, touching))
		give_batch(in, batch, found);
	else
		for (size_t i = touching.first; i < touching.stop; i++)
			feed(in, session->regions.by_address[i], runs_of(&found, session->regions.by_address[i]));
	return error;
}

// Scans what is asked for, and gives what can be given at once; the rest is pending.
static int collect_batches(const struct collection *in)
{
	const struct dt_regions *regions = &in->session->regions;
	struct dt_batch batch = {0};
	struct touching touching = {0};
	int error = 0;
	while (dt_next_batch(&in->session->requests, &batch)) {
		touching = find_touching(regions, &batch.span, touching.stop);
		int failed = collect_batch(in, &batch, touching);
		error = error ? error : failed;
	}
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

// The end of every verb: an error gives everything back, a reset forgets it.
static int finish(const struct collection *in, int error)
{
	struct dt_session *session = in->session;
	struct dt_epoch *epoch = in->epoch;
	bool is_collect = in->verb == DT_COLLECT || in->verb == DT_PROVE;
#ifndef DT_NATIVE_ONLY
	if (!error && in->verb != DT_PEEK && session->double_check.share > 0)
		error = dt_check_samples(session, in->cursor, epoch, in->all ? NULL : in->slices, in->n);
#endif
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

// Gives what is pending of the regions that were given nothing yet.
static void give_rest(const struct collection *in)
{
	const struct dt_requests *requests = &in->session->requests;
	for (const struct dt_request *at = requests->items; at < dt_requests_end(requests); at++) {
		if (in->epoch->buffers.entries[at->entry].first_run != NOT_GIVEN)
			continue;
		struct dt_bits *pending = dt_pending(in->cursor, at->region);
		struct dt_entry *entry = begin_entry(in, at);
		if (in->all)
			give(in, pending, 0, dt_region_pages(at->region));
		for (size_t i = at->first_slice; i < in->n && in->slices[i].region == at->region->id; i++)
			give(in, pending, in->slices[i].start, in->slices[i].stop);
		end_entry(in->epoch, entry);
	}
}

static bool any_lost(const struct dt_requests *requests)
{
	const struct dt_request *at = requests->items, *end = dt_requests_end(requests);
	while (at < end && !(at->region->flags & DT_LOST))
		at++;
	return at < end;
}

// After the scans: gives what they found.
static int conclude(const struct collection *in, int error)
{
	give_rest(in);
	if (!error && in->session->regions.lost_count && any_lost(&in->session->requests))
		error = -DT_ELOST;
	return finish(in, error);
}

// Makes room for what the scans will need, and says how long they will take. The pages that they look at.
static int make_ready(const struct collection *in, uint64_t *pages_ret)
{
	struct dt_session *session = in->session;
	struct dt_batch batch = {0};
	uint64_t most = 0;
	*pages_ret = 0;
	while (dt_next_batch(&session->requests, &batch)) {
		uint64_t bytes = batch.span.stop - batch.span.start, pages = bytes >> session->backend.page_shift;
		dt_takes_scan(bytes);
		most = pages > most ? pages : most;
		*pages_ret += pages;
	}
	return dt_scan_context_fit(&session->scan, most);
}

// What lies between the two calls is one instant to the other threads.
static int look_at_an_instant(const struct collection *in)
{
	struct dt_epoch *epoch = in->epoch;
	struct dt_stop stop;
	epoch->failure.call = "sigaction";
	int result = dt_stop_begin(&in->session->stopping, &stop);
	if (result) {
		clear(epoch);
		return result;
	}
	epoch->failure.call = "mmap";
	int error = collect_batches(in);
	if (in->act) {
		result = conclude(in, error);
		if (!result)
			result = in->act(in->context);
	}
	int unlisted = dt_stop_end(&stop, &epoch->unstopped);
	if (in->act)
		return result ? result : unlisted;
	return conclude(in, error ? error : unlisted);
}

static int look(const struct collection *in)
{
	struct dt_session *session = in->session;
	uint64_t pages = 0;
	int error = in->all ? dt_request_all(&session->regions, &session->requests)
			    : dt_request_slices(&session->regions, in->slices, in->n, &session->requests);
	if (!error)
		error = prepare(in);
	if (!error && in->stops && session->stopping.signal)
		error = make_ready(in, &pages);
	if (error)
		return error;
	return pages ? look_at_an_instant(in) : conclude(in, collect_batches(in));
}

static struct collection collection(struct dt_session *session, int verb, struct dt_epoch *epoch)
{
	return (struct collection){
		.session = session, .epoch = epoch, .verb = verb & ~DT_BESIDE, .stops = !(verb & DT_BESIDE)};
}

static int look_up(struct collection *in, uint64_t cursor)
{
	in->cursor = dt_find_cursor(&in->session->cursors, cursor);
	return in->cursor ? look(in) : -DT_ECLOSED;
}

int dt_collect_all(struct dt_session *session, uint64_t cursor, int verb, uint64_t generation, struct dt_epoch *epoch)
{
	struct collection in = collection(session, verb, epoch);
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	in.all = true;
	bool is_stale = generation != session->regions.generation;
	return dt_leave(&session->lock, is_stale ? -DT_ESTALE : look_up(&in, cursor));
}

int dt_collect_in_act(struct dt_session *session, uint64_t cursor, int verb, const struct dt_slice *slices, size_t n,
		      struct dt_epoch *epoch)
{
	struct collection in = collection(session, verb | DT_BESIDE, epoch);
	in.slices = slices;
	in.n = n;
	return look_up(&in, cursor);
}

int dt_collect_and(struct dt_session *session, uint64_t cursor, int verb, const struct dt_slice *slices, size_t n,
		   struct dt_epoch *epoch, int (*act)(void *context), void *context)
{
	struct collection in = collection(session, verb, epoch);
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	in.slices = slices;
	in.n = n;
	in.act = act;
	in.context = context;
	return dt_leave(&session->lock, look_up(&in, cursor));
}

int dt_collect(struct dt_session *session, uint64_t cursor, int verb, const struct dt_slice *slices, size_t n,
	       struct dt_epoch *epoch)
{
	return dt_collect_and(session, cursor, verb, slices, n, epoch, NULL, NULL);
}

int dt_collect_within(const struct dt_lock *outer, struct dt_session *session, uint64_t cursor, int verb,
		      const struct dt_slice *slices, size_t n, struct dt_epoch *epoch)
{
	struct collection in = collection(session, verb, epoch);
	int error = dt_enter_within(&session->lock, outer);
	if (error)
		return error;
	in.slices = slices;
	in.n = n;
	return dt_leave(&session->lock, look_up(&in, cursor));
}

int dt_collect_prepare(const struct dt_lock *outer, struct dt_session *session, const struct dt_slice *slices, size_t n,
		       struct dt_epoch *epoch)
{
	struct collection in = collection(session, DT_PEEK, epoch);
	uint64_t pages;
	int error = dt_enter_within(&session->lock, outer);
	if (error)
		return error;
	error = dt_request_slices(&session->regions, slices, n, &session->requests);
	if (!error)
		error = prepare(&in);
	if (!error)
		error = make_ready(&in, &pages);
	clear(epoch);
	epoch->settled = epoch->aborted = 1;
	return dt_leave(&session->lock, error);
}
