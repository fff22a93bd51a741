// The backend of memory that is to stay on huge pages: it knows which chunks tracking has split, and tells scans what
// was written to one that is on its way back. It lies on top of another backend, which does the scans. Who has it holds
// the session's lock in every call.
#pragma once

#include "../core/session.h"
#include "collapse.h"
#include "split.h"

#pragma GCC visibility push(hidden)

struct dt_huge {
	struct dt_backend plain; // below
	struct dt_session *session;
	struct dt_waits waits;
	struct dt_chunks chunks; // a block is a struct dt_split
	struct dt_collapse collapse;
	size_t owing;     // chunks that owe pages
	uint64_t next;    // address from which on to look for a cold chunk
	uint32_t readers; // while there are any, no chunk is opened
	bool asleep;      // the session's thread is, until a scan finds a cold chunk
};

extern const struct dt_backend_ops dt_backend_huge;

static inline struct dt_split *dt_split_of(const struct dt_chunk *chunk)
{
	return chunk->block;
}

// The chunk that is, or was, on its way; NULL: nothing of it is tracked any more.
const struct dt_chunk *dt_huge_on_its_way(const struct dt_huge *huge);
// Has the next scans report pages of that chunk.
void dt_huge_owe(struct dt_huge *huge, const struct dt_chunk_pages *written);

#pragma GCC visibility pop
