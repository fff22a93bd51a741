// Units, which are kept, and the way from one state to another.
#include "history.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "../base/array.h"
#include "../base/bytes.h"
#include "../base/memory.h"

enum { LONG_RUN = 4 }; // pages

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

static int keep_unit(struct dt_history *history, struct dt_node **tree, size_t index, uint64_t unit)
{
	const struct dt_extent *extent = &history->extents[index];
	struct dt_run bytes = bytes_of(history, extent, unit);
	if (bytes.start >= bytes.stop)
		return 0;
	const uint8_t *memory = (const uint8_t *)(uintptr_t)extent->address + bytes.start;
	uint64_t length = bytes.stop - bytes.start, number = history->first_units[index] + unit;
	uint64_t place = place_of(history, extent, bytes);
	uint32_t slot;
	if (is_kept(history, dt_tree_find(&history->store, *tree, number), place, memory, length))
		return 0;
	int error = store_unit(history, place, memory, length, &slot);
	if (error)
		return error;
	error = dt_tree_put(&history->store, tree, number, slot);
	if (error)
		dt_store_drop(&history->store, slot);
	return error;
}

static int keep_pages(struct dt_history *history, struct dt_node **tree, size_t index, const struct dt_run *pages)
{
	uint64_t scale = units_in_page(history, &history->extents[index]);
	int error = 0;
	for (uint64_t unit = pages->start * scale; !error && unit < pages->stop * scale; unit++)
		error = keep_unit(history, tree, index, unit);
	return error;
}

static int keep(struct dt_history *history, struct dt_node **tree, const struct dt_epoch *epoch, int everything)
{
	int error = 0;
	for (size_t i = 0; !error && i < history->n; i++) {
		const struct dt_entry *entry = &epoch->buffers.entries[i];
		const struct dt_run *run = epoch->buffers.runs + entry->first_run, *end = run + entry->run_count;
		if (everything)
			error = keep_pages(history, tree, i,
					   &(struct dt_run){0, dt_extent_pages(&history->extents[i])});
		for (; !everything && !error && run < end; run++)
			error = keep_pages(history, tree, i, run);
	}
	return error;
}

static void write_unit(struct dt_history *history, const struct dt_node *tree, size_t index, uint64_t unit)
{
	const struct dt_extent *extent = &history->extents[index];
	struct dt_run bytes = bytes_of(history, extent, unit);
	if (bytes.start >= bytes.stop)
		return;
	uint8_t *memory = (uint8_t *)(uintptr_t)extent->address + bytes.start;
	uint64_t length = bytes.stop - bytes.start, place = place_of(history, extent, bytes);
	uint32_t slot = dt_tree_find(&history->store, tree, history->first_units[index] + unit);
	if (slot == DT_ZEROS)
		memset(memory, 0, length);
	else
		memcpy(memory, dt_store_contents(&history->store, slot) + place, length);
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
	dt_free(history, sizeof *history);
}

int dt_history_open(struct dt_history *history, const struct dt_extent *extents, size_t n)
{
	size_t runs = 0;
	uint64_t unit = (uint64_t)sysconf(_SC_PAGESIZE);
	history->n = n;
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
	struct dt_node *tree = dt_tree_share(history->tree);
	error = keep(history, &tree, epoch, history->saves == 0);
	if (error) {
		dt_tree_drop(&history->store, tree);
		dt_epoch_abort(epoch);
		return error;
	}
	dt_tree_drop(&history->store, history->tree);
	history->tree = tree;
	history->states[state] = dt_tree_share(tree);
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

int dt_history_plan(struct dt_history *history, uint64_t state, const struct dt_epoch *open)
{
	struct dt_run *end = history->runs;
	if (!dt_history_has(history, state))
		return -EINVAL;
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
		end += runs;
	}
	return 0;
}

// Opens a run of pages at once, where that costs less than a fault for each; that fails without harm.
static int open_run(struct dt_session *session, const struct dt_extent *extent, const struct dt_run *run)
{
	uint64_t base = extent->address - extent->offset;
	if (run->stop - run->start < LONG_RUN)
		return 0;
	return dt_session_disarm(session, base + run->start * extent->page_size, base + run->stop * extent->page_size);
}

int dt_history_restore(struct dt_history *history, struct dt_session *session, uint64_t cursor,
		       const struct dt_slice *slices, uint64_t state, struct dt_epoch *taken)
{
	struct dt_node *tree = history->states[state];
	for (size_t i = 0; i < history->n; i++) {
		const struct dt_run *run = history->runs + history->entries[i].first_run;
		uint64_t scale = units_in_page(history, &history->extents[i]);
		for (size_t left = history->entries[i].run_count; left; left--, run++) {
			int error = open_run(session, &history->extents[i], run);
			if (error)
				return error;
			for (uint64_t unit = run->start * scale; unit < run->stop * scale; unit++)
				write_unit(history, tree, i, unit);
		}
	}
	int error = dt_collect(session, cursor, DT_COLLECT, slices, history->n, taken);
	if (!error)
		error = dt_epoch_settle(taken, history->entries, history->runs);
	if (error)
		return error;
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
