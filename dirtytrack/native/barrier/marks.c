// A list that is read without a lock. What dt_mark may be looking at is not freed: it counts itself in first, so when a
// range was taken out and nobody is counted then, nobody has it. Where a marking thread is stopped, or never comes
// back, memory is kept, and nothing else happens.
#include "marks.h"

#include <stddef.h>

#include "../base/memory.h"
#include "../include/dirtytrack.h"

struct dt_marked {
	struct dt_marked *next;     // also of a range that was taken out: dt_mark may be on its way through it
	struct dt_marked *previous; // NULL: it is the first one
	struct dt_marked *next_removed;
	uint64_t start, stop; // bytes
	uint64_t page_zero;   // the address of its region's first page
	uint64_t page_size;   // bytes
	uint64_t first_word;  // the number of its first page in units of words
	uint64_t word_count;
	bool any; // a bit is set, or will be at once
	uint64_t words[];
};

enum { WORD_BITS = 64 };

static size_t bytes_of(uint64_t word_count)
{
	return sizeof(struct dt_marked) + word_count * sizeof(uint64_t);
}

static void free_marked(struct dt_marked *marked)
{
	dt_free(marked, bytes_of(marked->word_count));
}

static void free_removed(struct dt_marks *marks)
{
	if (__atomic_load_n(&marks->marking, __ATOMIC_SEQ_CST))
		return;
	while (marks->removed) {
		struct dt_marked *marked = marks->removed;
		marks->removed = marked->next_removed;
		free_marked(marked);
	}
}

struct dt_marked *dt_marks_add(struct dt_marks *marks, const struct dt_extent *extent)
{
	uint64_t first_word = extent->offset / extent->page_size / WORD_BITS;
	uint64_t word_count = (dt_extent_pages(extent) - 1) / WORD_BITS + 1 - first_word;
	free_removed(marks);
	struct dt_marked *marked = dt_alloc(bytes_of(word_count));
	if (!marked)
		return NULL;
	marked->next = marks->first;
	marked->start = extent->address;
	marked->stop = extent->address + extent->nbytes;
	marked->page_zero = extent->address - extent->offset;
	marked->page_size = extent->page_size;
	marked->first_word = first_word;
	marked->word_count = word_count;
	if (marks->first)
		marks->first->previous = marked;
	__atomic_store_n(&marks->first, marked, __ATOMIC_SEQ_CST);
	return marked;
}

void dt_marks_remove(struct dt_marks *marks, struct dt_marked *marked)
{
	if (marked->next)
		marked->next->previous = marked->previous;
	__atomic_store_n(marked->previous ? &marked->previous->next : &marks->first, marked->next, __ATOMIC_SEQ_CST);
	marked->next_removed = marks->removed;
	marks->removed = marked;
	free_removed(marks);
}

void dt_marks_free(struct dt_marks *marks)
{
	while (marks->first)
		dt_marks_remove(marks, marks->first);
	__atomic_store_n(&marks->marking, 0, __ATOMIC_SEQ_CST); // a thread may have ended in the middle of a dt_mark
	free_removed(marks);
}

static struct dt_marked *at_address(struct dt_marks *marks, uint64_t address)
{
	struct dt_marked *marked = __atomic_load_n(&marks->first, __ATOMIC_SEQ_CST);
	while (marked && !(marked->start <= address && address < marked->stop))
		marked = __atomic_load_n(&marked->next, __ATOMIC_SEQ_CST);
	return marked;
}

static bool covered(struct dt_marks *marks, uint64_t start, uint64_t stop)
{
	while (start < stop) {
		const struct dt_marked *marked = at_address(marks, start);
		if (!marked)
			return false;
		start = marked->stop;
	}
	return true;
}

// Sets the bits of the bytes [start, stop) of a range.
static void mark(struct dt_marked *marked, uint64_t start, uint64_t stop)
{
	uint64_t first = (start - marked->page_zero) / marked->page_size;
	uint64_t last = (stop - 1 - marked->page_zero) / marked->page_size;
	for (uint64_t word = first / WORD_BITS; word <= last / WORD_BITS; word++) {
		uint64_t bits = ~0ULL;
		if (word == first / WORD_BITS)
			bits &= ~0ULL << first % WORD_BITS;
		if (word == last / WORD_BITS)
			bits &= ~0ULL >> (WORD_BITS - 1 - last % WORD_BITS);
		__atomic_or_fetch(&marked->words[word - marked->first_word], bits, __ATOMIC_SEQ_CST);
	}
	__atomic_store_n(&marked->any, true, __ATOMIC_SEQ_CST); // after the bits: who takes it away finds them
}

static void mark_all(struct dt_marks *marks, uint64_t start, uint64_t stop)
{
	struct dt_marked *marked;
	for (; start < stop && (marked = at_address(marks, start)); start = marked->stop)
		mark(marked, start, stop < marked->stop ? stop : marked->stop);
	__atomic_store_n(&marks->any, true, __ATOMIC_SEQ_CST);
}

int dt_mark(struct dt_marks *marks, uint64_t start, uint64_t stop)
{
	__atomic_add_fetch(&marks->marking, 1, __ATOMIC_SEQ_CST);
	bool known = stop >= start && covered(marks, start, stop);
	if (known)
		mark_all(marks, start, stop);
	__atomic_sub_fetch(&marks->marking, 1, __ATOMIC_SEQ_CST);
	return known ? 0 : -DT_EUNTRACKED;
}

bool dt_marks_any(struct dt_marks *marks)
{
	return __atomic_load_n(&marks->any, __ATOMIC_RELAXED) &&
	       __atomic_exchange_n(&marks->any, false, __ATOMIC_SEQ_CST);
}

void dt_marks_take(struct dt_marked *marked, void (*take)(void *context, struct dt_run pages), void *context)
{
	struct dt_run run = {0};
	if (!__atomic_exchange_n(&marked->any, false, __ATOMIC_SEQ_CST))
		return;
	for (uint64_t i = 0; i < marked->word_count; i++) {
		uint64_t bits = 0;
		if (__atomic_load_n(&marked->words[i], __ATOMIC_RELAXED))
			bits = __atomic_exchange_n(&marked->words[i], 0, __ATOMIC_SEQ_CST);
		for (uint64_t page; bits; bits &= bits - 1) {
			page = (marked->first_word + i) * WORD_BITS + (uint64_t)__builtin_ctzll(bits);
			if (page != run.stop && run.start < run.stop)
				take(context, run);
			run = (struct dt_run){page == run.stop ? run.start : page, page + 1};
		}
	}
	if (run.start < run.stop)
		take(context, run);
}
