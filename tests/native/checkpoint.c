// What goes into a file, and who owns which block. The answers are those of the authors of the algorithms, or of whole
// copies; and no allocation that fails loses anything.
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>

#include "checkpoint/ending.h"
#include "checkpoint/hashes.h"
#include "checkpoint/owners.h"
#include "driver.h"
#include "failing.h"

enum { BLOCKS = 9, BYTES = (BLOCKS - 1) * DT_BLOCK + 100 };

// Of the bytes 0, 1, 2 ... with the key 00 01 .. 0f: the first ten, and that of fifteen bytes, of the vectors that the
// authors of SipHash publish.
static const uint8_t OF_BYTES[][16] = {
	{0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93},
	{0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45},
	{0x81, 0x77, 0x22, 0x8d, 0xa4, 0xa4, 0x5d, 0xc7, 0xfc, 0xa3, 0x8b, 0xde, 0xf6, 0x0a, 0xff, 0xe4},
	{0x9c, 0x70, 0xb6, 0x0c, 0x52, 0x67, 0xa9, 0x4e, 0x5f, 0x33, 0xb6, 0xb0, 0x29, 0x85, 0xed, 0x51},
	{0xf8, 0x81, 0x64, 0xc1, 0x2d, 0x9c, 0x8f, 0xaf, 0x7d, 0x0f, 0x6e, 0x7c, 0x7b, 0xcd, 0x55, 0x79},
	{0x13, 0x68, 0x87, 0x59, 0x80, 0x77, 0x6f, 0x88, 0x54, 0x52, 0x7a, 0x07, 0x69, 0x0e, 0x96, 0x27},
	{0x14, 0xee, 0xca, 0x33, 0x8b, 0x20, 0x86, 0x13, 0x48, 0x5e, 0xa0, 0x30, 0x8f, 0xd7, 0xa1, 0x5e},
	{0xa1, 0xf1, 0xeb, 0xbe, 0xd8, 0xdb, 0xc1, 0x53, 0xc0, 0xb8, 0x4a, 0xa6, 0x1f, 0xf0, 0x82, 0x39},
	{0x3b, 0x62, 0xa9, 0xba, 0x62, 0x58, 0xf5, 0x61, 0x0f, 0x83, 0xe2, 0x64, 0xf3, 0x14, 0x97, 0xb4},
};
static const uint8_t OF_FIFTEEN_BYTES[16] = {0x54, 0x93, 0xe9, 0x99, 0x33, 0xb0, 0xa8, 0x11,
					     0x7e, 0x08, 0xec, 0x0f, 0x97, 0xcf, 0xc3, 0xd9};

static void check_hash(size_t bytes, const uint8_t *expected)
{
	uint8_t data[16];
	const uint64_t key[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
	for (uint8_t i = 0; i < sizeof data; i++)
		data[i] = i;
	struct dt_hash hash = dt_siphash(key, data, bytes);
	for (int i = 0; i < 8; i++) {
		check((uint8_t)(hash.low >> 8 * i) == expected[i]);
		check((uint8_t)(hash.high >> 8 * i) == expected[8 + i]);
	}
}

// Several at once have the same hashes as one by one, whatever their number and length.
static void try_lanes(void)
{
	enum { MOST = 21 };
	static const size_t lengths[] = {8, 64, 100, 128, 192, 4096};
	const uint64_t key[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
	static uint8_t data[MOST * 4096 + 1];
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 2654435761 >> 13);
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		for (size_t n = 0; n <= MOST; n++) {
			struct dt_hash hashes[MOST + 1] = {0};
			dt_siphash_all(key, data + 1, lengths[i], n, hashes);
			for (size_t at = 0; at < n; at++) {
				struct dt_hash one = dt_siphash(key, data + 1 + at * lengths[i], lengths[i]);
				check(hashes[at].low == one.low && hashes[at].high == one.high);
			}
			check(hashes[n].low == 0 && hashes[n].high == 0);
		}
	}
}

static uint64_t sum_of(const uint8_t *data, size_t bytes, size_t step)
{
	struct dt_checksum sum;
	dt_checksum_begin(&sum);
	for (size_t at = 0; at < bytes; at += step)
		dt_checksum_add(&sum, data + at, bytes - at < step ? bytes - at : step);
	return dt_checksum_value(&sum);
}

// However many bytes come at once. tests/checkpoint/test_pack.py compares with the author's own.
static void try_checksum(void)
{
	uint8_t data[2100];
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 7 + 3);
	check(sum_of(data, 0, 1) == 0x2d06800538d394c2);
	check(sum_of((const uint8_t *)"a", 1, 1) == 0xe6c632b61e964e1f);
	check(sum_of((const uint8_t *)"abc", 3, 3) == 0x78af5f94892f3950);
	check(sum_of(data, 8, 8) == 0x60539db630471163);
	check(sum_of(data, 16, 16) == 0xb8c859b0f030b585);
	check(sum_of(data, 100, 100) == 0xb5937857f0d78c9f);
	check(sum_of(data, 200, 200) == 0x746cd0025327bf5b);
	check(sum_of(data, 300, 300) == 0xfd9aa0f0d62e0227);
	check(sum_of(data, 2100, 2100) == 0x1ca133696e7da68d);
	for (size_t bytes = 1; bytes <= 300; bytes++)
		for (size_t step = 1; step < bytes; step += 5)
			check(sum_of(data, bytes, step) == sum_of(data, bytes, bytes));
}

static struct dt_hashes *open_hashes(void)
{
	const uint64_t sizes[] = {BYTES, 5};
	struct dt_hashes *hashes = dt_hashes_new(sizeof *hashes);
	check(hashes);
	hashes->key[0] = 1;
	check(dt_hashes_open(hashes, sizes, 2) == 0);
	return hashes;
}

static void try_opening(void)
{
	const uint64_t sizes[] = {BYTES, 5}, none[] = {0}, huge[] = {1UL << 62};
	for (int fault = 1; fault < 9; fault++) {
		struct dt_hashes *hashes = dt_hashes_new(sizeof *hashes);
		struct dt_owners *owners = dt_owners_new(sizeof *owners);
		fail_call(fault, ALLOCATIONS_ONLY, ENOMEM);
		int first = dt_hashes_open(hashes, sizes, 2), second = dt_owners_open(owners, sizes, 2);
		check((first == -ENOMEM || second == -ENOMEM) == has_failed());
		succeed();
		dt_hashes_free(hashes);
		dt_owners_free(owners);
	}
	struct dt_hashes *hashes = dt_hashes_new(sizeof *hashes);
	check(dt_hashes_open(hashes, none, 0) == 0);
	dt_hashes_free(hashes);
#ifndef __SANITIZE_ADDRESS__
	hashes = dt_hashes_new(sizeof *hashes);
	check(dt_hashes_open(hashes, huge, 1) == -ENOMEM);
	dt_hashes_free(hashes);
#else
	(void)huge;
#endif
}

void try_hashes(void)
{
	for (size_t bytes = 0; bytes < sizeof OF_BYTES / sizeof *OF_BYTES; bytes++)
		check_hash(bytes, OF_BYTES[bytes]);
	check_hash(15, OF_FIFTEEN_BYTES);
	try_lanes();
	try_checksum();
	try_opening();
	struct dt_hashes *hashes = open_hashes();
	uint64_t found = 0, refused = 0;
	uint8_t *data = mmap(NULL, 10 * DT_BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(data != MAP_FAILED);
	data[3] = data[5 * DT_BLOCK] = data[BYTES - 1] = 1;
	data[BYTES] = 1; // not of the region
	check(dt_hashes_learn(hashes, 0, (uintptr_t)data, 0, 4, &found, &refused) == 0);
	check(dt_hashes_learn(hashes, 0, (uintptr_t)data, 4, BLOCKS, &found, &refused) == 0 && found == 3);
	struct dt_hash known[BLOCKS];
	dt_hash_blocks(hashes, data, BYTES, known);
	for (uint64_t block = 4; block < BLOCKS; block++)
		check(dt_hashes_set(hashes, 0, block, known[block]) == 0);
	check(mprotect(data, 10 * DT_BLOCK, PROT_NONE) == 0);
	check(dt_hashes_learn(hashes, 0, (uintptr_t)data, 0, 4, &found, &refused) == -EFAULT);
	check(refused == (uintptr_t)data && munmap(data, 10 * DT_BLOCK) == 0);
	dt_hashes_free(hashes);
}

// Regions that have come, gone, grown and become shorter: what goes on with what, against an array for each.
void try_following(uint64_t *random)
{
	const uint64_t sizes[] = {3 * DT_BLOCK, DT_BLOCK, 2 * DT_BLOCK}, places[] = {1, 0, 0}, counts[] = {1, 2, 0};
	struct dt_hash committed[BLOCKS + 1];
	for (int round = 0; round < 20; round++) {
		struct dt_hashes *before = open_hashes(), *after = dt_hashes_new(sizeof *after);
		check(after && dt_hashes_open(after, sizes, 3) == 0);
		for (uint64_t block = 0; block < BLOCKS + 1; block++) {
			committed[block] = (struct dt_hash){draw(random, 2), draw(random, 2)};
			uint64_t region = block / BLOCKS;
			check(dt_hashes_set(before, region, block % BLOCKS, committed[block]) >= 0);
		}
		dt_hashes_commit(before);
		for (int again = 0; again < 2; again++) { // whatever stood there before
			dt_hashes_follow(after, before, places, counts);
			check(dt_hashes_set(after, 0, 0, committed[BLOCKS]) == 0);
			check(dt_hashes_set(after, 0, 1, (struct dt_hash){0, 0}) == 0);
			check(dt_hashes_set(after, 1, 0, committed[0]) == 0);
			check(dt_hashes_set(after, 2, 1, (struct dt_hash){0, 0}) == 0);
			check(dt_hashes_set(after, 2, 0, (struct dt_hash){7, 7}) == 1);
			check(dt_hashes_clear(after) == 0);
			if (again)
				dt_hashes_abort(after);
			else
				dt_hashes_commit(after);
		}
		check(dt_hashes_set(after, 1, 0, committed[0]) == 0);
		dt_hashes_free(before);
		dt_hashes_free(after);
	}
}

// A batch of all blocks of the first region, each filled with its value, and of the second.
static void fill(uint8_t *data, const uint8_t *values)
{
	for (size_t i = 0; i < BLOCKS + 1; i++)
		memset(data + i * DT_BLOCK, values[i], DT_BLOCK);
}

static int pack_all(struct dt_hashes *hashes, struct dt_pack **pack_ret, uint8_t *data, bool everything, bool linear)
{
	static const uint64_t sizes[] = {BYTES, 5};
	static const uint64_t nowhere[] = {0, 0}, places[] = {65536, 0};
	const struct dt_block_run runs[] = {{0, 0, BLOCKS}, {1, 0, 1}};
	struct dt_hash known[BLOCKS + 1];
	const struct dt_captured batch = {runs, 0, data, BLOCKS + 1, everything, linear ? known : NULL};
	if (linear) // made beforehand, they are the same
		dt_captured_hash(hashes, &batch);
	struct dt_pack *pack = *pack_ret = dt_pack_new(sizeof *pack);
	if (!pack)
		return -ENOMEM;
	pack->hashes = hashes;
	pack->sizes = sizes;
	pack->linear = linear ? places : nowhere;
	pack->limit = pack->place_limit = 3 * DT_BLOCK;
	pack->end = 128;
	return dt_pack_add(pack, &batch);
}

// Which blocks are in segments.
static uint64_t stored(const struct dt_pack *pack)
{
	uint64_t found = 0;
	for (size_t i = 0; i < pack->run_count; i++)
		for (uint64_t block = 0; block < pack->runs[i].count; block++)
			found |= 1UL << (pack->runs[i].extent * BLOCKS + pack->runs[i].first + block);
	return found;
}

// A failure leaves what is packed; without one the end is as long as it must be, and has its count.
static void end(struct dt_pack *pack, uint64_t *random)
{
	uint8_t header[DT_HEADER_BYTES] = {7};
	const struct dt_ending ending = {header, (const uint8_t *)"{____}", 6, 1, 4};
	fail_call((long)draw(random, 4) + 1, ALLOCATIONS_ONLY, ENOMEM);
	int error = dt_pack_end(pack, &ending);
	check(error == (has_failed() ? -ENOMEM : 0));
	succeed();
	check(dt_pack_end(pack, &ending) == 0 && pack->write_count == 2);
	const struct dt_write *tail = pack->writes;
	uint64_t index = pack->segment_count * 32 + pack->run_count * 24;
	char expected[8];
	snprintf(expected, sizeof expected, "{%-4d}", (int)pack->blocks);
	check(tail->offset == pack->end && tail->bytes == index + 6 + DT_FOOTER_BYTES);
	check(memcmp(tail->data + index, expected, 6) == 0);
	check(tail[1].offset == 0 && tail[1].data == header && tail[1].bytes == sizeof header);
}

// Whatever fails, what is new stays new until it is committed.
void try_pack(uint64_t *random)
{
	struct dt_hashes *hashes = open_hashes();
	uint8_t *data = malloc((BLOCKS + 1) * DT_BLOCK), values[BLOCKS + 1] = {0}, committed[BLOCKS + 1] = {0};
	check(data);
	for (int round = 0; round < 300; round++) {
		for (int i = 0; i < BLOCKS + 1; i++)
			values[i] = (uint8_t)draw(random, 3);
		fill(data, values);
		bool everything = draw(random, 4) == 0;
		fail_call((long)draw(random, 12) + 1, ALLOCATIONS_ONLY, ENOMEM);
		struct dt_pack *pack;
		int error = everything ? dt_hashes_clear(hashes) : 0;
		if (!error)
			error = pack_all(hashes, &pack, data, everything, draw(random, 2));
		else
			pack = NULL;
		check(error == (has_failed() ? -ENOMEM : 0));
		succeed();
		uint64_t expected = 0;
		for (int i = 0; i < BLOCKS + 1; i++)
			expected |= (uint64_t)(everything ? values[i] != 0 : values[i] != committed[i]) << i;
		check(error || stored(pack) == expected);
		if (!error)
			end(pack, random);
		if (error || draw(random, 2)) {
			dt_hashes_abort(hashes);
		} else {
			dt_hashes_commit(hashes);
			memcpy(committed, values, sizeof values);
		}
		if (pack)
			dt_pack_free(pack);
	}
	free(data);
	dt_hashes_free(hashes);
}

// Of a file that lists three regions, of which the state has one as it is and the beginning of another.
void try_file_tables(void)
{
	const uint64_t state[] = {2 * DT_BLOCK, 3 * DT_BLOCK + 5};
	const uint64_t sizes[] = {DT_BLOCK, 2 * DT_BLOCK + 9, 2 * DT_BLOCK}, places[] = {0, 1, 0}, counts[] = {0, 2, 2};
	const struct dt_file_table table = {3, sizes, places, counts};
	const struct dt_block_run runs[] = {{0, 0, 1}, {1, 0, 3}, {2, 1, 1}};
	struct dt_block_run loaded[3];
	struct dt_owners *owners = dt_owners_new(sizeof *owners);
	uint8_t first[2 * DT_BLOCK], second[3 * DT_BLOCK + 5], data[4 * DT_BLOCK + 9];
	uint64_t bytes = 0, refused = 0;
	uint32_t found[4];
	check(owners && dt_owners_open(owners, state, 2) == 0);
	memcpy(loaded, runs, sizeof runs);
	check(dt_runs_load(&table, loaded, 3, &bytes) == 3 && bytes == sizeof data);
	check(dt_owners_set(owners, &table, runs, 3, 7) == 0);
	dt_owners_get(owners, 0, 0, 2, found);
	check(found[0] == 0 && found[1] == 7);
	dt_owners_get(owners, 1, 0, 4, found);
	check(found[0] == 7 && found[1] == 7 && found[2] == 0 && found[3] == 0);
	const struct dt_target targets[] = {{(uintptr_t)first, 0, 2}, {(uintptr_t)second, 0, 4}};
	check(dt_owned(owners, &table, 7, runs, 3, targets) == 3);
	memset(first, 9, sizeof first);
	memset(second, 9, sizeof second);
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i / DT_BLOCK + 1);
	check(dt_place(owners, &table, 7, runs, 3, targets, data, &refused) == 0);
	check(first[DT_BLOCK - 1] == 9 && second[2 * DT_BLOCK] == 9);
	check(memcmp(second, data + DT_BLOCK, 2 * DT_BLOCK) == 0);
	check(memcmp(first + DT_BLOCK, data + 3 * DT_BLOCK + 9, DT_BLOCK) == 0);
	check(dt_owners_set(owners, &table, runs, 3, 0) == 0);
	check(dt_owned(owners, &table, 7, runs, 3, targets) == 0);
	dt_owners_free(owners);
}

// A region of a page of owners and more, so that zeros drop a page; against an array.
void try_owners(uint64_t *random)
{
	enum { MANY = 5000 };
	const uint64_t sizes[] = {MANY * DT_BLOCK - 9, DT_BLOCK}, places[] = {0, 1}, counts[] = {MANY, 1};
	const struct dt_file_table table = {2, sizes, places, counts};
	static uint32_t model[MANY], found[MANY];
	struct dt_owners *owners = dt_owners_new(sizeof *owners);
	check(owners && dt_owners_open(owners, sizes, 2) == 0);
	memset(model, 0, sizeof model);
	for (uint32_t round = 0; round < 200; round++) {
		struct dt_block_run run = {0, draw(random, MANY), 0};
		run.count = 1 + draw(random, MANY - run.first);
		uint32_t owner = draw(random, 2) ? round : 0;
		fail_call(1, ALLOCATIONS_ONLY, ENOMEM);
		int error = dt_owners_set(owners, &table, &run, 1, owner);
		check(error == (has_failed() ? -ENOMEM : 0));
		succeed();
		for (uint64_t i = 0; !error && i < run.count; i++)
			model[run.first + i] = owner;
		dt_owners_get(owners, 0, 0, MANY, found);
		check(memcmp(model, found, sizeof model) == 0);
		uint64_t at = 0, mine = 0;
		struct dt_run span;
		while (dt_owners_next(owners, 0, owner, at, MANY, &span)) {
			check(at <= span.start && span.start < span.stop && span.stop <= MANY);
			for (; at < span.start; at++)
				check(model[at] != owner);
			for (; at < span.stop; at++, mine++)
				check(model[at] == owner);
		}
		const struct dt_target targets[] = {{1, 0, MANY}, {0, 0, 0}};
		const struct dt_block_run all[] = {{0, 0, MANY}, {1, 0, 1}};
		check(dt_owned(owners, &table, owner, all, 2, targets) == mine);
	}
	dt_owners_free(owners);
}
