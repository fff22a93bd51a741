// Where a thread of Python's waits for what it is to do, without the GIL. What it is given can begin with calls on
// files, which it makes at once: beside a thread that computes it would wait 5 to 10 ms for the GIL first.
#pragma once

#include "file_calls.h"

#pragma GCC visibility push(hidden)

// Calls that are made once, by whoever comes first: a thread that waits at a mailbox, or dt_errand_run.
struct dt_errand {
	const struct dt_file_call *calls;
	size_t count;
	const bool *revoked; // true: they are not to be made any more
	bool is_done;
	size_t made; // before the first one that failed
	int error;   // of that one; or -ECANCELED, and none was made
};

// All zero at first.
struct dt_mailbox {
	uint32_t state;
	struct dt_errand *errand;
};

// Makes the calls, unless they were. Its error.
int dt_errand_run(struct dt_errand *errand);
// Whether a thread waits there, and nothing was posted to it.
int dt_mailbox_is_waited_at(const struct dt_mailbox *mailbox);
// Wakes the thread that waits there, or keeps the next one from waiting. An errand is taken only by one that waits, and
// must outlive that, until the next one is taken. Whether it is.
int dt_mailbox_post(struct dt_mailbox *mailbox, struct dt_errand *errand);
// Waits until something is posted, and does the errand that came with it. For one thread.
void dt_mailbox_wait(struct dt_mailbox *mailbox);

#pragma GCC visibility pop
