// An emulator that rewinds: a frontend without a window around a libretro core, of which it knows nothing. After each
// frame a snapshot of all the core's memory says which bytes have changed, and what they were; going back one frame
// puts these back. Beside it the usual way: the core serializes its state for each frame.
#define _GNU_SOURCE
#include "core.h"
#include <dirtytrack.h>
#include <link.h>
#include <sys/mman.h>
#include <time.h>

static void check(int error)
{
	if (error)
		die(dt_strerror(error));
}

// The rewind buffer: for each frame the bytes that it changed, as they were before. The oldest frames make room.

enum { RING_BYTES = 256 << 10, RING_FRAMES = 1 << 12 };

struct change {
	void *start;
	size_t bytes; // that follow
};

static struct dt_snapshot *snapshot; // of the core's memory, as it was after the last frame
static struct {
	uint64_t oldest, newest;     // frames
	uint64_t begin[RING_FRAMES]; // where a frame begins in all bytes that were ever put
	uint64_t end;
	char bytes[RING_BYTES];
} ring;

static void put(const void *data, size_t bytes)
{
	size_t at = ring.end % RING_BYTES, first = bytes < RING_BYTES - at ? bytes : RING_BYTES - at;
	if (bytes > RING_BYTES)
		die("a frame has changed more than the rewind buffer holds");
	memcpy(ring.bytes + at, data, first);
	memcpy(ring.bytes, (const char *)data + first, bytes - first);
	ring.end += bytes;
}

static uint64_t get(uint64_t from, void *data, size_t bytes)
{
	size_t at = from % RING_BYTES, first = bytes < RING_BYTES - at ? bytes : RING_BYTES - at;
	memcpy(data, ring.bytes + at, first);
	memcpy((char *)data + first, ring.bytes, bytes - first);
	return from + bytes;
}

static int keep(void *context, void *start, size_t bytes, const void *before, const void *after)
{
	const struct change change = {start, bytes};
	(void)context;
	(void)after;
	put(&change, sizeof change);
	put(before, bytes);
	return 0;
}

static void save(void)
{
	ring.begin[ring.newest++ % RING_FRAMES] = ring.end;
	check(dt_snapshot_diff(snapshot, DT_LIST_TAKE, keep, NULL));
	while (ring.newest - ring.oldest > RING_FRAMES || ring.end - ring.begin[ring.oldest % RING_FRAMES] > RING_BYTES)
		if (++ring.oldest == ring.newest)
			die("a frame has changed more than the rewind buffer holds");
}

// Goes to the end of the frame before; what the core did since the last frame is undone, too. False: it is gone.
static bool go_back(void)
{
	struct change change;
	if (ring.newest == ring.oldest)
		return false;
	uint64_t begin = ring.begin[--ring.newest % RING_FRAMES];
	check(dt_snapshot_rollback(snapshot, NULL));
	for (uint64_t at = begin; at < ring.end; at = get(at, change.start, change.bytes))
		at = get(at, &change, sizeof change);
	check(dt_snapshot_advance(snapshot, NULL));
	ring.end = begin;
	return true;
}

// Adds what the core's library can write: its segments without what is read-only once they are relocated.
static int add_segments(struct dl_phdr_info *library, size_t bytes, void *path)
{
	uintptr_t read_only = 0;
	(void)bytes;
	if (strcmp(library->dlpi_name, path) != 0)
		return 0;
	for (int i = 0; i < library->dlpi_phnum; i++)
		if (library->dlpi_phdr[i].p_type == PT_GNU_RELRO)
			read_only = library->dlpi_phdr[i].p_vaddr + library->dlpi_phdr[i].p_memsz;
	for (int i = 0; i < library->dlpi_phnum; i++) {
		uintptr_t start = library->dlpi_phdr[i].p_vaddr, end = start + library->dlpi_phdr[i].p_memsz;
		if (library->dlpi_phdr[i].p_type != PT_LOAD || !(library->dlpi_phdr[i].p_flags & PF_W))
			continue;
		if (start < read_only && read_only <= end)
			start = read_only;
		if (start < end)
			check(dt_snapshot_add(snapshot, (void *)(library->dlpi_addr + start), end - start, DT_DENSE));
	}
	return 1;
}

static void open_snapshot(char *path)
{
	check(dt_snapshot_open(&snapshot));
	check(dt_snapshot_add(snapshot, &heap, sizeof heap, DT_SPARSE)); // most of it is never touched
	if (!dl_iterate_phdr(add_segments, path))
		die("where is the core?");
	ring.oldest = ring.newest = ring.end = 0;
}

// What it proves

enum { PLAYED = 300, REWOUND = 200 };

struct frame {
	uint64_t screen, sound;
	char *state; // of the core, serialized
};

static size_t state_bytes;

static void *map(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("no memory");
	return memory;
}

// The number of a frame and the player say which buttons are pressed.
static void play(unsigned number, unsigned player)
{
	pressed = ((number + 7 * player) * 2654435761u) >> 13 & 15;
	screen = sound = 14695981039346656037u;
	core.run();
}

static void serialize(char *state)
{
	if (!core.serialize(state, state_bytes))
		die("the core has no state");
}

static bool same_state(const struct frame *frame)
{
	static char *state;
	if (!state)
		state = map(state_bytes);
	serialize(state);
	return !memcmp(state, frame->state, state_bytes);
}

static void prove(void)
{
	static struct frame frames[PLAYED + 1];
	char *states = map((PLAYED + 1) * state_bytes);
	unsigned number, back = PLAYED - REWOUND;
	for (number = 1; number <= PLAYED; number++) {
		play(number, 0);
		save();
		frames[number] = (struct frame){screen, sound, states + number * state_bytes};
		serialize(frames[number].state);
	}
	for (number = PLAYED; number-- > back;)
		if (!go_back() || !same_state(&frames[number]))
			die("a rewound frame is not what it was");
	printf("holds: the core serializes each of %d rewound frames as it was then\n", REWOUND);
	for (number = back + 1; number <= PLAYED; number++) {
		play(number, 0);
		save();
		if (screen != frames[number].screen || sound != frames[number].sound || !same_state(&frames[number]))
			die("a frame that is played again is another one");
	}
	printf("holds: played again, they have the same screens, sounds and states, bit for bit\n");
	for (number = PLAYED; number-- > back;)
		go_back();
	for (number = back + 1; number <= PLAYED; number++)
		play(number, 1);
	if (screen == frames[PLAYED].screen || same_state(&frames[PLAYED]))
		die("what the player presses changes nothing");
	printf("holds: another player gets elsewhere from there\n");
}

// What it costs

enum way { NO_STATES, SNAPSHOT, SERIALIZE };

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void measure(enum way way, unsigned count)
{
	static const char *const names[] = {"no states", "dt_snapshot", "retro_serialize"};
	char *state = map(state_bytes), *states = map(REWOUND * state_bytes);
	double start = now(), saving = 0, before;
	for (unsigned number = 0; number < count; number++) {
		play(number, 0);
		before = now();
		if (way == SNAPSHOT) {
			save();
		} else if (way == SERIALIZE) {
			serialize(state);
			memcpy(states + number % REWOUND * state_bytes, state, state_bytes);
		}
		saving += now() - before;
	}
	before = now();
	printf("%-16s %8.0f frames a second", names[way], count / (before - start));
	if (way == NO_STATES) {
		putchar('\n');
		return;
	}
	double kept = way == SERIALIZE ? (double)state_bytes : (double)ring.end / count;
	before = now();
	for (unsigned number = 0; number < REWOUND; number++)
		if (!(way == SNAPSHOT
			      ? go_back()
			      : core.unserialize(states + (count - 1 - number) % REWOUND * state_bytes, state_bytes)))
			die("the frame is gone");
	printf(" %8.0f bytes a frame %8.1f us a state %8.1f us back\n", kept, saving / count * 1e6,
	       (now() - before) / REWOUND * 1e6);
}

int main(int argc, char **argv)
{
	static char output[BUFSIZ]; // one of malloc's would go back with the heap
	if (argc != 3 || atoi(argv[2]) < REWOUND)
		die("usage: emulator CORE FRAMES, 200 or more");
	setvbuf(stdout, output, _IOLBF, sizeof output);
	load(argv[1]);
	state_bytes = core.serialize_size();
	open_snapshot(argv[1]);
	prove();
	dt_snapshot_close(snapshot);
	for (enum way way = NO_STATES; way <= SERIALIZE; way++) {
		if (way == SNAPSHOT)
			open_snapshot(argv[1]);
		measure(way, (unsigned)atoi(argv[2]));
		if (way == SNAPSHOT)
			dt_snapshot_close(snapshot);
	}
	return 0;
}
