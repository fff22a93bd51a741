// Putting cold memory back on huge pages. Tracking maps a huge page by small ones at the first store to it, for good:
// scans take eight times as long then, and reads at random miss more often. A chunk that lay on a huge page, and that
// scans have found unwritten for a while, is put back by a thread of the session's.
#pragma once

#include "../core/session.h"

#pragma GCC visibility push(hidden)

// Chunks that lie in a range as a whole.
struct dt_huge_pages {
	uint64_t whole;    // on a huge page when they were last looked at
	uint64_t split;    // written to since
	uint64_t cold;     // of them, those that are to be put back now, or on their way
	uint64_t returned; // how often one was put back, in all
};

// From here on cold memory is put back on huge pages; to be called before anything is tracked, and before
// dt_session_adapt. first_wait: how many scans have to find a chunk unwritten until it is cold, at first;
// most_wait: after it was split soon again and again. Not for a session that compares. 0, -ENOMEM; -EAGAIN: there can
// be no thread; -EOPNOTSUPP: the kernel has no huge pages; -EPERM: the process is not to have any (prctl(2),
// PR_SET_THP_DISABLE); -E2BIG: they are larger than 512 pages.
int dt_session_keep_huge_pages(struct dt_session *session, uint32_t first_wait, uint32_t most_wait);
// Counts the chunks in [start, stop). All zeros in a session that does not keep them.
int dt_session_huge_pages(struct dt_session *session, uint64_t start, uint64_t stop, struct dt_huge_pages *pages_ret);

#pragma GCC visibility pop
