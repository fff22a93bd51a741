// The program that runs on the heap. Its first phase is GCBench, by Boehm, Ellis, Kovac and Kopke.
#include "check.h"

// Bottom-up: no store to anything that exists. A leaf has its place in the tree.
static value make_tree(int depth, uint64_t path)
{
	if (depth == 0)
		return cons(integer(path), integer(~path));
	push_root(make_tree(depth - 1, 2 * path));
	push_root(make_tree(depth - 1, 2 * path + 1));
	heap.top -= 2;
	return cons(heap.top[0], heap.top[1]);
}

// Top-down, below the node on top of the stack: a parent is older than its children.
static void populate(int depth, uint64_t path)
{
	for (uint64_t side = 0; side < 2; side++) { // the node may move whenever something is allocated
		value child = depth ? cons(0, 0) : integer(side ? ~path : path);
		store(heap.top[-1], side, child);
	}
	for (uint64_t side = 0; depth && side < 2; side++) {
		push_root(load(heap.top[-1], side));
		populate(depth - 1, 2 * path + side);
		heap.top--;
	}
}

static void check_tree(value tree, int depth)
{
	double start = now();
	if (!tree_is_intact(tree, depth, 1))
		fail("a tree of depth %d was not as it was made", depth);
	heap.report->check += now() - start;
}

static void grow_trees(int stretch)
{
	check_tree(make_tree(stretch, 1), stretch);
	heap.roots[ARRAY] = allocate(BYTES, DOUBLES * sizeof(double));
	for (size_t i = 0; i < DOUBLES; i++)
		((double *)fields(heap.roots[ARRAY]))[i] = 1.0 / (double)(i + 1);
	push_root(cons(0, 0));
	populate(stretch, 1);
	heap.depth = stretch;
	heap.roots[TREE] = *--heap.top;
	for (int depth = 4; depth <= stretch - 2; depth += 2) {
		for (size_t i = 0; i < (size_t)2 << (stretch - depth); i++) {
			push_root(cons(0, 0));
			populate(depth, 1);
			check_tree(*--heap.top, depth);
			check_tree(make_tree(depth, 1), depth);
		}
	}
}

static value make_item(uint32_t number)
{
	if (number % 2)
		return integer(number);
	value item = allocate(BYTES, string_bytes(number));
	memset(fields(item), (uint8_t)number, string_bytes(number));
	memcpy(fields(item), &number, 4);
	return item;
}

// Most stores go to a small part of the vectors, which moves on. One in 64 goes anywhere: there pages are coarse.
static size_t pick_slot(uint64_t random, uint32_t step)
{
	size_t part = (size_t)(step >> 13) << 11;
	return (random % 64 ? part + (random >> 6) % (1 << 11) : random >> 6) % SLOTS;
}

// The second phase stores at random into vectors that are old: what is young, and what is old and hidden from the
// marker by it. The models outside of the heap say what has to be where.
static void mutate(size_t steps)
{
	push_root(vector(VECTORS));
	for (size_t i = 0; i < VECTORS; i++) {
		value row = vector(LENGTH);
		store(heap.top[-1], i, row);
	}
	heap.roots[ROWS] = *--heap.top;
	uint64_t random = 88172645463325252;
	for (uint32_t step = 1; step <= steps; step++) {
		random ^= random << 13, random ^= random >> 7, random ^= random << 17;
		size_t slot = pick_slot(random & 0x3FFFFFFF, step), from = pick_slot(random >> 30 & 0x3FFFFFFF, step);
		struct model *model = &heap.models[slot], *other = &heap.models[from];
		value row = load(heap.roots[ROWS], slot / LENGTH), list = load(row, slot % LENGTH);
		if (random >> 60 < 2) { // exchange it with the one on the stack: no trace of it is left in the heap
			struct model swap = heap.held;
			store(row, slot % LENGTH, heap.roots[HELD]);
			heap.roots[HELD] = list;
			heap.held = *model;
			*model = swap;
		} else if (random >> 60 < 6) { // move another here
			value source = load(heap.roots[ROWS], from / LENGTH);
			store(row, slot % LENGTH, load(source, from % LENGTH));
			*model = *other;
			if (from != slot) {
				store(source, from % LENGTH, 0);
				*other = (struct model){0, 0};
			}
		} else { // a new one in front, or alone
			uint32_t number = model->count && model->count < 4 ? model->first + 1 : step * 4;
			push_root(number == step * 4 ? 0 : list);
			value item = make_item(number);
			list = cons(item, *--heap.top);
			store(load(heap.roots[ROWS], slot / LENGTH), slot % LENGTH, list);
			*model = (struct model){number, number == step * 4 ? 1 : model->count + 1};
		}
	}
}

static void set_up(enum barrier barrier)
{
	heap.barrier = barrier;
	// Page tables know no less than a page; without any cards a block will do.
	heap.card_shift = barrier == DIRTYTRACK ? 12 : barrier == STORES ? 9 : 15;
	heap.cards = ARENA >> heap.card_shift;
	void *memory = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	heap.old = (value)memory;
	heap.nursery = heap.next = (value)heap.nursery_words;
	heap.top = heap.roots + FIXED_ROOTS;
	heap.threshold = 4 * NURSERY;
	restart_searches();
	for (size_t words = 0, class = 0; words <= MOST_WORDS; words++) {
		class += words > class_words[class];
		heap.class_of[words] = (uint8_t)class;
	}
	if (barrier != DIRTYTRACK)
		return;
	int error = dt_tracker_open((size_t)1 << heap.card_shift, DT_BYTES, &heap.tracker);
	if (!error)
		error = dt_tracker_add(heap.tracker, (void *)heap.old, ARENA, DT_DENSE, NULL);
	if (error)
		fail("dirtytrack can't track here: error %d", error);
}

static void tear_down(void)
{
	if (heap.checking) { // a check has failed; the marker may wait for its end
		__atomic_store_n(&heap.checking, false, __ATOMIC_RELAXED);
		pthread_mutex_unlock(&heap.check_lock);
	}
	if (heap.marking)
		join_marker();
	dt_tracker_close(heap.tracker);
	munmap((void *)heap.old, ARENA);
	free(heap.promoted.at);
	free(heap.grey.at);
	free(heap.tracing.at);
	memset(&heap, 0, sizeof heap);
}

void run(int barrier, int stretch, size_t steps, int fault, struct report *report)
{
	heap.report = report;
	heap.fault = fault;
	pthread_mutex_init(&heap.check_lock, NULL);
	if (!setjmp(heap.failed)) {
		set_up(barrier);
		double start = now();
		grow_trees(stretch);
		mutate(steps);
		collect(true);
		report->mutator = now() - start - heap.paused - report->check;
	}
	tear_down();
}
