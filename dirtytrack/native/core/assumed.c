// What an adaptive session reports without having seen it written, from the scan that found it open to the epoch.
#include "internal.h"

struct dt_bits *dt_assumed(const struct dt_session *session, size_t cursor_slot, const struct dt_region *region)
{
	return session->adaptive ? &session->cursors[cursor_slot].assumed[(uint32_t)region->id] : NULL;
}

void dt_feed_assumed(struct dt_session *session, uint64_t start, uint64_t stop)
{
	struct dt_region *region;
	if (!session->assumed_count)
		return;
	for_each_touching(region, session, start, stop)
		for (size_t slot = 0; slot < session->cursor_room; slot++)
			if (session->cursors[slot].id)
				dt_set_runs(dt_assumed(session, slot, region), region, session->assumed,
					    session->assumed_count);
}

void dt_give_back_assumed(struct dt_session *session, const struct dt_epoch *epoch, size_t slot)
{
	for (size_t i = 0; session->adaptive && i < epoch->entry_count; i++) {
		const struct dt_entry *entry = &epoch->buffers.entries[i];
		const struct dt_region *region = dt_find_region(session, entry->region);
		const struct dt_run *runs = epoch->buffers.assumed + entry->first_assumed;
		for (size_t run = 0; region && run < entry->assumed_count; run++)
			dt_bits_set(dt_assumed(session, slot, region), runs[run].start, runs[run].stop);
	}
}

int dt_list_assumed(struct dt_session *session, struct dt_epoch *epoch, size_t slot, int verb)
{
	struct dt_epoch_buffers *buffers = &epoch->buffers;
	int error = dt_make_room(&buffers->assumed, &buffers->assumed_room, epoch->pages + 1, sizeof *buffers->assumed);
	for (size_t i = 0; !error && i < epoch->entry_count; i++) {
		struct dt_entry *entry = &buffers->entries[i];
		struct dt_bits *assumed = dt_assumed(session, slot, dt_find_region(session, entry->region));
		entry->first_assumed = epoch->assumed_count;
		const struct dt_run *run = buffers->runs + entry->first_run, *end = run + entry->run_count;
		for (; assumed->low < assumed->high && run < end; run++) {
			epoch->assumed_count +=
				dt_bits_runs(assumed, run->start, run->stop, buffers->assumed + epoch->assumed_count);
			if (verb != DT_PEEK)
				dt_bits_clear(assumed, run->start, run->stop);
		}
		entry->assumed_count = epoch->assumed_count - entry->first_assumed;
	}
	return error;
}
