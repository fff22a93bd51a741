// The algorithm as its author specifies it, with the secret that he gives and without a seed.
#include "checksum.h"

#include <endian.h>
#include <string.h>

#if !defined(__clang__)
#pragma GCC optimize("O3") // which makes vectors of the lanes, and the sum twice as fast
#endif

static const uint64_t PRIME_1 = 0x9E3779B185EBCA87, PRIME_2 = 0xC2B2AE3D27D4EB4F, PRIME_3 = 0x165667B19E3779F9,
		      PRIME_4 = 0x85EBCA77C2B2AE63, PRIME_5 = 0x27D4EB2F165667C5;
static const uint64_t SHORT_1 = 0x9E3779B1, SHORT_2 = 0x85EBCA77, SHORT_3 = 0xC2B2AE3D;
static const uint64_t MIX_1 = 0x165667919E3779F9, MIX_2 = 0x9FB21C651E98DF25;

static const uint8_t SECRET[] = {
	0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde, 0xd4,
	0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e,
	0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43,
	0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb,
	0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19,
	0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8, 0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7,
	0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78,
	0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
	0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16,
	0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f,
	0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

enum {
	STRIPE = 64,
	BLOCK_STRIPES = 16,                // between two scrambles
	SHORT = 240,                       // bytes of an input that is summed another way
	SCRAMBLE = sizeof SECRET - STRIPE, // where of the secret it begins
	LAST = sizeof SECRET - STRIPE - 7, // where of it the last stripe's begins
	MERGE = 11,                        // and the end's
};

static inline uint64_t word_at(const uint8_t *data)
{
	uint64_t word;
	memcpy(&word, data, 8);
	return le64toh(word);
}

static inline uint32_t half_at(const uint8_t *data)
{
	uint32_t half;
	memcpy(&half, data, 4);
	return le32toh(half);
}

static inline uint64_t turn(uint64_t value, int bits)
{
	return value << bits | value >> (64 - bits);
}

static uint64_t fold(uint64_t a, uint64_t b)
{
	__extension__ typedef unsigned __int128 wide;
	wide product = (wide)a * b;
	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t spread(uint64_t value)
{
	value = (value ^ value >> 37) * MIX_1;
	return value ^ value >> 32;
}

static uint64_t spread_short(uint64_t value)
{
	value = (value ^ value >> 33) * PRIME_2;
	value = (value ^ value >> 29) * PRIME_3;
	return value ^ value >> 32;
}

static uint64_t mix(const uint8_t *data, const uint8_t *secret)
{
	return fold(word_at(data) ^ word_at(secret), word_at(data + 8) ^ word_at(secret + 8));
}

static uint64_t sum_3(const uint8_t *data, size_t bytes)
{
	uint32_t value =
		(uint32_t)data[0] << 16 | (uint32_t)data[bytes >> 1] << 24 | data[bytes - 1] | (uint32_t)bytes << 8;
	return spread_short(value ^ (uint64_t)(half_at(SECRET) ^ half_at(SECRET + 4)));
}

static uint64_t sum_8(const uint8_t *data, size_t bytes)
{
	uint64_t value = half_at(data + bytes - 4) + ((uint64_t)half_at(data) << 32);
	value ^= word_at(SECRET + 8) ^ word_at(SECRET + 16);
	value = (value ^ turn(value, 49) ^ turn(value, 24)) * MIX_2;
	value = (value ^ ((value >> 35) + bytes)) * MIX_2;
	return value ^ value >> 28;
}

static uint64_t sum_16(const uint8_t *data, size_t bytes)
{
	uint64_t low = word_at(data) ^ word_at(SECRET + 24) ^ word_at(SECRET + 32);
	uint64_t high = word_at(data + bytes - 8) ^ word_at(SECRET + 40) ^ word_at(SECRET + 48);
	return spread(bytes + __builtin_bswap64(low) + high + fold(low, high));
}

static uint64_t sum_128(const uint8_t *data, size_t bytes)
{
	uint64_t value = bytes * PRIME_1;
	for (size_t i = 0; i <= (bytes - 1) / 32; i++)
		value += mix(data + 16 * i, SECRET + 32 * i) + mix(data + bytes - 16 * (i + 1), SECRET + 32 * i + 16);
	return spread(value);
}

static uint64_t sum_240(const uint8_t *data, size_t bytes)
{
	uint64_t value = bytes * PRIME_1;
	for (size_t i = 0; i < bytes / 16; i++) {
		value += mix(data + 16 * i, i < 8 ? SECRET + 16 * i : SECRET + 16 * (i - 8) + 3);
		if (i == 7)
			value = spread(value);
	}
	return spread(value + mix(data + bytes - 16, SECRET + 136 - 17));
}

static uint64_t sum_short(const uint8_t *data, size_t bytes)
{
	if (bytes > 128)
		return sum_240(data, bytes);
	if (bytes > 16)
		return sum_128(data, bytes);
	if (bytes > 8)
		return sum_16(data, bytes);
	if (bytes > 3)
		return sum_8(data, bytes);
	return bytes ? sum_3(data, bytes) : spread_short(word_at(SECRET + 56) ^ word_at(SECRET + 64));
}

static inline void add_stripe(uint64_t lanes[8], const uint8_t *data, const uint8_t *secret)
{
	for (int i = 0; i < 8; i++) {
		uint64_t word = word_at(data + 8 * i), keyed = word ^ word_at(secret + 8 * i);
		lanes[i ^ 1] += word;
		lanes[i] += (keyed & UINT32_MAX) * (keyed >> 32);
	}
}

static inline void scramble(uint64_t lanes[8])
{
	for (int i = 0; i < 8; i++)
		lanes[i] = (lanes[i] ^ lanes[i] >> 47 ^ word_at(SECRET + SCRAMBLE + 8 * i)) * SHORT_1;
}

static inline __attribute__((always_inline)) void add_stripes_by(struct dt_checksum *sum, const uint8_t *data,
								 size_t count)
{
	uint64_t lanes[8];
	unsigned stripe = sum->stripe;
	memcpy(lanes, sum->lanes, sizeof lanes);
	for (; count; count--, data += STRIPE) {
		add_stripe(lanes, data, SECRET + 8 * stripe);
		if (++stripe == BLOCK_STRIPES) {
			scramble(lanes);
			stripe = 0;
		}
	}
	memcpy(sum->lanes, lanes, sizeof lanes);
	sum->stripe = stripe;
}

#ifdef __x86_64__
__attribute__((target("avx2"))) static void add_stripes_avx2(struct dt_checksum *sum, const uint8_t *data, size_t count)
{
	add_stripes_by(sum, data, count);
}
#endif

// By the widest vectors that the processor has.
static void add_stripes(struct dt_checksum *sum, const uint8_t *data, size_t count)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("avx2")) {
		add_stripes_avx2(sum, data, count);
		return;
	}
#endif
	add_stripes_by(sum, data, count);
}

void dt_checksum_begin(struct dt_checksum *sum)
{
	*sum = (struct dt_checksum){
		.lanes = {SHORT_3, PRIME_1, PRIME_2, PRIME_3, PRIME_4, SHORT_2, PRIME_5, SHORT_1},
	};
}

static void keep(struct dt_checksum *sum, const uint8_t *data, size_t bytes)
{
	memcpy(sum->rest + sum->held, data, bytes);
	sum->held += (unsigned)bytes;
}

// Stripes are added while there is a byte behind them: the last one, which may overlap the one before, has a way of its
// own.
void dt_checksum_add(struct dt_checksum *sum, const uint8_t *data, size_t bytes)
{
	sum->bytes += bytes;
	if (sum->held + bytes <= sizeof sum->rest) {
		keep(sum, data, bytes);
		return;
	}
	if (sum->held) {
		size_t taken = (STRIPE - sum->held % STRIPE) % STRIPE;
		keep(sum, data, taken);
		add_stripes(sum, sum->rest, sum->held / STRIPE);
		memcpy(sum->before, sum->rest + sum->held - STRIPE, STRIPE);
		sum->held = 0;
		data += taken;
		bytes -= taken;
	}
	size_t whole = (bytes - 1) / STRIPE * STRIPE;
	add_stripes(sum, data, whole / STRIPE);
	if (whole)
		memcpy(sum->before, data + whole - STRIPE, STRIPE);
	keep(sum, data + whole, bytes - whole);
}

uint64_t dt_checksum_value(const struct dt_checksum *sum)
{
	struct dt_checksum end = *sum;
	uint8_t last[2 * STRIPE];
	if (sum->bytes <= SHORT)
		return sum_short(sum->rest, sum->bytes);
	add_stripes(&end, sum->rest, (sum->held - 1) / STRIPE);
	size_t held = sum->held < STRIPE ? sum->held : STRIPE; // of it, the last bytes
	memcpy(last, sum->before, STRIPE);
	memcpy(last + STRIPE, sum->rest + sum->held - held, held);
	add_stripe(end.lanes, last + held, SECRET + LAST);
	uint64_t value = sum->bytes * PRIME_1;
	for (int i = 0; i < 8; i += 2)
		value += fold(end.lanes[i] ^ word_at(SECRET + MERGE + 8 * i),
			      end.lanes[i + 1] ^ word_at(SECRET + MERGE + 8 * (i + 1)));
	return spread(value);
}

uint64_t dt_checksum_of(const uint8_t *data, size_t bytes)
{
	struct dt_checksum sum;
	dt_checksum_begin(&sum);
	dt_checksum_add(&sum, data, bytes);
	return dt_checksum_value(&sum);
}
