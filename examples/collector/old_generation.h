// The old generation: blocks of slots of one size, and big objects in blocks of their own.
#pragma once

#include "heap.h"

static void own_block(uint32_t i, uint32_t slot_words, uint32_t first)
{
	heap.blocks[i].first = first;
	heap.blocks[i].live = 0;
	__atomic_store_n(&heap.blocks[i].slot_words, slot_words, __ATOMIC_RELEASE); // the marker reads it
}

static value take_slot(size_t bit, struct block *block, size_t words)
{
	heap.allocated[bit / 64] |= 1ull << bit % 64; // the marker never looks at these
	block->live++;
	heap.used += words * WORD;
	return heap.old + bit * WORD;
}

static value allocate_large(size_t words)
{
	uint32_t count = (uint32_t)((words + BLOCK_WORDS - 1) / BLOCK_WORDS), run = 0;
	for (uint32_t i = 0; i < BLOCKS; i++) {
		run = heap.blocks[i].slot_words ? 0 : run + 1;
		if (run < count)
			continue;
		uint32_t first = i + 1 - count;
		for (uint32_t j = first; j <= i; j++)
			own_block(j, LARGE, first);
		return take_slot((size_t)first * BLOCK_WORDS, &heap.blocks[first], (size_t)count * BLOCK_WORDS);
	}
	fail("the old generation is full");
}

// Blocks that the last sweep has left with free slots come first, then free blocks.
static void next_block(struct size_class *class)
{
	class->offset = 0;
	while (class->search < BLOCKS) {
		const struct block *block = &heap.blocks[class->block = class->search++];
		if (block->slot_words == class->words && block->live < BLOCK_WORDS / class->words)
			return;
	}
	while (heap.search < BLOCKS && heap.blocks[heap.search].slot_words)
		heap.search++;
	if (heap.search == BLOCKS)
		fail("the old generation is full");
	class->block = heap.search++;
	own_block(class->block, class->words, class->block);
}

static value allocate_old(size_t words)
{
	if (words > MOST_WORDS)
		return allocate_large(words);
	struct size_class *class = &heap.classes[heap.class_of[words]];
	for (;; next_block(class)) {
		while (class->offset + class->words <= BLOCK_WORDS) {
			size_t bit = (size_t)class->block * BLOCK_WORDS + class->offset;
			class->offset += class->words;
			if (!test_bit(heap.allocated, bit))
				return take_slot(bit, &heap.blocks[class->block], class->words);
		}
	}
}

// After a sweep, and at first: every search begins anew.
static void restart_searches(void)
{
	heap.search = 0;
	for (size_t i = 0; i < CLASSES; i++)
		heap.classes[i] = (struct size_class){.words = class_words[i], .offset = BLOCK_WORDS};
}

// Nothing is written to the objects: that would dirty their cards.
static void sweep(void)
{
	heap.used = 0;
	for (uint32_t i = 0; i < BLOCKS; i++) {
		struct block *block = &heap.blocks[i];
		if (block->slot_words == 0)
			continue;
		if (block->slot_words == LARGE && block->first != i) {
			block->slot_words = heap.blocks[block->first].slot_words; // freed with its first block
			heap.used += block->slot_words ? BLOCK : 0;
			continue;
		}
		block->live = 0;
		for (size_t word = (size_t)i * BLOCK_WORDS / 64; word < (size_t)(i + 1) * BLOCK_WORDS / 64; word++) {
			heap.allocated[word] &= heap.marked[word];
			block->live += (uint32_t)__builtin_popcountll(heap.allocated[word]);
		}
		if (!block->live)
			block->slot_words = 0;
		heap.used += block->slot_words == LARGE ? BLOCK : (size_t)block->live * block->slot_words * WORD;
	}
	restart_searches();
}
