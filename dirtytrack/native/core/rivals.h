// The open sessions of this process that can't track the same pages. A thread that stops all others may be one that
// adds memory, so nobody is stopped in here, nor waits for a session while it holds the list.
#pragma once

#include <stdint.h>

#pragma GCC visibility push(hidden)

// A session's place in the list, which is a part of it. The list's lock protects it, but for the addresses.
struct dt_rival {
	struct dt_rival *next;
	struct dt_rival *previous;
	uint64_t number; // rises from one to the next; 0: not in the list
	uint64_t start;  // of the lowest address that it ever tracked; atomic, as the next one
	uint64_t stop;   // of the highest one, exclusive; 0: none
};

// Enters a session into the list; takes it out again, if it is in there.
void dt_enter_rivals(struct dt_rival *rival);
void dt_leave_rivals(struct dt_rival *rival);
// Notes that a session is about to track [start, stop). It holds its lock.
void dt_claim(struct dt_rival *rival, uint64_t start, uint64_t stop);
// The newest one, older than a number, that may hold some of [start, stop); NULL: none. hold is called for it, and what
// that holds is the caller's; *number becomes its own.
struct dt_rival *dt_next_rival(uint64_t start, uint64_t stop, uint64_t *number, void (*hold)(struct dt_rival *rival));

#pragma GCC visibility pop
