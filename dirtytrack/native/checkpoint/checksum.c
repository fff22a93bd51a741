// The algorithm as its author specifies it.
#include "checksum.h"

#include <endian.h>
#include <string.h>

static const uint64_t PRIME_1 = 0x9E3779B185EBCA87, PRIME_2 = 0xC2B2AE3D27D4EB4F, PRIME_3 = 0x165667B19E3779F9,
		      PRIME_4 = 0x85EBCA77C2B2AE63, PRIME_5 = 0x27D4EB2F165667C5;

enum { STRIPE = 32 };

static inline uint64_t turn(uint64_t value, int bits)
{
	return value << bits | value >> (64 - bits);
}

static inline uint64_t word_at(const uint8_t *data)
{
	uint64_t word;
	memcpy(&word, data, 8);
	return le64toh(word);
}

static inline uint64_t mix(uint64_t lane, uint64_t word)
{
	return turn(lane + word * PRIME_2, 31) * PRIME_1;
}

static inline uint64_t merge(uint64_t value, uint64_t lane)
{
	return (value ^ mix(0, lane)) * PRIME_1 + PRIME_4;
}

static void add_stripes(uint64_t lanes[4], const uint8_t *data, size_t count)
{
	uint64_t a = lanes[0], b = lanes[1], c = lanes[2], d = lanes[3];
	for (const uint8_t *stop = data + count * STRIPE; data < stop; data += STRIPE) {
		a = mix(a, word_at(data));
		b = mix(b, word_at(data + 8));
		c = mix(c, word_at(data + 16));
		d = mix(d, word_at(data + 24));
	}
	lanes[0] = a;
	lanes[1] = b;
	lanes[2] = c;
	lanes[3] = d;
}

void dt_checksum_begin(struct dt_checksum *sum)
{
	*sum = (struct dt_checksum){.lanes = {PRIME_1 + PRIME_2, PRIME_2, 0, 0 - PRIME_1}};
}

void dt_checksum_add(struct dt_checksum *sum, const uint8_t *data, size_t bytes)
{
	size_t held = sum->bytes % STRIPE;
	sum->bytes += bytes;
	if (held) {
		size_t taken = bytes < STRIPE - held ? bytes : STRIPE - held;
		memcpy(sum->rest + held, data, taken);
		if (held + taken < STRIPE)
			return;
		add_stripes(sum->lanes, sum->rest, 1);
		data += taken;
		bytes -= taken;
	}
	add_stripes(sum->lanes, data, bytes / STRIPE);
	memcpy(sum->rest, data + bytes / STRIPE * STRIPE, bytes % STRIPE);
}

static uint64_t add_rest(uint64_t value, const uint8_t *data, size_t bytes)
{
	for (; bytes >= 8; data += 8, bytes -= 8)
		value = turn(value ^ mix(0, word_at(data)), 27) * PRIME_1 + PRIME_4;
	if (bytes >= 4) {
		uint32_t half;
		memcpy(&half, data, 4);
		value = turn(value ^ le32toh(half) * PRIME_1, 23) * PRIME_2 + PRIME_3;
		data += 4;
		bytes -= 4;
	}
	for (; bytes; data++, bytes--)
		value = turn(value ^ *data * PRIME_5, 11) * PRIME_1;
	return value;
}

uint64_t dt_checksum_value(const struct dt_checksum *sum)
{
	const uint64_t *lanes = sum->lanes;
	uint64_t value = PRIME_5;
	if (sum->bytes >= STRIPE) {
		value = turn(lanes[0], 1) + turn(lanes[1], 7) + turn(lanes[2], 12) + turn(lanes[3], 18);
		for (int i = 0; i < 4; i++)
			value = merge(value, lanes[i]);
	}
	value = add_rest(value + sum->bytes, sum->rest, sum->bytes % STRIPE);
	value = (value ^ value >> 33) * PRIME_2;
	value = (value ^ value >> 29) * PRIME_3;
	return value ^ value >> 32;
}
