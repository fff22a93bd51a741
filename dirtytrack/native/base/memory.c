// The allocator: free lists of size classes, and mappings for what is larger.
#define _GNU_SOURCE
#include "memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "../include/dirtytrack.h"
#include "patience.h"
#include "quiet.h"

enum {
	SMALLEST = 6, // log2 of the smallest class
	LARGEST = 15, // log2 of the largest; above it a block is a mapping of its own
	CHUNK = 1 << 18,
	AT_HAND = 4, // blocks of each class
};

struct free_block {
	struct free_block *next;
};

// Blocks never used yet: cut from a chunk one by one, so that only what is used is ever populated.
struct chunk {
	char *next;
	char *end;
};

// Free blocks that need no lock, which costs two system calls: each is taken, and left, by an atomic exchange.
static void *at_hand[LARGEST + 1][AT_HAND]; // by size class

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // of all below
static struct dt_quiet quiet_holder;                     // of the thread that holds it
static struct free_block *free_blocks[LARGEST + 1];      // by size class
static struct chunk chunks[LARGEST + 1];                 // likewise

static void take_lock(void)
{
	struct dt_quiet quiet = dt_quiet_begin();
	pthread_mutex_lock(&lock);
	quiet_holder = quiet;
}

static void give_lock_back(void)
{
	struct dt_quiet quiet = quiet_holder;
	pthread_mutex_unlock(&lock);
	dt_quiet_end(&quiet);
}

// Where pages come from; NULL: the kernel.
static struct {
	void *(*map)(size_t bytes, void *context);
	void (*unmap)(void *memory, size_t bytes, void *context);
	void *context;
} source;

static bool any_mapped; // once there is memory, the source stays; atomic

int dt_set_memory(void *(*map)(size_t bytes, void *context), void (*unmap)(void *memory, size_t bytes, void *context),
		  void *context)
{
	if (!map || !unmap)
		return -EINVAL;
	if (__atomic_load_n(&any_mapped, __ATOMIC_RELAXED))
		return -EBUSY;
	source.map = map;
	source.unmap = unmap;
	source.context = context;
	return 0;
}

// MAP_NORESERVE: result buffers are sized for the worst case and hardly ever filled.
static void *map(size_t bytes)
{
	__atomic_store_n(&any_mapped, true, __ATOMIC_RELAXED);
	if (source.map)
		return source.map(bytes, source.context);
	void *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (block == MAP_FAILED)
		return NULL;
	madvise(block, bytes, MADV_NOHUGEPAGE);
	return block;
}

// The bytes that a source is asked for, for a block that is a mapping of its own. 0: there is no such size.
static size_t whole(size_t bytes)
{
	return (bytes + 63) & ~(size_t)63;
}

static void unmap(void *block, size_t bytes)
{
	if (source.unmap)
		source.unmap(block, bytes, source.context);
	else
		munmap(block, bytes);
}

static unsigned size_class(size_t bytes)
{
	unsigned class = SMALLEST;
	while (((size_t)1 << class) < bytes)
		class += 1;
	return class;
}

static void *cut(unsigned class)
{
	struct chunk *chunk = &chunks[class];
	if (chunk->next == chunk->end) {
		char *fresh = map(CHUNK);
		if (!fresh)
			return NULL;
		*chunk = (struct chunk){fresh, fresh + CHUNK};
	}
	chunk->next += (size_t)1 << class;
	return chunk->next - ((size_t)1 << class);
}

static void *take_at_hand(unsigned class)
{
	void *block = NULL;
	for (int i = 0; i < AT_HAND && !block; i++)
		if (__atomic_load_n(&at_hand[class][i], __ATOMIC_RELAXED))
			block = __atomic_exchange_n(&at_hand[class][i], NULL, __ATOMIC_ACQUIRE);
	return block;
}

static bool leave_at_hand(unsigned class, void *block)
{
	for (int i = 0; i < AT_HAND; i++) {
		void *none = NULL;
		if (__atomic_compare_exchange_n(&at_hand[class][i], &none, block, false, __ATOMIC_RELEASE,
						__ATOMIC_RELAXED))
			return true;
	}
	return false;
}

// A free block, or, zeroed by the kernel, one that was never used.
static void *take(unsigned class, bool *is_fresh_ret)
{
	take_lock();
	struct free_block *block = free_blocks[class];
	*is_fresh_ret = !block;
	if (block)
		free_blocks[class] = block->next;
	void *taken = block ? block : cut(class);
	give_lock_back();
	return taken;
}

void *dt_alloc(size_t bytes)
{
	if (bytes > (size_t)1 << LARGEST)
		return whole(bytes) ? map(whole(bytes)) : NULL;
	unsigned class = size_class(bytes);
	bool is_fresh = false;
	void *block = take_at_hand(class);
	if (!block)
		block = take(class, &is_fresh);
	return block && !is_fresh ? memset(block, 0, bytes) : block;
}

void dt_free(void *pointer, size_t bytes)
{
	if (!pointer)
		return;
	if (bytes > (size_t)1 << LARGEST) {
		dt_takes_copy(bytes / 16); // most such blocks are buffers that were hardly used
		unmap(pointer, whole(bytes));
		return;
	}
	unsigned class = size_class(bytes);
	struct free_block *block = pointer;
	if (leave_at_hand(class, block))
		return;
	take_lock();
	block->next = free_blocks[class];
	free_blocks[class] = block;
	give_lock_back();
}

// In front of a block: its whole size, padded so that the block keeps its alignment.
struct header {
	size_t bytes;
	char padding[64 - sizeof(size_t)];
};

void *dt_block_new(size_t bytes)
{
	struct header *header = dt_alloc(sizeof *header + bytes);
	if (!header)
		return NULL;
	header->bytes = sizeof *header + bytes;
	return header + 1;
}

void dt_block_free(void *block)
{
	struct header *header = (struct header *)block - 1;
	dt_free(header, header->bytes);
}

__attribute__((constructor)) static void keep_consistent_over_fork(void)
{
	pthread_atfork(take_lock, give_lock_back, give_lock_back);
}
