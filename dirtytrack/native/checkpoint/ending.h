// The end of a file: what follows its segments, which says what they are (docs/format.md), and its header.
#pragma once

#include "pack.h"

#pragma GCC visibility push(hidden)

enum { DT_HEADER_BYTES = 128, DT_FOOTER_BYTES = 64 };

// What the caller has to say in it.
struct dt_ending {
	const uint8_t *header;      // DT_HEADER_BYTES, which may be others than were written
	const uint8_t *description; // JSON
	size_t bytes;               // of it
	size_t count_at;            // where in it stands how many blocks are stored; 0: nowhere
	size_t count_bytes;         // for that number, which is followed by blanks; enough for it
};

// Makes index, description and footer of all that was packed. They are, and the header, what has to be written then.
// 0 or -ENOMEM. -EINVAL: there is a segment that was not stored, so that nobody could read the file.
int dt_pack_end(struct dt_pack *pack, const struct dt_ending *ending);

#pragma GCC visibility pop
