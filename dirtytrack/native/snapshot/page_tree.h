// A map from the numbers of units, such as the pages of all regions, to their contents, that shares with others what
// they have in common. Contents lie in slots of a store; a map is a tree whose leaves name slots. A store and its trees
// are one thread's at a time.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { DT_ZEROS = 0 }; // the slot of contents that are zeros, which are not kept

struct dt_node; // NULL: a tree of zeros only

// Contents of units, counted by the leaves that have them, for any number of trees.
struct dt_store {
	uint64_t unit;    // bytes of contents
	unsigned levels;  // of every tree, above the leaves
	uint8_t **chunks; // of slots, by number; owned, as all the arrays are
	size_t chunk_room;
	uint32_t *in_use; // slots of each chunk that are
	size_t in_use_room;
	uint32_t *references; // by slot: leaves that have it; 0: free
	size_t slot_room;
	uint32_t *free_slots; // free_count of them, in any order
	size_t free_room;
	size_t free_count;
	uint32_t slots; // in all chunks
	uint64_t used;  // slots in use
	uint64_t nodes; // bytes of nodes of all trees
};

// Says what an empty store (all zeros) is of: contents of `unit` bytes, for units 0 to `units`, exclusive.
void dt_store_open(struct dt_store *store, uint64_t unit, uint64_t units);
// Frees its memory. The trees must be dropped before.
void dt_store_close(struct dt_store *store);
// Bytes that contents and trees take.
uint64_t dt_store_bytes(const struct dt_store *store);
// The contents of a slot other than DT_ZEROS, valid while the slot is in use. To be changed only before it is put into
// a tree.
uint8_t *dt_store_contents(const struct dt_store *store, uint32_t slot);
// Takes a free slot, with undefined contents, for the caller to drop or to put into one tree. 0 or -ENOMEM.
int dt_store_take(struct dt_store *store, uint32_t *slot_ret);
// One leaf, or taker, less. DT_ZEROS is ignored.
void dt_store_drop(struct dt_store *store, uint32_t slot);

// One more owner of a tree, and one less.
struct dt_node *dt_tree_share(struct dt_node *tree);
void dt_tree_drop(struct dt_store *store, struct dt_node *tree);
// The slot of a unit.
uint32_t dt_tree_find(const struct dt_store *store, const struct dt_node *tree, uint64_t unit);
// Puts a slot into the caller's tree at *tree, which becomes another one where it is shared. 0 or -ENOMEM; then the
// tree is what it was, and the slot still the caller's.
int dt_tree_put(struct dt_store *store, struct dt_node **tree, uint64_t unit, uint32_t slot);
// Calls `see` with the units whose contents differ, in order; what two trees share is not looked at.
typedef void dt_see(void *context, uint64_t unit);
void dt_tree_differ(const struct dt_store *store, const struct dt_node *a, const struct dt_node *b, dt_see *see,
		    void *context);
