// The algorithm as its authors specify it; for inputs of one length also several at once, each in a lane of the
// processor's vectors, where it has such.
#include "siphash.h"

#include <endian.h>
#include <string.h>

enum { STATE = 4 };

// Of words, and of vectors of words.
#define TURN(value, bits) ((value) << (bits) | (value) >> (64 - (bits)))
#define HALF_ROUND(v0, v1, v2, v3, a, b) \
	((v0) += (v1), (v2) += (v3), (v1) = TURN(v1, a) ^ (v0), (v3) = TURN(v3, b) ^ (v2), (v0) = TURN(v0, 32))
#define ROUND(s) \
	(HALF_ROUND((s)[0], (s)[1], (s)[2], (s)[3], 13, 16), HALF_ROUND((s)[2], (s)[1], (s)[0], (s)[3], 17, 21))
#define COMPRESS(s, word) ((s)[3] ^= (word), ROUND(s), ROUND(s), (s)[0] ^= (word))

static void begin(const uint64_t key[2], uint64_t s[STATE])
{
	s[0] = key[0] ^ 0x736f6d6570736575;
	s[1] = key[1] ^ 0x646f72616e646f6d ^ 0xee;
	s[2] = key[0] ^ 0x6c7967656e657261;
	s[3] = key[1] ^ 0x7465646279746573;
}

static uint64_t finish(uint64_t s[STATE])
{
	for (int i = 0; i < 4; i++)
		ROUND(s);
	return s[0] ^ s[1] ^ s[2] ^ s[3];
}

// With the bytes that make no word.
static struct dt_hash end(uint64_t s[STATE], const uint8_t *rest, size_t bytes)
{
	uint64_t last = 0;
	memcpy(&last, rest, bytes % 8);
	last = le64toh(last) | (uint64_t)bytes << 56;
	COMPRESS(s, last);
	s[2] ^= 0xee;
	struct dt_hash hash = {.low = finish(s)};
	s[1] ^= 0xdd;
	hash.high = finish(s);
	return hash;
}

struct dt_hash dt_siphash(const uint64_t key[2], const uint8_t *data, size_t bytes)
{
	const uint8_t *stop = data + bytes / 8 * 8;
	uint64_t s[STATE], word;
	begin(key, s);
	for (; data < stop; data += 8) {
		memcpy(&word, data, 8);
		word = le64toh(word);
		COMPRESS(s, word);
	}
	return end(s, data, bytes);
}

#ifdef __x86_64__

#include <immintrin.h>

typedef uint64_t words_4 __attribute__((vector_size(32)));
typedef uint64_t words_8 __attribute__((vector_size(64)));

// Lanes one after the other to the ends of their hashes.
static void end_all(const uint64_t *s, size_t lanes, size_t bytes, struct dt_hash *hashes)
{
	for (size_t lane = 0; lane < lanes; lane++) {
		uint64_t own[STATE];
		for (size_t i = 0; i < STATE; i++)
			own[i] = s[i * lanes + lane];
		hashes[lane] = end(own, (const uint8_t *)s, bytes);
	}
}

// Each reads a vector of every input, and turns rows into columns: words that come first, second, ... in each.
__attribute__((target("avx2"))) static void hash_4(const uint64_t key[2], const uint8_t *data, size_t bytes,
						   struct dt_hash *hashes)
{
	uint64_t start[STATE];
	words_4 s[STATE];
	begin(key, start);
	for (int i = 0; i < STATE; i++)
		s[i] = (words_4){0} + start[i];
	for (size_t at = 0; at < bytes; at += sizeof *s) {
		__m256i row[4], pair[4];
		for (int i = 0; i < 4; i++)
			row[i] = _mm256_loadu_si256((const void *)(data + (size_t)i * bytes + at));
		for (int i = 0; i < 4; i += 2) {
			pair[i] = _mm256_unpacklo_epi64(row[i], row[i + 1]);
			pair[i + 1] = _mm256_unpackhi_epi64(row[i], row[i + 1]);
		}
		for (int i = 0; i < 2; i++) {
			row[i] = _mm256_permute2x128_si256(pair[i], pair[i + 2], 0x20);
			row[i + 2] = _mm256_permute2x128_si256(pair[i], pair[i + 2], 0x31);
		}
		for (int i = 0; i < 4; i++)
			COMPRESS(s, (words_4)row[i]);
	}
	end_all((const uint64_t *)s, 4, bytes, hashes);
}

__attribute__((target("avx512f"))) static void hash_8(const uint64_t key[2], const uint8_t *data, size_t bytes,
						      struct dt_hash *hashes)
{
	uint64_t start[STATE];
	words_8 s[STATE];
	begin(key, start);
	for (int i = 0; i < STATE; i++)
		s[i] = (words_8){0} + start[i];
	for (size_t at = 0; at < bytes; at += sizeof *s) {
		__m512i row[8], pair[8], four[8];
		for (int i = 0; i < 8; i++)
			row[i] = _mm512_loadu_si512(data + (size_t)i * bytes + at);
		for (int i = 0; i < 8; i += 2) {
			pair[i] = _mm512_unpacklo_epi64(row[i], row[i + 1]);
			pair[i + 1] = _mm512_unpackhi_epi64(row[i], row[i + 1]);
		}
		for (int i = 0; i < 8; i += i % 2 ? 3 : 1) {
			four[i] = _mm512_shuffle_i64x2(pair[i], pair[i + 2], 0x88);
			four[i + 2] = _mm512_shuffle_i64x2(pair[i], pair[i + 2], 0xdd);
		}
		for (int i = 0; i < 4; i++) {
			row[i] = _mm512_shuffle_i64x2(four[i], four[i + 4], 0x88);
			row[i + 4] = _mm512_shuffle_i64x2(four[i], four[i + 4], 0xdd);
		}
		for (int i = 0; i < 8; i++)
			COMPRESS(s, (words_8)row[i]);
	}
	end_all((const uint64_t *)s, 8, bytes, hashes);
}

// So many of the first of n inputs were hashed.
static size_t hash_lanes(const uint64_t key[2], const uint8_t *data, size_t bytes, size_t n, struct dt_hash *hashes)
{
	size_t done = 0;
	if (bytes % sizeof(words_8))
		return 0;
	for (; n - done >= 8 && __builtin_cpu_supports("avx512f"); done += 8)
		hash_8(key, data + done * bytes, bytes, hashes + done);
	for (; n - done >= 4 && __builtin_cpu_supports("avx2"); done += 4)
		hash_4(key, data + done * bytes, bytes, hashes + done);
	return done;
}

#else

static size_t hash_lanes(const uint64_t key[2], const uint8_t *data, size_t bytes, size_t n, struct dt_hash *hashes)
{
	(void)key, (void)data, (void)bytes, (void)n, (void)hashes;
	return 0;
}

#endif

void dt_siphash_all(const uint64_t key[2], const uint8_t *data, size_t bytes, size_t n, struct dt_hash *hashes)
{
	for (size_t i = hash_lanes(key, data, bytes, n, hashes); i < n; i++)
		hashes[i] = dt_siphash(key, data + i * bytes, bytes);
}
