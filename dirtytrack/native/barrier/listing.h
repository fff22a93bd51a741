// Written memory by address, in place of a map.
#pragma once

#include "cards.h"

#pragma GCC visibility push(hidden)

// DT_COLLECT or DT_PEEK: lists up to room runs of cards of what of [start, stop), addresses, is in segments, widened to
// whole pages and cards; returns how many, or an error, which forgets nothing. What is not listed stays pending. A run
// lies in one segment; a lost one is a run by itself.
long dt_list_runs(struct dt_cards *cards, int verb, uint64_t start, uint64_t stop, struct dt_range *runs, size_t room);
// The same for the first addresses of pages. -DT_EUNTRACKED: some of [start, stop) is in no segment; -DT_ELOST: in a
// lost one; -DT_EMIXED: the pages have several sizes. *page_size: their bytes. addresses NULL: a reset of all of them.
long dt_list_pages(struct dt_cards *cards, int verb, uint64_t start, uint64_t stop, void **addresses, size_t room,
		   size_t *page_size);

#pragma GCC visibility pop
