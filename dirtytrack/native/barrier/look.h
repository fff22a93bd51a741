// One look of a card table: which segments it is about, and what the session has to say of them. The caller holds the
// table's lock.
#pragma once

#include "cards.h"

#pragma GCC visibility push(hidden)

struct dt_look {
	size_t first;        // the segments [first, stop), by address
	size_t stop;         // exclusive
	struct dt_run bytes; // the addresses that are looked at
	bool is_all;         // all of everything
};

struct dt_look dt_look_at_all(const struct dt_cards *cards);
// At what of [start, stop), addresses, is in segments.
struct dt_look dt_look_at(const struct dt_cards *cards, uint64_t start, uint64_t stop);
// Does a verb of the table's cursor: the table's epoch has an entry for each segment of the look that is not lost, in
// their order. An error forgets nothing.
int dt_look_do(struct dt_cards *cards, const struct dt_look *look, int verb);
// Makes room for that. 0 or -ENOMEM.
int dt_look_prepare(struct dt_cards *cards, const struct dt_look *look);
// What a look is about of a segment: bytes counted from its first one.
struct dt_run dt_look_part(const struct dt_look *look, const struct dt_heap_segment *segment);

#define for_each_looked_at(each, cards, look)                                \
	for (size_t number = (look)->first; number < (look)->stop; number++) \
		for (struct dt_heap_segment *each = (cards)->segments.by_address[number]; each; each = NULL)

#pragma GCC visibility pop
