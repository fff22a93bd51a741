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

static uint64_t unit_of(const struct dt_history *history)
{
	return history->store.contents.unit;
}

// Where the bytes of a unit lie in a region; its first units may lie before it.
static struct dt_run bytes_of(const struct dt_history *history, const struct dt_extent *extent, uint64_t unit)
{
	uint64_t start = unit * unit_of(history);
	return dt_extent_clip(extent, (struct dt_run){start, start + unit_of(history)});
}

// The same place within the contents that are kept.
static uint64_t place_of(const struct dt_history *history, const struct dt_extent *extent, struct dt_run bytes)
{
	return (extent->offset + bytes.start) % unit_of(history);
}

static uint64_t units_in_page(const struct dt_history *history, const struct dt_extent *extent)
{
	return extent->page_size / unit_of(history);
}

static uint8_t *contents_at(const struct dt_history *history, uint32_t slot, uint64_t place)
{
	return (uint8_t *)dt_pool_at(&history->store.contents, slot) + place;
}

static bool is_kept(const struct dt_history *history, uint32_t slot, uint64_t place, const uint8_t *memory,
		    uint64_t length)
{
	if (slot == DT_ZEROS)
		return dt_is_zero(memory, length);
	return memcmp(contents_at(history, slot, place), memory, length) == 0;
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
	uint8_t *contents = contents_at(history, *slot_ret, 0);
	if (length < unit_of(history)) // so that equal contents are equal slots
		memset(contents, 0, unit_of(history));
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
	while (history->oldest)
		dt_history_drop(history, history->oldest);
	dt_tree_drop(&history->store, history->tree);
	dt_store_close(&history->store);
	dt_free(history->saved, history->saved_room * sizeof *history->saved);
	dt_free(history->first_units, (history->n + 1) * sizeof *history->first_units);
	for (size_t i = 0; history->extents && history->written && i < history->n; i++)
		dt_free(history->written[i].words, dt_bits_bytes(dt_extent_pages(&history->extents[i])));
	dt_free(history->written, history->n * sizeof *history->written);
	dt_free(history->extents, history->n * sizeof *history->extents);
	dt_free(history->entries, history->entry_room * sizeof *history->entries);
	dt_free(history->runs, history->run_room * sizeof *history->runs);
	dt_free(history->buffer, unit_of(history));
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

// States by age, and free identifiers

static void add_to_states(struct dt_history *history, uint64_t state)
{
	struct dt_saved *saved = &history->saved[state];
	saved->older = history->newest;
	saved->newer = 0;
	if (saved->older)
		history->saved[saved->older].newer = state;
	else
		history->oldest = state;
	history->newest = state;
	history->count++;
}

static void remove_from_states(struct dt_history *history, uint64_t state)
{
	const struct dt_saved *saved = &history->saved[state];
	*(saved->older ? &history->saved[saved->older].newer : &history->oldest) = saved->newer;
	*(saved->newer ? &history->saved[saved->newer].older : &history->newest) = saved->older;
	history->count--;
}

static void list_as_free(struct dt_history *history, uint64_t state)
{
	struct dt_saved *saved = &history->saved[state];
	if (saved->is_listed)
		return;
	saved->is_listed = 1;
	saved->next_free = history->free;
	history->free = state;
}

uint64_t dt_history_unused(struct dt_history *history)
{
	while (history->free && dt_history_has(history, history->free)) {
		struct dt_saved *saved = &history->saved[history->free];
		saved->is_listed = 0;
		history->free = saved->next_free;
	}
	return history->free ? history->free : history->known + 1;
}

uint64_t dt_history_bytes(const struct dt_history *history)
{
	return dt_store_bytes(&history->store);
}

static void add_state(struct dt_history *history, uint64_t state, uint32_t tree)
{
	struct dt_saved *saved = &history->saved[state];
	while (history->known < state) // those that were passed over, too
		list_as_free(history, ++history->known);
	saved->number = ++history->saves;
	saved->tree = tree;
	saved->parent = history->current;
	saved->parent_number = history->current ? history->saved[history->current].number : 0;
	add_to_states(history, state);
	history->current = state;
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
	add_state(history, state, dt_tree_share(&history->store, saving.tree));
	epoch->settled = 1;
	return 0;
}

// The way to another state

struct difference {
	struct dt_history *history;
	size_t region; // of the unit last seen; they come in order
};

// The region of a unit; its number becomes that in the region.
static size_t region_of(struct difference *difference, uint64_t *number)
{
	const uint64_t *first_units = difference->history->first_units;
	while (*number >= first_units[difference->region + 1])
		difference->region++;
	*number -= first_units[difference->region];
	return difference->region;
}

static void plan_unit(void *context, uint64_t unit, uint32_t a, uint32_t b)
{
	struct dt_history *history = ((struct difference *)context)->history;
	size_t region = region_of(context, &unit);
	uint64_t page = unit / units_in_page(history, &history->extents[region]);
	(void)a, (void)b;
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
	dt_tree_differ(&history->store, history->tree, history->saved[state].tree, plan_unit,
		       &(struct difference){history, 0});
	for (size_t i = 0; i < history->n; i++) {
		struct dt_bits *written = &history->written[i];
		struct dt_entry *entry = &history->entries[i];
		*entry = (struct dt_entry){
			.region = open->buffers.entries[i].region,
			.first_run = (uint64_t)(end - history->runs),
		};
		if (written->low >= written->high) // as of most, where there are many
			continue;
		uint64_t pages = dt_extent_pages(&history->extents[i]);
		entry->run_count = dt_bits_runs(written, 0, pages, end);
		entry->pages = dt_runs_count(end, entry->run_count);
		dt_bits_clear(written, 0, pages);
		planned += entry->pages;
		end += entry->run_count;
	}
	return planned;
}

// What a state has of some bytes.
struct wanted {
	const struct dt_history *history;
	uint32_t tree;
};

static const uint8_t *contents_of(const void *context, size_t region, struct dt_run bytes)
{
	const struct wanted *wanted = context;
	const struct dt_history *history = wanted->history;
	const struct dt_extent *extent = &history->extents[region];
	uint64_t unit = (extent->offset + bytes.start) / unit_of(history);
	uint32_t slot = dt_tree_find(&history->store, wanted->tree, history->first_units[region] + unit);
	if (slot == DT_ZEROS)
		return NULL;
	return contents_at(history, slot, place_of(history, extent, bytes));
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
	uint32_t tree = history->saved[state].tree;
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
	dt_tree_share(&history->store, tree);
	dt_tree_drop(&history->store, history->tree);
	history->tree = tree;
	history->current = state;
	return 0;
}

// What is different between two states

struct contrast {
	struct difference difference; // the first, since it is what region_of takes
	struct dt_changes *changes;
	const struct dt_comparing *how;
};

static void compare_unit(void *context, uint64_t unit, uint32_t a, uint32_t b)
{
	struct contrast *contrast = context;
	const struct dt_history *history = contrast->difference.history;
	size_t region = region_of(&contrast->difference, &unit);
	const struct dt_extent *extent = &history->extents[region];
	struct dt_run bytes = bytes_of(history, extent, unit);
	uint64_t place = place_of(history, extent, bytes);
	const uint8_t *before = a == DT_ZEROS ? history->buffer : contents_at(history, a, place);
	const uint8_t *after = b == DT_ZEROS ? history->buffer : contents_at(history, b, place);
	dt_compare(contrast->changes, contrast->how, region, bytes.start, before, after, bytes.stop - bytes.start);
}

static void read_state(const void *context, uint64_t region, uint64_t start, uint64_t stop, uint8_t *out)
{
	const struct wanted *wanted = context;
	const struct dt_history *history = wanted->history;
	uint64_t unit = unit_of(history);
	for (uint64_t end, offset = history->extents[region].offset; start < stop; out += end - start, start = end) {
		end = start + unit - (offset + start) % unit;
		end = end < stop ? end : stop;
		const uint8_t *contents = contents_of(wanted, region, (struct dt_run){start, end});
		if (contents)
			memcpy(out, contents, end - start);
		else
			memset(out, 0, end - start);
	}
}

int dt_history_diff(struct dt_history *history, uint64_t from, uint64_t to, struct dt_changes *changes,
		    const struct dt_comparing *how)
{
	if (!dt_history_has(history, from) || !dt_history_has(history, to))
		return -EINVAL;
	uint32_t before = history->saved[from].tree, after = history->saved[to].tree;
	const struct wanted old = {history, before};
	const struct dt_comparing comparing = {how->gap, how->limit, read_state, &old};
	struct contrast contrast = {{history, 0}, changes, &comparing};
	memset(history->buffer, 0, unit_of(history)); // as contents of zeros
	dt_tree_differ(&history->store, before, after, compare_unit, &contrast);
	return 0;
}

void dt_history_drop(struct dt_history *history, uint64_t state)
{
	if (!dt_history_has(history, state))
		return;
	struct dt_saved *saved = &history->saved[state];
	saved->number = 0;
	dt_tree_drop(&history->store, saved->tree);
	remove_from_states(history, state);
	list_as_free(history, state);
	if (history->current == state)
		history->current = 0;
}
