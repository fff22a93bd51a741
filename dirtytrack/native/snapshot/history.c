// States by age, and free identifiers.
#include "history.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "../base/array.h"
#include "../base/memory.h"

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
	dt_free(history->buffer, history->store.contents.unit);
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

void dt_history_add(struct dt_history *history, uint64_t state, uint32_t tree)
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
