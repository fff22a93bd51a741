// The checks: nothing that is reachable was freed, and all is as the program left it.
#pragma once

#include "collect.h"

static void trace(value *field)
{
	value v = *field;
	if (!v || v & 1)
		return;
	if (is_young(v))
		fail("a pointer into the nursery was left");
	if (!is_old(v) || v % WORD)
		fail("a pointer leads nowhere");
	size_t bit = bit_of(v), number = bit / BLOCK_WORDS, words = heap.blocks[number].slot_words;
	bool begins = words == LARGE ? bit == (size_t)heap.blocks[number].first * BLOCK_WORDS
				     : words && bit % BLOCK_WORDS % words == 0;
	if (!begins || !test_bit(heap.allocated, bit))
		fail("a reachable object was freed");
	if (test_bit(heap.seen, bit))
		return;
	heap.seen[bit / 64] |= 1ull << bit % 64;
	value header = *(value *)v;
	if (header != make_header(header >> 1 & 1, size_of(header)))
		fail("the header of a reachable object is damaged");
	push(&heap.tracing, v);
}

static bool tree_is_intact(value tree, int depth, uint64_t path)
{
	if (depth == 0)
		return load(tree, 0) == integer(path) && load(tree, 1) == integer(~path);
	return tree_is_intact(load(tree, 0), depth - 1, 2 * path) &&
	       tree_is_intact(load(tree, 1), depth - 1, 2 * path + 1);
}

// Even numbers are strings, of a length and with bytes that follow from them.
static size_t string_bytes(uint32_t number)
{
	return 4 + number / 2 % 40;
}

static bool item_is_intact(value item, uint32_t number)
{
	if (number % 2)
		return item == integer(number);
	size_t bytes = string_bytes(number);
	if (!is_old(item) || *(value *)item != make_header(BYTES, bytes) || memcmp(fields(item), &number, 4))
		return false;
	const uint8_t *rest = (uint8_t *)fields(item);
	while (bytes > 4 && rest[bytes - 1] == (uint8_t)number)
		bytes--;
	return bytes == 4;
}

static bool list_is_intact(value list, struct model model)
{
	for (; model.count && is_old(list); model.count--, model.first--, list = load(list, 1))
		if (!item_is_intact(load(list, 0), model.first))
			return false;
	return list == 0 && model.count == 0;
}

static void check_heap(void)
{
	heap.report->checks++;
	memset(heap.seen, 0, sizeof heap.seen);
	heap.tracing.count = 0;
	for (value *root = heap.roots; root < heap.top; root++)
		trace(root);
	while (heap.tracing.count)
		for_each_field(heap.tracing.at[--heap.tracing.count], trace);
	if (heap.roots[TREE] && !tree_is_intact(heap.roots[TREE], heap.depth, 1))
		fail("the long-lived tree has changed");
	const double *doubles = (double *)fields(heap.roots[ARRAY]);
	for (size_t i = 0; heap.roots[ARRAY] && i < DOUBLES; i++)
		if (doubles[i] != 1.0 / (double)(i + 1))
			fail("the long-lived array has changed");
	for (size_t i = 0; heap.roots[ROWS] && i < SLOTS; i++)
		if (!list_is_intact(load(load(heap.roots[ROWS], i / LENGTH), i % LENGTH), heap.models[i]))
			fail("slot %zu has not what the program stored there", i);
	if (!list_is_intact(heap.roots[HELD], heap.held))
		fail("the list on the stack has changed");
}
