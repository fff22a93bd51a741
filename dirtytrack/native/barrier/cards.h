// Written pages as the cards of a heap in many segments.
#pragma once

#include "../core/epoch.h"
#include "segments.h"

#pragma GCC visibility push(hidden)

// A map of the cards of regions, over a cursor of its own. Functions may be called from any thread, and take turns; a
// take allocates nothing once its buffers have grown. All but dt_cards_close return -DT_EFORKED in a forked child, and
// -DT_ECLOSED once the session is closed (or 0, where they return a size).
struct dt_cards {
	struct dt_lock lock; // of all below, but for dt_mark
	struct dt_marks marks;
	struct dt_session *session;
	uint64_t cursor;
	struct dt_heap_segments segments;
	bool bytes;    // a map has a byte for each card, not a bit
	bool any_lost; // a segment may be lost
	bool outdated; // the slices are not those of the segments that are not lost
	struct dt_slice
		*slices; // by address; room for as many as there are segments, and one more; owned, as the next one
	size_t slice_count;
	size_t slice_room;
	struct dt_slice *part_slices; // those of a look at a part, likewise
	size_t part_room;
	struct dt_epoch epoch; // used for one look after the other
	uint64_t taken;        // the number of the last take whose caller is to hear of its end; 0: there is none
};

// A table without segments, whose cards have 1 << card_shift bytes, over a cursor of a session, of which it holds a
// reference. flags: DT_BITS or DT_BYTES. 0 or -ENOMEM.
int dt_cards_open(struct dt_session *session, uint64_t cursor, uint32_t card_shift, unsigned flags,
		  struct dt_cards **cards_ret);
// Frees it; the cursor stays open. NULL is ignored. In a forked child it frees nothing: a thread of the parent may have
// been changing the table.
void dt_cards_close(struct dt_cards *cards);
// The same for what dt_cards_open has filled, or not: so that it can be told beforehand.
void dt_cards_release(struct dt_cards **cards);

// Adds the bytes [start, stop) of a region, addresses that are multiples of the card size; *first_ret: its first card.
// -DT_EALIGN, -DT_EOVERLAP, -DT_ECLOSED.
int dt_cards_add(struct dt_cards *cards, uint64_t region, uint64_t start, uint64_t stop, uint64_t *first_ret);
// Removes the segment that begins at this address; *region_ret: of which region. -DT_EUNTRACKED: none does.
int dt_cards_remove(struct dt_cards *cards, uint64_t start, uint64_t *region_ret);

// One more than the last card of any segment.
uint64_t dt_cards_count(struct dt_cards *cards);

// Declares bytes written: the next look has their pages' cards. Takes no lock. -DT_EUNTRACKED: some are in no segment,
// and none was marked.
int dt_cards_mark(struct dt_cards *cards, uint64_t start, uint64_t bytes);
// 1: some of [start, stop) is in a segment; *start_ret: where the first one of those begins. 0: nothing is.
int dt_cards_first_in(struct dt_cards *cards, uint64_t start, uint64_t stop, uint64_t *start_ret);
// Whether the segment that begins at this address was lost when somebody last looked; 0 if there is none.
int dt_cards_is_lost(struct dt_cards *cards, uint64_t start);
// Lists up to room threads that the last look was to stop, and has not; returns how many there are.
long dt_cards_unstopped(struct dt_cards *cards, int32_t *threads, size_t room);

// Takes the lock of a table whose session is open; given back by dt_leave. 0, -DT_EFORKED or -DT_ECLOSED.
int dt_cards_enter(struct dt_cards *cards);

// The caller of these holds the lock.

// 0 if [start, stop) can be added: -DT_EALIGN, -DT_EOVERLAP.
int dt_cards_check_new(const struct dt_cards *cards, uint64_t start, uint64_t stop);
// Adds them, which were checked. -ENOMEM, -DT_ECLOSED.
int dt_cards_insert(struct dt_cards *cards, uint64_t region, uint64_t start, uint64_t stop, uint64_t *first_ret);

// Makes room for one more segment. 0 or -ENOMEM.
int dt_cards_fit(struct dt_cards *cards);
// Takes a segment out, and frees it.
void dt_cards_take_out(struct dt_cards *cards, struct dt_heap_segment *segment);
// 0 if [start, stop) is in segments, and begins and ends where one does or on a card and a page; else -DT_EUNTRACKED or
// -DT_EALIGN.
int dt_cards_check_part(const struct dt_cards *cards, uint64_t start, uint64_t stop);

#pragma GCC visibility pop
