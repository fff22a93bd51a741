// A small language's heap with a garbage collector that learns from dirtytrack which old objects were stored to.
//
// Generational: objects are born in a nursery; a minor collection copies what survives it to the old generation. Its
// roots are the shadow stack and the old fields that may point into the nursery: those on dirty cards.
// Mostly concurrent: a thread marks the old generation while the program runs. What the program stores meanwhile may
// hide an object from it, so the final pause looks again at the marked objects on all cards dirtied since it began.
//
// The heap is one, and the program has one thread. collector.py compiles program.c, which includes the rest, twice:
// with STORE_BARRIER each store has the code of a software card table. Without it a store is a store.
//
// This file has the heap's parts, its objects, and the store.
#pragma once

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "dirtytrack.h"
#include "report.h"

// A value is nil (0), an integer (lowest bit set), or the address of an object: a header and then its fields, or bytes.
typedef uintptr_t value;

enum kind { FIELDS, BYTES }; // a pair or a vector; a string
enum barrier { DIRTYTRACK, FULL_SCAN, STORES };
enum fault { NONE, MINOR, MARK }; // whose cards are dropped, to see that the checks notice

enum {
	WORD = sizeof(value),
	BLOCK = 1 << 15, // all objects of a block have the same size, so that a card's are found from its address
	BLOCK_WORDS = BLOCK / WORD,
	ARENA = 128 << 20,
	BLOCKS = ARENA / BLOCK,
	NURSERY = 4 << 20,
	MOST_WORDS = BLOCK_WORDS / 4, // bigger objects have blocks of their own
	LARGE = MOST_WORDS + 1,       // as a block's slot size: part of such an object
	BITS = ARENA / WORD / 64,
	MOST_CARDS = ARENA >> 9,
	ROOTS = 4096,
	VECTORS = 16, // of the program's second phase
	LENGTH = 8192,
	SLOTS = VECTORS * LENGTH,
	DOUBLES = 500 * 1000,
};

struct block {
	uint32_t slot_words; // 0: free
	uint32_t first;      // of LARGE: the block it begins in
	uint32_t live;       // slots in use; of LARGE: in its first block only
};

struct size_class {
	uint32_t words, search; // search: the next block to look at for free slots
	uint32_t block, offset; // the next slot to look at
};

struct stack {
	value *at;
	size_t count, room;
};

// A slot of the program's vectors has a list of the numbers first, first - 1, ...; this says what must be there.
struct model {
	uint32_t first, count;
};

static const uint16_t class_words[] = {2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, MOST_WORDS};
enum { CLASSES = sizeof class_words / sizeof *class_words };

static struct {
	value old, nursery, next; // next: where the next object is born
	value nursery_words[NURSERY / WORD];
	uint64_t allocated[BITS], marked[BITS], seen[BITS]; // a bit for each word that is old: an object begins here
	struct block blocks[BLOCKS];
	struct size_class classes[CLASSES];
	uint8_t class_of[MOST_WORDS + 1];
	uint32_t search; // the next block to look at for a free one
	size_t used, threshold;

	enum barrier barrier;
	unsigned card_shift;
	size_t cards;
	uint8_t dirty[MOST_CARDS], mod_union[MOST_CARDS], preview[MOST_CARDS];
	uint8_t stored[MOST_CARDS] __attribute__((aligned(8))); // the software card table
	struct dt_tracker *tracker;

	value roots[ROOTS], *top; // the shadow stack
	struct stack promoted, grey, tracing;
	bool marking; // from the snapshot of the roots to the final pause
	bool mark_done, checking;
	int marker_error;
	pthread_t marker;
	pthread_mutex_t check_lock;

	int depth; // of the long-lived tree
	struct model models[SLOTS], held;

	enum fault fault;
	jmp_buf failed;
	struct report *report;
	double paused;
} heap;

// The roots that the program has from its beginning.
enum { TREE, ARRAY, ROWS, HELD, FIXED_ROOTS };

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(heap.report->failure, sizeof heap.report->failure, format, args);
	va_end(args);
	longjmp(heap.failed, 1);
}

static void push(struct stack *stack, value object)
{
	if (stack->count == stack->room) {
		size_t room = stack->room ? 2 * stack->room : 1 << 16;
		value *at = realloc(stack->at, room * sizeof *at);
		if (!at)
			abort();
		stack->at = at;
		stack->room = room;
	}
	stack->at[stack->count++] = object;
}

// --- Objects

static inline value integer(uint64_t n)
{
	return n << 1 | 1;
}

static inline bool is_old(value v)
{
	return v - heap.old < ARENA && !(v & 1);
}

static inline bool is_young(value v)
{
	return v - heap.nursery < NURSERY && !(v & 1);
}

// Bit 0 is set, which it is not in the address that replaces it when the object has moved. The upper bits are a check.
static inline value make_header(enum kind kind, uint64_t size)
{
	uint64_t header = 1 | (uint64_t)kind << 1 | size << 2;
	return header | header * 0x9E3779B97F4A7C15 >> 48 << 48;
}

static inline size_t size_of(value header) // fields, or bytes
{
	return header << 16 >> 18;
}

static inline size_t fields_of(value header)
{
	return header & 2 ? 0 : size_of(header);
}

static inline size_t words_of(value header)
{
	return 1 + (header & 2 ? (size_of(header) + WORD - 1) / WORD : size_of(header));
}

static inline value *fields(value object)
{
	return (value *)object + 1;
}

static inline value load(value object, size_t i)
{
	return fields(object)[i];
}

static inline __attribute__((always_inline)) void for_each_field(value object, void (*visit)(value *))
{
	for (value *field = fields(object), *end = field + fields_of(*(value *)object); field < end; field++)
		visit(field);
}

// What this whole example is about: a store of the program. Atomic because the marker reads along; it costs nothing.
static inline void store(value object, size_t i, value v)
{
	__atomic_store_n(&fields(object)[i], v, __ATOMIC_RELAXED);
#ifdef STORE_BARRIER
	value offset = (value)&fields(object)[i] - heap.old;
	if (offset < ARENA)
		__atomic_store_n(&heap.stored[offset >> heap.card_shift], 1, __ATOMIC_RELAXED);
#endif
}

// --- Bitmaps

static inline size_t bit_of(value object)
{
	return (object - heap.old) / WORD;
}

static inline bool test_bit(const uint64_t *map, size_t bit) // acquire: who sees a mark sees the object
{
	return __atomic_load_n(&map[bit / 64], __ATOMIC_ACQUIRE) >> bit % 64 & 1;
}

static inline bool set_bit(uint64_t *map, size_t bit) // returns whether it was set already
{
	return __atomic_fetch_or(&map[bit / 64], 1ull << bit % 64, __ATOMIC_RELEASE) >> bit % 64 & 1;
}
