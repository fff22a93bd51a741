// Which cards were stored to, and the objects on them: all that the collector wants of dirtytrack.
#pragma once

#include "old_generation.h"

// Which cards were stored to since the last take. A take begins anew.
static int read_cards(uint8_t *map, bool take)
{
	int error = 0;
	switch (heap.barrier) {
	case DIRTYTRACK:
		error = (take ? dt_tracker_take : dt_tracker_peek)(heap.tracker, map, heap.cards, NULL);
		break;
	case FULL_SCAN:
		memset(map, 1, heap.cards);
		break;
	case STORES:
		for (size_t i = 0; i < heap.cards / 8; i++) { // by eights; the marker peeks while the program stores
			uint64_t *stored = (uint64_t *)heap.stored + i;
			uint64_t eight = __atomic_load_n(stored, __ATOMIC_RELAXED);
			memcpy(map + 8 * i, &eight, 8);
			if (take && eight)
				__atomic_store_n(stored, 0, __ATOMIC_RELAXED);
		}
		break;
	}
	return error == -ENOMEM ? 0 : error; // then all cards are set, which is slow but right
}

// Visits the fields on a card of those objects that have their bit in the map. Returns how many bytes that was.
static inline __attribute__((always_inline)) size_t scan_card(size_t card, const uint64_t *map, void (*visit)(value *))
{
	value start = heap.old + (card << heap.card_shift), stop = start + ((value)1 << heap.card_shift);
	uint32_t number = (uint32_t)((start - heap.old) / BLOCK);
	const struct block *block = &heap.blocks[number];
	size_t words = __atomic_load_n(&block->slot_words, __ATOMIC_ACQUIRE);
	size_t bytes = 0;
	if (words == 0)
		return 0;
	value base = heap.old + (value)(words == LARGE ? block->first : number) * BLOCK, object = base;
	value end = words == LARGE ? base + 1 : base + BLOCK_WORDS / words * words * WORD;
	if (words != LARGE)
		object += (start - base) / (words * WORD) * (words * WORD);
	for (; object < end && object < stop; object += words * WORD) {
		if (!test_bit(map, bit_of(object)))
			continue;
		value *from = fields(object), *to = from + fields_of(*(value *)object);
		from = from < (value *)start ? (value *)start : from;
		to = to > (value *)stop ? (value *)stop : to;
		for (; from < to; from++, bytes += WORD)
			visit(from);
	}
	return bytes;
}

static inline __attribute__((always_inline)) size_t scan_cards(const uint8_t *cards, const uint64_t *map,
							       void (*visit)(value *))
{
	size_t bytes = 0;
	for (size_t card = 0; card < heap.cards; card++) {
		uint64_t eight;
		if (card % 8 == 0 && (memcpy(&eight, cards + card, 8), !eight))
			card += 7; // most are clean
		else if (cards[card])
			bytes += scan_card(card, map, visit);
	}
	return bytes;
}
