// A tree maps the numbers of units to slots of a store, as a page table maps addresses to pages: each level takes six
// bits of the number, every tree of a store has the same height, and what is missing is zeros (a NULL child, slot
// DT_ZEROS).
//
// Trees share nodes, and nodes share slots. Both are counted, by the same rule:
//
//	- a node's references are the trees and the parents that have it; a slot's are the leaves;
//	- whoever has the only reference to a node, and to all nodes above it, may change it in place; else it is copied
//	  first (own), which takes a reference to every child, or slot, of the copy and gives back one to the original.
//
// So saving a state is one more reference to the root, and the next change below it copies the nodes on its way, one a
// level: two states have nodes of their own above the units that differ, and share the rest. That makes a restore
// cheap, too: where two trees have the same node nothing below it differs, and dt_tree_differ does not look.
//
// Contents lie in chunks of slots, which are never moved: what dt_store_contents returned stays valid while the slot is
// in use. A chunk of which no slot is in use gives its memory back to the kernel, but not its addresses, once more
// slots are free than in use: as much as is in use is kept at hand for the next contents.
#include "page_tree.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "../base/array.h"
#include "../base/memory.h"
#include "../base/patience.h"

enum {
	BITS = 6, // of a unit's number that a level of a tree takes
	WIDTH = 1 << BITS,
	CHUNK = 256,    // slots
	NODE_NS = 1000, // to look through a node
};

struct dt_node {
	uint32_t references; // trees and parents that have it
	union {
		struct dt_node *children[WIDTH]; // of a node above the leaves; NULL: all zeros
		uint32_t slots[WIDTH];           // of a leaf
	};
};

// Contents

void dt_store_open(struct dt_store *store, uint64_t unit, uint64_t units)
{
	store->unit = unit;
	while (units > 1ULL << (store->levels + 1) * BITS)
		store->levels++;
}

void dt_store_close(struct dt_store *store)
{
	dt_takes_copy(store->used * store->unit);
	for (size_t chunk = 0; chunk < store->slots / CHUNK; chunk++)
		dt_free(store->chunks[chunk], CHUNK * store->unit);
	dt_free(store->chunks, store->chunk_room * sizeof *store->chunks);
	dt_free(store->in_use, store->in_use_room * sizeof *store->in_use);
	dt_free(store->references, store->slot_room * sizeof *store->references);
	dt_free(store->free_slots, store->free_room * sizeof *store->free_slots);
}

uint64_t dt_store_bytes(const struct dt_store *store)
{
	return store->used * store->unit + store->nodes;
}

uint8_t *dt_store_contents(const struct dt_store *store, uint32_t slot)
{
	return store->chunks[slot / CHUNK] + slot % CHUNK * store->unit;
}

static int grow(struct dt_store *store)
{
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
	store->chunks[chunk] = dt_alloc(CHUNK * store->unit);
	if (!store->chunks[chunk])
		return -ENOMEM;
	for (size_t slot = slots; slot-- > store->slots;)
		if (slot != DT_ZEROS)
			store->free_slots[store->free_count++] = (uint32_t)slot;
	store->slots = (uint32_t)slots;
	return 0;
}

int dt_store_take(struct dt_store *store, uint32_t *slot_ret)
{
	int error = store->free_count ? 0 : grow(store);
	if (error)
		return error;
	*slot_ret = store->free_slots[--store->free_count];
	store->references[*slot_ret] = 1;
	store->in_use[*slot_ret / CHUNK]++;
	store->used++;
	return 0;
}

void dt_store_drop(struct dt_store *store, uint32_t slot)
{
	if (slot == DT_ZEROS || --store->references[slot])
		return;
	store->free_slots[store->free_count++] = slot;
	store->used--;
	if (--store->in_use[slot / CHUNK] == 0 && store->free_count > store->used)
		madvise(store->chunks[slot / CHUNK], CHUNK * store->unit, MADV_DONTNEED);
}

// Trees

static struct dt_node *new_node(struct dt_store *store)
{
	struct dt_node *node = dt_alloc(sizeof *node);
	if (node) {
		node->references = 1;
		store->nodes += sizeof *node;
	}
	return node;
}

static void drop(struct dt_store *store, struct dt_node *node, unsigned level)
{
	if (!node || --node->references)
		return;
	dt_takes(NODE_NS);
	for (int i = 0; i < WIDTH; i++) {
		if (level)
			drop(store, node->children[i], level - 1);
		else
			dt_store_drop(store, node->slots[i]);
	}
	store->nodes -= sizeof *node;
	dt_free(node, sizeof *node);
}

struct dt_node *dt_tree_share(struct dt_node *tree)
{
	if (tree)
		tree->references++;
	return tree;
}

void dt_tree_drop(struct dt_store *store, struct dt_node *tree)
{
	drop(store, tree, store->levels);
}

// Makes a node one that its owner may change, and returns it: itself, a copy, or a new one for NULL. The owner's
// reference goes with it. NULL without memory; then nothing has changed.
static struct dt_node *own(struct dt_store *store, struct dt_node *node, unsigned level)
{
	if (node && node->references == 1)
		return node;
	struct dt_node *copy = new_node(store);
	if (!copy || !node)
		return copy;
	memcpy(copy->children, node->children, sizeof copy->children);
	for (int i = 0; i < WIDTH; i++) {
		if (level && node->children[i])
			node->children[i]->references++;
		else if (!level && node->slots[i] != DT_ZEROS)
			store->references[node->slots[i]]++;
	}
	node->references--;
	return copy;
}

// Which child, or slot, of a node on this level a unit is under.
static unsigned digit(uint64_t unit, unsigned level)
{
	return unit >> level * BITS & (WIDTH - 1);
}

uint32_t dt_tree_find(const struct dt_store *store, const struct dt_node *tree, uint64_t unit)
{
	for (unsigned level = store->levels; tree && level; level--)
		tree = tree->children[digit(unit, level)];
	return tree ? tree->slots[digit(unit, 0)] : DT_ZEROS;
}

// From the root down, each node on the way becomes the tree's own. If memory runs out half-way, the nodes above are
// copies that say the same as the originals: the tree is what it was.
int dt_tree_put(struct dt_store *store, struct dt_node **tree, uint64_t unit, uint32_t slot)
{
	for (unsigned level = store->levels;; level--) {
		struct dt_node *node = own(store, *tree, level);
		if (!node)
			return -ENOMEM;
		*tree = node;
		if (!level) {
			dt_store_drop(store, node->slots[digit(unit, 0)]);
			node->slots[digit(unit, 0)] = slot;
			return 0;
		}
		tree = &node->children[digit(unit, level)];
	}
}

// Whether two slots have the same contents, which two branches may have come to on their own.
static bool same(const struct dt_store *store, uint32_t a, uint32_t b)
{
	return a == b || (a != DT_ZEROS && b != DT_ZEROS &&
			  !memcmp(dt_store_contents(store, a), dt_store_contents(store, b), store->unit));
}

// first: the number of the first unit under the two nodes.
static void differ(const struct dt_store *store, const struct dt_node *a, const struct dt_node *b, unsigned level,
		   uint64_t first, dt_see *see, void *context)
{
	if (a == b)
		return;
	dt_takes(NODE_NS);
	for (uint64_t i = 0; i < WIDTH; i++) {
		uint64_t unit = first + (i << level * BITS);
		if (level)
			differ(store, a ? a->children[i] : NULL, b ? b->children[i] : NULL, level - 1, unit, see,
			       context);
		else if (!same(store, a ? a->slots[i] : DT_ZEROS, b ? b->slots[i] : DT_ZEROS))
			see(context, unit);
	}
}

void dt_tree_differ(const struct dt_store *store, const struct dt_node *a, const struct dt_node *b, dt_see *see,
		    void *context)
{
	differ(store, a, b, store->levels, 0, see, context);
}
