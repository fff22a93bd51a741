#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "history.h"
#include "internal.h"

enum {
	BITS = 6, // of a unit's number that a level of the tree takes
	WIDTH = 1 << BITS,
	CHUNK = 256, // slots
	LONG_RUN = 4, // pages
	ZEROS = 0,   // the slot of contents that are zeros, which are not kept
};

// Changed in place by who has the only reference, else copied.
struct dt_node {
	uint32_t references;
	union {
		struct dt_node *children[WIDTH]; // NULL: all zeros
		uint32_t slots[WIDTH];           // of a leaf
	};
};

// Contents

static uint8_t *contents(const struct dt_history *history, uint32_t slot)
{
	return history->store.chunks[slot / CHUNK] + slot % CHUNK * history->unit;
}

static int grow_store(struct dt_history *history)
{
	struct dt_store *store = &history->store;
	size_t slots = store->slots + CHUNK, chunk = store->slots / CHUNK;
	int error = slots > UINT32_MAX ? -ENOMEM : 0;
	if (!error)
		error = dt_grow(&store->chunks, &store->chunk_room, chunk + 1, sizeof *store->chunks);
	if (!error)
		error = dt_grow(&store->in_use, &store->in_use_room, chunk + 1, sizeof *store->in_use);
	if (!error)
		error = dt_grow(&store->references, &store->slot_room, slots, sizeof *store->references);
	if (!error)
		error = dt_grow(&store->free_slots, &store->free_room, slots, sizeof *store->free_slots);
	if (error)
		return error;
	store->chunks[chunk] = dt_alloc(CHUNK * history->unit);
	if (!store->chunks[chunk])
		return -ENOMEM;
	for (size_t slot = slots; slot-- > store->slots;)
		if (slot != ZEROS)
			store->free_slots[store->free_count++] = (uint32_t)slot;
	store->slots = (uint32_t)slots;
	return 0;
}

static int take_slot(struct dt_history *history, uint32_t *slot_ret)
{
	struct dt_store *store = &history->store;
	int error = store->free_count ? 0 : grow_store(history);
	if (error)
		return error;
	*slot_ret = store->free_slots[--store->free_count];
	store->references[*slot_ret] = 1;
	store->in_use[*slot_ret / CHUNK]++;
	store->used++;
	return 0;
}

static void drop_slot(struct dt_history *history, uint32_t slot)
{
	struct dt_store *store = &history->store;
	if (slot == ZEROS || --store->references[slot])
		return;
	store->free_slots[store->free_count++] = slot;
	store->used--;
	// As much is kept at hand for later contents as is in use.
	if (--store->in_use[slot / CHUNK] == 0 && store->free_count > store->used)
		madvise(store->chunks[slot / CHUNK], CHUNK * history->unit, MADV_DONTNEED);
}

// Trees

static struct dt_node *new_node(struct dt_history *history)
{
	struct dt_node *node = dt_alloc(sizeof *node);
	if (node) {
		node->references = 1;
		history->store.nodes += sizeof *node;
	}
	return node;
}

static void drop_tree(struct dt_history *history, struct dt_node *node, unsigned level)
{
	if (!node || --node->references)
		return;
	for (int i = 0; i < WIDTH; i++) {
		if (level)
			drop_tree(history, node->children[i], level - 1);
		else
			drop_slot(history, node->slots[i]);
	}
	history->store.nodes -= sizeof *node;
	dt_free(node, sizeof *node);
}

// Makes a node one that may be changed.
static struct dt_node *own(struct dt_history *history, struct dt_node *node, unsigned level)
{
	if (node && node->references == 1)
		return node;
	struct dt_node *copy = new_node(history);
	if (!copy || !node)
		return copy;
	memcpy(copy->children, node->children, sizeof copy->children);
	for (int i = 0; i < WIDTH; i++) {
		if (level && node->children[i])
			node->children[i]->references++;
		else if (!level && node->slots[i] != ZEROS)
			history->store.references[node->slots[i]]++;
	}
	node->references--;
	return copy;
}

static unsigned digit(uint64_t unit, unsigned level)
{
	return unit >> level * BITS & (WIDTH - 1);
}

static uint32_t find(const struct dt_history *history, const struct dt_node *tree, uint64_t unit)
{
	for (unsigned level = history->levels; tree && level; level--)
		tree = tree->children[digit(unit, level)];
	return tree ? tree->slots[digit(unit, 0)] : ZEROS;
}

// Puts a slot into a tree that the caller owns, at *tree.
static int put(struct dt_history *history, struct dt_node **tree, uint64_t unit, uint32_t slot)
{
	for (unsigned level = history->levels;; level--) {
		struct dt_node *node = own(history, *tree, level);
		if (!node)
			return -ENOMEM;
		*tree = node;
		if (!level) {
			drop_slot(history, node->slots[digit(unit, 0)]);
			node->slots[digit(unit, 0)] = slot;
			return 0;
		}
		tree = &node->children[digit(unit, level)];
	}
}

// Units and regions

// Where the bytes of a unit lie in a region; its first units may lie before it.
static struct dt_run bytes_of(const struct dt_history *history, const struct dt_twin *twin, uint64_t unit)
{
	uint64_t start = unit * history->unit, stop = start + history->unit;
	stop = stop > twin->offset ? stop - twin->offset : 0;
	return (struct dt_run){
		start > twin->offset ? start - twin->offset : 0,
		stop < twin->nbytes ? stop : twin->nbytes,
	};
}

// The same place within the contents that are kept.
static uint64_t at(const struct dt_history *history, const struct dt_twin *twin, struct dt_run bytes)
{
	return (twin->offset + bytes.start) % history->unit;
}

static uint64_t pages_of(const struct dt_twin *twin)
{
	return (twin->offset + twin->nbytes + twin->page_size - 1) / twin->page_size;
}

static int keep_unit(struct dt_history *history, struct dt_node **tree, size_t index, uint64_t unit)
{
	const struct dt_twin *twin = &history->twins[index];
	struct dt_run bytes = bytes_of(history, twin, unit);
	if (bytes.start >= bytes.stop)
		return 0;
	const uint8_t *memory = (const uint8_t *)twin->address + bytes.start;
	uint64_t length = bytes.stop - bytes.start, number = history->first[index] + unit;
	uint32_t old = find(history, *tree, number), slot = ZEROS;
	if (old == ZEROS ? dt_is_zero(memory, length)
			 : !memcmp(contents(history, old) + at(history, twin, bytes), memory, length))
		return 0;
	if (!dt_is_zero(memory, length)) {
		int error = take_slot(history, &slot);
		if (error)
			return error;
		if (length < history->unit) // so that equal contents are equal slots
			memset(contents(history, slot), 0, history->unit);
		memcpy(contents(history, slot) + at(history, twin, bytes), memory, length);
	}
	int error = put(history, tree, number, slot);
	if (error)
		drop_slot(history, slot);
	return error;
}

static int keep_pages(struct dt_history *history, struct dt_node **tree, size_t index, const struct dt_run *pages)
{
	uint64_t scale = history->twins[index].page_size / history->unit;
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
			error = keep_pages(history, tree, i, &(struct dt_run){0, pages_of(&history->twins[i])});
		for (; !everything && !error && run < end; run++)
			error = keep_pages(history, tree, i, run);
	}
	return error;
}

static void write_unit(struct dt_history *history, const struct dt_node *tree, size_t index, uint64_t unit)
{
	const struct dt_twin *twin = &history->twins[index];
	struct dt_run bytes = bytes_of(history, twin, unit);
	if (bytes.start >= bytes.stop)
		return;
	uint8_t *memory = (uint8_t *)twin->address + bytes.start;
	uint32_t slot = find(history, tree, history->first[index] + unit);
	if (slot == ZEROS)
		memset(memory, 0, bytes.stop - bytes.start);
	else
		memcpy(memory, contents(history, slot) + at(history, twin, bytes), bytes.stop - bytes.start);
}

// The history

void *dt_history_new(size_t size)
{
	return dt_alloc(size);
}

void dt_history_free(void *pointer)
{
	struct dt_history *history = pointer;
	struct dt_store *store = &history->store;
	for (size_t state = 1; state < history->state_room; state++)
		drop_tree(history, history->states[state], history->levels);
	drop_tree(history, history->tree, history->levels);
	for (size_t chunk = 0; chunk < store->slots / CHUNK; chunk++)
		dt_free(store->chunks[chunk], CHUNK * history->unit);
	dt_free(store->chunks, store->chunk_room * sizeof *store->chunks);
	dt_free(store->in_use, store->in_use_room * sizeof *store->in_use);
	dt_free(store->references, store->slot_room * sizeof *store->references);
	dt_free(store->free_slots, store->free_room * sizeof *store->free_slots);
	dt_free(history->states, history->state_room * sizeof *history->states);
	dt_free(history->is_state, history->is_state_room);
	dt_free(history->first, (history->n + 1) * sizeof *history->first);
	for (size_t i = 0; history->written && i < history->n; i++)
		dt_free(history->written[i].words, dt_bits_bytes(pages_of(&history->twins[i])));
	dt_free(history->written, history->n * sizeof *history->written);
	dt_free(history->entries, history->entry_room * sizeof *history->entries);
	dt_free(history->runs, history->run_room * sizeof *history->runs);
	dt_free(history, sizeof *history);
}

int dt_history_open(struct dt_history *history, const struct dt_twin *twins, size_t n)
{
	size_t runs = 0;
	history->twins = twins;
	history->n = n;
	history->unit = (uint64_t)sysconf(_SC_PAGESIZE);
	history->first = dt_alloc((n + 1) * sizeof *history->first);
	history->written = dt_alloc(n * sizeof *history->written);
	if (!history->first || !history->written)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		uint64_t pages = pages_of(&twins[i]);
		runs += (pages + 1) / 2;
		history->first[i + 1] = history->first[i] + pages * (twins[i].page_size / history->unit);
		history->written[i].words = dt_alloc(dt_bits_bytes(pages));
		if (!history->written[i].words)
			return -ENOMEM;
	}
	while (history->first[n] > 1ULL << (history->levels + 1) * BITS)
		history->levels++;
	int error = dt_make_room(&history->entries, &history->entry_room, n, sizeof *history->entries);
	return error ? error : dt_make_room(&history->runs, &history->run_room, runs, sizeof *history->runs);
}

int dt_history_has(const struct dt_history *history, uint64_t state)
{
	return state < history->is_state_room && history->is_state[state];
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
	return history->store.used * history->unit + history->store.nodes;
}

static struct dt_node *share(struct dt_node *tree)
{
	if (tree)
		tree->references++;
	return tree;
}

int dt_history_save(struct dt_history *history, struct dt_session *session, uint64_t cursor,
		    const struct dt_slice *slices, uint64_t state, struct dt_epoch *epoch)
{
	int error = dt_grow(&history->states, &history->state_room, state + 1, sizeof *history->states);
	if (!error)
		error = dt_grow(&history->is_state, &history->is_state_room, state + 1, 1);
	if (!error)
		error = dt_collect(session, cursor, DT_COLLECT, slices, history->n, epoch);
	if (error)
		return error;
	struct dt_node *tree = share(history->tree);
	error = keep(history, &tree, epoch, history->saves == 0);
	if (error) {
		drop_tree(history, tree, history->levels);
		dt_epoch_abort(epoch);
		return error;
	}
	drop_tree(history, history->tree, history->levels);
	history->tree = tree;
	history->states[state] = share(tree);
	history->is_state[state] = 1;
	history->current = state;
	history->saves++;
	epoch->settled = 1;
	return 0;
}

// The way to another state

struct difference {
	struct dt_history *history;
	size_t region; // of the unit last seen; they come in order
};

static void see(struct difference *difference, uint64_t number)
{
	struct dt_history *history = difference->history;
	while (number >= history->first[difference->region + 1])
		difference->region++;
	const struct dt_twin *twin = &history->twins[difference->region];
	uint64_t page = (number - history->first[difference->region]) / (twin->page_size / history->unit);
	dt_bits_set(&history->written[difference->region], page, page + 1);
}

// Whether two slots have the same contents, which two branches may have come to on their own.
static bool same(const struct dt_history *history, uint32_t a, uint32_t b)
{
	return a == b || (a != ZEROS && b != ZEROS && !memcmp(contents(history, a), contents(history, b), history->unit));
}

// Sees the units, from a number on, that are not the same in two trees; what they share is not looked at.
static void differ(struct difference *difference, const struct dt_node *a, const struct dt_node *b, unsigned level,
		   uint64_t number)
{
	if (a == b)
		return;
	for (uint64_t i = 0; i < WIDTH; i++) {
		uint64_t there = number + (i << level * BITS);
		if (level)
			differ(difference, a ? a->children[i] : NULL, b ? b->children[i] : NULL, level - 1, there);
		else if (!same(difference->history, a ? a->slots[i] : ZEROS, b ? b->slots[i] : ZEROS))
			see(difference, there);
	}
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
	differ(&(struct difference){history, 0}, history->tree, history->states[state], history->levels, 0);
	for (size_t i = 0; i < history->n; i++) {
		uint64_t pages = pages_of(&history->twins[i]);
		size_t runs = dt_bits_runs(&history->written[i], 0, pages, end);
		history->entries[i] = (struct dt_entry){
			open->buffers.entries[i].region, (uint64_t)(end - history->runs), runs, dt_runs_count(end, runs)};
		dt_bits_clear(&history->written[i], 0, pages);
		end += runs;
	}
	return 0;
}

// Opens a run of pages at once, where that costs less than a fault for each; that fails without harm.
static int open_run(struct dt_session *session, const struct dt_twin *twin, const struct dt_run *run)
{
	uint64_t start = twin->address - twin->offset + run->start * twin->page_size;
	if (run->stop - run->start < LONG_RUN)
		return 0;
	int error = dt_enter(session);
	if (error)
		return error;
	dt_uffd_writeprotect(session->userfaultfd, start, (run->stop - run->start) * twin->page_size, 0);
	return dt_leave(session, 0);
}

int dt_history_restore(struct dt_history *history, struct dt_session *session, uint64_t cursor,
		       const struct dt_slice *slices, uint64_t state, struct dt_epoch *taken)
{
	struct dt_node *tree = history->states[state];
	for (size_t i = 0; i < history->n; i++) {
		const struct dt_run *run = history->runs + history->entries[i].first_run;
		uint64_t scale = history->twins[i].page_size / history->unit;
		for (size_t left = history->entries[i].run_count; left; left--, run++) {
			int error = open_run(session, &history->twins[i], run);
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
	share(tree);
	drop_tree(history, history->tree, history->levels);
	history->tree = tree;
	history->current = state;
	return 0;
}

void dt_history_drop(struct dt_history *history, uint64_t state)
{
	if (!dt_history_has(history, state))
		return;
	history->is_state[state] = 0;
	drop_tree(history, history->states[state], history->levels);
	history->states[state] = NULL;
	if (history->current == state)
		history->current = 0;
}
