// Floor 2, barrier: written pages as the cards of a heap in many segments, and as Windows' GetWriteWatch has them.
#pragma once

#include "../core/session.h"

// A map of the cards of regions, over a cursor of its own. Calls take turns; a take allocates nothing once its buffers
// have grown.
struct dt_cards;

// A table without segments, whose cards have 1 << card_shift bytes, over a cursor of a session, which it keeps from
// being freed. flags: DT_BITS or DT_BYTES.
int dt_cards_open(struct dt_session *session, uint64_t cursor, uint32_t card_shift, unsigned flags,
		  struct dt_cards **cards_ret);
// Frees it. NULL is ignored; the cursor stays open. An allocator's signature.
void dt_cards_close(void *cards);

// Adds the bytes [start, stop) of a region, both multiples of the card size; *first_ret: its first card. -DT_EALIGN,
// -DT_EOVERLAP, -DT_ECLOSED.
int dt_cards_add(struct dt_cards *cards, uint64_t region, uint64_t start, uint64_t stop, uint64_t *first_ret);
// Removes the segment that begins at this address; *region_ret: of which region. -DT_EUNTRACKED.
int dt_cards_remove(struct dt_cards *cards, uint64_t start, uint64_t *region_ret);

// One more than the last card of any segment; the bytes of a map of so many.
uint64_t dt_cards_count(struct dt_cards *cards);
size_t dt_cards_map_bytes(struct dt_cards *cards);

// DT_COLLECT or DT_PEEK: writes the map and returns the number of cards set, or an error. All cards of a lost segment
// are set; all of everything if the scan failed. -DT_ESIZE: the map was not touched.
int64_t dt_cards_look(struct dt_cards *cards, int verb, void *map, size_t bytes);
// Declares bytes written. -DT_EUNTRACKED: some are in no segment, and none was marked.
int dt_cards_mark(struct dt_cards *cards, uint64_t start, uint64_t bytes);
// Whether the segment that begins at this address was lost when somebody last looked; 0 if there is none.
int dt_cards_is_lost(struct dt_cards *cards, uint64_t start);
// Lists up to room lost segments, and returns how many there are.
long dt_cards_lost(struct dt_cards *cards, struct dt_range *ranges, size_t room);

// Lists the addresses of the pages of [start, stop) that the cursor has coming, ascending, at most *count; *count: how
// many they are. reset: these are re-armed and forgotten, and no others. *granularity: bytes of a page. -DT_EUNTRACKED:
// some of the pages are in no region, or in a lost one. Without addresses a reset forgets all of them.
int dt_write_watch(struct dt_session *session, uint64_t cursor, uint64_t start, uint64_t stop, int reset,
		   uint64_t *addresses, uint64_t *count, uint64_t *granularity);
