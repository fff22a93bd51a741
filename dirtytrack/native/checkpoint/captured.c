// Runs are taken apart into blocks.
#include "captured.h"

#include "../base/patience.h"

struct dt_captured_walk dt_captured_walk(const struct dt_captured *batch)
{
	return (struct dt_captured_walk){batch, batch->runs, batch->skip, 0};
}

size_t dt_captured_next(struct dt_captured_walk *walk, const uint64_t *sizes, struct dt_captured_block group[DT_GROUP])
{
	size_t n = 0;
	while (n < DT_GROUP && walk->done < walk->batch->blocks) {
		uint64_t number = walk->run->first + walk->skip, extent = walk->run->extent;
		struct dt_captured_block *block = &group[n++];
		*block = (struct dt_captured_block){
			.region = extent,
			.number = number,
			.data = walk->batch->data + walk->done * DT_BLOCK,
			.bytes = dt_block_bytes(sizes[extent], number, 1),
		};
		walk->done++;
		if (++walk->skip == walk->run->count) {
			walk->run++;
			walk->skip = 0;
		}
		if (block->bytes < DT_BLOCK)
			break;
	}
	return n;
}

void dt_captured_hash_group(const struct dt_hashes *hashes, const struct dt_captured_block *group, size_t n,
			    struct dt_hash *out)
{
	dt_hash_blocks(hashes, group->data, (n - 1) * DT_BLOCK + group[n - 1].bytes, out);
}

void dt_captured_hash(const struct dt_hashes *hashes, const struct dt_captured *batch)
{
	struct dt_captured_block group[DT_GROUP];
	struct dt_hash *out = batch->hashes;
	struct dt_captured_walk walk = dt_captured_walk(batch);
	dt_takes(batch->blocks * DT_PER_BLOCK_NS);
	for (size_t n; (n = dt_captured_next(&walk, hashes->sizes, group)); out += n)
		dt_captured_hash_group(hashes, group, n, out);
}
