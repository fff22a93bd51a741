// A libretro core with a game, without a window, and the heap that it lives in.
#pragma once

#include <dlfcn.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

// The heap: malloc of the whole program, the core's with it, whose books lie in the heap itself. Nothing is freed:
// cores take their memory when they load a game. The frontend takes none while it plays.

enum { HEAP_BYTES = 16 << 20, HEADER = 16 };

static struct {
	alignas(4096) size_t used;
	alignas(HEADER) char memory[HEAP_BYTES];
} heap;

static void *take(size_t bytes)
{
	size_t left = HEAP_BYTES - heap.used;
	if (left < 2 * HEADER || bytes > left - 2 * HEADER)
		return NULL;
	char *block = heap.memory + heap.used + HEADER; // behind its size
	memcpy(block - HEADER, &bytes, sizeof bytes);
	heap.used += HEADER + ((bytes + HEADER - 1) & ~(size_t)(HEADER - 1));
	return block;
}

void *malloc(size_t bytes)
{
	return take(bytes);
}

void *calloc(size_t count, size_t bytes) // of memory that is zeros
{
	return bytes && count > HEAP_BYTES / bytes ? NULL : take(count * bytes);
}

void *realloc(void *old, size_t bytes)
{
	size_t before = 0;
	void *block = take(bytes);
	if (old)
		memcpy(&before, (char *)old - HEADER, sizeof before);
	if (block && old)
		memcpy(block, old, before < bytes ? before : bytes);
	return block;
}

void free(void *block)
{
	(void)block;
}

// The game, for a Game Boy: in each frame it adds what the player presses to a sum in memory, draws a row of a tile and
// a tile by it, and adds along a page of memory.

enum { ROM_BYTES = 32768, ENTRY = 0x100, MAPPER = 0x147, START = 0x150 };

static const char entry[] = "\x00\xc3\x50\x01";   // nop; jp 0150
static const char code[] = "\xf0\x44"             // frame: ldh a, (LY)
			   "\xfe\x90\x20\xfa"     // cp 144; jr nz, frame
			   "\x3e\x20\xe0\x00"     // ld a, 20; ldh (P1), a: the directions
			   "\xf0\x00\x2f\xe6\x0f" // ldh a, (P1); cpl; and 0f
			   "\x21\x00\xc0\x86"     // ld hl, c000; add a, (hl)
			   "\x3c\x77\x6f"         // inc a; ld (hl), a; ld l, a
			   "\x26\x80\x77"         // ld h, 80; ld (hl), a: a row of a tile
			   "\x26\x98\x77"         // ld h, 98; ld (hl), a: a tile of the screen
			   "\x21\x00\xc1"         // ld hl, c100
			   "\x86\x77\x2c\x20\xfb" // page: add a, (hl); ld (hl), a; inc l; jr nz, page
			   "\xf0\x44\xfe\x90"     // same: ldh a, (LY); cp 144
			   "\x28\xfa\x18\xd4";    // jr z, same; jr frame

static void assemble(char *rom)
{
	memcpy(rom + ENTRY, entry, sizeof entry - 1);
	memcpy(rom + START, code, sizeof code - 1);
	rom[MAPPER] = 1; // without one gambatte serializes bytes that it has never set
}

// The core: what libretro says of those of its functions and structures that are needed here.

enum { GET_CAN_DUPE = 3, SET_PIXEL_FORMAT = 10, JOYPAD_UP = 4, JOYPAD_RIGHT = 7 };

struct game {
	const char *path;
	const void *data;
	size_t bytes;
	const char *meta;
};

static struct {
	void (*set_environment)(bool (*)(unsigned, void *));
	void (*set_video_refresh)(void (*)(const void *, unsigned, unsigned, size_t));
	void (*set_audio_sample)(void (*)(int16_t, int16_t));
	void (*set_audio_sample_batch)(size_t (*)(const int16_t *, size_t));
	void (*set_input_poll)(void (*)(void));
	void (*set_input_state)(int16_t (*)(unsigned, unsigned, unsigned, unsigned));
	void (*init)(void);
	bool (*load_game)(const struct game *);
	void (*run)(void);
	size_t (*serialize_size)(void);
	bool (*serialize)(void *, size_t);
	bool (*unserialize)(const void *, size_t);
} core;

static uint64_t screen, sound; // hashes of the last frame's
static unsigned pressed;       // a bit for each direction

static uint64_t hash(uint64_t seen, const void *data, size_t bytes)
{
	for (const unsigned char *at = data; bytes--; at++)
		seen = (seen ^ *at) * 1099511628211u;
	return seen;
}

static bool on_environment(unsigned what, void *data)
{
	if (what == GET_CAN_DUPE) // a frame of no data is the last one again
		*(bool *)data = true;
	return what == GET_CAN_DUPE || what == SET_PIXEL_FORMAT;
}

static void on_video(const void *data, unsigned width, unsigned height, size_t pitch)
{
	for (unsigned row = 0; data && row < height; row++)
		screen = hash(screen, (const char *)data + row * pitch, width * sizeof(uint16_t));
}

static void on_sample(int16_t left, int16_t right)
{
	sound = hash(hash(sound, &left, sizeof left), &right, sizeof right);
}

static size_t on_samples(const int16_t *samples, size_t count)
{
	sound = hash(sound, samples, count * 2 * sizeof *samples);
	return count;
}

static void on_poll(void)
{
}

static int16_t on_input(unsigned port, unsigned device, unsigned index, unsigned button)
{
	(void)device;
	(void)index;
	return !port && button >= JOYPAD_UP && button <= JOYPAD_RIGHT && pressed >> (button - JOYPAD_UP) & 1;
}

static void load(const char *path)
{
	static const char *const names[] = {"set_environment",
					    "set_video_refresh",
					    "set_audio_sample",
					    "set_audio_sample_batch",
					    "set_input_poll",
					    "set_input_state",
					    "init",
					    "load_game",
					    "run",
					    "serialize_size",
					    "serialize",
					    "unserialize"};
	static char rom[ROM_BYTES];
	const struct game game = {"game.gb", rom, sizeof rom, NULL};
	void *library = dlopen(path, RTLD_NOW), *functions[sizeof names / sizeof *names];
	char name[64];
	_Static_assert(sizeof functions == sizeof core, "a name for each function");
	for (size_t i = 0; library && i < sizeof names / sizeof *names; i++) {
		snprintf(name, sizeof name, "retro_%s", names[i]);
		if (!(functions[i] = dlsym(library, name)))
			library = NULL;
	}
	if (!library)
		die(dlerror());
	memcpy(&core, functions, sizeof core);
	core.set_environment(on_environment);
	core.init();
	core.set_video_refresh(on_video);
	core.set_audio_sample(on_sample);
	core.set_audio_sample_batch(on_samples);
	core.set_input_poll(on_poll);
	core.set_input_state(on_input);
	assemble(rom);
	if (!core.load_game(&game))
		die("the core does not want the game");
}
