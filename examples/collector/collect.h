// Concurrent marking, minor collections, the final pause, and what the program calls to allocate.
#pragma once

#include "cards.h"

static void mark(value v) // ignores what is young: the final pause has no such thing
{
	if (is_old(v) && !set_bit(heap.marked, bit_of(v)))
		push(&heap.grey, v);
}

static void mark_field(value *field) // acquire: who sees the address of a promoted object sees the object
{
	mark(__atomic_load_n(field, __ATOMIC_ACQUIRE));
}

static void mark_all_grey(void)
{
	while (heap.grey.count) {
		for_each_field(heap.grey.at[--heap.grey.count], mark_field);
		if (heap.grey.count % 64 == 0 && __atomic_load_n(&heap.checking, __ATOMIC_RELAXED)) {
			pthread_mutex_lock(&heap.check_lock); // time that is not counted must not be of use
			pthread_mutex_unlock(&heap.check_lock);
		}
	}
}

static void *run_marker(void *unused)
{
	(void)unused;
	if (heap.fault == MARK)
		usleep(50 * 1000); // so that the program surely hides something from it
	mark_all_grey();
	if (heap.barrier != FULL_SCAN) { // precleaning: what is marked now needs no time in the final pause
		heap.marker_error = read_cards(heap.preview, false);
		for (size_t card = 0; card < heap.cards; card++)
			heap.preview[card] |= __atomic_load_n(&heap.mod_union[card], __ATOMIC_RELAXED);
		if (heap.fault != MARK)
			scan_cards(heap.preview, heap.marked, mark_field);
		mark_all_grey();
	}
	__atomic_store_n(&heap.mark_done, true, __ATOMIC_RELEASE);
	return NULL;
}

// Right after a minor collection, when no root is young.
static void start_marking(void)
{
	memset(heap.marked, 0, sizeof heap.marked);
	memset(heap.mod_union, 0, heap.cards);
	for (const value *root = heap.roots; root < heap.top; root++)
		mark(*root);
	heap.marking = true;
	heap.mark_done = false;
	int error = pthread_create(&heap.marker, NULL, run_marker, NULL);
	heap.marking = !error;
	if (error)
		fail("pthread_create: %s", strerror(error));
}

static int join_marker(void)
{
	pthread_join(heap.marker, NULL);
	heap.marking = false;
	return heap.marker_error;
}

// --- Collections

static value promote(value object)
{
	value header = *(value *)object;
	if (!(header & 1))
		return header; // it has moved already
	size_t words = words_of(header);
	value copy = allocate_old(words);
	memcpy((void *)copy, (void *)object, words * WORD);
	*(value *)object = copy;
	push(&heap.promoted, copy);
	if (heap.marking) {
		// Black, though its fields may be the last that point to something white: its cards have to be looked
		// at again. Those of the page tables are dirty by the copy itself.
		set_bit(heap.marked, bit_of(copy));
		if (heap.barrier == STORES)
			for (size_t card = (copy - heap.old) >> heap.card_shift;
			     card <= (copy + words * WORD - 1 - heap.old) >> heap.card_shift; card++)
				__atomic_store_n(&heap.stored[card], 1, __ATOMIC_RELAXED);
	}
	return copy;
}

static void promote_field(value *field)
{
	if (is_young(*field))
		__atomic_store_n(field, promote(*field), __ATOMIC_RELEASE); // the marker may follow it at once
}

static void collect_minor(void)
{
	heap.report->minors++;
	// A peek, because a take would arm the pages that are written now. The program stands still; the take below has
	// the same cards, and those that promotion has dirtied.
	int error = read_cards(heap.dirty, false);
	if (heap.fault == MINOR)
		memset(heap.dirty, 0, heap.cards);
	for (value *root = heap.roots; root < heap.top; root++)
		promote_field(root);
	heap.report->scanned += scan_cards(heap.dirty, heap.allocated, promote_field);
	while (heap.promoted.count)
		for_each_field(heap.promoted.at[--heap.promoted.count], promote_field);
	heap.next = heap.nursery;
	__atomic_thread_fence(__ATOMIC_RELEASE); // the program's stores of what was promoted are relaxed

	// Nothing old points to the nursery now, so that these cards are of no use but to a mark that is on its way.
	if (!error)
		error = read_cards(heap.dirty, true);
	if (error)
		fail("the tracker: error %d", error);
	for (size_t card = 0; heap.marking && card < heap.cards; card++)
		if (heap.dirty[card])
			__atomic_store_n(&heap.mod_union[card], 1, __ATOMIC_RELAXED);
}

static void finish_marking(void)
{
	int error = join_marker();
	if (error)
		fail("the marker's peek: error %d", error);
	if (heap.fault == MARK)
		memset(heap.mod_union, 0, heap.cards);
	// The minor collection's take was the last: nobody has stored since.
	scan_cards(heap.mod_union, heap.marked, mark_field);
	for (const value *root = heap.roots; root < heap.top; root++)
		mark(*root);
	mark_all_grey();
	sweep();
	heap.threshold = heap.used + heap.used / 4 + 2 * NURSERY;
	heap.report->majors++;
}

static void check_heap(void);

static void collect(bool finish)
{
	double start = now();
	collect_minor();
	if (heap.used > heap.threshold + 4 * NURSERY)
		finish = true; // the program is too fast for the marker
	bool final = heap.marking && (finish || __atomic_load_n(&heap.mark_done, __ATOMIC_ACQUIRE));
	if (final)
		finish_marking();
	else if (!heap.marking && heap.used > heap.threshold)
		start_marking();
	double seconds = now() - start;
	struct report *report = heap.report;
	heap.paused += seconds;
	if (report->minor_count == PAUSES || report->final_count == PAUSES)
		fail("more pauses than the report has room for");
	if (final)
		report->final[report->final_count++] = seconds;
	else
		report->minor[report->minor_count++] = seconds;

	pthread_mutex_lock(&heap.check_lock);
	__atomic_store_n(&heap.checking, true, __ATOMIC_RELAXED);
	start = now();
	check_heap();
	report->check += now() - start;
	__atomic_store_n(&heap.checking, false, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&heap.check_lock);
}

// --- What the program calls

static inline value push_root(value v)
{
	if (heap.top == heap.roots + ROOTS)
		fail("the shadow stack is full");
	return *heap.top++ = v;
}

static value allocate_huge(value header, size_t bytes) // old from its birth
{
	value object = allocate_old(bytes / WORD);
	memset((void *)object, 0, bytes); // its fields must be nil at once
	*(value *)object = header;
	if (heap.marking)
		set_bit(heap.marked, bit_of(object));
	return object;
}

static inline value allocate(enum kind kind, size_t size)
{
	value header = make_header(kind, size);
	size_t bytes = words_of(header) * WORD;
	if (bytes > NURSERY / 4)
		return allocate_huge(header, bytes);
	if (heap.next + bytes > heap.nursery + NURSERY)
		collect(false);
	value object = heap.next;
	heap.next += bytes;
	*(value *)object = header;
	return object;
}

static inline value cons(value first, value second)
{
	if (heap.next + 3 * WORD > heap.nursery + NURSERY) { // the two may move
		push_root(first);
		push_root(second);
		collect(false);
		second = *--heap.top;
		first = *--heap.top;
	}
	value pair = allocate(FIELDS, 2);
	fields(pair)[0] = first; // it is young: no store that anybody has to know of
	fields(pair)[1] = second;
	return pair;
}

static value vector(size_t size)
{
	value object = allocate(FIELDS, size);
	memset(fields(object), 0, size * WORD);
	return object;
}
