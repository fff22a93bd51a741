// Captures: two regions that begin in the middle of pages and share one, copied in pieces of any size. What arrives
// must be blocks of the regions as they are, and among them every byte that was changed.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "checkpoint/file_calls.h"
#include "driver.h"
#include "failing.h"

void make_extents(struct dt_extent *extents, struct dt_slice *slices)
{
	const uint64_t begin[REGIONS] = {100, 5 * page_size + 300};
	const uint64_t end[REGIONS] = {5 * page_size + 200, 23 * page_size + 7};
	for (int i = 0; i < REGIONS; i++) {
		uint64_t start = begin[i] / page_size, stop = (end[i] + page_size - 1) / page_size;
		uint64_t id = add(start, stop);
		extents[i] = (struct dt_extent){
			id, (uint64_t)(uintptr_t)memory + begin[i], end[i] - begin[i], begin[i] % page_size, page_size,
			0};
		slices[i] = (struct dt_slice){id, 0, stop - start};
	}
}

// Puts what a piece holds into the copies.
static void receive(const struct dt_capture *capture, const struct dt_piece *piece, uint8_t **copies)
{
	size_t run = piece->run;
	uint64_t block = piece->block;
	for (uint64_t i = 0; i < piece->blocks; i++) {
		const struct dt_block_run *blocks = &capture->runs[run];
		uint64_t start = (blocks->first + block) * DT_BLOCK;
		uint64_t left = capture->extents[blocks->extent].nbytes - start;
		memcpy(copies[blocks->extent] + start, piece->data + i * DT_BLOCK, left < DT_BLOCK ? left : DT_BLOCK);
		if (++block == blocks->count) {
			run++;
			block = 0;
		}
	}
}

// A page that can't be read: the error names it, by the call that scans and by a later one, and the next capture has
// it.
static void try_unreadable(uint64_t cursor, const struct dt_extent *extents, const struct dt_slice *slices)
{
	uint8_t staging[7 * DT_BLOCK];
	uint8_t *page = (uint8_t *)memory + 20 * page_size;
	for (uint64_t room = 0; room < 8; room += 7) {
		struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
		struct dt_capture *capture = dt_capture_new(sizeof *capture);
		struct dt_piece piece = {staging, room, 0, 0};
		check(epoch && capture);
		capture->extents = extents;
		capture->extent_count = REGIONS;
		page[0]++;
		check(mprotect(page, page_size, PROT_NONE) == 0);
		int error = dt_capture(session, cursor, slices, REGIONS, epoch, capture, NULL, &piece, 1);
		check(error == (room ? -EFAULT : 0));
		piece.blocks = 7;
		if (!room)
			error = dt_capture_copy(capture, &piece, 1, &epoch->failure);
		check(error == -EFAULT && epoch->failure.start == (uintptr_t)page);
		check(epoch->failure.stop > (uintptr_t)page);
		check(mprotect(page, page_size, PROT_READ | PROT_WRITE) == 0);
		dt_epoch_release(epoch); // gives back
		dt_capture_free(capture);
	}
}

void try_capture(uint64_t *random)
{
	session = open_tracker(DT_HOLES_REPORTED);
	struct dt_extent extents[REGIONS];
	struct dt_slice slices[REGIONS];
	uint8_t *copies[REGIONS], staging[7 * DT_BLOCK], hollow[REGIONS] = {1};
	uint64_t cursor;
	make_extents(extents, slices);
	check(dt_cursor_open(session, &cursor) == 0);
	for (int i = 0; i < REGIONS; i++) {
		copies[i] = calloc(extents[i].nbytes, 1);
		check(copies[i]);
	}
	for (int round = 0; round < 60; round++) {
		uint64_t writes = round ? draw(random, 6) : 0;
		for (uint64_t i = 0; i < writes; i++)
			memory[draw(random, 24 * page_size)]++;
		struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
		struct dt_capture *capture = dt_capture_new(sizeof *capture);
		check(epoch && capture);
		capture->extents = extents;
		capture->extent_count = REGIONS;
		uint64_t room = draw(random, 7), copied = 0;
		struct dt_piece pieces[2] = {{staging, room, 0, 0}, {staging + room * DT_BLOCK, 7 - room, 0, 0}};
		check(dt_capture(session, cursor, slices, REGIONS, epoch, capture, round ? NULL : hollow, pieces, 2) ==
		      0);
		for (;;) {
			for (int i = 0; i < 2; i++) {
				receive(capture, &pieces[i], copies);
				copied += pieces[i].blocks;
			}
			if (capture->run == capture->wanted_count)
				break;
			pieces[0] = (struct dt_piece){staging, 1 + draw(random, 7), 0, 0};
			pieces[1].blocks = 0;
			check(dt_capture_copy(capture, pieces, 1, &epoch->failure) == 0);
		}
		check(copied == capture->copied && capture->rewritten == 0);
		check(round ? copied == capture->blocks : copied <= capture->blocks);
		// A page touches two blocks in each region.
		check(round == 0 || capture->blocks <= 4 * writes * (page_size / DT_BLOCK));
		for (int i = 0; i < REGIONS; i++)
			check(memcmp(copies[i], (void *)(uintptr_t)extents[i].address, extents[i].nbytes) == 0);
		epoch->settled = 1;
		dt_epoch_release(epoch);
		dt_capture_free(capture);
	}
	try_unreadable(cursor, extents, slices);
	for (int i = 0; i < REGIONS; i++)
		free(copies[i]);
	dt_session_release(session);
}

// Writes that are short, interrupted, without progress, or fail.
static void try_writes(void)
{
	char name[] = "/tmp/dirtytrack-XXXXXX", read[12] = {0};
	int fd = mkstemp(name);
	check(fd >= 0 && unlink(name) == 0);
	const struct dt_write pieces[] = {
		{1, 4, (const uint8_t *)"bcde"}, {8, 4, (const uint8_t *)"ijkl"}, {0, 1, (const uint8_t *)"a"}};
	fail_call(2, ONCE, EINTR);
	check(dt_write_all(fd, pieces, 3) == 0);
	check(pread(fd, read, sizeof read, 0) == sizeof read && memcmp(read, "abcde\0\0\0ijkl", sizeof read) == 0);
	fail_call(2, ONCE, 0);
	check(dt_write_all(fd, pieces, 3) == -EIO);
	fail_call(3, ONCE, ENOSPC);
	check(dt_write_all(fd, pieces, 3) == -ENOSPC);
	succeed();
	check(dt_write_all(fd, pieces, 0) == 0 && dt_close(fd) == 0 && dt_write_all(fd, pieces, 1) == -EBADF);
}

// Reads that are short, interrupted, beyond the end, or fail; and what was read is summed.
static void try_reads(void)
{
	enum { LONG = 600000 };
	static uint8_t data[LONG], read[LONG];
	char name[] = "/tmp/dirtytrack-XXXXXX";
	int fd = mkstemp(name);
	struct dt_checksum sum, expected;
	for (size_t i = 0; i < LONG; i++)
		data[i] = (uint8_t)(i * 2654435761 >> 13);
	check(fd >= 0 && unlink(name) == 0 && write(fd, data, LONG) == LONG);
	dt_checksum_begin(&expected);
	dt_checksum_add(&expected, data + 1, LONG - 1);
	dt_checksum_begin(&sum);
	check(dt_read_file(fd, 1, read, LONG, &sum) == LONG - 1 && memcmp(read, data + 1, LONG - 1) == 0);
	check(dt_checksum_value(&sum) == dt_checksum_value(&expected));
	memset(read, 0, 9);
	fail_call(2, ONCE, EINTR);
	check(dt_read_file(fd, 0, read, 9, NULL) == 9 && memcmp(read, data, 9) == 0);
	fail_call(2, ONCE, EIO);
	check(dt_read_file(fd, 0, read, 9, NULL) == -EIO);
	succeed();
	check(dt_read_file(fd, LONG, read, 9, NULL) == 0 && dt_read_file(fd, 0, read, 0, NULL) == 0);
	check(dt_close(fd) == 0 && dt_read_file(fd, 0, read, 1, NULL) == -EBADF);
}

// What is in order, and each thing that is not.
static void try_claim(int directory)
{
	const uint8_t signature[] = "0123456789abcdef";
	int lock = openat(directory, "lock", O_RDWR | O_CREAT, 0600);
	check(lock >= 0 && write(lock, signature, 16) == 16);
	const struct dt_claim good = {lock, directory, "lock", signature, 16, true, "lock\0lock", 2};
	struct dt_claim bad[] = {good, good, good, good, good, good};
	bad[0].bytes = 15;
	bad[1].signature++;
	bad[2].name = "other";
	bad[3].directory = -1;
	bad[4].names = "lock\0other";
	bad[5].names = "other\0lock";
	check(dt_claim_holds(&good) == 1);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		check(dt_claim_holds(&bad[i]) == 0);
	struct dt_claim unlocked = good;
	unlocked.is_locked = false;
	unlocked.count = 0;
	check(dt_claim_holds(&unlocked) == 1 && renameat(directory, "lock", directory, "other") == 0);
	int another = openat(directory, "lock", O_RDWR | O_CREAT, 0600);
	check(another >= 0 && dt_claim_holds(&unlocked) == 0);
	unlocked.name = "other";
	check(dt_claim_holds(&unlocked) == 1 && dt_close(lock) == 0 && dt_claim_holds(&unlocked) == 0);
	check(dt_close(another) == 0 && unlinkat(directory, "lock", 0) == 0 && unlinkat(directory, "other", 0) == 0);
}

// Several in one go, up to the first that fails.
static void try_file_calls(int directory)
{
	int file = -1;
	const uint64_t sizes[] = {DT_BLOCK}, nowhere[] = {0};
	const struct dt_block_run run = {0, 0, 1};
	uint8_t data[DT_BLOCK] = "abc", read[DT_BLOCK + 8];
	struct dt_pack *packs[2];
	for (size_t i = 0; i < 2; i++) {
		check((packs[i] = dt_pack_new(sizeof *packs[i])));
		*packs[i] = (struct dt_pack){.sizes = sizes, .linear = nowhere, .limit = DT_BLOCK, .end = 4};
	}
	const struct dt_captured batch = {.runs = &run, .data = data, .blocks = 1};
	const struct dt_write piece = {0, 3, (const uint8_t *)"abc"};
	const struct dt_claim nobodys = {-1, directory, "lock", data, 16, false, "", 0};
	struct dt_file_call calls[] = {
		{.act = DT_CREATE, .file = &file, .directory = directory, .name = "new"},
		{.act = DT_PACK, .file = &file, .pack = packs[0], .batch = &batch},
		{.act = DT_WRITE_PACKED, .file = &file, .pack = packs[0]},
		{.act = DT_WRITE, .file = &file, .pieces = &piece, .count = 1},
		{.act = DT_WRITEBACK, .file = &file},
		{.act = DT_FSYNC, .file = &file},
		{.act = DT_CLOSE, .file = &file},
		{.act = DT_RENAME, .directory = directory, .name = "new", .new_name = "old"},
		{.act = DT_SYNC_DIRECTORY, .directory = directory},
	};
	size_t done = 9;
	check(dt_file_calls(calls, 0, &done) == 0 && done == 0 && file == -1);
	check(dt_file_calls(calls, 4, &done) == 0 && done == 4 && file >= 0);
	check(pread(file, read, sizeof read, 0) == DT_BLOCK + 4 && memcmp(read, "abc\0abc", 8) == 0);
	check(dt_file_calls(calls, 4, &done) == -EEXIST && done == 0 && file >= 0);
	fail_call(2, ONCE, EIO);
	check(dt_file_calls(calls + 4, 5, &done) == -EIO && done == 1 && file >= 0);
	succeed();
	check(dt_file_calls(calls + 4, 5, &done) == 0 && done == 5 && file == -1);
	check(dt_file_calls(calls + 7, 2, &done) == -ENOENT && done == 0);
	check(dt_file_calls(calls + 6, 3, &done) == -EBADF && done == 0);
	fail_call(1, ALLOCATIONS_ONLY, ENOMEM);
	calls[1].pack = packs[1];
	int error = dt_file_calls(calls + 1, 1, &done);
	check(error == (has_failed() ? -ENOMEM : 0));
	succeed();
	calls[0] = (struct dt_file_call){.act = DT_CLAIM, .claim = &nobodys};
	check(dt_file_calls(calls, 1, &done) == -EAGAIN && done == 0);
	calls[0].act = 99;
	check(dt_file_calls(calls, 1, &done) == -EINVAL && unlinkat(directory, "old", 0) == 0);
	dt_pack_free(packs[0]);
	dt_pack_free(packs[1]);
}

// Segments of a caller who has encoded one of them.
static void try_places(int directory)
{
	int file = -1;
	const uint64_t sizes[] = {2 * DT_BLOCK};
	const struct dt_block_run run = {0, 0, 2};
	uint8_t data[2 * DT_BLOCK], read[DT_BLOCK + 8];
	memset(data, 'a', DT_BLOCK);
	memset(data + DT_BLOCK, 'b', DT_BLOCK);
	struct dt_pack *pack = dt_pack_new(sizeof *pack);
	check(pack);
	*pack = (struct dt_pack){.sizes = sizes, .limit = DT_BLOCK, .end = 3, .apart = true};
	const struct dt_captured batch = {.runs = &run, .data = data, .blocks = 2};
	struct dt_file_call calls[] = {
		{.act = DT_CREATE, .file = &file, .directory = directory, .name = "placed"},
		{.act = DT_PACK, .file = &file, .pack = pack, .batch = &batch},
		{.act = DT_PACK_PLACE, .file = &file, .pack = pack, .stop = 2},
		{.act = DT_WRITE_PACKED, .file = &file, .pack = pack},
		{.act = DT_CLOSE, .file = &file},
	};
	size_t done;
	check(dt_file_calls(calls, 2, &done) == 0 && pack->segment_count == 2);
	const uint8_t header[DT_HEADER_BYTES] = {0};
	const struct dt_ending ending = {header, (const uint8_t *)"{}", 2, 0, 0};
	check(dt_pack_end(pack, &ending) == -EINVAL);
	fail_call(1, ALLOCATIONS_ONLY, ENOMEM);
	int error = dt_file_calls(calls + 2, 1, &done);
	check(error == (has_failed() ? -ENOMEM : 0));
	succeed();
	pack->end = 3;
	pack->segments[0].encoding = 9;
	pack->segments[0].data = (const uint8_t *)"four";
	pack->segments[0].length = 4;
	check(dt_file_calls(calls + 2, 2, &done) == 0 && pack->end == 7 + DT_BLOCK);
	check(pack->segments[0].offset == 3 && pack->segments[0].checksum == dt_checksum_of((uint8_t *)"four", 4));
	check(pack->segments[1].offset == 7 && pack->segments[1].checksum == dt_checksum_of(data + DT_BLOCK, DT_BLOCK));
	check(pread(file, read, sizeof read, 0) == DT_BLOCK + 7);
	check(memcmp(read, "\0\0\0fourbbb", 10) == 0 && read[DT_BLOCK + 6] == 'b');
	check(dt_pack_end(pack, &ending) == 0);
	check(dt_file_calls(calls + 4, 1, &done) == 0 && unlinkat(directory, "placed", 0) == 0);
	dt_pack_free(pack);
}

// The calls on files, where the system has them, and where it has not.
void try_files(void)
{
	char folder[] = "/tmp/dirtytrack-XXXXXX";
	check(mkdtemp(folder));
	int directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check(directory >= 0);
	try_claim(directory);
	try_file_calls(directory);
	try_places(directory);
	const int refusals[] = {0, EINVAL, ENOSYS, EOPNOTSUPP, ENOTTY, EPERM};
	for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
		for (const char *name = "ab"; *name; name++)
			check(dt_close(openat(directory, (char[]){*name, 0}, O_WRONLY | O_CREAT, 0600)) == 0);
		if (refusals[i])
			fail_call(1, ALWAYS, refusals[i]);
		check(dt_not_offered(refusals[i]) == (refusals[i] != 0));
		check(dt_rename_new(directory, "a", "b") == -EEXIST);
		check(dt_rename_new(directory, "a", "c") == 0);
		check(dt_rename_new(directory, "a", "d") == -ENOENT);
		check(dt_rename_noreplace(directory, "b", "e") == -refusals[i]);
		check(dt_start_writeback(directory) == 0);
		check(dt_sync_directory(directory) == 0);
		succeed();
		if (!refusals[i])
			check(dt_rename_noreplace(directory, "e", "b") == 0);
		for (const char *name = "bc"; *name; name++)
			check(unlinkat(directory, (char[]){*name, 0}, 0) == 0);
	}
	uint8_t *memory = mmap(NULL, DT_BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(memory != MAP_FAILED);
	int file = openat(directory, "m", O_RDWR | O_CREAT, 0600);
	check(pwrite(file, "mapped", 6, 0) == 6);
	check(dt_map_file((uint64_t)(uintptr_t)memory, DT_BLOCK, file, 0) == 0);
	check(memcmp(memory, "mapped", 6) == 0);
	memory[0] = 'M'; // which the file does not see
	char found;
	check(pread(file, &found, 1, 0) == 1 && found == 'm');
	check(dt_map_file((uint64_t)(uintptr_t)memory, DT_BLOCK, directory, 0) == -ENODEV);
	check(munmap(memory, DT_BLOCK) == 0 && dt_close(file) == 0 && unlinkat(directory, "m", 0) == 0);
	const int read_only[] = {EBADF, EACCES, EISDIR};
	for (size_t i = 0; i < sizeof read_only / sizeof *read_only; i++) {
		fail_call(1, ONCE, read_only[i]);
		check(dt_sync_directory(directory) == 0);
	}
	const int broken[] = {EIO, ENOSPC, EDQUOT, EROFS};
	for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
		check(!dt_not_offered(broken[i]));
		fail_call(1, ALWAYS, broken[i]);
		check(dt_start_writeback(directory) == -broken[i]);
		check(dt_sync_directory(directory) == -broken[i]);
		check(dt_rename_new(directory, "a", "b") == -broken[i]);
	}
	succeed();
	check(dt_close(directory) == 0);
	check(dt_start_writeback(directory) == -EBADF);
	check(dt_sync_directory(directory) == -EBADF);
	check(rmdir(folder) == 0);
	try_writes();
	try_reads();
}
