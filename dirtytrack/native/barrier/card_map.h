// A look of a card table, written into a map of the caller's.
#pragma once

#include "cards.h"

#pragma GCC visibility push(hidden)

// The bytes of a map of all cards; 0 in a forked child.
size_t dt_cards_map_bytes(struct dt_cards *cards);
// Makes room for a look at everything. 0, -ENOMEM.
int dt_cards_prepare(struct dt_cards *cards);
// DT_COLLECT or DT_PEEK: writes the map and returns the number of cards set, or an error. All cards of a lost segment
// are set; all of everything if the scan failed. -DT_ESIZE: the map was not touched.
//   number: of a collect whose caller may never hear of its end, another one each time: a signal handler of Python can
//           raise when the call has returned. 0: it is settled at once.
//   heard: the number of the last collect of whose end the caller has heard. If it is not that of the last one with a
//          number, this look has the cards of that one, too.
int64_t dt_cards_look(struct dt_cards *cards, int verb, uint64_t number, uint64_t heard, void *map, size_t bytes);
// The same for the bytes [start, stop), addresses, whose first card is the first one of the map; no other is looked at.
// -DT_EUNTRACKED: some are in no segment. -DT_EALIGN: they do not begin, or end, where a segment does, nor on a card
// and a page.
int64_t dt_cards_look_at(struct dt_cards *cards, int verb, uint64_t start, uint64_t stop, void *map, size_t bytes);

#pragma GCC visibility pop
