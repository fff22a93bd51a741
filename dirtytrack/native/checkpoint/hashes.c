// The table and its log.
#include "hashes.h"

#include <errno.h>

#include "../base/array.h"
#include "../base/bytes.h"
#include "../base/memory.h"
#include "../base/patience.h"
#include "../kernel/touch.h"

enum {
	KEPT = 1 << 12,          // entries of the log for which memory is kept from one file to the next
	AT_ONCE = 16 * DT_BLOCK, // bytes of memory that are read at once
	PER_BLOCK_NS = 2500,     // to read and hash one
};

void *dt_hashes_new(size_t size)
{
	return dt_alloc(size);
}

static void free_log(struct dt_hashes *hashes)
{
	dt_free(hashes->log, hashes->log_room * sizeof *hashes->log);
	hashes->log = NULL;
	hashes->log_room = hashes->log_count = 0;
}

void dt_hashes_free(void *pointer)
{
	struct dt_hashes *hashes = pointer;
	if (hashes->table)
		dt_free(hashes->table, hashes->starts[hashes->regions] * sizeof *hashes->table);
	dt_free(hashes->starts, (hashes->regions + 1) * sizeof *hashes->starts);
	dt_free(hashes->sizes, (hashes->regions + 1) * sizeof *hashes->sizes);
	free_log(hashes);
	dt_free(hashes, sizeof *hashes);
}

int dt_hashes_open(struct dt_hashes *hashes, const uint64_t *sizes, size_t regions)
{
	hashes->regions = regions;
	hashes->starts = dt_alloc((regions + 1) * sizeof *hashes->starts);
	hashes->sizes = dt_alloc((regions + 1) * sizeof *hashes->sizes);
	if (!hashes->starts || !hashes->sizes)
		return -ENOMEM;
	for (size_t i = 0; i < regions; i++) {
		hashes->sizes[i] = sizes[i];
		hashes->starts[i + 1] = hashes->starts[i] + dt_block_count(sizes[i]);
	}
	if (hashes->starts[regions])
		hashes->table = dt_alloc(hashes->starts[regions] * sizeof *hashes->table);
	return hashes->starts[regions] && !hashes->table ? -ENOMEM : 0;
}

static bool equal(struct dt_hash a, struct dt_hash b)
{
	return a.low == b.low && a.high == b.high;
}

static int change(struct dt_hashes *hashes, uint64_t place, struct dt_hash hash)
{
	if (equal(hashes->table[place], hash))
		return 0;
	int error = dt_grow(&hashes->log, &hashes->log_room, hashes->log_count + 1, sizeof *hashes->log);
	if (error)
		return error;
	hashes->log[hashes->log_count++] = (struct dt_former){place, hashes->table[place]};
	hashes->table[place] = hash;
	hashes->is_used = true;
	return 1;
}

int dt_hashes_set(struct dt_hashes *hashes, uint64_t region, uint64_t block, struct dt_hash hash)
{
	return change(hashes, hashes->starts[region] + block, hash);
}

int dt_hashes_clear(struct dt_hashes *hashes)
{
	if (!hashes->is_used) // nothing of it is to be touched
		return 0;
	dt_takes(hashes->starts[hashes->regions]);
	for (uint64_t place = 0; place < hashes->starts[hashes->regions]; place++) {
		int changed = change(hashes, place, (struct dt_hash){0, 0});
		if (changed < 0)
			return changed;
	}
	return 0;
}

void dt_hashes_follow(struct dt_hashes *hashes, const struct dt_hashes *before, const uint64_t *places,
		      const uint64_t *counts)
{
	const struct dt_hash zeros = {0, 0};
	dt_takes(2 * hashes->starts[hashes->regions]);
	hashes->is_used |= before->is_used;
	for (size_t i = 0; i < hashes->regions; i++) {
		struct dt_hash *to = &hashes->table[hashes->starts[i]];
		for (uint64_t block = 0; block < hashes->starts[i + 1] - hashes->starts[i]; block++) {
			struct dt_hash hash =
				block < counts[i] ? before->table[before->starts[places[i]] + block] : zeros;
			if (!equal(to[block], hash)) // what is zeros takes no memory
				to[block] = hash;
		}
	}
}

void dt_hashes_commit(struct dt_hashes *hashes)
{
	hashes->log_count = 0;
	if (hashes->log_room > KEPT)
		free_log(hashes);
}

// From the newest entry to the oldest: a block may be there more than once.
void dt_hashes_abort(struct dt_hashes *hashes)
{
	dt_takes(8 * hashes->log_count);
	while (hashes->log_count) {
		const struct dt_former *former = &hashes->log[--hashes->log_count];
		hashes->table[former->place] = former->hash;
	}
	dt_hashes_commit(hashes);
}

// Of some blocks; zeros are hashed with their neighbours, which costs less than to sort them out.
static void hash_some(const struct dt_hashes *hashes, const uint8_t *data, size_t bytes, size_t n, struct dt_hash *out)
{
	bool is_zero[DT_SIPHASH_LANES], all = true;
	for (size_t i = 0; i < n; i++)
		all &= is_zero[i] = dt_is_zero(data + i * bytes, bytes);
	if (!all)
		dt_siphash_all(hashes->key, data, bytes, n, out);
	for (size_t i = 0; i < n; i++)
		if (is_zero[i])
			out[i] = (struct dt_hash){0, 0};
}

void dt_hash_blocks(const struct dt_hashes *hashes, const uint8_t *data, uint64_t bytes, struct dt_hash *out)
{
	while (bytes) {
		uint64_t size = bytes < DT_BLOCK ? bytes : DT_BLOCK, n = bytes / size;
		n = n < DT_SIPHASH_LANES ? n : DT_SIPHASH_LANES;
		hash_some(hashes, data, size, n, out);
		data += n * size;
		bytes -= n * size;
		out += n;
	}
}

static uint64_t learn_blocks(struct dt_hashes *hashes, uint64_t region, uint64_t first, const uint8_t *data,
			     uint64_t bytes)
{
	struct dt_hash *hash = &hashes->table[hashes->starts[region] + first], fresh[AT_ONCE / DT_BLOCK];
	uint64_t found = 0;
	dt_hash_blocks(hashes, data, bytes, fresh);
	for (uint64_t i = 0; i * DT_BLOCK < bytes; i++) {
		if (equal(fresh[i], (struct dt_hash){0, 0}))
			continue;
		hash[i] = fresh[i];
		hashes->is_used = true;
		found++;
	}
	return found;
}

int dt_hashes_learn(struct dt_hashes *hashes, uint64_t region, uint64_t address, uint64_t first, uint64_t stop,
		    uint64_t *found_ret, uint64_t *refused_ret)
{
	uint8_t *buffer = dt_alloc(AT_ONCE);
	int error = buffer ? 0 : -ENOMEM;
	dt_takes((stop - first) * PER_BLOCK_NS);
	while (!error && first < stop) {
		uint64_t count = stop - first < AT_ONCE / DT_BLOCK ? stop - first : AT_ONCE / DT_BLOCK;
		uint64_t bytes = dt_block_bytes(hashes->sizes[region], first, count);
		error = dt_copy_from(address + first * DT_BLOCK, buffer, bytes, refused_ret);
		if (!error)
			*found_ret += learn_blocks(hashes, region, first, buffer, bytes);
		first += count;
	}
	dt_free(buffer, AT_ONCE);
	return error;
}
