// A sampled page that changed between two collects has to be in the second one's epoch; or, if it changed while we
// look, a further scan finds it.
#include "double_check.h"

#include <errno.h>
#include <string.h>

#include "../base/array.h"
#include "../base/memory.h"
#include "../kernel/touch.h"
#include "scan.h"

int dt_session_double_check(struct dt_session *session, double share, int warn_only)
{
	struct dt_double_check *check = &session->double_check;
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	check->share = share;
	check->warn_only = warn_only;
	check->random = (uintptr_t)session;
	if (!check->page)
		check->page = dt_alloc((size_t)1 << session->backend.page_shift);
	return dt_leave(&session->lock, check->page ? 0 : -ENOMEM);
}

long dt_session_missed(struct dt_session *session, struct dt_run *pages, size_t room)
{
	struct dt_double_check *check = &session->double_check;
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	size_t count = check->missed_count, listed = count < room ? count : room;
	if (listed)
		memcpy(pages, check->missed, listed * sizeof *pages);
	if (room)
		check->missed_count = 0;
	return dt_leave(&session->lock, (int)count);
}

// A number below 1. Xorshift suffices for a sample; nobody has to be unable to guess it.
static double chance(struct dt_double_check *check)
{
	uint64_t x = check->random;
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	check->random = x;
	return (double)(x >> 11) / (double)(1ULL << 53);
}

static uint64_t page_in(const struct dt_region *region, uint64_t address)
{
	return (address - region->start) >> region->page_shift;
}

static bool is_asked(const struct dt_slice *slices, size_t n, const struct dt_region *region, uint64_t page)
{
	bool found = !slices;
	for (size_t i = 0; !found && slices && i < n; i++)
		found = slices[i].region == region->id && slices[i].start <= page && page < slices[i].stop;
	return found;
}

// Samples come in the order of the regions, mostly, and so do entries: where the last one was is a good place to look.
static bool is_reported(const struct dt_epoch *epoch, uint64_t region, uint64_t page, size_t *hint)
{
	for (size_t i = 0; i < epoch->entry_count; i++) {
		size_t at = (*hint + i) % epoch->entry_count;
		const struct dt_entry *entry = &epoch->buffers.entries[at];
		if (entry->region != region)
			continue;
		*hint = at;
		return dt_runs_contain(epoch->buffers.runs + entry->first_run, entry->run_count, page);
	}
	return false;
}

// The page of the region that an address is on.
static struct dt_span page_at(const struct dt_region *region, uint64_t address)
{
	uint64_t bytes = 1ULL << region->page_shift, start = address & ~(bytes - 1);
	return dt_span_like(region, start, start + bytes);
}

// Whether a page changed that no scan has found, up to now.
static bool is_missed(struct dt_session *session, const struct dt_region *region, uint64_t address, const uint8_t *copy)
{
	struct dt_backend *backend = &session->backend;
	size_t bytes = (size_t)1 << backend->page_shift;
	uint8_t *now = session->double_check.page;
	struct dt_run runs[2];
	if (dt_read_memory(address, now, bytes) != (long)bytes || memcmp(now, copy, bytes) == 0)
		return false;
	const struct dt_span page = page_at(region, address);
	return backend->ops->scan(backend, &session->scan, &page, DT_LOOK, runs) == 0 &&
	       backend->ops->still_ours(backend, page.start, page.stop);
}

static int note_missed(struct dt_session *session, const struct dt_region *region, uint64_t address)
{
	struct dt_double_check *check = &session->double_check;
	const struct dt_span page = page_at(region, address);
	dt_feed(session, page.start, page.stop);
	int error = dt_grow(&check->missed, &check->missed_room, check->missed_count + 1, sizeof *check->missed);
	if (!error)
		check->missed[check->missed_count++] = (struct dt_run){page.start, page.stop};
	return error;
}

// Compares the samples that were asked for, and keeps the others.
static int compare_samples(struct dt_session *session, struct dt_samples *samples, const struct dt_epoch *epoch,
			   const struct dt_slice *slices, size_t n)
{
	uint32_t page_shift = session->backend.page_shift;
	size_t kept = 0, hint = 0;
	int error = 0;
	for (size_t i = 0; i < samples->count; i++) {
		const struct dt_sample *sample = &samples->samples[i];
		const struct dt_region *region = dt_find_region(&session->regions, sample->region);
		const uint8_t *copy = dt_sample_copy(samples, i, page_shift);
		if (!region || region->flags & DT_LOST)
			continue;
		if (!is_asked(slices, n, region, page_in(region, sample->address))) {
			memmove(dt_sample_copy(samples, kept, page_shift), copy, (size_t)1 << page_shift);
			samples->samples[kept++] = *sample;
		} else if (!is_reported(epoch, region->id, page_in(region, sample->address), &hint) &&
			   is_missed(session, region, sample->address, copy)) {
			int failed = note_missed(session, region, sample->address);
			error = error ? error : failed ? failed : -DT_EMISSED;
		}
	}
	samples->count = kept;
	return error;
}

// Takes a share of the pages [start, stop) of a region.
static int take_samples(struct dt_session *session, struct dt_samples *samples, const struct dt_region *region,
			uint64_t start, uint64_t stop)
{
	struct dt_double_check *check = &session->double_check;
	uint32_t page_shift = session->backend.page_shift;
	if (region->flags & (DT_SPARSE | DT_LOST))
		return 0;
	uint64_t from = region->start + (start << region->page_shift);
	uint64_t pages = (stop - start) << (region->page_shift - page_shift);
	double wanted = (double)pages * check->share;
	uint64_t count = (uint64_t)wanted + (chance(check) < wanted - (double)(uint64_t)wanted);
	int error = dt_samples_fit(samples, samples->count + count, page_shift);
	for (uint64_t i = 0; !error && i < count; i++) {
		// One page of each of so many equal pieces: all of them, if all are wanted.
		uint64_t at = (uint64_t)(((double)i + chance(check)) * (double)pages / (double)count);
		uint64_t address = from + ((at < pages ? at : pages - 1) << page_shift);
		uint8_t *copy = dt_sample_copy(samples, samples->count, page_shift);
		if (dt_read_memory(address, copy, (size_t)1 << page_shift) == 1L << page_shift)
			samples->samples[samples->count++] = (struct dt_sample){region->id, address};
	}
	return error;
}

int dt_check_samples(struct dt_session *session, struct dt_cursor *cursor, const struct dt_epoch *epoch,
		     const struct dt_slice *slices, size_t n)
{
	struct dt_samples *samples = &cursor->samples;
	int missed = compare_samples(session, samples, epoch, slices, n), error = 0;
	for (size_t i = 0; !error && !slices && i < session->regions.count; i++) {
		const struct dt_region *region = session->regions.by_address[i];
		if (!(region->flags & DT_UNLISTED))
			error = take_samples(session, samples, region, 0, dt_region_pages(region));
	}
	for (size_t i = 0; !error && slices && i < n; i++) {
		const struct dt_region *region = dt_find_region(&session->regions, slices[i].region);
		error = take_samples(session, samples, region, slices[i].start, slices[i].stop);
	}
	return missed == -DT_EMISSED && session->double_check.warn_only ? error : missed ? missed : error;
}
