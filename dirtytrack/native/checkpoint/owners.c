// A table of owners for each region that has any.
#define _GNU_SOURCE
#include "owners.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../base/bytes.h"
#include "../base/memory.h"
#include "../base/patience.h"
#include "../kernel/touch.h"

enum {
	AT_ONCE = 16 * DT_BLOCK, // bytes of memory that are read at once
	PER_RUN_NS = 10,
};

void *dt_owners_new(size_t size)
{
	return dt_alloc(size);
}

void dt_owners_free(void *pointer)
{
	struct dt_owners *owners = pointer;
	for (size_t i = 0; owners->sizes && owners->tables && i < owners->regions; i++)
		dt_free(owners->tables[i], dt_block_count(owners->sizes[i]) * sizeof **owners->tables);
	dt_free(owners->tables, (owners->regions + 1) * sizeof *owners->tables);
	dt_free(owners->sizes, (owners->regions + 1) * sizeof *owners->sizes);
	dt_free(owners, sizeof *owners);
}

int dt_owners_open(struct dt_owners *owners, const uint64_t *sizes, size_t regions)
{
	owners->regions = regions;
	owners->sizes = dt_alloc((regions + 1) * sizeof *owners->sizes);
	owners->tables = dt_alloc((regions + 1) * sizeof *owners->tables);
	if (!owners->sizes || !owners->tables)
		return -ENOMEM;
	memcpy(owners->sizes, sizes, regions * sizeof *sizes);
	return 0;
}

static bool is_within(const struct dt_file_table *table, const struct dt_block_run *run)
{
	if (run->extent >= table->regions)
		return false;
	uint64_t blocks = dt_block_count(table->sizes[run->extent]);
	return run->count && run->first < blocks && run->count <= blocks - run->first;
}

size_t dt_runs_load(const struct dt_file_table *table, struct dt_block_run *runs, size_t n, uint64_t *bytes_ret)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < n; i++) {
		struct dt_block_run *run = &runs[i];
		*run = (struct dt_block_run){le64toh(run->extent), le64toh(run->first), le64toh(run->count)};
		if (!is_within(table, run))
			return i;
		if (i && (run->extent < run[-1].extent ||
			  (run->extent == run[-1].extent && run->first < run[-1].first + run[-1].count)))
			return i;
		bytes += dt_block_bytes(table->sizes[run->extent], run->first, run->count);
	}
	*bytes_ret = bytes;
	return n;
}

// The part of a file's run that may be of the state, and its region there.
static struct dt_run blocks_of(const struct dt_file_table *table, const struct dt_block_run *run, uint64_t *region_ret)
{
	*region_ret = table->places[run->extent];
	return dt_run_clip((struct dt_run){run->first, run->first + run->count},
			   (struct dt_run){0, table->counts[run->extent]});
}

// Whole pages of a table are dropped, so that zeros of any length take no memory and no time.
static void forget(uint32_t *table, uint64_t first, uint64_t stop)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)(table + first),
		  end = (uintptr_t)(table + stop), low = (start + page - 1) & ~(page - 1), high = end & ~(page - 1);
	if (low >= high || madvise((void *)low, high - low, MADV_DONTNEED)) {
		memset((void *)start, 0, end - start);
		return;
	}
	memset((void *)start, 0, low - start);
	memset((void *)high, 0, end - high);
}

int dt_owners_set(struct dt_owners *owners, const struct dt_file_table *table, const struct dt_block_run *runs,
		  size_t n, uint32_t owner)
{
	dt_takes(n * PER_RUN_NS);
	for (const struct dt_block_run *run = runs; run < runs + n; run++) {
		uint64_t region;
		struct dt_run blocks = blocks_of(table, run, &region);
		if (blocks.start >= blocks.stop)
			continue;
		uint32_t **owned = &owners->tables[region];
		if (!owner) {
			if (*owned)
				forget(*owned, blocks.start, blocks.stop);
			continue;
		}
		if (!*owned)
			*owned = dt_alloc(dt_block_count(owners->sizes[region]) * sizeof **owned);
		if (!*owned)
			return -ENOMEM;
		for (uint64_t at = blocks.start; at < blocks.stop; at++)
			(*owned)[at] = owner;
	}
	return 0;
}

void dt_owners_get(const struct dt_owners *owners, uint64_t region, uint64_t first, uint64_t stop, uint32_t *out)
{
	const uint32_t *table = owners->tables[region];
	if (table)
		memcpy(out, table + first, (stop - first) * sizeof *out);
	else
		memset(out, 0, (stop - first) * sizeof *out);
}

static uint32_t owner_of(const struct dt_owners *owners, uint64_t region, uint64_t block)
{
	return owners->tables[region] ? owners->tables[region][block] : 0;
}

int dt_owners_next(const struct dt_owners *owners, uint64_t region, uint32_t owner, uint64_t first, uint64_t stop,
		   struct dt_run *found_ret)
{
	if (!owners->tables[region]) {
		*found_ret = (struct dt_run){first, stop};
		return owner == 0 && first < stop;
	}
	dt_takes((stop - first) / 4);
	while (first < stop && owner_of(owners, region, first) != owner)
		first++;
	uint64_t end = first;
	while (end < stop && owner_of(owners, region, end) == owner)
		end++;
	*found_ret = (struct dt_run){first, end};
	return first < end;
}

// The part of a file's run for which there is a target, and its region in the state.
static struct dt_run wanted(const struct dt_file_table *table, const struct dt_block_run *run,
			    const struct dt_target *targets, uint64_t *region_ret)
{
	struct dt_run blocks = blocks_of(table, run, region_ret);
	if (blocks.start >= blocks.stop) // its region may be none of the state
		return blocks;
	const struct dt_target *target = &targets[*region_ret];
	return dt_run_clip(blocks, (struct dt_run){target->first, target->stop});
}

uint64_t dt_owned(const struct dt_owners *owners, const struct dt_file_table *table, uint32_t owner,
		  const struct dt_block_run *runs, size_t n, const struct dt_target *targets)
{
	uint64_t count = 0, region;
	for (const struct dt_block_run *run = runs; run < runs + n; run++) {
		struct dt_run blocks = wanted(table, run, targets, &region);
		for (uint64_t at = blocks.start; at < blocks.stop; at++)
			count += owner_of(owners, region, at) == owner;
	}
	return count;
}

int dt_place(const struct dt_owners *owners, const struct dt_file_table *table, uint32_t owner,
	     const struct dt_block_run *runs, size_t n, const struct dt_target *targets, const uint8_t *data,
	     uint64_t *refused_ret)
{
	int error = 0;
	dt_takes_long();
	for (const struct dt_block_run *run = runs; !error && run < runs + n; run++) {
		uint64_t region, nbytes = table->sizes[run->extent];
		struct dt_run blocks = wanted(table, run, targets, &region), owned;
		const struct dt_target *target = &targets[region];
		while (!error && blocks.start < blocks.stop &&
		       dt_owners_next(owners, region, owner, blocks.start, blocks.stop, &owned)) {
			error = dt_copy_to(target->address + (owned.start - target->first) * DT_BLOCK,
					   data + (owned.start - run->first) * DT_BLOCK,
					   dt_block_bytes(nbytes, owned.start, owned.stop - owned.start), refused_ret);
			blocks.start = owned.stop;
		}
		data += dt_block_bytes(nbytes, run->first, run->count);
	}
	return error;
}

static int make_zeros(uint64_t address, uint64_t bytes, uint8_t *buffer, const uint8_t *zeros, uint64_t *refused_ret)
{
	int error = dt_copy_from(address, buffer, bytes, refused_ret);
	for (uint64_t at = 0; !error && at < bytes; at += DT_BLOCK) {
		uint64_t count = bytes - at < DT_BLOCK ? bytes - at : DT_BLOCK;
		if (!dt_is_zero(buffer + at, count))
			error = dt_copy_to(address + at, zeros, count, refused_ret);
	}
	return error;
}

int dt_place_zeros(const struct dt_owners *owners, uint64_t region, uint64_t address, uint64_t start, uint64_t stop,
		   uint64_t *refused_ret)
{
	uint8_t *buffer = dt_alloc(AT_ONCE + DT_BLOCK);
	if (!buffer)
		return -ENOMEM;
	const uint8_t *zeros = buffer + AT_ONCE; // as all fresh memory
	dt_takes_copy(stop - start);
	uint64_t first = start / DT_BLOCK, end = dt_block_count(stop);
	struct dt_run found;
	int error = 0;
	while (!error && dt_owners_next(owners, region, 0, first, end, &found)) {
		if (found.stop - found.start > AT_ONCE / DT_BLOCK)
			found.stop = found.start + AT_ONCE / DT_BLOCK;
		struct dt_run bytes = dt_run_clip((struct dt_run){found.start * DT_BLOCK, found.stop * DT_BLOCK},
						  (struct dt_run){start, stop});
		error = make_zeros(address + bytes.start, bytes.stop - bytes.start, buffer, zeros, refused_ret);
		first = found.stop;
	}
	dt_free(buffer, AT_ONCE + DT_BLOCK);
	return error;
}
