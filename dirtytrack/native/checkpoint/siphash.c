// The algorithm as its authors specify it.
#include "siphash.h"

#include <endian.h>
#include <string.h>

struct state {
	uint64_t v0, v1, v2, v3;
};

static inline uint64_t turn(uint64_t value, int bits)
{
	return value << bits | value >> (64 - bits);
}

static inline void round_of(struct state *s)
{
	s->v0 += s->v1;
	s->v2 += s->v3;
	s->v1 = turn(s->v1, 13) ^ s->v0;
	s->v3 = turn(s->v3, 16) ^ s->v2;
	s->v0 = turn(s->v0, 32);
	s->v2 += s->v1;
	s->v0 += s->v3;
	s->v1 = turn(s->v1, 17) ^ s->v2;
	s->v3 = turn(s->v3, 21) ^ s->v0;
	s->v2 = turn(s->v2, 32);
}

static inline void compress(struct state *s, uint64_t word)
{
	s->v3 ^= word;
	round_of(s);
	round_of(s);
	s->v0 ^= word;
}

static uint64_t finish(struct state *s)
{
	for (int i = 0; i < 4; i++)
		round_of(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

struct dt_hash dt_siphash(const uint64_t key[2], const uint8_t *data, size_t bytes)
{
	struct state s = {
		.v0 = key[0] ^ 0x736f6d6570736575,
		.v1 = key[1] ^ 0x646f72616e646f6d ^ 0xee,
		.v2 = key[0] ^ 0x6c7967656e657261,
		.v3 = key[1] ^ 0x7465646279746573,
	};
	const uint8_t *stop = data + bytes / 8 * 8;
	uint64_t word, last = 0;
	for (; data < stop; data += 8) {
		memcpy(&word, data, 8);
		compress(&s, le64toh(word));
	}
	memcpy(&last, data, bytes % 8);
	compress(&s, le64toh(last) | (uint64_t)bytes << 56);
	s.v2 ^= 0xee;
	struct dt_hash hash = {.low = finish(&s)};
	s.v1 ^= 0xdd;
	hash.high = finish(&s);
	return hash;
}
