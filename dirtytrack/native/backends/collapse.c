// The steps of one chunk.
#include "collapse.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../base/memory.h"
#include "../kernel/pagemap.h"
#include "../kernel/touch.h"
#include "../kernel/userfaultfd.h"

enum { PIECE_PAGES = 16 }; // compared at once: what is read stays in the processor's cache

static size_t chunk_bytes(uint32_t page_shift)
{
	return (size_t)DT_CHUNK_PAGES << page_shift;
}

static size_t piece_bytes(uint32_t page_shift)
{
	return (size_t)PIECE_PAGES << page_shift;
}

int dt_collapse_init(struct dt_collapse *collapse, uint32_t page_shift)
{
	collapse->copy = dt_alloc(chunk_bytes(page_shift));
	collapse->piece = dt_alloc(piece_bytes(page_shift));
	collapse->threads_piece = dt_alloc(piece_bytes(page_shift));
	int error = dt_scan_context_init(&collapse->context);
	return collapse->copy && collapse->piece && collapse->threads_piece ? error : -ENOMEM;
}

void dt_collapse_free(struct dt_collapse *collapse, uint32_t page_shift)
{
	dt_scan_context_free(&collapse->context);
	dt_free(collapse->threads_piece, piece_bytes(page_shift));
	dt_free(collapse->piece, piece_bytes(page_shift));
	dt_free(collapse->copy, chunk_bytes(page_shift));
}

bool dt_is_on_huge_page(const struct dt_backend *plain, uint64_t start)
{
	const uint64_t other = DT_PAGE_IS_FILE | DT_PAGE_IS_PFNZERO;
	struct dt_page_region found;
	struct dt_pm_scan_arg arg = {
		.size = sizeof arg,
		.start = start,
		.end = start + (1ULL << plain->page_shift), // its first small page tells for all of them
		.vec = (uintptr_t)&found,
		.vec_len = 1,
		.category_mask = DT_PAGE_IS_HUGE | other,
		.category_inverted = other,
		.return_mask = DT_PAGE_IS_HUGE,
	};
	return dt_pagemap_scan(plain->pagemap, &arg) > 0;
}

bool dt_can_collapse(const struct dt_backend *plain, uint64_t start, bool *written_ret)
{
	// Bits of an entry, see pagemap.rst in the kernel's documentation.
	const uint64_t present = 1ULL << 63, file = 1ULL << 61, armed = 1ULL << 57, exclusive = 1ULL << 56;
	uint64_t entries[DT_CHUNK_PAGES];
	off_t place = (off_t)((start >> plain->page_shift) * sizeof *entries);
	bool can = pread(plain->pagemap, entries, sizeof entries, place) == (ssize_t)sizeof entries;
	*written_ret = false;
	for (size_t i = 0; can && i < DT_CHUNK_PAGES; i++) {
		can = (entries[i] & (present | file | exclusive)) == (present | exclusive);
		*written_ret |= !(entries[i] & armed);
	}
	return can;
}

void dt_collapse_begin(struct dt_collapse *collapse, const struct dt_span *chunk)
{
	collapse->chunk = *chunk;
	collapse->failed = false;
	collapse->stage = DT_COPIED;
}

int dt_collapse_copy(struct dt_collapse *collapse)
{
	uint64_t refused;
	return dt_copy_from(collapse->chunk.start, collapse->copy, collapse->chunk.stop - collapse->chunk.start,
			    &refused);
}

// What was written before the copy is marked now, and what is written from now on differs from it.
bool dt_collapse_open(struct dt_collapse *collapse, struct dt_backend *plain)
{
	struct dt_run found[DT_CHUNK_PAGES / 2 + 1];
	const struct dt_span *chunk = &collapse->chunk;
	if (!plain->ops->still_ours(plain, chunk->start, chunk->stop) ||
	    plain->ops->scan(plain, &collapse->context, chunk, DT_LOOK, found) != 0)
		return false;
	if (dt_uffd_writeprotect(plain->userfaultfd, chunk->start, chunk->stop - chunk->start, 0) < 0)
		collapse->failed = true; // a part may be open
	collapse->stage = DT_OPENED;
	return true;
}

// Whether that works, the page table tells.
void dt_collapse_run(const struct dt_collapse *collapse)
{
	const struct dt_span *chunk = &collapse->chunk;
	madvise((void *)(uintptr_t)chunk->start, chunk->stop - chunk->start, DT_MADV_COLLAPSE);
}

bool dt_collapse_arm(struct dt_collapse *collapse, struct dt_backend *plain)
{
	struct dt_run found[DT_CHUNK_PAGES / 2 + 1];
	const struct dt_span *chunk = &collapse->chunk;
	if (collapse->stage != DT_OPENED)
		return false;
	// Memory that is another's now, such as another session's, is not to be armed: it would take their writes.
	collapse->failed |= !plain->ops->still_ours(plain, chunk->start, chunk->stop) ||
			    plain->ops->scan(plain, &collapse->context, chunk, DT_ARM, found) < 0;
	collapse->stage = DT_ARMED;
	return true;
}

static struct dt_chunk_pages compare(const struct dt_collapse *collapse, uint8_t *piece)
{
	const struct dt_span *chunk = &collapse->chunk;
	const size_t page = (size_t)1 << chunk->page_shift, bytes = PIECE_PAGES * page;
	struct dt_chunk_pages written = {0};
	for (size_t first = 0; first < DT_CHUNK_PAGES; first += PIECE_PAGES) {
		uint64_t refused, start = chunk->start + first * page;
		bool unknown = collapse->failed || dt_copy_from(start, piece, bytes, &refused);
		for (size_t i = 0; i < PIECE_PAGES; i++)
			if (unknown || memcmp(piece + i * page, collapse->copy + (first + i) * page, page))
				written.words[(first + i) / 64] |= 1ULL << (first + i) % 64;
	}
	return written;
}

struct dt_chunk_pages dt_collapse_compare(const struct dt_collapse *collapse)
{
	return compare(collapse, collapse->threads_piece);
}

struct dt_chunk_pages dt_collapse_land(struct dt_collapse *collapse, struct dt_backend *plain)
{
	struct dt_chunk_pages written = {0};
	dt_collapse_arm(collapse, plain);
	if (collapse->stage == DT_ARMED)
		written = compare(collapse, collapse->piece);
	collapse->stage = DT_GROUNDED;
	return written;
}
