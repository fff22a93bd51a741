// From a scan to the cursors.
#include "scan.h"

// Tells every cursor which pages the last scan found only because they are open. A bit too many does no harm: it counts
// for pages that an epoch reports.
static void feed_assumed(struct dt_session *session, uint64_t start, uint64_t stop)
{
	const struct dt_scan_context *scan = &session->scan;
	const struct dt_region *region;
	if (!scan->assumed_count)
		return;
	for_each_touching(region, &session->regions, start, stop)
		for_each_cursor(cursor, &session->cursors)
			dt_set_runs(dt_assumed(cursor, region), region, scan->assumed.runs, scan->assumed_count);
}

long dt_scan(struct dt_session *session, const struct dt_span *span, enum dt_scan_mode mode, struct dt_run *out)
{
	long n = session->backend.ops->scan(&session->backend, &session->scan, span, mode, out);
	feed_assumed(session, span->start, span->stop);
	return n;
}

int dt_harvest(struct dt_session *session, const struct dt_region *region)
{
	const struct dt_span span = dt_span_like(region, region->start, region->stop);
	struct dt_run_buffer *found = &session->scan.found;
	int error = dt_run_buffer_fit(found, (span.stop - span.start) >> session->backend.page_shift);
	if (error)
		return error;
	long n = dt_scan(session, &span, DT_ARM_ALL, found->runs);
	if (n < 0) { // some of it may have been re-armed already: all of it counts as written
		dt_feed(session, span.start, span.stop);
		return (int)n;
	}
	const struct dt_region *touching;
	for_each_touching(touching, &session->regions, span.start, span.stop)
		dt_feed_region(&session->cursors, touching, found->runs, (size_t)n, NULL);
	return 0;
}

void dt_feed(struct dt_session *session, uint64_t start, uint64_t stop)
{
	const struct dt_run run = {start, stop};
	const struct dt_region *region;
	for_each_touching(region, &session->regions, start, stop)
		dt_feed_region(&session->cursors, region, &run, 1, NULL);
}

void dt_find_losses(struct dt_session *session, uint64_t start, uint64_t stop)
{
	struct dt_region *region;
	for_each_touching(region, &session->regions, start, stop)
		if (!(region->flags & DT_LOST) &&
		    !session->backend.ops->still_ours(&session->backend, region->start, region->stop))
			dt_lose_region(&session->regions, region);
}
