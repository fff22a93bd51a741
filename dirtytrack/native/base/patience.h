// What a caller holds that others wait for, such as Python's GIL, and gives up once a call turns out to be long. To
// give it up costs Python up to 5 ms, the time until it gets it back beside a thread that computes: so a call of a
// microsecond keeps it. Whatever is about to go through memory, or to wait, says beforehand how long that takes. It is
// an estimate from sizes, so that it depends on nothing else, and costs no clock.
#pragma once

#include <stdint.h>

#pragma GCC visibility push(hidden)

enum {
	DT_SHORT_NS = 50000,   // a call that takes no longer keeps what its caller holds
	DT_PAUSE_NS = 2000000, // the same for one that its program waits for, whoever else does: half as long in fact
};

struct dt_patience {
	int64_t left;                                  // nanoseconds
	void (*give_up)(struct dt_patience *patience); // called once at most, in the thread of the call
};

// Around a call. They aren't nested. Without them, what is said below says it to nobody.
void dt_patience_begin(struct dt_patience *patience);
void dt_patience_end(void);
// Within a call: nothing is said to anybody until it is resumed.
struct dt_patience *dt_patience_suspend(void);
void dt_patience_resume(struct dt_patience *patience);
// There is so much patience left, at least.
void dt_be_patient(int64_t ns);

// This will take so many nanoseconds.
void dt_takes(uint64_t ns);
// This may take long, or wait for somebody else.
void dt_takes_long(void);

// This is a system call about [start, start + bytes), of which little is written.
static inline void dt_takes_scan(uint64_t bytes)
{
	dt_takes(1000 + bytes / 4096 * 3);
}

// This reads or writes bytes that lie in no cache.
static inline void dt_takes_copy(uint64_t bytes)
{
	dt_takes(1000 + bytes / 4);
}

#pragma GCC visibility pop
