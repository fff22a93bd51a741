// A map from the numbers of units, such as the pages of all regions, to their contents, that shares with others what
// they have in common. A store has the contents and the nodes of all its trees; they are one thread's at a time.
#pragma once

#include "pool.h"

#pragma GCC visibility push(hidden)

enum { DT_ZEROS = 0 }; // the number of contents that are zeros, which are not kept; and of a tree of zeros only

struct dt_store {
	struct dt_pool contents; // of units
	struct dt_pool nodes;
	unsigned levels; // of every tree, above the leaves
};

// Says what an empty store (all zeros) is of: contents of `unit` bytes, for units 0 to `units`, exclusive. And its end.
void dt_store_open(struct dt_store *store, uint64_t unit, uint64_t units);
void dt_store_close(struct dt_store *store);
// Bytes that contents and trees take.
uint64_t dt_store_bytes(const struct dt_store *store);

// A tree is the number of its root. One more owner of it, and one less.
uint32_t dt_tree_share(struct dt_store *store, uint32_t tree);
void dt_tree_drop(struct dt_store *store, uint32_t tree);
// The contents of a unit.
uint32_t dt_tree_find(const struct dt_store *store, uint32_t tree, uint64_t unit);
// Puts contents into the caller's tree at *tree, which becomes another one where it is shared. 0 or -ENOMEM; then the
// tree is what it was, and the contents still the caller's.
int dt_tree_put(struct dt_store *store, uint32_t *tree, uint64_t unit, uint32_t contents);
// Calls `see` with the units whose contents differ, in order, and with those; what two trees share is not looked at.
typedef void dt_see(void *context, uint64_t unit, uint32_t a, uint32_t b);
void dt_tree_differ(const struct dt_store *store, uint32_t a, uint32_t b, dt_see *see, void *context);

#pragma GCC visibility pop
