// A heap of linked objects with a generational collector, on memory that somebody else checkpoints. Old objects lie in
// that memory and go by number; young ones lie elsewhere until a minor collection makes them old.
#include <dirtytrack.h>
#include <string.h>

enum { CARD = 4096, YOUNG = 1024, YOUNG_BIT = 1 << 30 };

struct object {
	uint32_t next; // the number of another object, with YOUNG_BIT if that is young; 0: none
	uint32_t value;
	uint64_t payload[7];
};

struct report {
	uint64_t collections, cards, dirty; // cards there were in all of them, and those that were looked at
	uint64_t missed;                    // pointers to young objects that were not found
};

static struct {
	struct dt_tracker *tracker;
	struct object *old;
	uint32_t count, used;
	struct object young[YOUNG];
	uint32_t young_used;
	uint64_t random;
	uint8_t map[1 << 16];
	struct report report;
} heap;

static uint32_t draw(uint32_t below)
{
	heap.random ^= heap.random << 13;
	heap.random ^= heap.random >> 7;
	heap.random ^= heap.random << 17;
	return (uint32_t)(heap.random % below);
}

int heap_open(const struct dt_api *api, void *memory, size_t bytes)
{
	memset(&heap, 0, sizeof heap);
	heap.old = memory;
	heap.count = (uint32_t)(bytes / sizeof *heap.old);
	heap.used = 1; // 0 is none
	heap.random = 88172645463325252ULL;
	int error = dt_tracker_open_on(api, CARD, DT_BYTES, &heap.tracker);
	if (!error)
		error = dt_tracker_add(heap.tracker, memory, bytes, DT_DENSE, NULL);
	return error ? error : dt_tracker_prepare(heap.tracker);
}

void heap_close(void)
{
	dt_tracker_close(heap.tracker);
}

// Makes what a field points at old, and all that this points at.
static void promote(uint32_t *field)
{
	while (*field & YOUNG_BIT) {
		const struct object *young = &heap.young[*field & ~(uint32_t)YOUNG_BIT];
		*field = heap.used == heap.count ? 1 + draw(heap.count - 1)
						 : heap.used++; // one that is old is overwritten
		heap.old[*field] = *young;
		field = &heap.old[*field].next;
	}
}

static void scan(size_t first, size_t stop)
{
	for (size_t i = first; i < stop; i++)
		promote(&heap.old[i].next);
}

// Peeks at the beginning and takes at the end: what it stores itself is for no later collection.
static int collect(void)
{
	const size_t cards = dt_tracker_cards(heap.tracker), each = CARD / sizeof *heap.old;
	uint64_t dirty;
	int error = dt_tracker_peek(heap.tracker, heap.map, cards, &dirty);
	for (size_t card = 0; !error && card < cards; card++)
		if (heap.map[card])
			scan(card * each, (card + 1) * each);
	if (!error)
		error = dt_tracker_take(heap.tracker, heap.map, cards, NULL);
	for (size_t i = 0; !error && i < heap.used;
	     i++) // what no collector would do: did the cards tell of every store?
		heap.report.missed += (heap.old[i].next & YOUNG_BIT) != 0;
	heap.report.collections++;
	heap.report.cards += cards;
	heap.report.dirty += dirty;
	heap.young_used = 0;
	return error;
}

// Makes objects, most of which nobody keeps; some are hung on old ones.
int heap_run(uint32_t objects)
{
	int error = 0;
	for (; objects && !error; objects--) {
		struct object *fresh = &heap.young[heap.young_used];
		*fresh = (struct object){.value = draw(UINT32_MAX)};
		if (draw(16) == 0) {
			uint32_t *field = &heap.old[draw(8) ? heap.used - 1 : draw(heap.used)].next;
			fresh->next = *field & YOUNG_BIT ? 0 : *field;
			*field = heap.young_used | YOUNG_BIT;
		}
		if (++heap.young_used == YOUNG)
			error = collect();
	}
	return error;
}

struct report heap_report(void)
{
	return heap.report;
}
