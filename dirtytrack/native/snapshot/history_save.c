// What memory is now becomes a state: pages that are as they were are shared.
#include <string.h>

#include "../base/array.h"
#include "../base/bytes.h"
#include "../core/access.h"
#include "history.h"
#include "history_units.h"

static bool is_kept(const struct dt_history *history, uint32_t slot, uint64_t place, const uint8_t *memory,
		    uint64_t length)
{
	if (slot == DT_ZEROS)
		return dt_is_zero(memory, length);
	return memcmp(dt_unit_contents(history, slot, place), memory, length) == 0;
}

// A slot with the contents of a unit, for the caller to put into a tree.
static int store_unit(struct dt_history *history, uint64_t place, const uint8_t *memory, uint64_t length,
		      uint32_t *slot_ret)
{
	*slot_ret = DT_ZEROS;
	if (dt_is_zero(memory, length))
		return 0;
	int error = dt_pool_take(&history->store.contents, slot_ret);
	if (error)
		return error;
	uint8_t *contents = dt_unit_contents(history, *slot_ret, 0);
	if (length < dt_unit_of(history)) // so that equal contents are equal slots
		memset(contents, 0, dt_unit_of(history));
	memcpy(contents + place, memory, length);
	return 0;
}

// A save on its way.
struct saving {
	struct dt_history *history;
	struct dt_session *session;
	uint32_t tree;              // which is to become the state
	struct dt_failure *failure; // where memory can't be read
};

// Makes the contents of a unit, whose bytes in memory are those of a view, a part of the tree.
static int keep_bytes(struct saving *saving, uint64_t number, uint64_t place, const uint8_t *view, uint64_t length)
{
	struct dt_store *store = &saving->history->store;
	uint32_t slot;
	if (is_kept(saving->history, dt_tree_find(store, saving->tree, number), place, view, length))
		return 0;
	int error = store_unit(saving->history, place, view, length, &slot);
	if (error)
		return error;
	error = dt_tree_put(store, &saving->tree, number, slot);
	if (error)
		dt_pool_drop(&store->contents, slot);
	return error;
}

static int keep_unit(struct saving *saving, size_t index, uint64_t unit)
{
	const struct dt_history *history = saving->history;
	const struct dt_extent *extent = &history->extents[index];
	struct dt_run bytes = dt_unit_bytes(history, extent, unit);
	const uint8_t *view;
	if (bytes.start >= bytes.stop)
		return 0;
	int error = dt_view(saving->session, extent, bytes, history->buffer, &view, saving->failure);
	return error ? error
		     : keep_bytes(saving, history->first_units[index] + unit, dt_unit_place(history, extent, bytes),
				  view, bytes.stop - bytes.start);
}

static int keep_pages(struct saving *saving, size_t index, struct dt_run pages)
{
	uint64_t scale = dt_units_in_page(saving->history, &saving->history->extents[index]);
	int error = 0;
	for (uint64_t unit = pages.start * scale; !error && unit < pages.stop * scale; unit++)
		error = keep_unit(saving, index, unit);
	return error;
}

static int keep_written(struct saving *saving, const struct dt_epoch *epoch)
{
	const struct dt_history *history = saving->history;
	const struct dt_entry *entries = epoch->buffers.entries;
	int error = dt_check_entries(saving->session, history->maps, false, history->extents, history->n, entries,
				     epoch->buffers.runs, saving->failure);
	for (size_t i = 0; !error && i < history->n; i++) {
		const struct dt_run *run = epoch->buffers.runs + entries[i].first_run;
		for (uint64_t left = entries[i].run_count; !error && left; left--)
			error = keep_pages(saving, i, *run++);
	}
	return error;
}

// What is not populated is zeros, and is not touched.
static int keep_everything(struct saving *saving)
{
	const struct dt_history *history = saving->history;
	int error = 0, found;
	for (size_t i = 0; !error && i < history->n; i++) {
		const struct dt_extent *extent = &history->extents[i];
		struct dt_touch touch = {.maps = history->maps, .pagemap = saving->session->backend.pagemap};
		struct dt_run rest = {0, extent->nbytes}, piece;
		while (!error && (found = dt_next_nonzero(saving->session, extent, rest, &piece)) != 0) {
			struct dt_run pages = found > 0 ? dt_extent_pages_of(extent, piece) : (struct dt_run){0};
			error = found < 0 ? found : dt_check_runs(&touch, extent, &pages, &pages + 1, saving->failure);
			if (!error)
				error = keep_pages(saving, i, pages);
			rest.start = piece.stop;
		}
	}
	return error;
}

int dt_history_save(struct dt_history *history, struct dt_session *session, uint64_t cursor,
		    const struct dt_slice *slices, uint64_t state, struct dt_epoch *epoch)
{
	int error = dt_grow(&history->saved, &history->saved_room, state + 1, sizeof *history->saved);
	if (!error)
		error = dt_collect(session, cursor, DT_COLLECT, slices, history->n, epoch);
	if (error)
		return error;
	struct saving saving = {history, session, dt_tree_share(&history->store, history->tree), &epoch->failure};
	dt_begin_reading(session);
	error = history->saves ? keep_written(&saving, epoch) : keep_everything(&saving);
	dt_end_reading(session);
	if (error) {
		dt_tree_drop(&history->store, saving.tree);
		dt_epoch_abort(epoch);
		return error;
	}
	dt_tree_drop(&history->store, history->tree);
	history->tree = saving.tree;
	dt_history_add(history, state, dt_tree_share(&history->store, saving.tree));
	epoch->settled = 1;
	return 0;
}
