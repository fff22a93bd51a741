// The shadow check: a sample of the pages that a collect calls clean is copied, and compared at the cursor's next one.
// A page that changed in between has to be in that epoch; or, if it changed while we look, a further scan finds it.
#include <errno.h>
#include <string.h>

#include "internal.h"

struct dt_sample {
	uint64_t region;
	uint64_t address; // of a page of the system's size, whatever the region's is
};

int dt_session_verify(struct dt_session *session, double share, int count_only)
{
	int error = dt_enter(session);
	if (error)
		return error;
	session->verified_share = share;
	session->count_only = count_only;
	session->random = (uintptr_t)session;
	if (!session->page_buffer)
		session->page_buffer = dt_alloc(1UL << session->page_shift);
	return dt_leave(session, session->page_buffer ? 0 : -ENOMEM);
}

long dt_session_missed(struct dt_session *session, struct dt_run *pages, size_t room)
{
	int error = dt_enter(session);
	if (error)
		return error;
	size_t count = session->missed_count;
	if (count)
		memcpy(pages, session->missed, (count < room ? count : room) * sizeof *pages);
	if (room)
		session->missed_count = 0;
	return dt_leave(session, (int)count);
}

void dt_free_samples(struct dt_samples *samples, uint32_t page_shift)
{
	dt_free(samples->samples, samples->room * sizeof *samples->samples);
	dt_free(samples->copies, samples->copy_room << page_shift);
	*samples = (struct dt_samples){0};
}

// A number below 1. Xorshift suffices for a sample; nobody has to be unable to guess it.
static double chance(struct dt_session *session)
{
	uint64_t x = session->random;
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	session->random = x;
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
		found = slices[i].region == region->id && slices[i].first <= page && page < slices[i].last;
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

// Whether a page changed that no scan has found, up to now.
static bool is_missed(struct dt_session *session, const struct dt_region *region, uint64_t address, const uint8_t *copy)
{
	uint64_t page = 1ULL << session->page_shift, unit = 1ULL << region->page_shift;
	uint8_t *now = session->page_buffer;
	struct dt_run runs[2];
	if (dt_read_memory(address, now, page) != (long)page || memcmp(now, copy, page) == 0)
		return false;
	address &= ~(unit - 1);
	return session->backend->scan(session, region, address, address + unit, DT_LOOK, runs) == 0 &&
	       session->backend->check(session, address, address + unit);
}

static int note_missed(struct dt_session *session, const struct dt_region *region, uint64_t address)
{
	uint64_t unit = 1ULL << region->page_shift;
	struct dt_run page = {address & ~(unit - 1), (address & ~(unit - 1)) + unit};
	dt_feed(session, page.start, page.stop);
	int error =
		dt_grow(&session->missed, &session->missed_room, session->missed_count + 1, sizeof *session->missed);
	if (!error)
		session->missed[session->missed_count++] = page;
	return error;
}

// Compares the samples that were asked for, and keeps the others.
static int check(struct dt_session *session, size_t slot, const struct dt_epoch *epoch, const struct dt_slice *slices,
		 size_t n)
{
	struct dt_samples *samples = &session->cursors[slot].samples;
	uint64_t page = 1ULL << session->page_shift;
	size_t kept = 0, hint = 0;
	int error = 0;
	for (size_t i = 0; i < samples->count; i++) {
		const struct dt_sample *sample = &samples->samples[i];
		const struct dt_region *region = dt_find_region(session, sample->region);
		if (!region || region->flags & DT_LOST)
			continue;
		if (!is_asked(slices, n, region, page_in(region, sample->address))) {
			memmove(samples->copies + kept * page, samples->copies + i * page, page);
			samples->samples[kept++] = *sample;
		} else if (!is_reported(epoch, region->id, page_in(region, sample->address), &hint) &&
			   is_missed(session, region, sample->address, samples->copies + i * page)) {
			int failed = note_missed(session, region, sample->address);
			error = error ? error : failed ? failed : -DT_EMISSED;
		}
	}
	samples->count = kept;
	return error;
}

// Takes a share of the pages [first, last) of a region.
static int sample(struct dt_session *session, struct dt_samples *samples, const struct dt_region *region,
		  uint64_t first, uint64_t last)
{
	if (region->flags & (DT_SPARSE | DT_LOST))
		return 0;
	uint64_t start = region->start + (first << region->page_shift);
	uint64_t pages = (last - first) << (region->page_shift - session->page_shift);
	double wanted = (double)pages * session->verified_share;
	uint64_t count = (uint64_t)wanted + (chance(session) < wanted - (double)(uint64_t)wanted);
	int error = dt_grow(&samples->samples, &samples->room, samples->count + count, sizeof *samples->samples);
	if (!error)
		error = dt_grow(&samples->copies, &samples->copy_room, samples->count + count,
				1UL << session->page_shift);
	for (uint64_t i = 0; !error && i < count; i++) {
		// One page of each of so many equal pieces: all of them, if all are wanted.
		uint64_t at = (uint64_t)(((double)i + chance(session)) * (double)pages / (double)count);
		uint64_t address = start + ((at < pages ? at : pages - 1) << session->page_shift),
			 bytes = 1ULL << session->page_shift;
		if (dt_read_memory(address, samples->copies + (samples->count << session->page_shift), bytes) ==
		    (long)bytes)
			samples->samples[samples->count++] = (struct dt_sample){region->id, address};
	}
	return error;
}

int dt_check_samples(struct dt_session *session, size_t slot, const struct dt_epoch *epoch,
		     const struct dt_slice *slices, size_t n)
{
	struct dt_samples *samples = &session->cursors[slot].samples;
	int missed = check(session, slot, epoch, slices, n), error = 0;
	for (size_t i = 0; !error && i < (slices ? n : session->region_count); i++) {
		const struct dt_region *region =
			slices ? dt_find_region(session, slices[i].region) : session->regions[i];
		error = sample(session, samples, region, slices ? slices[i].first : 0,
			       slices ? slices[i].last : dt_region_pages(region));
	}
	return missed == -DT_EMISSED && session->count_only ? error : missed ? missed : error;
}
