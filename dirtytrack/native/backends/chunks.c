#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "../core/internal.h"
#include "chunks.h"

uint64_t dt_chunk_stop(const struct dt_chunks *chunks, const struct dt_chunk *chunk)
{
	return chunk->start + ((uint64_t)DT_CHUNK_PAGES << chunks->page_shift);
}

size_t dt_chunks_find(const struct dt_chunks *chunks, uint64_t address)
{
	size_t low = 0, high = chunks->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (dt_chunk_stop(chunks, &chunks->chunks[middle]) > address)
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
	uint64_t end = dt_chunk_stop(chunks, chunk);
	start = start > chunk->start ? start : chunk->start;
	stop = stop < end ? stop : end;
	uint64_t last = stop > start ? (stop - chunk->start) >> chunks->page_shift : 0;
	for (uint64_t page = (start - chunk->start) >> chunks->page_shift; page < last; page++) {
		uint64_t bit = 1ULL << page % 64;
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

// Makes a chunk at an index, before those that lie above it.
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
	uint64_t bytes = (uint64_t)DT_CHUNK_PAGES << chunks->page_shift;
	size_t index = dt_chunks_find(chunks, start);
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

void dt_chunks_release(struct dt_chunks *chunks, uint64_t start, uint64_t stop)
{
	size_t first = dt_chunks_find(chunks, start), kept = first, next = first;
	for (; next < chunks->count && chunks->chunks[next].start < stop; next++) {
		struct dt_chunk *chunk = &chunks->chunks[next];
		set_held(chunks, chunk, start, stop, false);
		if (is_held(chunk))
			chunks->chunks[kept++] = *chunk;
		else
			dt_free(chunk->block, chunks->block_bytes);
	}
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
