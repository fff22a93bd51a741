// Segments grow block by block. What they hold stays in the processor's cache from the comparison to the sum.
#include "pack.h"

#include <errno.h>
#include <string.h>

#include "../base/array.h"
#include "../base/bytes.h"
#include "../base/memory.h"
#include "../base/patience.h"

enum { AT_ONCE = 1 << 18 }; // bytes that are written at least, while they lie in the processor's cache

void *dt_pack_new(size_t size)
{
	return dt_alloc(size);
}

void dt_pack_free(void *pointer)
{
	struct dt_pack *pack = pointer;
	dt_free(pack->runs, pack->run_room * sizeof *pack->runs);
	dt_free(pack->segments, pack->segment_room * sizeof *pack->segments);
	dt_free(pack->zeros, pack->zero_room * sizeof *pack->zeros);
	dt_free(pack->writes, pack->write_room * sizeof *pack->writes);
	dt_free(pack->tail, pack->tail_room);
	dt_free(pack, sizeof *pack);
}

static bool continues(const struct dt_block_run *run, const struct dt_captured_block *block)
{
	return run->extent == block->region && run->first + run->count == block->number;
}

static int add_write(struct dt_pack *pack, uint64_t offset, const uint8_t *data, uint64_t bytes)
{
	pack->written += bytes;
	pack->waiting += bytes;
	struct dt_write *last = pack->write_count ? &pack->writes[pack->write_count - 1] : NULL;
	if (last && last->offset + last->bytes == offset && last->data + last->bytes == data) {
		last->bytes += bytes;
		return 0;
	}
	int error = dt_grow(&pack->writes, &pack->write_room, pack->write_count + 1, sizeof *pack->writes);
	if (!error)
		pack->writes[pack->write_count++] = (struct dt_write){offset, bytes, data};
	return error;
}

static int open_segment(struct dt_pack *pack, uint32_t encoding, const uint8_t *data)
{
	int error = dt_grow(&pack->segments, &pack->segment_room, pack->segment_count + 1, sizeof *pack->segments);
	if (error)
		return error;
	pack->segments[pack->segment_count++] = (struct dt_segment){.encoding = encoding, .data = data};
	dt_checksum_begin(&pack->sum);
	return 0;
}

static int add_run(struct dt_pack *pack, struct dt_block_run run)
{
	int error = dt_grow(&pack->runs, &pack->run_room, pack->run_count + 1, sizeof *pack->runs);
	if (error)
		return error;
	pack->runs[pack->run_count++] = run;
	pack->segments[pack->segment_count - 1].runs++;
	return 0;
}

// The segment that is being filled; NULL: there is none.
static struct dt_segment *open_one(struct dt_pack *pack)
{
	return pack->segment_count > pack->batch ? &pack->segments[pack->segment_count - 1] : NULL;
}

static int close_segment(struct dt_pack *pack)
{
	struct dt_segment *segment = open_one(pack);
	if (!segment)
		return 0;
	segment->checksum = dt_checksum_value(&pack->sum);
	if (segment->encoding == DT_STORED_IN_PLACE || pack->apart)
		return 0;
	segment->offset = pack->end;
	pack->end += segment->length;
	return add_write(pack, segment->offset, segment->data, segment->length);
}

static bool fits(const struct dt_pack *pack, const struct dt_segment *segment, const struct dt_captured_block *block)
{
	uint64_t limit = block->encoding == DT_STORED_IN_PLACE ? pack->place_limit : pack->limit;
	if (!segment || segment->encoding != block->encoding || segment->length + block->bytes > limit)
		return false;
	return segment->runs < DT_SEGMENT_RUNS || continues(&pack->runs[pack->run_count - 1], block);
}

static int add_block(struct dt_pack *pack, const struct dt_captured_block *block)
{
	struct dt_segment *segment = open_one(pack);
	int error = 0;
	if (!fits(pack, segment, block)) {
		error = close_segment(pack);
		if (!error)
			error = open_segment(pack, block->encoding, block->data);
		if (error)
			return error;
		segment = open_one(pack);
	}
	if (segment->runs && continues(&pack->runs[pack->run_count - 1], block))
		pack->runs[pack->run_count - 1].count++;
	else
		error = add_run(pack, (struct dt_block_run){block->region, block->number, 1});
	dt_checksum_add(&pack->sum, block->data, block->bytes);
	segment->length += block->bytes;
	pack->blocks++;
	pack->plain += block->bytes;
	if (!error && block->encoding == DT_STORED_IN_PLACE)
		error = add_write(pack, pack->linear[block->region] + block->number * DT_BLOCK, block->data,
				  block->bytes);
	return error;
}

static int note_zeros(struct dt_pack *pack, const struct dt_captured_block *block)
{
	pack->blocks++;
	if (pack->zero_count && continues(&pack->zeros[pack->zero_count - 1], block)) {
		pack->zeros[pack->zero_count - 1].count++;
		return 0;
	}
	int error = dt_grow(&pack->zeros, &pack->zero_room, pack->zero_count + 1, sizeof *pack->zeros);
	if (!error)
		pack->zeros[pack->zero_count++] = (struct dt_block_run){block->region, block->number, 1};
	return error;
}

static int add_zeros(struct dt_pack *pack)
{
	int error = 0;
	for (size_t i = 0; !error && i < pack->zero_count; i++) {
		if (i % DT_SEGMENT_RUNS == 0)
			error = open_segment(pack, DT_STORED_ZEROS, NULL);
		if (!error)
			error = add_run(pack, pack->zeros[i]);
	}
	return error;
}

// 1: a block is to be stored, 0: it is not, or is noted as zeros; -ENOMEM.
static int is_wanted(struct dt_pack *pack, const struct dt_captured_block *block, bool everything)
{
	bool zeros;
	int changed = 1;
	if (pack->hashes) {
		zeros = !block->hash.low && !block->hash.high;
		changed = dt_hashes_set(pack->hashes, block->region, block->number, block->hash);
	} else {
		zeros = dt_is_zero(block->data, block->bytes);
	}
	if (changed < 0 || everything)
		return changed < 0 ? changed : !zeros;
	return changed && zeros ? note_zeros(pack, block) : changed;
}

// Stores a block, or leaves it out. What is raw is moved to *free, behind what was raw before; what is in place is
// written from where it lies, and nothing is moved over it.
static int take(struct dt_pack *pack, struct dt_captured_block *block, bool everything, uint8_t **free)
{
	int wanted = is_wanted(pack, block, everything);
	if (wanted <= 0)
		return wanted;
	if (block->encoding == DT_STORED_IN_PLACE) {
		*free = block->data + DT_BLOCK;
	} else {
		if (*free != block->data)
			memmove(*free, block->data, block->bytes);
		block->data = *free;
		*free += block->bytes;
	}
	return add_block(pack, block);
}

static int write_some(struct dt_pack *pack)
{
	if (!pack->file || pack->waiting < AT_ONCE)
		return 0;
	size_t n = pack->write_count;
	pack->waiting = pack->write_count = 0;
	return dt_write_all(*pack->file, pack->writes, n);
}

// Stores the blocks of a group.
static int take_group(struct dt_pack *pack, const struct dt_captured *batch, struct dt_captured_block *group, size_t n,
		      uint8_t **free)
{
	int error = 0;
	struct dt_hash fresh[DT_GROUP];
	const struct dt_hash *hashes = fresh;
	if (batch->hashes)
		hashes = batch->hashes + (group->data - batch->data) / DT_BLOCK;
	else if (pack->hashes)
		dt_captured_hash_group(pack->hashes, group, n, fresh);
	for (size_t i = 0; !error && i < n; i++) {
		bool linear = batch->everything && pack->linear && pack->linear[group[i].region];
		group[i].encoding = linear ? DT_STORED_IN_PLACE : DT_STORED_RAW;
		if (pack->hashes)
			group[i].hash = hashes[i];
		error = take(pack, &group[i], batch->everything, free);
	}
	return error ? error : write_some(pack);
}

int dt_pack_add(struct dt_pack *pack, const struct dt_captured *batch)
{
	struct dt_captured_block group[DT_GROUP];
	struct dt_captured_walk walk = dt_captured_walk(batch);
	uint8_t *free = batch->data;
	int error = 0;
	dt_takes(batch->blocks * DT_PER_BLOCK_NS);
	pack->batch = pack->segment_count;
	pack->waiting = pack->write_count = pack->zero_count = 0;
	for (size_t n; !error && (n = dt_captured_next(&walk, pack->sizes, group));)
		error = take_group(pack, batch, group, n, &free);
	if (!error)
		error = close_segment(pack);
	return error ? error : add_zeros(pack);
}

static int place(struct dt_pack *pack, struct dt_segment *segment)
{
	if (segment->encoding != DT_STORED_RAW) {
		dt_takes(segment->length / 8);
		segment->checksum = dt_checksum_of(segment->data, segment->length);
	}
	segment->offset = pack->end;
	pack->end += segment->length;
	return add_write(pack, segment->offset, segment->data, segment->length);
}

int dt_pack_place(struct dt_pack *pack, size_t first, size_t stop)
{
	int error = 0;
	pack->waiting = pack->write_count = 0;
	for (struct dt_segment *segment = pack->segments + first; !error && segment < pack->segments + stop; segment++)
		if (segment->encoding != DT_STORED_ZEROS && segment->encoding != DT_STORED_IN_PLACE)
			error = place(pack, segment);
	return error;
}
