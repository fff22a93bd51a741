// Chunks come with the first page that is held and go with the last. The array is sorted, so that a scan of a span
// finds its first chunk by a search and walks on from there. Inserting moves what lies above: 80 bytes a chunk, once
// for each chunk that begins to be tracked.
//
// A page is held once, however many regions share it: who releases it has seen to it that no other region wants it
// (for_each_unheld in core/tracking.c).
#include "chunks.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "../base/array.h"
#include "../base/memory.h"

static uint64_t chunk_bytes(const struct dt_chunks *chunks)
{
	return (uint64_t)DT_CHUNK_PAGES << chunks->page_shift;
}

struct dt_run dt_chunk_range(const struct dt_chunks *chunks, const struct dt_chunk *chunk)
{
	return (struct dt_run){chunk->start, chunk->start + chunk_bytes(chunks)};
}

size_t dt_chunks_find(const struct dt_chunks *chunks, uint64_t address)
{
	size_t low = 0, high = chunks->count; // chunks do not overlap, so that their stops rise, too
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (dt_chunk_range(chunks, &chunks->chunks[middle]).stop > address)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

const struct dt_chunk *dt_chunks_holding(const struct dt_chunks *chunks, uint64_t address)
{
	size_t index = dt_chunks_find(chunks, address);
	const struct dt_chunk *chunk = &chunks->chunks[index];
	if (index == chunks->count || chunk->start > address)
		return NULL;
	uint64_t page = (address - chunk->start) >> chunks->page_shift;
	return chunk->held[page / 64] >> page % 64 & 1 ? chunk : NULL;
}

// Sets or clears the bits of those pages of [start, stop) that lie in the chunk.
static void set_held(const struct dt_chunks *chunks, struct dt_chunk *chunk, uint64_t start, uint64_t stop, bool held)
{
	struct dt_run part = dt_run_clip((struct dt_run){start, stop}, dt_chunk_range(chunks, chunk));
	for (uint64_t address = part.start; address < part.stop; address += 1ULL << chunks->page_shift) {
		uint64_t page = (address - chunk->start) >> chunks->page_shift, bit = 1ULL << page % 64;
		chunk->held[page / 64] = held ? chunk->held[page / 64] | bit : chunk->held[page / 64] & ~bit;
	}
}

static bool is_held(const struct dt_chunk *chunk)
{
	uint64_t any = 0;
	for (size_t i = 0; i < DT_CHUNK_PAGES / 64; i++)
		any |= chunk->held[i];
	return any;
}

// Makes a chunk at an index, before those that lie above it. On -ENOMEM nothing has changed.
static int insert(struct dt_chunks *chunks, size_t index, uint64_t start)
{
	int error = dt_grow(&chunks->chunks, &chunks->room, chunks->count + 1, sizeof *chunks->chunks);
	void *block = error ? NULL : dt_alloc(chunks->block_bytes);
	if (!block)
		return -ENOMEM;
	struct dt_chunk *at = chunks->chunks + index;
	memmove(at + 1, at, (chunks->count++ - index) * sizeof *at);
	*at = (struct dt_chunk){.start = start, .block = block};
	return 0;
}

int dt_chunks_hold(struct dt_chunks *chunks, uint64_t start, uint64_t stop)
{
	uint64_t bytes = chunk_bytes(chunks);
	size_t index = dt_chunks_find(chunks, start); // of the chunk of `from`, or of where it is to be
	for (uint64_t from = start & ~(bytes - 1); from < stop; from += bytes, index++) {
		if (index == chunks->count || chunks->chunks[index].start != from) {
			int error = insert(chunks, index, from);
			if (error)
				return error;
		}
		set_held(chunks, &chunks->chunks[index], start, stop, true);
	}
	return 0;
}

// The chunks that still hold something are moved together, over those that do not.
void dt_chunks_release(struct dt_chunks *chunks, uint64_t start, uint64_t stop)
{
	size_t begin = dt_chunks_find(chunks, start), kept = begin, next = begin;
	for (; next < chunks->count && chunks->chunks[next].start < stop; next++) {
		struct dt_chunk *chunk = &chunks->chunks[next];
		set_held(chunks, chunk, start, stop, false);
		if (is_held(chunk))
			chunks->chunks[kept++] = *chunk;
		else
			dt_free(chunk->block, chunks->block_bytes);
	}
	if (kept < next)
		memmove(chunks->chunks + kept, chunks->chunks + next, (chunks->count - next) * sizeof *chunks->chunks);
	chunks->count -= next - kept;
}

void dt_chunks_free(struct dt_chunks *chunks)
{
	for (size_t i = 0; i < chunks->count; i++)
		dt_free(chunks->chunks[i].block, chunks->block_bytes);
	dt_free(chunks->chunks, chunks->room * sizeof *chunks->chunks);
	chunks->chunks = NULL;
	chunks->count = chunks->room = 0;
}
