#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../core/internal.h"
#include "capture.h"

static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

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

static uint64_t block_count(const struct dt_source *source)
{
	return (source->nbytes + DT_BLOCK - 1) / DT_BLOCK;
}

static void add(struct dt_capture *capture, uint64_t source, uint64_t first, uint64_t stop)
{
	struct dt_block_run *last = capture->run_count ? &capture->runs[capture->run_count - 1] : NULL;
	if (last && last->source == source && first <= last->first + last->count) { // two pages may touch one block
		capture->blocks += stop - (last->first + last->count);
		last->count = stop - last->first;
		return;
	}
	capture->runs[capture->run_count++] = (struct dt_block_run){source, first, stop - first};
	capture->blocks += stop - first;
}

// The blocks that a run of pages touches, none of them beyond the region's own bytes.
static void add_pages(struct dt_capture *capture, uint64_t index, const struct dt_run *pages)
{
	const struct dt_source *source = &capture->sources[index];
	uint64_t start = pages->start * source->page_size, stop = pages->stop * source->page_size - source->offset;
	start = start > source->offset ? start - source->offset : 0;
	stop = stop < source->nbytes ? stop : source->nbytes;
	add(capture, index, start / DT_BLOCK, (stop + DT_BLOCK - 1) / DT_BLOCK);
}

static int list_blocks(struct dt_capture *capture, const struct dt_epoch *epoch, int everything)
{
	size_t most = everything ? capture->source_count : epoch->run_count;
	int error = dt_make_room(&capture->runs, &capture->run_room, most ? most : 1, sizeof *capture->runs);
	if (error)
		return error;
	for (size_t i = 0; i < capture->source_count; i++) {
		const struct dt_entry *entry = &epoch->buffers.entries[i];
		if (everything)
			add(capture, i, 0, block_count(&capture->sources[i]));
		for (size_t run = 0; !everything && run < entry->run_count; run++)
			add_pages(capture, i, &epoch->buffers.runs[entry->first_run + run]);
	}
	return 0;
}

static void copy_blocks(struct dt_session *session, const struct dt_source *source, uint64_t first, uint64_t count,
			uint8_t *to)
{
	uint64_t start = first * DT_BLOCK, stop = (first + count) * DT_BLOCK;
	stop = stop < source->nbytes ? stop : source->nbytes;
	dt_session_contents(session, (const void *)(source->address + start), stop - start, to);
}

// The processor does not look ahead beyond a page by itself. Where runs are short, half a copy is waiting for memory;
// this takes a third off it.
static void look_ahead(const struct dt_capture *capture, size_t run)
{
	if (run >= capture->run_count)
		return;
	const struct dt_block_run *next = &capture->runs[run];
	const char *start = (const char *)(capture->sources[next->source].address + next->first * DT_BLOCK);
	for (int line = 0; line < 8; line++)
		__builtin_prefetch(start + line * 64);
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
		copy_blocks(capture->session, &capture->sources[run->source], run->first + capture->block, count,
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
	uint64_t begun = now();
	for (size_t i = 0; i < piece_count; i++)
		fill(capture, &pieces[i]);
	capture->copy_ns += now() - begun;
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
	uint64_t begun = now();
	capture->session = session;
	int error = dt_collect(session, cursor, DT_PROVE, slices, n, epoch);
	if (!error)
		error = list_blocks(capture, epoch, everything);
	if (error)
		return error;
	capture->scan_ns = now() - begun;
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

int dt_start_writeback(int fd)
{
	if (sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE) == 0)
		return 0;
	// A system that does not have the call, or not for this file, or a container that forbids it, does without.
	return errno == ENOSYS || errno == EPERM || errno == EINVAL || errno == ESPIPE ? 0 : -errno;
}

// Not every file system has the flag (EINVAL); there the name is looked up first, which suffices where names are random
// and one writer makes them.
int dt_rename_new(int directory, const char *from, const char *to)
{
	struct statx status; // not fstatat, which would need glibc 2.33
	if (renameat2(directory, from, directory, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (statx(directory, to, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &status) == 0)
		return -EEXIST;
	return renameat(directory, from, directory, to) ? -errno : 0;
}
