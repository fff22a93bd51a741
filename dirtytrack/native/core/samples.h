// What the double check of a session remembers: clean pages with copies of their contents, and the pages that it
// caught. The session's lock protects all of it.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/runs.h"

#pragma GCC visibility push(hidden)

// A page of the system's size, whatever the region's is.
struct dt_sample {
	uint64_t region; // its identifier
	uint64_t address;
};

// Clean pages and their contents, as a collect of one cursor left them.
struct dt_samples {
	struct dt_sample *samples; // owned
	uint8_t *copies;           // a page for each; owned
	size_t count;
	size_t room;      // of samples
	size_t copy_room; // of copies, in pages
};

// How a session double-checks, and what it found.
struct dt_double_check {
	double share;          // of the pages found clean: 0 to 1; 0: it does not
	bool warn_only;        // a miss does not fail the collect that finds it
	uint64_t random;       // state of a generator
	uint8_t *page;         // room for one page; owned; NULL until it is asked for
	struct dt_run *missed; // addresses, one page each, in the order in which they were found; owned
	size_t missed_count;
	size_t missed_room;
};

// Makes room for so many samples in all. 0 or -ENOMEM.
int dt_samples_fit(struct dt_samples *samples, size_t count, uint32_t page_shift);
// The copy of a sample.
uint8_t *dt_sample_copy(const struct dt_samples *samples, size_t at, uint32_t page_shift);
void dt_free_samples(struct dt_samples *samples, uint32_t page_shift);
void dt_free_double_check(struct dt_double_check *check, uint32_t page_shift);

#pragma GCC visibility pop
