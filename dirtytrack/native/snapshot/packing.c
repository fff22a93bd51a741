// Of each change the bytes between it and the one before, and its length, as varints (LEB128): seven bits a byte, the
// lowest first, and the highest bit where more follow.
#include "packing.h"

#include <stdbool.h>

#include "../base/patience.h"

enum {
	BITS = 7,
	MORE = 1 << BITS,
	CHANGE_NS = 8,
};

// out: NULL: nowhere.
static uint64_t put(uint64_t value, uint8_t *out, uint64_t at)
{
	for (; value >= MORE; value >>= BITS, at++)
		if (out)
			out[at] = (uint8_t)(value | MORE);
	if (out)
		out[at] = (uint8_t)value;
	return at + 1;
}

uint64_t dt_pack(const struct dt_change *changes, size_t n, uint8_t *out)
{
	uint64_t region = 0, end = 0, at = 0;
	dt_takes(CHANGE_NS * n);
	for (const struct dt_change *change = changes; change < changes + n; change++) {
		end = change->region == region ? end : 0;
		at = put(change->start - end, out, at);
		at = put(change->stop - change->start, out, at);
		region = change->region;
		end = change->stop;
	}
	return at;
}

struct packed {
	const uint8_t *next, *end;
};

// Only the shortest form of each number is one.
static bool get(struct packed *packed, uint64_t *value_ret)
{
	*value_ret = 0;
	for (unsigned shift = 0; packed->next < packed->end && shift < 64; shift += BITS) {
		uint8_t byte = *packed->next++;
		uint64_t part = byte & (MORE - 1);
		if (part << shift >> shift != part)
			return false;
		*value_ret |= part << shift;
		if (!(byte & MORE))
			return byte || !shift;
	}
	return false;
}

uint64_t dt_unpack(const uint8_t *packed, uint64_t nbytes, const uint64_t *sizes, const uint64_t *counts,
		   size_t regions, struct dt_change *changes, uint64_t *bytes_ret)
{
	struct packed rest = {packed, packed + nbytes};
	*bytes_ret = 0;
	for (uint64_t region = 0; region < regions; region++) {
		uint64_t end = 0;
		dt_takes(CHANGE_NS * counts[region]);
		for (uint64_t left = counts[region]; left; left--) {
			uint64_t gap, length;
			if (!get(&rest, &gap) || !get(&rest, &length))
				return 0;
			if (gap > sizes[region] - end || !length || length > sizes[region] - end - gap)
				return 0;
			if (length > nbytes - *bytes_ret) // so that no sum of them wraps
				return 0;
			*changes++ = (struct dt_change){region, end + gap, end + gap + length, *bytes_ret};
			end += gap + length;
			*bytes_ret += length;
		}
	}
	return (uint64_t)(rest.next - packed);
}

void dt_xor(uint8_t *out, const uint8_t *a, const uint8_t *b, uint64_t nbytes)
{
	dt_takes_copy(nbytes);
	for (uint64_t i = 0; i < nbytes; i++)
		out[i] = a[i] ^ b[i];
}
