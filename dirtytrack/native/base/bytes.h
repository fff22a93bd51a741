// What several parts do with plain bytes.
#pragma once

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

// 1 if bytes (> 0) of data are all zeros, else 0.
int dt_is_zero(const uint8_t *data, size_t bytes);

// Asks the processor for the 512 bytes from here on. By itself it does not look ahead beyond a page; where runs of
// pages are short, half a copy is waiting for memory, and this takes a third off it. The bytes need not exist.
static inline void dt_look_ahead(const void *from)
{
	for (int line = 0; line < 8; line++)
		__builtin_prefetch((const char *)from + line * 64);
}

#pragma GCC visibility pop
