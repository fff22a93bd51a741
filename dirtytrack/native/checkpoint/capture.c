// From the pages of an epoch to blocks in staging memory.
#include "capture.h"

#include <errno.h>
#include <string.h>

#include "../base/array.h"
#include "../base/bytes.h"
#include "../base/clock.h"
#include "../base/memory.h"
#include "../base/patience.h"
#include "../kernel/pagemap.h"

enum {
	NEAR = 64,        // blocks that are looked through for zeros while they are in the processor's cache
	SPLITS = 1 << 16, // runs that zeros may make of those wanted; what comes after them is copied with its zeros
};

void *dt_capture_new(size_t size)
{
	return dt_alloc(size);
}

void dt_capture_free(void *pointer)
{
	struct dt_capture *capture = pointer;
	dt_free(capture->wanted, capture->wanted_room * sizeof *capture->wanted);
	dt_free(capture->runs, capture->run_room * sizeof *capture->runs);
	dt_free(capture, sizeof *capture);
}

static int add(struct dt_capture *capture, uint64_t extent, uint64_t start, uint64_t stop)
{
	struct dt_block_run *last = capture->wanted_count ? &capture->wanted[capture->wanted_count - 1] : NULL;
	if (last && last->extent == extent && start <= last->first + last->count) { // two pages may touch one block
		capture->blocks += stop - (last->first + last->count);
		last->count = stop - last->first;
		return 0;
	}
	int error =
		dt_grow(&capture->wanted, &capture->wanted_room, capture->wanted_count + 1, sizeof *capture->wanted);
	if (error)
		return error;
	capture->wanted[capture->wanted_count++] = (struct dt_block_run){extent, start, stop - start};
	capture->blocks += stop - start;
	return 0;
}

// The blocks that a run of pages touches, none of them beyond the region's own bytes.
static int add_pages(struct dt_capture *capture, uint64_t extent, struct dt_run pages)
{
	struct dt_run bytes = dt_extent_bytes(&capture->extents[extent], pages);
	return add(capture, extent, bytes.start / DT_BLOCK, (bytes.stop + DT_BLOCK - 1) / DT_BLOCK);
}

// What was populated before the scan is listed; what is populated later is written, or counts as that.
static int add_populated(struct dt_capture *capture, uint64_t i)
{
	const struct dt_extent *extent = &capture->extents[i];
	uint64_t base = extent->address - extent->offset, size = extent->page_size;
	uint64_t at = base, stop = base + dt_extent_pages(extent) * size;
	struct dt_run found;
	int error = 0;
	while (!error && at < stop) {
		int n = dt_next_populated(capture->session->backend.pagemap, at, stop, &found);
		if (n <= 0)
			return n;
		error = add_pages(capture, i, (struct dt_run){(found.start - base) / size, (found.stop - base) / size});
		at = found.stop;
	}
	return error;
}

static int list_blocks(struct dt_capture *capture, const struct dt_epoch *epoch, const uint8_t *hollow)
{
	size_t most = hollow ? capture->extent_count : epoch->run_count;
	int error = dt_grow(&capture->wanted, &capture->wanted_room, most, sizeof *capture->wanted);
	for (size_t i = 0; !error && i < capture->extent_count; i++) {
		const struct dt_entry *entry = &epoch->buffers.entries[i];
		if (hollow && hollow[i] && capture->session->backend.pagemap >= 0)
			error = add_populated(capture, i);
		else if (hollow)
			error = add_pages(capture, i, (struct dt_run){0, dt_extent_pages(&capture->extents[i])});
		for (size_t run = 0; !error && !hollow && run < entry->run_count; run++)
			error = add_pages(capture, i, epoch->buffers.runs[entry->first_run + run]);
	}
	if (error)
		return error;
	capture->everything = hollow != NULL;
	size_t room = capture->wanted_count + (hollow ? SPLITS : 0);
	return dt_grow(&capture->runs, &capture->run_room, room ? room : 1, sizeof *capture->runs);
}

static struct dt_run bytes_of(const struct dt_extent *extent, uint64_t first, uint64_t count)
{
	return dt_run_clip((struct dt_run){first * DT_BLOCK, (first + count) * DT_BLOCK},
			   (struct dt_run){0, extent->nbytes});
}

// Records blocks that lie in a piece now, behind what it has.
static void record(struct dt_capture *capture, struct dt_piece *piece, uint64_t extent, uint64_t first, uint64_t count)
{
	struct dt_block_run *last = capture->run_count ? &capture->runs[capture->run_count - 1] : NULL;
	if (!last || last->extent != extent || last->first + last->count != first) {
		last = &capture->runs[capture->run_count++];
		*last = (struct dt_block_run){extent, first, 0};
	}
	if (piece->blocks == 0) {
		piece->run = capture->run_count - 1;
		piece->block = last->count;
	}
	last->count += count;
	piece->blocks += count;
	capture->copied += count;
}

// Of blocks that were copied behind what a piece has, records those that are not zeros, and moves them together.
static void record_nonzero(struct dt_capture *capture, struct dt_piece *piece, uint64_t extent, uint64_t first,
			   uint64_t count)
{
	uint8_t *from = piece->data + piece->blocks * DT_BLOCK;
	for (uint64_t i = 0; i < count; i++, from += DT_BLOCK) {
		uint64_t left = capture->extents[extent].nbytes - (first + i) * DT_BLOCK;
		bool more =
			capture->run_room - capture->run_count > capture->wanted_count - capture->run; // runs to split
		if (more && dt_is_zero(from, left < DT_BLOCK ? left : DT_BLOCK))
			continue;
		uint8_t *to = piece->data + piece->blocks * DT_BLOCK;
		if (to != from)
			memcpy(to, from, DT_BLOCK);
		record(capture, piece, extent, first + i, 1);
	}
}

static int fill(struct dt_capture *capture, struct dt_piece *piece, struct dt_reading *reading)
{
	uint64_t room = piece->blocks;
	*piece = (struct dt_piece){.data = piece->data};
	while (piece->blocks < room && capture->run < capture->wanted_count) {
		const struct dt_block_run *run = &capture->wanted[capture->run];
		const struct dt_extent *extent = &capture->extents[run->extent];
		uint64_t first = run->first + capture->block, left = run->count - capture->block;
		uint64_t count = left < room - piece->blocks ? left : room - piece->blocks;
		if (capture->everything && count > NEAR)
			count = NEAR;
		int error = dt_read_later(reading, extent, bytes_of(extent, first, count),
					  piece->data + piece->blocks * DT_BLOCK);
		if (!error && capture->everything)
			error = dt_read_now(reading);
		if (error)
			return error;
		if (capture->everything)
			record_nonzero(capture, piece, run->extent, first, count);
		else
			record(capture, piece, run->extent, first, count);
		capture->block += count;
		if (count == left) {
			capture->run++;
			capture->block = 0;
		}
	}
	return 0;
}

static bool revoked(const struct dt_capture *capture, struct dt_piece *pieces, size_t piece_count)
{
	if (!capture->revoked || !*capture->revoked)
		return false;
	for (size_t i = 0; i < piece_count; i++)
		pieces[i].blocks = 0;
	return true;
}

static int copy(struct dt_capture *capture, struct dt_piece *pieces, size_t piece_count, struct dt_reading *reading)
{
	uint64_t begun = dt_now();
	int error = 0;
	for (size_t i = 0; !error && i < piece_count; i++)
		error = fill(capture, &pieces[i], reading);
	if (!error)
		error = dt_read_now(reading);
	capture->copy_ns += dt_now() - begun;
	return error;
}

int dt_capture_copy(struct dt_capture *capture, struct dt_piece *pieces, size_t piece_count, struct dt_failure *failure)
{
	struct dt_reading reading = {.session = capture->session, .failure = failure};
	if (revoked(capture, pieces, piece_count))
		return 0;
	dt_begin_reading(capture->session);
	int error = copy(capture, pieces, piece_count, &reading);
	dt_end_reading(capture->session);
	return error;
}

// A call that captures.
struct call {
	struct dt_session *session;
	uint64_t cursor;
	const struct dt_slice *slices;
	size_t n;
	struct dt_epoch *epoch, *proof;
	struct dt_capture *capture;
	const uint8_t *hollow;
	struct dt_piece *pieces;
	size_t piece_count;
	uint64_t begun;
	bool is_listed;
};

static int list(struct call *in)
{
	in->is_listed = true;
	int error = list_blocks(in->capture, in->epoch, in->hollow);
	in->capture->scan_ns = dt_now() - in->begun;
	return error;
}

// Nothing pending and nothing found: every page is as it was when the scan re-armed it, and so is its copy.
typedef int collect(struct dt_session *session, uint64_t cursor, int verb, const struct dt_slice *slices, size_t n,
		    struct dt_epoch *epoch);
static int prove(const struct call *in, collect *collect)
{
	int error = collect(in->session, in->cursor, DT_PEEK | DT_BESIDE, in->slices, in->n, in->proof);
	in->capture->rewritten = in->proof->pages;
	return error;
}

// While the other threads are stopped.
static int copy_at_an_instant(void *context)
{
	struct call *in = context;
	struct dt_reading reading = {.session = in->session, .failure = &in->epoch->failure, .is_locked = true};
	uint64_t room = 0;
	int error = list(in);
	for (size_t i = 0; i < in->piece_count; i++)
		room += in->pieces[i].blocks;
	if (error || room < in->capture->blocks || revoked(in->capture, in->pieces, in->piece_count))
		return error;
	error = copy(in->capture, in->pieces, in->piece_count, &reading);
	if (!error)
		error = prove(in, dt_collect_in_act);
	in->capture->stopped = !error;
	return error;
}

// Room for what no scan can exceed, since nothing may be allocated while threads are stopped.
static int reserve(const struct call *in)
{
	struct dt_capture *capture = in->capture;
	struct dt_epoch_buffers *buffers = &in->proof->buffers;
	uint64_t runs = 1;
	for (size_t i = 0; i < capture->extent_count; i++) {
		const struct dt_extent *extent = &capture->extents[i];
		uint64_t bytes = dt_extent_pages(extent) * extent->page_size;
		runs += ((bytes >> in->session->backend.page_shift) + 1) / 2;
	}
	int error = dt_make_room(&capture->wanted, &capture->wanted_room, runs, sizeof *capture->wanted);
	if (!error)
		error = dt_make_room(&capture->runs, &capture->run_room, runs, sizeof *capture->runs);
	if (!error)
		error = dt_make_room(&buffers->entries, &buffers->entry_room, in->n, sizeof *buffers->entries);
	return error ? error : dt_make_room(&buffers->runs, &buffers->run_room, runs, sizeof *buffers->runs);
}

static int capture(struct call *in)
{
	struct dt_capture *capture = in->capture;
	bool stops = capture->stops && !in->hollow && in->session->stopping.signal;
	int error = stops ? reserve(in) : 0;
	if (!error && stops)
		error = dt_collect_and(in->session, in->cursor, DT_PROVE, in->slices, in->n, in->epoch,
				       copy_at_an_instant, in);
	else if (!error)
		error = dt_collect(in->session, in->cursor, DT_PROVE | DT_BESIDE, in->slices, in->n, in->epoch);
	if (!error && !in->is_listed)
		error = list(in);
	if (error || capture->stopped)
		return error;
	error = dt_capture_copy(capture, in->pieces, in->piece_count, &in->epoch->failure);
	return error || capture->run < capture->wanted_count ? error : prove(in, dt_collect);
}

int dt_capture(struct dt_session *session, uint64_t cursor, const struct dt_slice *slices, size_t n,
	       struct dt_epoch *epoch, struct dt_capture *captured, const uint8_t *hollow, struct dt_piece *pieces,
	       size_t piece_count)
{
	struct call in = {session,  cursor, slices, n,           epoch,    NULL,
			  captured, hollow, pieces, piece_count, dt_now(), false};
	dt_be_patient(DT_PAUSE_NS);
	if (revoked(captured, pieces, piece_count))
		return 0;
	captured->session = session;
	in.proof = dt_epoch_new(sizeof *in.proof);
	if (!in.proof)
		return -ENOMEM;
	int error = capture(&in);
	dt_epoch_release(in.proof);
	return error;
}
