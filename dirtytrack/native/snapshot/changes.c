// From two copies of memory to a list of what differs.
#include "changes.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "../base/array.h"
#include "../base/memory.h"
#include "../base/patience.h"
#include "../core/access.h"

enum {
	PIECE = 256, // bytes compared at once; one that differs is copied before it is looked at
	ROOM = 4096, // bytes read at once where they can't be read in place
};

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
	const struct dt_comparing *how;
};

static uint64_t taken(const struct dt_changes *changes)
{
	return changes->change_count * sizeof *changes->changes + 2 * changes->bytes;
}

// Adds the equal bytes that lie between the last change and byte `from` of a piece.
static void bridge(struct dt_changes *changes, const struct piece *piece, uint64_t from)
{
	const struct dt_comparing *how = piece->how;
	struct dt_change *last = &changes->changes[changes->change_count - 1];
	uint64_t between = piece->start + from - last->stop;
	uint8_t *old = changes->before + changes->bytes;
	if (how->read)
		how->read(how->context, piece->region, last->stop, last->stop + between, old);
	else
		memcpy(old, piece->before + from - between, between);
	memcpy(changes->after + changes->bytes, old, between);
	changes->bytes += between;
}

// Adds bytes [from, to) of a piece, of which after has the new contents.
static int add(struct dt_changes *changes, const struct piece *piece, const uint8_t *after, uint64_t from, uint64_t to)
{
	struct dt_change *last = changes->change_count ? &changes->changes[changes->change_count - 1] : NULL;
	uint64_t start = piece->start + from, nbytes = to - from;
	bool joins = last && last->region == piece->region && start - last->stop <= piece->how->gap;
	if (joins)
		nbytes += start - last->stop;
	if (2 * nbytes + (joins ? 0 : sizeof *last) > piece->how->limit - taken(changes))
		return -EFBIG;
	int error = make_room(changes, 1, nbytes);
	if (error)
		return error;
	if (joins)
		bridge(changes, piece, from);
	else
		changes->changes[changes->change_count++] =
			(struct dt_change){piece->region, start, start, changes->bytes};
	changes->changes[changes->change_count - 1].stop = piece->start + to;
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

int dt_changes_compare(struct dt_changes *changes, const struct dt_comparing *how, uint64_t region, uint64_t start,
		       const uint8_t *before, const uint8_t *after, uint64_t nbytes)
{
	dt_takes_copy(nbytes);
	for (uint64_t at = 0; !changes->error && at < nbytes; at += PIECE) {
		uint64_t length = nbytes - at < PIECE ? nbytes - at : PIECE;
		if (memcmp(before + at, after + at, length) == 0)
			continue;
		struct piece piece = {region, start + at, before + at, how};
		changes->error = compare_piece(changes, &piece, after + at, length);
	}
	return changes->error;
}

int dt_changes_add(struct dt_changes *changes, const struct dt_comparing *how, uint64_t region, uint64_t start,
		   const uint8_t *before, const uint8_t *after, uint64_t nbytes)
{
	const struct piece piece = {region, start, before, how};
	dt_takes_copy(nbytes);
	if (!changes->error)
		changes->error = add(changes, &piece, after, 0, nbytes);
	return changes->error;
}

int dt_changes_check(const struct dt_change *changes, size_t n, const struct dt_extent *memories,
		     struct dt_failure *failure)
{
	struct dt_touch touch = {.maps = -1, .pagemap = -1, .write = true}; // they will be written: so touch them
	int error = 0;
	for (size_t i = 0, next; !error && i < n; i = next) {
		const struct dt_extent *memory = &memories[changes[i].region];
		struct dt_run pages = dt_extent_pages_of(memory, (struct dt_run){changes[i].start, changes[i].stop});
		for (next = i + 1; next < n && changes[next].region == changes[i].region; next++) {
			struct dt_run bytes = {changes[next].start, changes[next].stop};
			struct dt_run more = dt_extent_pages_of(memory, bytes);
			if (more.start > pages.stop)
				break;
			pages.stop = more.stop;
		}
		error = dt_check_runs(&touch, memory, &pages, &pages + 1, failure);
	}
	return error;
}

// 1 if the bytes of memory are the contents, 0 if not, or -errno.
static int matches(const struct dt_extent *memory, struct dt_run bytes, const uint8_t *contents,
		   struct dt_failure *failure)
{
	uint8_t buffer[ROOM];
	bool same = true;
	for (uint64_t at = bytes.start, stop; same && at < bytes.stop; at = stop) {
		const uint8_t *view;
		stop = bytes.stop - at < ROOM ? bytes.stop : at + ROOM;
		int error = dt_view(NULL, memory, (struct dt_run){at, stop}, buffer, &view, failure);
		if (error)
			return error;
		same = memcmp(view, contents + (at - bytes.start), stop - at) == 0;
	}
	return same;
}

int dt_changes_match(const struct dt_change *changes, size_t n, const uint8_t *contents,
		     const struct dt_extent *memories, size_t *place_ret, struct dt_failure *failure)
{
	int same = 1;
	for (*place_ret = 0; *place_ret < n; ++*place_ret) {
		const struct dt_change *change = &changes[*place_ret];
		struct dt_run bytes = {change->start, change->stop};
		same = matches(&memories[change->region], bytes, contents + change->at, failure);
		if (same <= 0)
			break;
	}
	return same < 0 ? same : 0;
}

int dt_changes_apply(const struct dt_change *changes, size_t n, const uint8_t *contents,
		     const struct dt_extent *memories, struct dt_failure *failure)
{
	int error = 0;
	for (const struct dt_change *change = changes; !error && change < changes + n; change++)
		error = dt_put(&memories[change->region], (struct dt_run){change->start, change->stop},
			       contents + change->at, failure);
	return error;
}
