// A tree maps the numbers of units to their contents as a page table maps addresses to pages: each level takes six bits
// of the number, every tree of a store has the same height, and what is missing is zeros (number 0).
//
// Trees share nodes, and nodes share contents. Both are counted, by the same rule:
//
//	- a node is had by the trees and the parents in which it is, contents by the leaves;
//	- whoever has a node alone, and all nodes above it, may change it in place; else it is copied first (own), which
//	  takes a reference to every child, or contents, of the copy and gives back one to the original.
//
// So saving a state is one more reference to the root, and the next change below it copies the nodes on its way, one a
// level: two states have nodes of their own above the units that differ, and share the rest. That makes a restore
// cheap, too: where two trees have the same node nothing below it differs, and dt_tree_differ does not look.
//
// Nodes go by numbers, as contents do: half as wide as pointers, and a node is its children and nothing else.
#include "page_tree.h"

#include <string.h>

#include "../base/patience.h"

enum {
	BITS = 6, // of a unit's number that a level of a tree takes
	WIDTH = 1 << BITS,
	NODE_NS = 1000, // to look through a node
};

// Numbers of nodes, or, in a leaf, of contents.
struct node {
	uint32_t children[WIDTH];
};

void dt_store_open(struct dt_store *store, uint64_t unit, uint64_t units)
{
	dt_pool_open(&store->contents, unit);
	dt_pool_open(&store->nodes, sizeof(struct node));
	while (units > 1ULL << (store->levels + 1) * BITS)
		store->levels++;
}

void dt_store_close(struct dt_store *store)
{
	dt_pool_close(&store->contents);
	dt_pool_close(&store->nodes);
}

uint64_t dt_store_bytes(const struct dt_store *store)
{
	return dt_pool_bytes(&store->contents) + dt_pool_bytes(&store->nodes);
}

static struct node *node_at(const struct dt_store *store, uint32_t number)
{
	return dt_pool_at(&store->nodes, number);
}

static struct dt_pool *below(struct dt_store *store, unsigned level)
{
	return level ? &store->nodes : &store->contents;
}

static void drop(struct dt_store *store, uint32_t number, unsigned level)
{
	if (number && dt_pool_is_own(&store->nodes, number)) {
		const struct node *node = node_at(store, number);
		dt_takes(NODE_NS);
		for (int i = 0; i < WIDTH; i++) {
			if (level)
				drop(store, node->children[i], level - 1);
			else
				dt_pool_drop(&store->contents, node->children[i]);
		}
	}
	dt_pool_drop(&store->nodes, number);
}

uint32_t dt_tree_share(struct dt_store *store, uint32_t tree)
{
	dt_pool_share(&store->nodes, tree);
	return tree;
}

void dt_tree_drop(struct dt_store *store, uint32_t tree)
{
	drop(store, tree, store->levels);
}

// Makes a node one that its owner may change: itself, a copy, or a new one for number 0. The owner's reference goes
// with it. 0 or -ENOMEM; then nothing has changed.
static int own(struct dt_store *store, uint32_t *number, unsigned level)
{
	uint32_t copy;
	if (*number && dt_pool_is_own(&store->nodes, *number))
		return 0;
	int error = dt_pool_take(&store->nodes, &copy);
	if (error)
		return error;
	struct node *node = node_at(store, copy);
	*node = *number ? *node_at(store, *number) : (struct node){0};
	for (int i = 0; i < WIDTH; i++)
		dt_pool_share(below(store, level), node->children[i]);
	dt_pool_drop(&store->nodes, *number);
	*number = copy;
	return 0;
}

// Which child of a node on this level a unit is under.
static unsigned digit(uint64_t unit, unsigned level)
{
	return unit >> level * BITS & (WIDTH - 1);
}

uint32_t dt_tree_find(const struct dt_store *store, uint32_t tree, uint64_t unit)
{
	for (unsigned level = store->levels; tree && level; level--)
		tree = node_at(store, tree)->children[digit(unit, level)];
	return tree ? node_at(store, tree)->children[digit(unit, 0)] : DT_ZEROS;
}

// From the root down, each node on the way becomes the tree's own. If memory runs out half-way, the nodes above are
// copies that say the same as the originals: the tree is what it was.
int dt_tree_put(struct dt_store *store, uint32_t *tree, uint64_t unit, uint32_t contents)
{
	for (unsigned level = store->levels;; level--) {
		int error = own(store, tree, level);
		if (error)
			return error;
		tree = &node_at(store, *tree)->children[digit(unit, level)];
		if (!level) {
			dt_pool_drop(&store->contents, *tree);
			*tree = contents;
			return 0;
		}
	}
}

// Whether two are the same contents, which two branches may have come to on their own.
static bool same(const struct dt_store *store, uint32_t a, uint32_t b)
{
	const struct dt_pool *contents = &store->contents;
	return a == b || (a != DT_ZEROS && b != DT_ZEROS &&
			  !memcmp(dt_pool_at(contents, a), dt_pool_at(contents, b), contents->unit));
}

// first: the number of the first unit under the two nodes.
static void differ(const struct dt_store *store, uint32_t a, uint32_t b, unsigned level, uint64_t first, dt_see *see,
		   void *context)
{
	static const struct node zeros;
	if (a == b)
		return;
	dt_takes(NODE_NS);
	const uint32_t *of_a = (a ? node_at(store, a) : &zeros)->children;
	const uint32_t *of_b = (b ? node_at(store, b) : &zeros)->children;
	for (uint64_t i = 0; i < WIDTH; i++) {
		uint64_t unit = first + (i << level * BITS);
		if (level)
			differ(store, of_a[i], of_b[i], level - 1, unit, see, context);
		else if (!same(store, of_a[i], of_b[i]))
			see(context, unit, of_a[i], of_b[i]);
	}
}

void dt_tree_differ(const struct dt_store *store, uint32_t a, uint32_t b, dt_see *see, void *context)
{
	differ(store, a, b, store->levels, 0, see, context);
}
