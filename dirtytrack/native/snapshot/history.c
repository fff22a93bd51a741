// Units, which are kept, and the way from one state to another.
#include "history.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "../base/array.h"
#include "../base/bytes.h"
#include "../base/memory.h"
#include "../core/access.h"
#include "../core/tracking.h"
#include "rewrite.h"

// Units and regions

// Where the bytes of a unit lie in a region; its first units may lie before it.
static struct dt_run bytes_of(const struct dt_history *history, const struct dt_extent *extent, uint64_t unit)
{
	uint64_t start = unit * history->store.unit;
	return dt_extent_clip(extent, (struct dt_run){start, start + history->store.unit});
}

// The same place within the contents that are kept.
static uint64_t place_of(const struct dt_history *history, const struct dt_extent *extent, struct dt_run bytes)
{
	return (extent->offset + bytes.start) % history->store.unit;
}

static uint64_t units_in_page(const struct dt_history *history, const struct dt_extent *extent)
{
	return extent->page_size / history->store.unit;
}

static bool is_kept(const struct dt_history *history, uint32_t slot, uint64_t place, const uint8_t *memory,
		    uint64_t length)
{
	if (slot == DT_ZEROS)
		return dt_is_zero(memory, length);
	return memcmp(dt_store_contents(&history->store, slot) + place, memory, length) == 0;
}

// A slot with the contents of a unit, for the caller to put into a tree.
static int store_unit(struct dt_history *history, uint64_t place, const uint8_t *memory, uint64_t length,
		      uint32_t *slot_ret)
{
	*slot_ret = DT_ZEROS;
	if (dt_is_zero(memory, length))
		return 0;
	int error = dt_store_take(&history->store, slot_ret);
	if (error)
		return error;
	uint8_t *contents = dt_store_contents(&history->store, *slot_ret);
	if (length < history->store.unit) // so that equal contents are equal slots
		memset(contents, 0, history->store.unit);
	memcpy(contents + place, memory, length);
	return 0;
}

// A save on its way.
struct saving {
	struct dt_history *history;
	struct dt_session *session;
	struct dt_node *tree;       // which is to become the state
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
		dt_store_drop(store, slot);
	return error;
}

static int keep_unit(struct saving *saving, size_t index, uint64_t unit)
{
	const struct dt_history *history = saving->history;
	const struct dt_extent *extent = &history->extents[index];
	struct dt_run bytes = bytes_of(history, extent, unit);
	const uint8_t *view;
	if (bytes.start >= bytes.stop)
		return 0;
	int error = dt_view(saving->session, extent, bytes, history->buffer, &view, saving->failure);
	return error ? error
		     : keep_bytes(saving, history->first_units[index] + unit, place_of(history, extent, bytes), view,
				  bytes.stop - bytes.start);
}

static int keep_pages(struct saving *saving, size_t index, struct dt_run pages)
{
	uint64_t scale = units_in_page(saving->history, &saving->history->extents[index]);
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

// The history

void *dt_history_new(size_t size)
{
	return dt_alloc(size);
}

void dt_history_free(void *pointer)
{
	struct dt_history *history = pointer;
	for (size_t state = 1; state < history->state_room; state++)
		dt_tree_drop(&history->store, history->states[state]);
	dt_tree_drop(&history->store, history->tree);
	dt_store_close(&history->store);
	dt_free(history->states, history->state_room * sizeof *history->states);
	dt_free(history->saved, history->saved_room * sizeof *history->saved);
	dt_free(history->first_units, (history->n + 1) * sizeof *history->first_units);
	for (size_t i = 0; history->extents && history->written && i < history->n; i++)
		dt_free(history->written[i].words, dt_bits_bytes(dt_extent_pages(&history->extents[i])));
	dt_free(history->written, history->n * sizeof *history->written);
	dt_free(history->extents, history->n * sizeof *history->extents);
	dt_free(history->entries, history->entry_room * sizeof *history->entries);
	dt_free(history->runs, history->run_room * sizeof *history->runs);
	dt_free(history->buffer, history->store.unit);
	dt_free(history, sizeof *history);
}

int dt_history_open(struct dt_history *history, const struct dt_extent *extents, size_t n, int apart, int maps)
{
	size_t runs = 0;
	uint64_t unit = (uint64_t)sysconf(_SC_PAGESIZE);
	history->n = n;
	history->apart = apart;
	history->maps = maps;
	history->extents = dt_alloc(n * sizeof *extents);
	history->first_units = dt_alloc((n + 1) * sizeof *history->first_units);
	history->written = dt_alloc(n * sizeof *history->written);
	if (!history->extents || !history->first_units || !history->written)
		return -ENOMEM;
	memcpy(history->extents, extents, n * sizeof *extents);
	for (size_t i = 0; i < n; i++) {
		uint64_t pages = dt_extent_pages(&extents[i]);
		runs += (pages + 1) / 2;
		history->first_units[i + 1] = history->first_units[i] + pages * (extents[i].page_size / unit);
		history->written[i].words = dt_alloc(dt_bits_bytes(pages));
		if (!history->written[i].words)
			return -ENOMEM;
	}
	dt_store_open(&history->store, unit, history->first_units[n]);
	history->buffer = dt_alloc(unit);
	if (!history->buffer)
		return -ENOMEM;
	int error = dt_make_room(&history->entries, &history->entry_room, n, sizeof *history->entries);
	return error ? error : dt_make_room(&history->runs, &history->run_room, runs, sizeof *history->runs);
}

int dt_history_has(const struct dt_history *history, uint64_t state)
{
	return state < history->saved_room && history->saved[state].number;
}

uint64_t dt_history_unused(const struct dt_history *history)
{
	uint64_t state = 1;
	while (dt_history_has(history, state))
		state++;
	return state;
}

uint64_t dt_history_bytes(const struct dt_history *history)
{
	return dt_store_bytes(&history->store);
}

int dt_history_save(struct dt_history *history, struct dt_session *session, uint64_t cursor,
		    const struct dt_slice *slices, uint64_t state, struct dt_epoch *epoch)
{
	int error = dt_grow(&history->states, &history->state_room, state + 1, sizeof *history->states);
	if (!error)
		error = dt_grow(&history->saved, &history->saved_room, state + 1, sizeof *history->saved);
	if (!error)
		error = dt_collect(session, cursor, DT_COLLECT, slices, history->n, epoch);
	if (error)
		return error;
	struct saving saving = {history, session, dt_tree_share(history->tree), &epoch->failure};
	error = history->saves ? keep_written(&saving, epoch) : keep_everything(&saving);
	if (error) {
		dt_tree_drop(&history->store, saving.tree);
		dt_epoch_abort(epoch);
		return error;
	}
	dt_tree_drop(&history->store, history->tree);
	history->tree = saving.tree;
	history->states[state] = dt_tree_share(saving.tree);
	uint64_t parent = history->current ? history->saved[history->current].number : 0;
	history->saved[state] = (struct dt_saved){++history->saves, parent};
	history->current = state;
	epoch->settled = 1;
	return 0;
}

// The way to another state

struct difference {
	struct dt_history *history;
	size_t region; // of the unit last seen; they come in order
};

static void see(void *context, uint64_t number)
{
	struct difference *difference = context;
	struct dt_history *history = difference->history;
	while (number >= history->first_units[difference->region + 1])
		difference->region++;
	size_t region = difference->region;
	uint64_t unit = number - history->first_units[region];
	uint64_t page = unit / units_in_page(history, &history->extents[region]);
	dt_bits_set(&history->written[region], page, page + 1);
}

// Lists in the history's entries and runs the pages to write to bring memory, with the open pages of a peek, to a
// state. Their number.
static uint64_t plan(struct dt_history *history, uint64_t state, const struct dt_epoch *open)
{
	struct dt_run *end = history->runs;
	uint64_t planned = 0;
	for (size_t i = 0; i < history->n; i++) {
		const struct dt_entry *entry = &open->buffers.entries[i];
		const struct dt_run *run = open->buffers.runs + entry->first_run;
		for (size_t left = entry->run_count; left; left--, run++)
			dt_bits_set(&history->written[i], run->start, run->stop);
	}
	dt_tree_differ(&history->store, history->tree, history->states[state], see, &(struct difference){history, 0});
	for (size_t i = 0; i < history->n; i++) {
		uint64_t pages = dt_extent_pages(&history->extents[i]);
		size_t runs = dt_bits_runs(&history->written[i], 0, pages, end);
		history->entries[i] = (struct dt_entry){
			.region = open->buffers.entries[i].region,
			.first_run = (uint64_t)(end - history->runs),
			.run_count = runs,
			.pages = dt_runs_count(end, runs),
		};
		dt_bits_clear(&history->written[i], 0, pages);
		planned += history->entries[i].pages;
		end += runs;
	}
	return planned;
}

// What a state has of some bytes.
struct wanted {
	const struct dt_history *history;
	const struct dt_node *tree;
};

static const uint8_t *contents_of(const void *context, size_t region, struct dt_run bytes)
{
	const struct wanted *wanted = context;
	const struct dt_history *history = wanted->history;
	const struct dt_extent *extent = &history->extents[region];
	uint64_t unit = (extent->offset + bytes.start) / history->store.unit;
	uint32_t slot = dt_tree_find(&history->store, wanted->tree, history->first_units[region] + unit);
	if (slot == DT_ZEROS)
		return NULL;
	return dt_store_contents(&history->store, slot) + place_of(history, extent, bytes);
}

// Some of the planned pages may be those of the state already, and the tree is not: all of them count as written.
static void mark_planned(const struct dt_history *history, struct dt_session *session)
{
	for (size_t i = 0; i < history->n; i++) {
		const struct dt_run *run = history->runs + history->entries[i].first_run;
		for (uint64_t left = history->entries[i].run_count; left; left--, run++)
			dt_session_mark(session, history->extents[i].region, run->start, run->stop);
	}
}

int dt_history_restore(struct dt_history *history, struct dt_session *session, uint64_t cursor,
		       const struct dt_slice *slices, uint64_t state, struct dt_epoch *open, struct dt_epoch *taken,
		       uint64_t *pages_ret)
{
	int error = dt_history_has(history, state) ? 0 : -EINVAL;
	if (!error)
		error = dt_collect(session, cursor, DT_PEEK, slices, history->n, open);
	if (error)
		return error;
	*pages_ret = plan(history, state, open);
	error = dt_check_entries(session, history->maps, true, history->extents, history->n, history->entries,
				 history->runs, &taken->failure);
	if (error)
		return error;
	struct dt_node *tree = history->states[state];
	const struct dt_rewrite rewrite = {
		.slices = slices,
		.apart = history->apart,
		.extents = history->extents,
		.n = history->n,
		.entries = history->entries,
		.runs = history->runs,
		.armed = true,
		.contents = contents_of,
		.context = &(struct wanted){history, tree},
	};
	error = dt_rewrite(session, cursor, &rewrite, taken);
	if (error) {
		mark_planned(history, session);
		return error;
	}
	dt_tree_share(tree);
	dt_tree_drop(&history->store, history->tree);
	history->tree = tree;
	history->current = state;
	return 0;
}

void dt_history_drop(struct dt_history *history, uint64_t state)
{
	if (!dt_history_has(history, state))
		return;
	history->saved[state] = (struct dt_saved){0};
	dt_tree_drop(&history->store, history->states[state]);
	history->states[state] = NULL;
	if (history->current == state)
		history->current = 0;
}
