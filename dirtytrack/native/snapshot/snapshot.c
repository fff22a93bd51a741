#include <errno.h>
#include <string.h>

#include "../core/internal.h"
#include "snapshot.h"

enum {
	PIECE = 256,   // bytes compared at once; one that differs is copied before it is looked at
	READ = 1 << 0, // of struct dt_procmap_query.vma_flags
	WRITE = 1 << 1,
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

// The bytes of a region that lie on a run of its pages.
static struct dt_run bytes_of(const struct dt_twin *twin, const struct dt_run *pages)
{
	uint64_t start = pages->start * twin->page_size, stop = pages->stop * twin->page_size - twin->offset;
	return (struct dt_run){
		start > twin->offset ? start - twin->offset : 0,
		stop < twin->nbytes ? stop : twin->nbytes,
	};
}

// The processor does not look ahead beyond a page by itself.
static void look_ahead(const struct dt_twin *twin, const struct dt_run *pages)
{
	struct dt_run bytes = bytes_of(twin, pages);
	for (int line = 0; line < 8; line++) {
		__builtin_prefetch((const char *)(twin->address + bytes.start) + line * 64);
		__builtin_prefetch(twin->copy + bytes.start + line * 64);
	}
}

// Calls act for the bytes of each run of pages that the epoch has of each twin, until it fails.
static int for_each_run(const struct dt_twin *twins, size_t n, const struct dt_epoch *epoch,
			int (*act)(const struct dt_twin *twin, size_t index, struct dt_run bytes, void *context),
			void *context)
{
	for (size_t i = 0; i < n; i++) {
		const struct dt_entry *entry = &epoch->buffers.entries[i];
		const struct dt_run *run = epoch->buffers.runs + entry->first_run, *end = run + entry->run_count;
		for (; run < end; run++) {
			if (run + 1 < end)
				look_ahead(&twins[i], run + 1);
			int error = act(&twins[i], i, bytes_of(&twins[i], run), context);
			if (error)
				return error;
		}
	}
	return 0;
}

struct comparison {
	struct dt_changes *changes;
	uint64_t gap, limit;
};

static int compare_run(const struct dt_twin *twin, size_t index, struct dt_run bytes, void *context)
{
	struct comparison *comparison = context;
	return dt_compare(comparison->changes, index, bytes.start, twin->copy + bytes.start,
			  (const uint8_t *)twin->address + bytes.start, bytes.stop - bytes.start, comparison->gap,
			  comparison->limit);
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

int dt_compare_pages(struct dt_changes *changes, const struct dt_twin *twins, size_t n, const struct dt_epoch *epoch,
		     uint64_t gap, uint64_t limit)
{
	return for_each_run(twins, n, epoch, compare_run, &(struct comparison){changes, gap, limit});
}

static int update_run(const struct dt_twin *twin, size_t index, struct dt_run bytes, void *context)
{
	(void)index, (void)context;
	memcpy(twin->copy + bytes.start, (const void *)(twin->address + bytes.start), bytes.stop - bytes.start);
	return 0;
}

void dt_update(const struct dt_twin *twins, size_t n, const struct dt_epoch *epoch)
{
	for_each_run(twins, n, epoch, update_run, NULL);
}

static int put_back_run(const struct dt_twin *twin, size_t index, struct dt_run bytes, void *context)
{
	(void)index, (void)context;
	memcpy((void *)(twin->address + bytes.start), twin->copy + bytes.start, bytes.stop - bytes.start);
	return 0;
}

int dt_rollback(struct dt_session *session, uint64_t cursor, const struct dt_slice *slices, size_t n,
		const struct dt_twin *twins, const struct dt_epoch *open, struct dt_epoch *taken)
{
	for_each_run(twins, n, open, put_back_run, NULL);
	int error = dt_collect(session, cursor, DT_COLLECT, slices, n, taken);
	return error ? error : dt_epoch_settle(taken, open->buffers.entries, open->buffers.runs);
}

void dt_copy(const struct dt_twin *twin)
{
	for (uint64_t at = 0; at < twin->nbytes; at += twin->page_size) {
		const uint8_t *from = (const uint8_t *)twin->address + at;
		uint64_t length = twin->nbytes - at < twin->page_size ? twin->nbytes - at : twin->page_size;
		if (!dt_is_zero(from, length))
			memcpy(twin->copy + at, from, length);
	}
}

// 1 if all mappings that hold the pages have the flags, 0 if one has not, or -errno.
static int permitted(int maps, const struct dt_twin *twin, const struct dt_run *run, const struct dt_run *end,
		     uint64_t flags)
{
	uint64_t first = twin->address - twin->offset, asked = 0;
	struct dt_procmap_query query;
	for (; run < end; run++) {
		uint64_t start = first + run->start * twin->page_size, stop = first + run->stop * twin->page_size;
		for (asked = asked > start ? asked : start; asked < stop; asked = query.vma_end) {
			int error = dt_procmap_query(maps, asked, 0, &query, NULL, 0);
			if (error)
				return error == -ENOENT ? 0 : error;
			if ((query.vma_flags & flags) != flags)
				return 0;
		}
	}
	return 1;
}

long dt_find_protected(int maps, const struct dt_twin *twins, size_t n, const struct dt_entry *entries,
		       const struct dt_run *all, int write)
{
	for (size_t i = 0; i < n; i++) {
		const struct dt_entry *entry = &entries[i];
		const struct dt_run *runs = all + entry->first_run;
		int result = permitted(maps, &twins[i], runs, runs + entry->run_count, write ? READ | WRITE : READ);
		if (result <= 0)
			return result ? result : (long)i;
	}
	return (long)n;
}
