// Makes the core's calls fail: each allocation, and each system call that can.
#pragma once

#include <stdbool.h>

enum failing {
	ONCE,
	ALWAYS,           // and everything after it
	ALLOCATIONS_ONLY, // once, counting nothing else
};

// From here on, the call of that number fails with an errno; 1 is the next one.
void fail_call(long number, enum failing how, int error);
// From here on, none does.
void succeed(void);
// Whether that call has come.
bool has_failed(void);
// Mappings and blocks that the core holds.
long held_mappings(void);
long held_blocks(void);
