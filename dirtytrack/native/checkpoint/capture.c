// From the pages of an epoch to blocks in staging memory.
#include "capture.h"

#include <errno.h>

#include "../base/array.h"
#include "../base/bytes.h"
#include "../base/clock.h"
#include "../base/memory.h"

void *dt_capture_new(size_t size)
{
	return dt_alloc(size);
}

void dt_capture_free(void *pointer)
{
	struct dt_capture *capture = pointer;
	dt_free(capture->runs, capture->run_room * sizeof *capture->runs);
	dt_free(capture, sizeof *capture);
}

static void add(struct dt_capture *capture, uint64_t extent, uint64_t start, uint64_t stop)
{
	struct dt_block_run *last = capture->run_count ? &capture->runs[capture->run_count - 1] : NULL;
	if (last && last->extent == extent && start <= last->first + last->count) { // two pages may touch one block
		capture->blocks += stop - (last->first + last->count);
		last->count = stop - last->first;
		return;
	}
	capture->runs[capture->run_count++] = (struct dt_block_run){extent, start, stop - start};
	capture->blocks += stop - start;
}

// The blocks that a run of pages touches, none of them beyond the region's own bytes.
static void add_pages(struct dt_capture *capture, uint64_t extent, struct dt_run pages)
{
	struct dt_run bytes = dt_extent_bytes(&capture->extents[extent], pages);
	add(capture, extent, bytes.start / DT_BLOCK, (bytes.stop + DT_BLOCK - 1) / DT_BLOCK);
}

static int list_blocks(struct dt_capture *capture, const struct dt_epoch *epoch, int everything)
{
	size_t most = everything ? capture->extent_count : epoch->run_count;
	int error = dt_make_room(&capture->runs, &capture->run_room, most ? most : 1, sizeof *capture->runs);
	if (error)
		return error;
	for (size_t i = 0; i < capture->extent_count; i++) {
		const struct dt_entry *entry = &epoch->buffers.entries[i];
		if (everything)
			add_pages(capture, i, (struct dt_run){0, dt_extent_pages(&capture->extents[i])});
		for (size_t run = 0; !everything && run < entry->run_count; run++)
			add_pages(capture, i, epoch->buffers.runs[entry->first_run + run]);
	}
	return 0;
}

static void copy_blocks(struct dt_session *session, const struct dt_extent *extent, uint64_t first, uint64_t count,
			uint8_t *to)
{
	uint64_t start = first * DT_BLOCK, stop = (first + count) * DT_BLOCK;
	stop = stop < extent->nbytes ? stop : extent->nbytes;
	dt_session_contents(session, (const void *)(uintptr_t)(extent->address + start), stop - start, to);
}

static void look_ahead(const struct dt_capture *capture, size_t run)
{
	if (run >= capture->run_count)
		return;
	const struct dt_block_run *next = &capture->runs[run];
	dt_look_ahead((const void *)(uintptr_t)(capture->extents[next->extent].address + next->first * DT_BLOCK));
}

static void fill(struct dt_capture *capture, struct dt_piece *piece)
{
	uint64_t room = piece->blocks, done = 0;
	piece->run = capture->run;
	piece->block = capture->block;
	while (done < room && capture->run < capture->run_count) {
		const struct dt_block_run *run = &capture->runs[capture->run];
		look_ahead(capture, capture->run + 2);
		uint64_t left = run->count - capture->block, count = left < room - done ? left : room - done;
		copy_blocks(capture->session, &capture->extents[run->extent], run->first + capture->block, count,
			    piece->data + done * DT_BLOCK);
		done += count;
		capture->block += count;
		if (count == left) {
			capture->run++;
			capture->block = 0;
		}
	}
	piece->blocks = done;
}

void dt_capture_copy(struct dt_capture *capture, struct dt_piece *pieces, size_t piece_count)
{
	uint64_t begun = dt_now();
	for (size_t i = 0; i < piece_count; i++)
		fill(capture, &pieces[i]);
	capture->copy_ns += dt_now() - begun;
}

// Nothing pending and nothing found: every page is as it was when the scan re-armed it, and so is its copy.
static int prove(struct dt_session *session, uint64_t cursor, const struct dt_slice *slices, size_t n,
		 struct dt_capture *capture)
{
	struct dt_epoch *peek = dt_epoch_new(sizeof *peek);
	if (!peek)
		return -ENOMEM;
	int error = dt_collect(session, cursor, DT_PEEK, slices, n, peek);
	capture->rewritten = peek->pages;
	dt_epoch_release(peek);
	return error;
}

int dt_capture(struct dt_session *session, uint64_t cursor, const struct dt_slice *slices, size_t n,
	       struct dt_epoch *epoch, struct dt_capture *capture, int everything, struct dt_piece *pieces,
	       size_t piece_count)
{
	uint64_t begun = dt_now();
	capture->session = session;
	int error = dt_collect(session, cursor, DT_PROVE, slices, n, epoch);
	if (!error)
		error = list_blocks(capture, epoch, everything);
	if (error)
		return error;
	capture->scan_ns = dt_now() - begun;
	dt_capture_copy(capture, pieces, piece_count);
	return capture->run == capture->run_count ? prove(session, cursor, slices, n, capture) : 0;
}

size_t dt_zero_blocks(const uint8_t *data, size_t bytes, uint8_t *zero)
{
	size_t found = 0;
	for (size_t start = 0; start < bytes; start += DT_BLOCK, zero++)
		found += *zero = (uint8_t)dt_is_zero(data + start, bytes - start < DT_BLOCK ? bytes - start : DT_BLOCK);
	return found;
}
