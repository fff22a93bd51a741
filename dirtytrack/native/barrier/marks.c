// A list that is read without a lock. What dt_mark may be looking at is not freed: it counts itself in first, so when a
// range was taken out and nobody is counted then, nobody has it. Where a marking thread is stopped, or never comes
// back, memory is kept, and what it still marks there is found.
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

void dt_marked_free(struct dt_marked *marked)
{
	dt_free(marked, bytes_of(marked->word_count));
}

struct dt_marked *dt_marked_new(const struct dt_extent *extent)
{
	uint64_t first_word = extent->offset / extent->page_size / WORD_BITS;
	uint64_t word_count = (dt_extent_pages(extent) - 1) / WORD_BITS + 1 - first_word;
	struct dt_marked *marked = dt_alloc(bytes_of(word_count));
	if (!marked)
		return NULL;
	marked->start = extent->address;
	marked->stop = extent->address + extent->nbytes;
	marked->page_zero = extent->address - extent->offset;
	marked->page_size = extent->page_size;
	marked->first_word = first_word;
	marked->word_count = word_count;
	return marked;
}

// Puts a chain of ranges, from first to last, where dt_mark finds them: before `next`, instead of what was there.
static void link(struct dt_marks *marks, struct dt_marked *previous, struct dt_marked *first, struct dt_marked *last,
		 struct dt_marked *next)
{
	last->next = next;
	first->previous = previous;
	if (next)
		next->previous = last;
	__atomic_store_n(previous ? &previous->next : &marks->first, first, __ATOMIC_SEQ_CST);
}

static void set_aside(struct dt_marks *marks, struct dt_marked *marked)
{
	marked->next_removed = marks->removed;
	marks->removed = marked;
}

void dt_marks_add(struct dt_marks *marks, struct dt_marked *marked)
{
	link(marks, NULL, marked, marked, marks->first);
}

void dt_marks_divide(struct dt_marks *marks, struct dt_marked *marked, struct dt_marked *low, struct dt_marked *high)
{
	low->next = high;
	high->previous = low;
	link(marks, marked->previous, low, high, marked->next);
	set_aside(marks, marked);
}

void dt_marks_remove(struct dt_marks *marks, struct dt_marked *marked)
{
	if (marked->next)
		marked->next->previous = marked->previous;
	__atomic_store_n(marked->previous ? &marked->previous->next : &marks->first, marked->next, __ATOMIC_SEQ_CST);
	set_aside(marks, marked);
}

static void free_list(struct dt_marked *marked, bool removed)
{
	for (struct dt_marked *next; marked; marked = next) {
		next = removed ? marked->next_removed : marked->next;
		dt_marked_free(marked);
	}
}

void dt_marks_free(struct dt_marks *marks)
{
	free_list(marks->first, false);
	free_list(marks->removed, true);
	*marks = (struct dt_marks){0};
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

// Of every range what it has of [start, stop), so that a part that goes meanwhile takes nothing else with it.
static void mark_all(struct dt_marks *marks, uint64_t start, uint64_t stop)
{
	const struct dt_run bytes = {start, stop};
	struct dt_marked *marked = __atomic_load_n(&marks->first, __ATOMIC_SEQ_CST);
	for (uint64_t left = stop - start; marked && left; marked = __atomic_load_n(&marked->next, __ATOMIC_SEQ_CST)) {
		struct dt_run own = dt_run_clip(bytes, (struct dt_run){marked->start, marked->stop});
		if (own.start >= own.stop)
			continue;
		mark(marked, own.start, own.stop);
		left -= own.stop - own.start;
	}
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

static void take_run(const struct dt_marked *marked, struct dt_run pages, dt_take_marks *take, void *context)
{
	if (pages.start < pages.stop)
		take(context, (struct dt_run){marked->page_zero + pages.start * marked->page_size,
					      marked->page_zero + pages.stop * marked->page_size});
}

void dt_marks_take(struct dt_marked *marked, dt_take_marks *take, void *context)
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
			if (page != run.stop)
				take_run(marked, run, take, context);
			run = (struct dt_run){page == run.stop ? run.start : page, page + 1};
		}
	}
	take_run(marked, run, take, context);
}

struct inheritance {
	struct dt_marks *marks;
	struct dt_run bytes; // of the range that was taken out
};

static void inherit(void *context, struct dt_run addresses)
{
	const struct inheritance *of = context;
	struct dt_run bytes = dt_run_clip(addresses, of->bytes);
	mark_all(of->marks, bytes.start, bytes.stop);
}

void dt_marks_inherit(struct dt_marks *marks)
{
	bool is_idle = !__atomic_load_n(&marks->marking, __ATOMIC_SEQ_CST); // before the marks are taken
	for (struct dt_marked *marked = marks->removed, *next; marked; marked = next) {
		struct inheritance of = {marks, {marked->start, marked->stop}};
		next = marked->next_removed;
		dt_marks_take(marked, inherit, &of);
		if (is_idle)
			dt_marked_free(marked);
	}
	if (is_idle)
		marks->removed = NULL;
}
