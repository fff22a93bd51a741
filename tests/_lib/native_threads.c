// Threads that know nothing of Python, each of a kind. A thread does the same thing again and again until it is ended,
// counts how often it was done, and how often a system call failed with EINTR.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct thread {
	pthread_t thread;
	void (*act)(struct thread *self);
	uint64_t *memory; // of those that write
	uint64_t words;
	uint64_t page_words;
	uint64_t done, interrupted; // atomic, as the next ones
	int32_t id;
	bool is_ended;
	int ends[2];   // a pipe, or sockets
	uint64_t next; // its own
	pthread_mutex_t mutex;
	pthread_cond_t condition;
};

static bool is_ended(struct thread *self)
{
	return __atomic_load_n(&self->is_ended, __ATOMIC_RELAXED);
}

static void note(struct thread *self, bool is_done)
{
	if (is_done)
		__atomic_add_fetch(&self->done, 1, __ATOMIC_RELAXED);
	else if (errno == EINTR)
		__atomic_add_fetch(&self->interrupted, 1, __ATOMIC_RELAXED);
}

static void compute(struct thread *self)
{
	note(self, true);
}

static void allocate(struct thread *self)
{
	volatile char *block = malloc(100 + (self->done & 4095) * 64);
	*block = 1;
	free((char *)block);
	note(self, true);
}

static void map(struct thread *self)
{
	char *block = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	block[self->done & 65535] = 1;
	munmap(block, 1 << 16);
	note(self, true);
}

static void load(struct thread *self)
{
	void *library = dlopen("libm.so.6", RTLD_NOW);
	note(self, library && dlsym(library, "cos"));
	if (library)
		dlclose(library);
}

static void read_pipe(struct thread *self)
{
	char byte;
	note(self, read(self->ends[0], &byte, 1) >= 0);
}

static void receive(struct thread *self)
{
	char byte;
	note(self, recv(self->ends[0], &byte, 1, 0) >= 0);
}

static void poll_nothing(struct thread *self)
{
	note(self, poll(NULL, 0, 20) >= 0);
}

static void wait_for_events(struct thread *self)
{
	struct epoll_event event;
	note(self, epoll_wait(self->ends[0], &event, 1, 20) >= 0);
}

static void select_nothing(struct thread *self)
{
	struct timeval time = {0, 20000};
	note(self, select(0, NULL, NULL, NULL, &time) >= 0);
}

static void sleep_a_while(struct thread *self)
{
	struct timespec time = {0, 20000000};
	note(self, nanosleep(&time, NULL) == 0);
}

static void wait_for_condition(struct thread *self)
{
	struct timespec end;
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 1;
	pthread_mutex_lock(&self->mutex);
	errno = pthread_cond_timedwait(&self->condition, &self->mutex, &end);
	note(self, errno == 0 || errno == ETIMEDOUT);
	pthread_mutex_unlock(&self->mutex);
}

static void *nothing(void *argument)
{
	return argument;
}

static void spawn(struct thread *self)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, nothing, NULL) == 0)
		pthread_join(thread, NULL);
	note(self, true);
}

static void block_signals(struct thread *self)
{
	sigset_t all, before;
	char byte;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	note(self, true);
	note(self, read(self->ends[0], &byte, 1) >= 0);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void vfork_child(struct thread *self)
{
	char byte;
	note(self, true);
	pid_t child = vfork();
	if (child == 0) {
		while (read(self->ends[0], &byte, 1) < 0)
			;
		_exit(0);
	}
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
}

static void fork_child(struct thread *self)
{
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	note(self, true);
}

static uint64_t *word_of(struct thread *self, uint64_t page)
{
	return self->memory + page * self->page_words;
}

static uint64_t pages_of(struct thread *self)
{
	return self->words / self->page_words;
}

// Page after page, round and round: what was written in any time is one stretch.
static void write_in_turn(struct thread *self)
{
	__atomic_store_n(word_of(self, self->next), self->done, __ATOMIC_SEQ_CST);
	self->next = (self->next + 1) % pages_of(self);
	note(self, true);
	for (volatile int i = 0; i < 200; i++)
		;
}

// The last page first: at every instant its number is that of the first page, or one more.
static void write_a_pair(struct thread *self)
{
	uint64_t number = ++self->next;
	__atomic_store_n(word_of(self, pages_of(self) - 1), number, __ATOMIC_SEQ_CST);
	__atomic_store_n(word_of(self, 0), number, __ATOMIC_SEQ_CST);
	note(self, true);
}

static const struct {
	const char *name;
	void (*act)(struct thread *self);
} kinds[] = {
	{"compute", compute},
	{"allocate", allocate},
	{"map", map},
	{"load", load},
	{"read", read_pipe},
	{"receive", receive},
	{"receive for a time", receive},
	{"poll", poll_nothing},
	{"epoll", wait_for_events},
	{"select", select_nothing},
	{"sleep", sleep_a_while},
	{"condition", wait_for_condition},
	{"spawn", spawn},
	{"block signals", block_signals},
	{"vfork", vfork_child},
	{"fork", fork_child},
	{"write in turn", write_in_turn},
	{"write a pair", write_a_pair},
};

static void *run(void *argument)
{
	struct thread *self = argument;
	__atomic_store_n(&self->id, (int32_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	while (!is_ended(self))
		self->act(self);
	return NULL;
}

static int make_ends(struct thread *self, const char *name)
{
	struct timeval time = {0, 20000};
	if (strcmp(name, "epoll") == 0)
		return (self->ends[0] = epoll_create1(EPOLL_CLOEXEC)) < 0;
	if (strncmp(name, "receive", 7) != 0)
		return pipe(self->ends);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, self->ends))
		return -1;
	return name[7] ? setsockopt(self->ends[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) : 0;
}

// Begins a thread, NULL if there is no such kind; returns when it runs.
void *thread_begin(const char *name, uint64_t *memory, uint64_t bytes, uint64_t page_size)
{
	struct thread *self = calloc(1, sizeof *self);
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (strcmp(kinds[i].name, name) == 0)
			self->act = kinds[i].act;
	self->memory = memory;
	self->words = bytes / sizeof *memory;
	self->page_words = page_size / sizeof *memory;
	self->ends[0] = self->ends[1] = -1;
	pthread_mutex_init(&self->mutex, NULL);
	pthread_cond_init(&self->condition, NULL);
	if (!self->act || make_ends(self, name) || pthread_create(&self->thread, NULL, run, self)) {
		free(self);
		return NULL;
	}
	while (!__atomic_load_n(&self->id, __ATOMIC_ACQUIRE))
		sched_yield();
	return self;
}

int32_t thread_id(struct thread *self)
{
	return self->id;
}

uint64_t thread_done(struct thread *self)
{
	return __atomic_load_n(&self->done, __ATOMIC_RELAXED);
}

uint64_t thread_interrupted(struct thread *self)
{
	return __atomic_load_n(&self->interrupted, __ATOMIC_RELAXED);
}

// Wakes it from what it waits for, once.
void thread_wake(struct thread *self)
{
	pthread_mutex_lock(&self->mutex);
	pthread_cond_signal(&self->condition);
	pthread_mutex_unlock(&self->mutex);
	if (self->ends[1] >= 0 && write(self->ends[1], "", 1) < 0)
		abort();
}

void thread_end(struct thread *self)
{
	__atomic_store_n(&self->is_ended, true, __ATOMIC_RELAXED);
	thread_wake(self);
	pthread_join(self->thread, NULL);
	for (int i = 0; i < 2; i++)
		if (self->ends[i] >= 0)
			close(self->ends[i]);
	free(self);
}
