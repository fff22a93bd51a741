// From two copies of memory to a list of what differs.
#include "changes.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "../base/array.h"
#include "../base/memory.h"

enum { PIECE = 256 }; // bytes compared at once; one that differs is copied before it is looked at

void *dt_changes_new(size_t size)
{
	return dt_alloc(size);
}

void dt_changes_free(void *pointer)
{
	struct dt_changes *changes = pointer;
	dt_free(changes->changes, changes->change_room * sizeof *changes->changes);
	dt_free(changes->before, changes->before_room);
	dt_free(changes->after, changes->after_room);
	dt_free(changes, sizeof *changes);
}

static int make_room(struct dt_changes *changes, size_t count, uint64_t bytes)
{
	int error = dt_grow(&changes->changes, &changes->change_room, changes->change_count + count,
			    sizeof *changes->changes);
	if (!error)
		error = dt_grow(&changes->before, &changes->before_room, changes->bytes + bytes, 1);
	return error ? error : dt_grow(&changes->after, &changes->after_room, changes->bytes + bytes, 1);
}

static void append(struct dt_changes *changes, const uint8_t *before, const uint8_t *after, uint64_t nbytes)
{
	memcpy(changes->before + changes->bytes, before, nbytes);
	memcpy(changes->after + changes->bytes, after, nbytes);
	changes->bytes += nbytes;
}

// Where the data of one comparison lies: before[i] is byte start + i of the region.
struct piece {
	uint64_t region, start;
	const uint8_t *before;
	uint64_t gap, limit;
};

// Adds bytes [from, to) of a piece, of which after has the new contents.
static int add(struct dt_changes *changes, const struct piece *piece, const uint8_t *after, uint64_t from, uint64_t to)
{
	struct dt_change *last = changes->change_count ? &changes->changes[changes->change_count - 1] : NULL;
	uint64_t start = piece->start + from, stop = piece->start + to;
	uint64_t between = 0;
	bool joins = last && last->region == piece->region && start - last->stop <= piece->gap;
	if (joins)
		between = start - last->stop;
	uint64_t nbytes = between + to - from;
	if (nbytes > piece->limit - changes->bytes)
		return -EFBIG;
	int error = make_room(changes, 1, nbytes);
	if (error)
		return error;
	if (joins) {
		last = &changes->changes[changes->change_count - 1];
		append(changes, piece->before + from - between, piece->before + from - between, between);
		last->stop = stop;
	} else {
		changes->changes[changes->change_count++] =
			(struct dt_change){piece->region, start, stop, changes->bytes};
	}
	append(changes, piece->before + from, after + from, to - from);
	return 0;
}

static uint64_t word(const uint8_t *bytes)
{
	uint64_t value;
	memcpy(&value, bytes, sizeof value);
	return value;
}

// Whether none of the eight bytes is zero.
static bool all_set(uint64_t value)
{
	return !((value - 0x0101010101010101) & ~value & 0x8080808080808080);
}

static uint64_t skip_equal(const uint8_t *a, const uint8_t *b, uint64_t at, uint64_t stop)
{
	while (at + 8 <= stop && word(a + at) == word(b + at))
		at += 8;
	while (at < stop && a[at] == b[at])
		at++;
	return at;
}

static uint64_t skip_different(const uint8_t *a, const uint8_t *b, uint64_t at, uint64_t stop)
{
	while (at + 8 <= stop && all_set(word(a + at) ^ word(b + at)))
		at += 8;
	while (at < stop && a[at] != b[at])
		at++;
	return at;
}

static int compare_piece(struct dt_changes *changes, const struct piece *piece, const uint8_t *memory, uint64_t nbytes)
{
	uint8_t after[PIECE];
	memcpy(after, memory, nbytes); // it may be written while we look
	for (uint64_t from = 0, to; (from = skip_equal(piece->before, after, from, nbytes)) < nbytes; from = to) {
		to = skip_different(piece->before, after, from, nbytes);
		int error = add(changes, piece, after, from, to);
		if (error)
			return error;
	}
	return 0;
}

int dt_compare(struct dt_changes *changes, uint64_t region, uint64_t start, const uint8_t *before, const uint8_t *after,
	       uint64_t nbytes, uint64_t gap, uint64_t limit)
{
	for (uint64_t at = 0; at < nbytes; at += PIECE) {
		uint64_t length = nbytes - at < PIECE ? nbytes - at : PIECE;
		if (memcmp(before + at, after + at, length) == 0)
			continue;
		struct piece piece = {region, start + at, before + at, gap, limit};
		int error = compare_piece(changes, &piece, after + at, length);
		if (error)
			return error;
	}
	return 0;
}

int dt_changes_valid(const struct dt_change *changes, size_t n, const uint64_t *sizes, size_t regions, uint64_t bytes)
{
	uint64_t region = 0, end = 0, at = 0;
	for (const struct dt_change *change = changes; change < changes + n; change++) {
		if (change->region >= regions || change->region < region || change->at != at)
			return 0;
		end = change->region == region ? end : 0;
		if (change->start < end || change->stop <= change->start || change->stop > sizes[change->region])
			return 0;
		if (change->stop - change->start > bytes - at) // so that no sum of them wraps
			return 0;
		region = change->region;
		end = change->stop;
		at += change->stop - change->start;
	}
	return at == bytes;
}

size_t dt_changes_match(const struct dt_change *changes, size_t n, const uint8_t *contents, uint8_t *const *memories)
{
	size_t i = 0;
	while (i < n && memcmp(memories[changes[i].region] + changes[i].start, contents + changes[i].at,
			       changes[i].stop - changes[i].start) == 0)
		i++;
	return i;
}

void dt_changes_apply(const struct dt_change *changes, size_t n, const uint8_t *contents, uint8_t *const *memories)
{
	for (size_t i = 0; i < n; i++)
		memcpy(memories[changes[i].region] + changes[i].start, contents + changes[i].at,
		       changes[i].stop - changes[i].start);
}
