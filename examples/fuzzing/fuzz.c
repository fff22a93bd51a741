// A fuzz loop in one process around expat, an XML parser: each input begins in the same state, a parser in the middle
// of a document. After it the state is put back: by dt_snapshot_rollback, by copying all of it, or by the end of a
// child.
#define _GNU_SOURCE
#include <dirtytrack.h>
#include <expat.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STATE_BYTES = 64 << 20, INPUT_BYTES = 512, ENTITIES = 20000 };

// All that the target changes: its memory comes from here, too.
struct state {
	size_t used; // bytes of memory
	XML_Parser parser;
	uint64_t seen; // a hash of what the parser has reported
	char memory[STATE_BYTES - 64];
};

static struct state *state;

static void die(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

// An allocator whose books are in the state: nothing is freed, since everything is, after each input.

static void *take(size_t bytes)
{
	size_t at = (state->used + 31) & ~(size_t)15; // behind a header with the size
	if (at + bytes > sizeof state->memory)
		return NULL;
	state->used = at + bytes;
	memcpy(state->memory + at - sizeof bytes, &bytes, sizeof bytes);
	return state->memory + at;
}

static void *take_again(void *old, size_t bytes)
{
	size_t before = 0;
	void *block = take(bytes);
	if (old)
		memcpy(&before, (char *)old - sizeof before, sizeof before);
	if (block && old)
		memcpy(block, old, before < bytes ? before : bytes);
	return block;
}

static void leave(void *block)
{
	(void)block;
}

// The target

static void see(const char *text)
{
	for (; *text; text++)
		state->seen = (state->seen ^ (unsigned char)*text) * 1099511628211u;
}

static void XMLCALL begin(void *data, const XML_Char *name, const XML_Char **attributes)
{
	(void)data;
	see(name);
	for (; *attributes; attributes++)
		see(*attributes);
}

static void XMLCALL end(void *data, const XML_Char *name)
{
	(void)data;
	see(name);
}

// A parser that has read a long document type: what no fuzzer wants to do again for each input.
static void warm_up(void)
{
	const XML_Memory_Handling_Suite memory = {take, take_again, leave};
	char entity[64];
	state->parser = XML_ParserCreate_MM(NULL, &memory, NULL);
	if (!state->parser)
		die("no parser");
	XML_SetHashSalt(state->parser, 1); // the same in every run
	XML_SetElementHandler(state->parser, begin, end);
	XML_Parse(state->parser, "<!DOCTYPE d [", 13, 0);
	for (int i = 0; i < ENTITIES; i++) {
		int length = snprintf(entity, sizeof entity, "<!ENTITY e%d 'the text of %d'>", i, i);
		XML_Parse(state->parser, entity, length, 0);
	}
	if (XML_Parse(state->parser, "]><d>", 5, 0) != XML_STATUS_OK)
		die("the beginning was not understood");
}

static uint64_t try_input(const char *input, int length)
{
	enum XML_Status status = XML_Parse(state->parser, input, length, 1);
	see(status == XML_STATUS_OK ? "ok" : XML_ErrorString(XML_GetErrorCode(state->parser)));
	return state->seen;
}

// The number of an input says all of it: pieces of XML in a random order, some damaged.
static int make_input(uint64_t number, char *input)
{
	static const char *const pieces[] = {"<a>",  "</a>", "<b c='1'>", "</b>", "&e7;",
					     "<e/>", "text", "&e19999;",  "<"};
	uint64_t random = number * 0x9e3779b97f4a7c15 + 1;
	int length = 0;
	for (int i = 0; i < 24; i++) {
		random = (random ^ random >> 29) * 0xbf58476d1ce4e5b9;
		const char *piece = pieces[random >> 32 & 7 ? random >> 40 & 7 : 8];
		length += snprintf(input + length, (size_t)(INPUT_BYTES - length), "%s", piece);
	}
	return length + snprintf(input + length, (size_t)(INPUT_BYTES - length), "</d>");
}

// The ways back

enum way { ROLLBACK, COPY, CHILD };

static struct dt_snapshot *snapshot;
static char *copy;
static uint64_t *result; // of a child

static uint64_t execute(enum way way, uint64_t number)
{
	char input[INPUT_BYTES];
	int length = make_input(number, input), error;
	if (way == CHILD) {
		pid_t child = fork();
		if (!child) {
			*result = try_input(input, length);
			_exit(0);
		}
		if (child < 0 || waitpid(child, NULL, 0) != child)
			die("no child");
		return *result;
	}
	uint64_t seen = try_input(input, length);
	if (way == COPY)
		memcpy(state, copy, sizeof *state);
	else if ((error = dt_snapshot_rollback(snapshot, NULL)))
		die(dt_strerror(error));
	return seen;
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

// Prints how many executions a second there were, and a hash of all results.
static void run(enum way way, uint64_t executions)
{
	uint64_t all = 0;
	double start = now();
	for (uint64_t number = 0; number < executions; number++)
		all = (all ^ execute(way, number)) * 1099511628211u;
	printf("%.0f %llx\n", (double)executions / (now() - start), (unsigned long long)all);
}

static void *map(size_t bytes, int flags)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("no memory");
	return memory;
}

int main(int argc, char **argv)
{
	enum way way = argc == 3 ? (enum way)atoi(argv[1]) : ROLLBACK;
	uint64_t executions = argc == 3 ? strtoull(argv[2], NULL, 10) : 10000;
	state = map(sizeof *state, MAP_PRIVATE);
	result = map(sizeof *result, MAP_SHARED);
	warm_up();
	if (way == COPY) {
		copy = map(sizeof *state, MAP_PRIVATE);
		memcpy(copy, state, sizeof *state);
	} else if (way == ROLLBACK) {
		int error = dt_snapshot_open(&snapshot);
		if (!error) // most of it was never touched
			error = dt_snapshot_add(snapshot, state, sizeof *state, DT_SPARSE);
		if (error)
			die(dt_strerror(error));
	}
	run(way, executions);
	dt_snapshot_close(snapshot);
	return 0;
}
