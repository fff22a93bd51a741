// Ranges of memory that come and go, with the regions that track them and the cards that they have; and parts of them.
#pragma once

#include "cards.h"

#pragma GCC visibility push(hidden)

// Tracks the bytes [start, stop), addresses, and gives them cards. Errors as of dt_session_add and dt_cards_add.
int dt_ranges_add(struct dt_cards *cards, uint64_t start, uint64_t stop, unsigned flags, uint64_t *first_ret);
// Forgets these bytes; what is left of ranges keeps its cards and what it has pending. If that was lost because of what
// goes, it no longer is, and all of it counts as written. Errors as of dt_cards_check_part; -ENOMEM.
int dt_ranges_remove(struct dt_cards *cards, uint64_t start, uint64_t stop);
// Tracks what was mapped anew at these bytes of ranges: all of that counts as written, and the rest as above. Errors
// also as of dt_session_replace.
int dt_ranges_replace(struct dt_cards *cards, uint64_t start, uint64_t stop);
// Forgets everything. In a forked child it does nothing.
void dt_ranges_remove_all(struct dt_cards *cards);
// Lists up to room ranges by address, or of them those that were lost when a look last looked; returns how many there
// are.
long dt_ranges_list(struct dt_cards *cards, bool lost_only, struct dt_range *ranges, size_t room);

#pragma GCC visibility pop
