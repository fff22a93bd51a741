// Plain loads and stores where nothing can fail that was not asked before; calls that return an error elsewhere.
#include "access.h"

#include <errno.h>
#include <string.h>

#include "../base/bytes.h"
#include "../base/patience.h"
#include "../kernel/pagemap.h"

enum {
	NEAR = 1024, // pages between two runs: looking through them costs less than another call
	ZEROS = 4096,
	MOST_BYTES = 1 << 30, // of one call
};

bool dt_is_in_place(const struct dt_session *session, const struct dt_extent *extent)
{
	return !extent->fallible && !(session && session->backend.ops->contents);
}

static int refused(struct dt_failure *failure, const char *call, uint64_t start, uint64_t stop, int error)
{
	*failure = (struct dt_failure){call, start, stop};
	return error;
}

int dt_view(struct dt_session *session, const struct dt_extent *extent, struct dt_run bytes, uint8_t *buffer,
	    const uint8_t **view_ret, struct dt_failure *failure)
{
	uint64_t start = extent->address + bytes.start, length = bytes.stop - bytes.start, at;
	if (dt_is_in_place(session, extent)) {
		dt_takes_copy(length); // the caller reads it
		*view_ret = (const uint8_t *)(uintptr_t)start;
		return 0;
	}
	*view_ret = buffer;
	int error = session && session->backend.ops->contents ? dt_session_contents(session, start, length, buffer, &at)
							      : dt_copy_from(start, buffer, length, &at);
	return error ? refused(failure, "read", at, start + length, error) : 0;
}

int dt_read_now(struct dt_reading *reading)
{
	struct dt_run at;
	int error = reading->count ? dt_copy_pieces(reading->from, reading->to, reading->count, &at) : 0;
	reading->count = reading->bytes = 0;
	return error ? refused(reading->failure, "read", at.start, at.stop, error) : 0;
}

int dt_read_later(struct dt_reading *reading, const struct dt_extent *extent, struct dt_run bytes, uint8_t *to)
{
	struct dt_session *session = reading->session;
	uint64_t start = extent->address + bytes.start, stop = extent->address + bytes.stop, at;
	int error = 0;
	const struct dt_backend *backend = &session->backend;
	if (backend->ops->contents) {
		error = reading->is_locked ? backend->ops->contents(backend, start, stop - start, to, &at)
					   : dt_session_contents(session, start, stop - start, to, &at);
		return error ? refused(reading->failure, "read", at, stop, error) : 0;
	}
	for (uint64_t part; start < stop && !error; start += part, to += part) {
		uint64_t room = MOST_BYTES - reading->bytes;
		part = stop - start < room ? stop - start : room;
		dt_look_ahead((const void *)(uintptr_t)start);
		reading->from[reading->count] = (struct iovec){(void *)(uintptr_t)start, part};
		reading->to[reading->count++] = (struct iovec){to, part};
		reading->bytes += part;
		if (reading->count == DT_PIECES || reading->bytes == MOST_BYTES)
			error = dt_read_now(reading);
	}
	return error;
}

int dt_put(const struct dt_extent *extent, struct dt_run bytes, const uint8_t *from, struct dt_failure *failure)
{
	static const uint8_t zeros[ZEROS];
	uint64_t start = extent->address + bytes.start, stop = extent->address + bytes.stop, at;
	uint8_t *to = (uint8_t *)(uintptr_t)start;
	dt_takes_copy(stop - start);
	if (!extent->fallible && from)
		memcpy(to, from, stop - start);
	else if (!extent->fallible)
		memset(to, 0, stop - start);
	for (uint64_t length; extent->fallible && start < stop; start += length) {
		length = from || stop - start < ZEROS ? stop - start : ZEROS;
		int error = dt_copy_to(start, from ? from : zeros, length, &at);
		if (error)
			return refused(failure, "write", at, stop, error);
	}
	return 0;
}

int dt_next_nonzero(const struct dt_session *session, const struct dt_extent *extent, struct dt_run bytes,
		    struct dt_run *piece_ret)
{
	uint64_t base = extent->address - extent->offset, size = extent->page_size;
	uint64_t start = (extent->offset + bytes.start) / size * size;
	uint64_t stop = (extent->offset + bytes.stop + size - 1) / size * size;
	struct dt_run found;
	*piece_ret = bytes;
	if (bytes.start >= bytes.stop)
		return 0;
	if (!dt_is_in_place(session, extent)) // of a file, what is not populated is not zeros
		return 1;
	int n = dt_next_populated(session->backend.pagemap, base + start, base + stop, &found);
	if (n > 0)
		*piece_ret = dt_run_clip(
			bytes, dt_extent_clip(extent, (struct dt_run){found.start - base, found.stop - base}));
	return n;
}

// Asks about pages; where that can't be asked, it touches them.
static int ask(struct dt_touch *touch, const struct dt_extent *extent, struct dt_run pages)
{
	uint64_t base = extent->address - extent->offset;
	uint64_t start = base + pages.start * extent->page_size, stop = base + pages.stop * extent->page_size;
	int error = extent->fallible ? -ENOTTY : dt_may_touch(touch, start, stop);
	if (error && error != -EACCES && error != -EFAULT)
		error = dt_try_touch(touch, start, stop);
	return error;
}

// Of a run that can't be touched: which pages.
static int refuse(struct dt_touch *touch, const struct dt_extent *extent, struct dt_run run, struct dt_failure *failure)
{
	uint64_t base = extent->address - extent->offset, size = extent->page_size;
	int error = 0;
	for (uint64_t page = run.start; page < run.stop; page++) {
		touch->permitted_to = 0;
		int found = ask(touch, extent, (struct dt_run){page, page + 1});
		if (!found && error)
			run.stop = page;
		else if (found && !error)
			run.start = page;
		error = error ? error : found;
	}
	return refused(failure, touch->write ? "write" : "read", base + run.start * size, base + run.stop * size,
		       error);
}

static int check_run(struct dt_touch *touch, const struct dt_extent *extent, struct dt_run run,
		     struct dt_failure *failure)
{
	return ask(touch, extent, run) ? refuse(touch, extent, run, failure) : 0;
}

int dt_check_runs(struct dt_touch *touch, const struct dt_extent *extent, const struct dt_run *run,
		  const struct dt_run *end, struct dt_failure *failure)
{
	int error = 0;
	for (const struct dt_run *last; !error && run < end; run = last + 1) {
		last = run;
		while (!extent->fallible && last + 1 < end && last[1].start - last->stop <= NEAR)
			last++;
		if (last > run) {
			uint64_t base = extent->address - extent->offset;
			size_t n = (size_t)(last - run) + 1;
			if (dt_may_touch_runs(touch, base, extent->page_size, run, n) == 0)
				continue;
			touch->permitted_to = 0; // what was found may lie between them
		}
		for (; !error && run <= last; run++)
			error = check_run(touch, extent, *run, failure);
	}
	return error;
}

int dt_check_entries(const struct dt_session *session, int maps, bool write, const struct dt_extent *extents, size_t n,
		     const struct dt_entry *entries, const struct dt_run *runs, struct dt_failure *failure)
{
	struct dt_touch touch = {.maps = maps, .pagemap = session->backend.pagemap, .write = write};
	int error = 0;
	for (size_t i = 0; !error && i < n; i++) {
		const struct dt_run *run = runs + entries[i].first_run;
		touch.permitted_to = 0;
		error = dt_check_runs(&touch, &extents[i], run, run + entries[i].run_count, failure);
	}
	return error;
}
