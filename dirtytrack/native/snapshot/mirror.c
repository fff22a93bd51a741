// Tracked memory is read by the kernel (core/access.h), which returns an error where we would get a signal.
#include "mirror.h"

#include <errno.h>
#include <string.h>

#include "../base/bytes.h"
#include "../base/memory.h"
#include "../core/access.h"

enum { BUFFER = 1 << 18 };

// Copies the pages of [start, stop), offsets in both, that are not zeros.
static void copy_filled(const uint8_t *from, uint64_t start, uint64_t stop, uint64_t page_size, uint8_t *to)
{
	for (uint64_t at = start, next; at < stop; at = next) {
		next = at - at % page_size + page_size;
		next = next < stop ? next : stop;
		if (!dt_is_zero(from + (at - start), next - at))
			memcpy(to + at, from + (at - start), next - at);
	}
}

int dt_mirror_fill(struct dt_session *session, const struct dt_extent *extent, uint64_t start, uint64_t stop,
		   uint8_t *copy, struct dt_failure *failure)
{
	struct dt_reading reading = {.session = session, .failure = failure};
	uint8_t *buffer = dt_alloc(BUFFER);
	int error = buffer ? 0 : -ENOMEM;
	dt_begin_reading(session);
	while (start < stop && !error) {
		uint64_t end = start - start % BUFFER + BUFFER;
		end = end < stop ? end : stop;
		error = dt_read_later(&reading, extent, (struct dt_run){start, end}, buffer);
		if (!error)
			error = dt_read_now(&reading);
		if (!error)
			copy_filled(buffer, start, end, 1ULL << session->backend.page_shift, copy);
		start = end;
	}
	dt_end_reading(session);
	dt_free(buffer, BUFFER);
	return error;
}

int dt_mirror_update(struct dt_session *session, uint64_t cursor, const struct dt_slice *slice,
		     const struct dt_extent *extent, uint8_t *copy, struct dt_epoch *epoch, uint64_t *copied)
{
	struct dt_reading reading = {.session = session, .failure = &epoch->failure};
	int error = dt_collect(session, cursor, DT_COLLECT, slice, 1, epoch);
	*copied = 0;
	dt_begin_reading(session);
	for (uint64_t i = 0; !error && i < epoch->run_count; i++) {
		struct dt_run bytes = dt_extent_bytes(extent, epoch->buffers.runs[i]);
		error = dt_read_later(&reading, extent, bytes, copy + bytes.start);
		*copied += bytes.stop - bytes.start;
	}
	if (!error)
		error = dt_read_now(&reading);
	dt_end_reading(session);
	if (!error)
		epoch->settled = 1;
	return error;
}
