// Threads that write into memory at full speed, and one that does things to it meanwhile. Every 64-bit word belongs
// to one thread, and what that thread stores only grows: a page that was not copied again after its last write shows.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MADV_PAGEOUT_ = 21, MADV_POPULATE_READ_ = 22, MADV_POPULATE_WRITE_ = 23, MADV_COLLAPSE_ = 25 };

enum chaos { NONE, FORK, MPROTECT, PAGEOUT, DROP, FREE, POPULATE, COLLAPSE, VM_WRITEV };

enum { MOST_WRITERS = 8 };

struct writer {
	struct stress *stress;
	pthread_t thread;
	uint64_t random;
	uint64_t value; // the last one stored
	unsigned number;
};

struct stress {
	uint64_t *words;
	size_t count;
	size_t page_size;
	bool shared; // a forked child would write into the parent's memory
	enum chaos chaos;
	unsigned writers;
	bool stop;
	uint64_t first_value;
	unsigned rest;                        // microseconds between two bursts, at most
	uint8_t *touched;                     // a byte for each page: whether somebody stored to it, or NULL
	uint64_t rounds;                      // of the chaos thread
	struct writer crew[MOST_WRITERS + 1]; // the last one makes the chaos
	struct sigaction old_action;
};

static struct stress *protected_stress; // whose memory may be read-only for a moment

static uint64_t draw(struct writer *self)
{
	self->random ^= self->random << 13;
	self->random ^= self->random >> 7;
	self->random ^= self->random << 17;
	return self->random;
}

static bool stopped(const struct stress *stress)
{
	return __atomic_load_n(&stress->stop, __ATOMIC_RELAXED);
}

// Moves an index to the next word of this thread.
static size_t own_word(const struct writer *self, size_t index)
{
	size_t crew = self->stress->writers + 1;
	index = index / crew * crew + self->number;
	return index < self->stress->count ? index : self->number;
}

static void note(const struct stress *stress, size_t word)
{
	if (stress->touched)
		__atomic_store_n(&stress->touched[word * sizeof(uint64_t) / stress->page_size], 1, __ATOMIC_RELAXED);
}

static void store(struct writer *self, size_t index)
{
	size_t word = own_word(self, index);
	note(self->stress, word);
	__atomic_store_n(&self->stress->words[word], ++self->value, __ATOMIC_RELAXED);
}

// In each burst to one part of the memory: a page that was lost must rest for a while, or its next write hides it.
static void *write_forever(void *argument)
{
	struct writer *self = argument;
	size_t count = self->stress->count, part = count / 16;
	while (!stopped(self->stress)) {
		size_t first = draw(self) % count, length = draw(self) % 4096;
		for (int i = 0; i < 256; i++)
			store(self, (first + draw(self) % part) % count);
		for (size_t i = 0; i < length; i++)
			store(self, (first + i) % count);
		if (self->stress->rest) {
			struct timespec time = {0, (long)(draw(self) % self->stress->rest) * 1000};
			nanosleep(&time, NULL);
		}
	}
	return NULL;
}

struct range {
	char *start;
	size_t bytes;
};

// Pages for one act of chaos: mostly a few, sometimes a quarter of the memory.
static struct range random_pages(struct writer *self)
{
	struct stress *stress = self->stress;
	size_t pages = stress->count * sizeof(uint64_t) / stress->page_size;
	size_t most = draw(self) % 4 && pages > 8 ? 8 : (pages + 3) / 4;
	size_t first = draw(self) % pages, n = 1 + draw(self) % most;
	if (n > pages - first)
		n = pages - first;
	return (struct range){(char *)stress->words + first * stress->page_size, n * stress->page_size};
}

static void advise(struct writer *self, int advice)
{
	struct range range = random_pages(self);
	madvise(range.start, range.bytes, advice);
}

static void fork_and_write(struct writer *self)
{
	pid_t child = fork();
	if (child == 0) {
		if (!self->stress->shared)
			for (size_t i = 0; i < self->stress->count; i += 1009)
				self->stress->words[i] = ~0ULL;
		_exit(0);
	}
	if (child > 0)
		waitpid(child, NULL, 0);
}

static void protect_for_a_moment(struct writer *self)
{
	struct range range = random_pages(self);
	mprotect(range.start, range.bytes, PROT_READ);
	sched_yield();
	mprotect(range.start, range.bytes, PROT_READ | PROT_WRITE);
}

// Zeroed huge pages where there were any, then ordinary holes: the two are treated differently by kernels.
static void drop_table(struct writer *self)
{
	struct stress *stress = self->stress;
	size_t table = stress->page_size * (stress->page_size / 8);
	size_t bytes = stress->count * sizeof(uint64_t);
	if (table <= bytes)
		madvise((char *)stress->words + draw(self) % (bytes / table) * table, table, MADV_DONTNEED);
}

static void collapse(struct writer *self)
{
	struct stress *stress = self->stress;
	size_t table = stress->page_size * (stress->page_size / 8);
	size_t bytes = stress->count * sizeof(uint64_t);
	if (table <= bytes)
		madvise((char *)stress->words + draw(self) % (bytes / table) * table, table, MADV_COLLAPSE_);
}

static void write_by_the_kernel(struct writer *self)
{
	for (int i = 0; i < 64; i++) {
		uint64_t value = ++self->value;
		size_t index = own_word(self, draw(self) % self->stress->count);
		note(self->stress, index);
		struct iovec from = {&value, sizeof value}, to = {&self->stress->words[index], sizeof value};
		if (process_vm_writev(getpid(), &from, 1, &to, 1, 0) != sizeof value)
			abort();
	}
}

static void act(struct writer *self)
{
	switch (self->stress->chaos) {
	case NONE:
		sched_yield();
		break;
	case FORK:
		fork_and_write(self);
		break;
	case MPROTECT:
		protect_for_a_moment(self);
		break;
	case PAGEOUT:
		advise(self, MADV_PAGEOUT_);
		break;
	case DROP:
		draw(self) % 8 ? advise(self, MADV_DONTNEED) : drop_table(self);
		break;
	case FREE: // what is freed lazily goes when it is reclaimed
		advise(self, MADV_FREE);
		advise(self, MADV_PAGEOUT_);
		break;
	case POPULATE:
		advise(self, draw(self) % 2 ? MADV_POPULATE_READ_ : MADV_POPULATE_WRITE_);
		break;
	case COLLAPSE:
		collapse(self);
		break;
	case VM_WRITEV:
		write_by_the_kernel(self);
		break;
	}
}

static void *act_forever(void *argument)
{
	struct writer *self = argument;
	while (!stopped(self->stress)) {
		act(self);
		self->stress->rounds++;
	}
	return NULL;
}

// A store to memory that is read-only for a moment is tried again; any other fault is somebody else's.
static void try_again(int number, siginfo_t *info, void *context)
{
	(void)context;
	struct stress *stress = protected_stress;
	uintptr_t address = (uintptr_t)info->si_addr, start = (uintptr_t)stress->words;
	if (address >= start && address < start + stress->count * sizeof(uint64_t))
		sched_yield();
	else
		sigaction(number, &stress->old_action, NULL);
}

static void catch_faults(struct stress *stress)
{
	struct sigaction action = {.sa_sigaction = try_again, .sa_flags = SA_SIGINFO};
	protected_stress = stress;
	sigaction(SIGSEGV, &action, &stress->old_action);
}

// Starts the threads on bytes of memory in pages of page_size; all they store is above first_value. rest: microseconds
// that a writer rests between two bursts, at most. touched: a byte for each page, which becomes 1 before somebody
// stores to it; or NULL. NULL without memory.
struct stress *stress_start(void *memory, size_t bytes, size_t page_size, int shared, int chaos, unsigned writers,
			    unsigned rest, uint64_t first_value, uint8_t *touched)
{
	struct stress *stress = calloc(1, sizeof *stress);
	if (!stress || writers > MOST_WRITERS)
		return NULL;
	stress->words = memory;
	stress->count = bytes / sizeof(uint64_t);
	stress->page_size = page_size;
	stress->shared = shared;
	stress->chaos = chaos;
	stress->writers = writers;
	stress->rest = rest;
	stress->first_value = first_value;
	stress->touched = touched;
	if (chaos == MPROTECT)
		catch_faults(stress);
	for (unsigned i = 0; i <= writers; i++) {
		struct writer *self = &stress->crew[i];
		*self = (struct writer){
			.stress = stress,
			.number = i,
			.value = first_value,
			.random = 0x9E3779B97F4A7C15ULL * (i + 1) ^ first_value,
		};
		if (pthread_create(&self->thread, NULL, i < writers ? write_forever : act_forever, self))
			abort(); // with threads that write to memory nobody would join
	}
	return stress;
}

// Ends the threads. *stores: how many stores they made; *rounds: how often the chaos thread acted.
void stress_stop(struct stress *stress, uint64_t *stores, uint64_t *rounds)
{
	__atomic_store_n(&stress->stop, true, __ATOMIC_RELAXED);
	*stores = 0;
	for (unsigned i = 0; i <= stress->writers; i++) {
		pthread_join(stress->crew[i].thread, NULL);
		*stores += stress->crew[i].value - stress->first_value;
	}
	*rounds = stress->rounds;
	if (stress->chaos == MPROTECT)
		sigaction(SIGSEGV, &stress->old_action, NULL);
	free(stress);
}
