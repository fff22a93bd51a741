// What a profile counts of written pages: how often each was, and how many were for the first time.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../base/runs.h"

#pragma GCC visibility push(hidden)

// Counts each page of a list in its cell, which is 1 << shift pages. A count stays at its largest value.
void dt_tally(const struct dt_run *runs, size_t n, uint32_t shift, uint32_t *counts);
// Sets the bits of the pages in a list, in words that have room for them. Returns how many were not set before.
uint64_t dt_tally_new(const struct dt_run *runs, size_t n, uint64_t *words);

#pragma GCC visibility pop
