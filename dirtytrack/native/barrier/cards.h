// Written pages as the cards of a heap in many segments.
#pragma once

#include "../core/session.h"

// A map of the cards of regions, over a cursor of its own. Functions may be called from any thread, and take turns; a
// take allocates nothing once its buffers have grown. In a forked child all but dt_cards_close return -DT_EFORKED (or
// 0, where they return a size).
struct dt_cards;

// A table without segments, whose cards have 1 << card_shift bytes, over a cursor of a session, of which it holds a
// reference. flags: DT_BITS or DT_BYTES. 0 or -ENOMEM.
int dt_cards_open(struct dt_session *session, uint64_t cursor, uint32_t card_shift, unsigned flags,
		  struct dt_cards **cards_ret);
// Frees it; the cursor stays open. NULL is ignored.
void dt_cards_close(struct dt_cards *cards);
// The same for what dt_cards_open has filled, or not: so that it can be told beforehand.
void dt_cards_release(struct dt_cards **cards);

// Adds the bytes [start, stop) of a region, addresses that are multiples of the card size; *first_ret: its first card.
// -DT_EALIGN, -DT_EOVERLAP, -DT_ECLOSED.
int dt_cards_add(struct dt_cards *cards, uint64_t region, uint64_t start, uint64_t stop, uint64_t *first_ret);
// Removes the segment that begins at this address; *region_ret: of which region. -DT_EUNTRACKED: none does.
int dt_cards_remove(struct dt_cards *cards, uint64_t start, uint64_t *region_ret);

// One more than the last card of any segment; the bytes of a map of so many.
uint64_t dt_cards_count(struct dt_cards *cards);
size_t dt_cards_map_bytes(struct dt_cards *cards);

// DT_COLLECT or DT_PEEK: writes the map and returns the number of cards set, or an error. All cards of a lost segment
// are set; all of everything if the scan failed. -DT_ESIZE: the map was not touched.
//   number: of a collect whose caller may never hear of its end, another one each time: a signal handler of Python can
//           raise when the call has returned. 0: it is settled at once.
//   heard: the number of the last collect of whose end the caller has heard. If it is not that of the last one with a
//          number, this look has the cards of that one, too.
int64_t dt_cards_look(struct dt_cards *cards, int verb, uint64_t number, uint64_t heard, void *map, size_t bytes);
// Declares bytes written: the next look has their pages' cards. Takes no lock. -DT_EUNTRACKED: some are in no segment,
// and none was marked.
int dt_cards_mark(struct dt_cards *cards, uint64_t start, uint64_t bytes);
// 1: some of [start, stop) is in a segment; *start_ret: where the first one of those begins. 0: nothing is.
int dt_cards_first_in(struct dt_cards *cards, uint64_t start, uint64_t stop, uint64_t *start_ret);
// Whether the segment that begins at this address was lost when somebody last looked; 0 if there is none.
int dt_cards_is_lost(struct dt_cards *cards, uint64_t start);
// Lists up to room threads that the last look was to stop, and has not; returns how many there are.
long dt_cards_unstopped(struct dt_cards *cards, int32_t *threads, size_t room);
// Lists up to room lost segments, and returns how many there are.
long dt_cards_lost(struct dt_cards *cards, struct dt_range *ranges, size_t room);
