// Offsets, lengths and sums that are known when everything is packed.
#include "ending.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "../base/array.h"
#include "../base/patience.h"

enum { SEGMENT_BYTES = 32, RUN_BYTES = 24, SUM_BYTES = 8 };

static const uint8_t end_mark[8] = {'D', 'T', 'C', 'K', 'E', 'N', 'D', '\n'};

static uint8_t *put(uint8_t *to, uint64_t value)
{
	value = htole64(value);
	memcpy(to, &value, sizeof value);
	return to + sizeof value;
}

static uint8_t *put_index(const struct dt_pack *pack, uint8_t *to)
{
	const struct dt_block_run *run = pack->runs;
	for (size_t i = 0; i < pack->segment_count; i++) {
		const struct dt_segment *segment = &pack->segments[i];
		to = put(to, segment->encoding | (uint64_t)segment->runs << 32);
		to = put(to, segment->offset);
		to = put(to, segment->length);
		to = put(to, segment->checksum);
		for (const struct dt_block_run *stop = run + segment->runs; run < stop; run++) {
			to = put(to, run->extent);
			to = put(to, run->first);
			to = put(to, run->count);
		}
	}
	return to;
}

static void put_count(uint8_t *to, size_t room, uint64_t count)
{
	size_t digits = 1;
	for (uint64_t rest = count; rest >= 10; rest /= 10)
		digits++;
	memset(to, ' ', room);
	for (; digits; count /= 10)
		to[--digits] = (uint8_t)('0' + count % 10);
}

static uint8_t *put_description(const struct dt_pack *pack, const struct dt_ending *ending, uint8_t *to)
{
	memcpy(to, ending->description, ending->bytes);
	if (ending->count_at)
		put_count(to + ending->count_at, ending->count_bytes, pack->blocks);
	return to + ending->bytes;
}

// Of what the caller stores everything has to be.
static bool is_all_placed(const struct dt_pack *pack)
{
	bool is = true;
	for (size_t i = 0; i < pack->segment_count; i++) {
		const struct dt_segment *segment = &pack->segments[i];
		bool has_place = segment->encoding != DT_STORED_ZEROS && segment->encoding != DT_STORED_IN_PLACE;
		is &= !has_place || segment->offset;
	}
	return is;
}

int dt_pack_end(struct dt_pack *pack, const struct dt_ending *ending)
{
	if (!is_all_placed(pack))
		return -EINVAL;
	size_t index_bytes = pack->segment_count * SEGMENT_BYTES + pack->run_count * RUN_BYTES;
	size_t bytes = index_bytes + ending->bytes + DT_FOOTER_BYTES;
	dt_be_patient(DT_PAUSE_NS); // 100,000 runs take less than it takes to get the GIL back
	dt_takes(8 * (pack->segment_count + pack->run_count));
	int error = dt_make_room(&pack->tail, &pack->tail_room, bytes, 1);
	if (!error)
		error = dt_grow(&pack->writes, &pack->write_room, 2, sizeof *pack->writes);
	if (error)
		return error;
	uint8_t *index = pack->tail, *description = put_index(pack, index);
	uint8_t *footer = put_description(pack, ending, description), *to = footer;
	to = put(to, pack->end);
	to = put(to, index_bytes);
	to = put(to, ending->bytes);
	to = put(to, dt_checksum_of(index, index_bytes));
	to = put(to, dt_checksum_of(description, ending->bytes));
	memcpy(to, ending->header + DT_HEADER_BYTES - SUM_BYTES, SUM_BYTES);
	to += SUM_BYTES;
	to = put(to, dt_checksum_of(footer, (size_t)(to - footer)));
	memcpy(to, end_mark, sizeof end_mark);
	pack->writes[0] = (struct dt_write){pack->end, bytes, pack->tail};
	pack->writes[1] = (struct dt_write){0, DT_HEADER_BYTES, ending->header};
	pack->write_count = 2;
	return 0;
}
