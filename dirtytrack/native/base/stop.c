// What a thread was asked, and what it answered, is one word for each identifier of a thread: a state, and the stop
// that it is about. The stopper and the thread agree on it by compare-and-swap, and wait for each other on it as a
// futex:
//
//	the stopper: ASKED        a signal is sent, and waited for
//	             RECALLED     a signal is sent, and not waited for: it has not answered an earlier one
//	the thread:  STOPPED      it waits in the handler
//	             LEFT         it waited for too long, and went on
//	             NONE         it answered too late: it would be waited for again
//	             WAITING      it waits for its turn to stop the others: it is as good as stopped
//	             OWN          it is the library's own
//
// So a thread that blocks the signal costs one wait, until it has handled it once: ASKED and RECALLED stay.
#define _GNU_SOURCE
#include "stop.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "array.h"
#include "clock.h"
#include "memory.h"

enum {
	THREADS = 1 << 22, // no identifier is as high (PID_MAX_LIMIT in the kernel)
	SIGNALS = 65,
	LISTING = 1 << 15,      // bytes that getdents64(2) fills at a time
	FIRST_LOOK_NS = 100000, // after which it is asked whether a thread has ended ...
	LAST_LOOK_NS = 2000000, // ... and again, in intervals up to this
	LONGEST_STOP_NS = 1000000000,
};

// The kernel's, so that the build needs none of its headers.
enum { FUTEX_WAKE_PRIVATE = 129, FUTEX_WAIT_BITSET_PRIVATE = 137, FUTEX_BITSET_MATCH_ANY = -1 };
struct listed { // by getdents64(2)
	uint64_t inode;
	int64_t offset;
	uint16_t length; // of all of it, in bytes
	uint8_t type;
	char name[];
};

enum { NONE, ASKED, RECALLED, STOPPED, LEFT, WAITING, OWN, STATE_BITS = 3 };

// A signal that threads are stopped by.
struct in_use {
	uint32_t users; // 0: it has not our handler
	struct sigaction before;
};

// One for the process, in a mapping that is zeros again in every forked child: none of its threads was asked anything,
// and nobody holds the lock.
struct process {
	pthread_mutex_t lock; // of all below but the stop and the words
	struct in_use signals[SIGNALS];
	uint32_t stop;           // the number of the latest one; odd: it is under way; atomic, and a futex
	uint32_t words[THREADS]; // by identifier; likewise
	// Of the stop under way:
	uint64_t longest_wait_ns; // in the handler; atomic
	int32_t asked[THREADS];   // asked_count of them, of which unstopped_count, the first ones, are not stopped
	size_t asked_count;
	size_t unstopped_count;
	_Alignas(struct listed) char listing[LISTING];
};

static struct process *known; // atomic; it stays where it is

static struct process *process_of_this(void)
{
	struct process *process = __atomic_load_n(&known, __ATOMIC_ACQUIRE), *none = NULL;
	if (process)
		return process;
	process =
		mmap(NULL, sizeof *process, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (process == MAP_FAILED)
		return NULL;
	madvise(process, sizeof *process, MADV_NOHUGEPAGE);
	bool is_made = madvise(process, sizeof *process, MADV_WIPEONFORK) == 0;
	if (is_made && __atomic_compare_exchange_n(&known, &none, process, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return process;
	munmap(process, sizeof *process);
	return none;
}

static int32_t this_thread(void)
{
	return (int32_t)syscall(SYS_gettid);
}

static uint32_t about(uint32_t stop, uint32_t state)
{
	return stop << STATE_BITS | state;
}

static uint32_t state_of(uint32_t word)
{
	return word & ((1 << STATE_BITS) - 1);
}

static bool is_unanswered(uint32_t word)
{
	return state_of(word) == ASKED || state_of(word) == RECALLED;
}

static uint32_t load(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static bool replace(uint32_t *word, uint32_t *expected, uint32_t wanted)
{
	return __atomic_compare_exchange_n(word, expected, wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static void wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

// Waits while the word is as expected, until an instant of dt_now.
static void wait_until(uint32_t *word, uint32_t expected, uint64_t end)
{
	const struct timespec time = {(time_t)(end / 1000000000), (long)(end % 1000000000)};
	syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, &time, NULL, FUTEX_BITSET_MATCH_ANY);
}

// What the threads do.

// Becomes what is said of it, and answers so what it was asked.
static void become(uint32_t *word, uint32_t state)
{
	if (is_unanswered(__atomic_exchange_n(word, state, __ATOMIC_SEQ_CST)))
		wake(word);
}

// Answers what this thread was asked; the stop that it is to wait for, 0 if there is none.
static uint32_t answer(struct process *process, uint32_t *word)
{
	uint32_t asked = load(word), stop, answered;
	do {
		stop = load(&process->stop);
		if (!is_unanswered(asked))
			return 0;
		answered = stop & 1 && about(stop, state_of(asked)) == asked ? about(stop, STOPPED) : NONE;
	} while (!replace(word, &asked, answered));
	wake(word);
	return answered == NONE ? 0 : stop;
}

static void wait_for_the_end(struct process *process, uint32_t *word, uint32_t stop)
{
	uint64_t end = dt_now() + __atomic_load_n(&process->longest_wait_ns, __ATOMIC_RELAXED);
	while (load(&process->stop) == stop && dt_now() < end)
		wait_until(&process->stop, stop, end);
	uint32_t stopped = about(stop, STOPPED);
	if (load(&process->stop) == stop)
		replace(word, &stopped, about(stop, LEFT));
}

static void handle(int signal)
{
	int error = errno;
	struct process *process = __atomic_load_n(&known, __ATOMIC_ACQUIRE);
	uint32_t *word = &process->words[this_thread()], stop = answer(process, word);
	(void)signal;
	if (stop)
		wait_for_the_end(process, word, stop);
	errno = error;
}

static pthread_key_t own_key; // a value of it is a thread's word
static bool has_own_key;

static void disown(void *word)
{
	become(word, NONE); // another thread may get its identifier
}

__attribute__((constructor)) static void make_key(void)
{
	has_own_key = pthread_key_create(&own_key, disown) == 0;
}

int dt_own_thread(void)
{
	struct process *process = process_of_this();
	uint32_t *word = process ? &process->words[this_thread()] : NULL;
	if (!process || !has_own_key || pthread_setspecific(own_key, word))
		return -ENOMEM;
	become(word, OWN);
	return 0;
}

// What the stopper does. It holds the lock.

static void take_lock(struct process *process)
{
	uint32_t *word = &process->words[this_thread()];
	uint32_t before = load(word);
	if (pthread_mutex_trylock(&process->lock) == 0)
		return;
	bool has_left = state_of(before) == LEFT; // which the stop under way has to find
	if (!has_left)
		become(word, WAITING); // first: what is given up next may take a lock that a stopped thread holds
	dt_takes_long();
	pthread_mutex_lock(&process->lock);
	if (!has_left)
		become(word, before == OWN ? OWN : NONE);
}

static int threads_alive(const struct dt_stopping *how)
{
	struct stat found; // the directory has a link for each thread, and two of its own
	return fstat(how->tasks, &found) == 0 ? (int)found.st_nlink - 2 : 0;
}

// The path of a thread's state in the directory, made without stdio, which may take a lock.
static const char *path_of(int32_t id, char path[static 24])
{
	char *at = path + 24 - sizeof "/stat";
	memcpy(at, "/stat", sizeof "/stat");
	for (; id; id /= 10)
		*--at = (char)('0' + id % 10);
	return at;
}

// What the kernel says of a thread that does not answer.
enum fate { ALIVE, ENDED, GONE }; // ENDED, and still listed: a first thread is, until the others have ended, too

static enum fate fate_of(const struct dt_stopping *how, int32_t id)
{
	char path[24], text[512];
	int file = openat(how->tasks, path_of(id, path), O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return errno == ENOENT || errno == ESRCH ? GONE : ALIVE;
	ssize_t n = read(file, text, sizeof text - 1);
	bool is_gone = n < 0 && errno == ESRCH;
	close(file);
	if (is_gone)
		return GONE;
	text[n > 0 ? n : 0] = '\0';
	const char *end = strrchr(text, ')'); // of its name; the state follows
	return end && end[1] && (end[2] == 'Z' || end[2] == 'X') ? ENDED : ALIVE;
}

// Whether a thread does nothing until the stop ends.
static bool has_stopped(const struct process *process, int32_t id)
{
	uint32_t word = load(&process->words[id]);
	return word == about(process->stop, STOPPED) || word == WAITING || word == OWN;
}

// Asks a thread to stop, unless it was asked, or need not be. It is not asked any more when it is late.
static void ask(struct process *process, const struct dt_stopping *how, int32_t id, bool is_late)
{
	uint32_t *word = &process->words[id], asked = load(word), state;
	do {
		if (asked >> STATE_BITS == about(process->stop, NONE) >> STATE_BITS || asked == WAITING || asked == OWN)
			return;
		state = is_unanswered(asked) ? RECALLED : ASKED;
	} while (!is_late && !replace(word, &asked, about(process->stop, state)));
	process->asked[process->asked_count++] = id;
	if (is_late || syscall(SYS_tgkill, getpid(), id, how->signal) == 0)
		return;
	become(word, NONE); // it is not on its way
	if (errno == ESRCH)
		process->asked_count--;
}

// Asks all that are listed; how many are.
static int ask_listed(struct process *process, const struct dt_stopping *how, bool is_late)
{
	int32_t self = this_thread();
	int listed = 0;
	long filled;
	lseek(how->tasks, 0, SEEK_SET);
	while ((filled = syscall(SYS_getdents64, how->tasks, process->listing, (size_t)LISTING)) > 0) {
		for (long at = 0; at < filled;) {
			const struct listed *entry = (const struct listed *)(process->listing + at);
			int32_t id = 0;
			for (const char *digit = entry->name; *digit >= '0' && *digit <= '9'; digit++)
				id = id * 10 + (*digit - '0');
			if (id > 0 && id < THREADS && id != self)
				ask(process, how, id, is_late);
			listed += id > 0;
			at += entry->length;
		}
	}
	return listed;
}

static void wait_for_answer(struct process *process, const struct dt_stopping *how, int32_t id, uint64_t end)
{
	uint32_t *word = &process->words[id], asked = about(process->stop, ASKED);
	uint64_t pause = FIRST_LOOK_NS;
	for (uint64_t now; load(word) == asked && (now = dt_now()) < end;) {
		uint64_t look = now + pause < end ? now + pause : end;
		wait_until(word, asked, look);
		if (load(word) == asked && dt_now() >= look && fate_of(how, id) != ALIVE)
			return;
		pause = 2 * pause < LAST_LOOK_NS ? 2 * pause : LAST_LOOK_NS;
	}
}

// Takes those that are gone out of the list, and puts those that are not stopped in front; whether nobody was gone.
static bool sort_asked(struct process *process, const struct dt_stopping *how)
{
	int32_t *asked = process->asked;
	bool nobody_gone = true;
	process->unstopped_count = 0;
	for (size_t i = 0; i < process->asked_count;) {
		int32_t id = asked[i];
		enum fate fate = has_stopped(process, id) ? ENDED : fate_of(how, id);
		if (fate == ENDED) {
			i++;
		} else if (fate == GONE) {
			become(&process->words[id], NONE); // another thread may get its identifier
			asked[i] = asked[--process->asked_count];
			nobody_gone = false;
		} else {
			asked[i++] = asked[process->unstopped_count];
			asked[process->unstopped_count++] = id;
		}
	}
	return nobody_gone;
}

// A listing may lack threads that began meanwhile, and one for each that ended meanwhile. It is whole if each thread in
// it is still there afterwards, and they are all.
static void stop_all(struct process *process, const struct dt_stopping *how)
{
	uint64_t end = dt_now() + how->limit_ns;
	process->asked_count = 0;
	__atomic_store_n(&process->longest_wait_ns, how->limit_ns + LONGEST_STOP_NS, __ATOMIC_RELAXED);
	__atomic_add_fetch(&process->stop, 1, __ATOMIC_SEQ_CST);
	for (bool is_whole = false, is_late = false; !is_whole && !is_late;) {
		is_late = dt_now() >= end;
		int listed = ask_listed(process, how, is_late);
		for (size_t i = 0; i < process->asked_count && !is_late; i++)
			wait_for_answer(process, how, process->asked[i], end);
		is_whole = sort_asked(process, how) && threads_alive(how) == listed;
	}
}

static bool is_handled_by_us(int signal)
{
	struct sigaction now;
	return sigaction(signal, NULL, &now) == 0 && now.sa_handler == handle;
}

// Sees to it that a signal has our handler: somebody may have changed that.
static int take_signal(struct in_use *use, int signal)
{
	struct sigaction ours = {.sa_handler = handle, .sa_flags = SA_RESTART | SA_ONSTACK}, before;
	if (sigaction(signal, NULL, &before) < 0)
		return -errno;
	if (before.sa_handler == handle)
		return 0;
	if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
		return -EBUSY;
	sigfillset(&ours.sa_mask);
	if (sigaction(signal, &ours, NULL) < 0)
		return -errno;
	use->before = before;
	return 0;
}

int dt_stop_begin(const struct dt_stopping *stopping, struct dt_stop *stop)
{
	struct process *process = process_of_this(); // it is there
	*stop = (struct dt_stop){.quiet = dt_quiet_begin()};
	take_lock(process);
	int error = take_signal(&process->signals[stopping->signal], stopping->signal);
	if (error) {
		pthread_mutex_unlock(&process->lock);
		dt_quiet_end(&stop->quiet);
		return error;
	}
	stop->patience = dt_patience_suspend();
	stop_all(process, stopping);
	return 0;
}

static int list_unstopped(struct process *process, uint32_t stop, struct dt_threads *unstopped)
{
	size_t n = process->unstopped_count;
	int error = dt_make_room(&unstopped->ids, &unstopped->room, process->asked_count, sizeof *unstopped->ids);
	unstopped->count = 0;
	if (error)
		return error;
	for (size_t i = 0; i < n; i++)
		unstopped->ids[i] = process->asked[i];
	for (size_t i = n; i < process->asked_count; i++)
		if (load(&process->words[process->asked[i]]) == about(stop, LEFT))
			unstopped->ids[n++] = process->asked[i];
	unstopped->count = n;
	return 0;
}

int dt_stop_end(struct dt_stop *stop, struct dt_threads *unstopped)
{
	struct process *process = process_of_this();
	uint32_t number = __atomic_fetch_add(&process->stop, 1, __ATOMIC_SEQ_CST);
	wake(&process->stop);
	dt_patience_resume(stop->patience);
	int error = list_unstopped(process, number, unstopped);
	pthread_mutex_unlock(&process->lock);
	dt_quiet_end(&stop->quiet);
	return error;
}

void dt_free_threads(struct dt_threads *threads)
{
	dt_free(threads->ids, threads->room * sizeof *threads->ids);
	*threads = (struct dt_threads){0};
}

// What comes before and after.

static bool is_fit(int signal)
{
	static const int unfit[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGCHLD};
	bool is_fit = signal > 0 && signal < SIGNALS;
	for (size_t i = 0; i < sizeof unfit / sizeof *unfit; i++)
		is_fit &= signal != unfit[i];
	return is_fit;
}

// Ignoring a signal discards those that are on their way: none comes when it has its old meaning, which may be death.
static void leave(struct in_use *use, int signal)
{
	const struct sigaction ignored = {.sa_handler = SIG_IGN};
	if (--use->users || !is_handled_by_us(signal))
		return;
	sigaction(signal, &ignored, NULL);
	sigaction(signal, &use->before, NULL);
}

int dt_stopping_open(struct dt_stopping *stopping, int signal, uint64_t limit_ns, int tasks)
{
	struct process *process = process_of_this();
	if (!is_fit(signal))
		return -EINVAL;
	if (!process)
		return -ENOMEM;
	tasks = tasks == -1 ? open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
			    : fcntl(tasks, F_DUPFD_CLOEXEC, 0);
	if (tasks < 0)
		return -errno;
	struct dt_quiet quiet = dt_quiet_begin();
	take_lock(process);
	int error = take_signal(&process->signals[signal], signal);
	process->signals[signal].users += !error;
	pthread_mutex_unlock(&process->lock);
	dt_quiet_end(&quiet);
	if (error)
		close(tasks);
	else
		*stopping = (struct dt_stopping){signal, tasks, limit_ns};
	return error;
}

void dt_stopping_close(struct dt_stopping *stopping)
{
	struct process *process = process_of_this();
	if (!stopping->signal)
		return;
	struct dt_quiet quiet = dt_quiet_begin();
	take_lock(process);
	leave(&process->signals[stopping->signal], stopping->signal);
	pthread_mutex_unlock(&process->lock);
	dt_quiet_end(&quiet);
	dt_stopping_forget(stopping);
}

void dt_stopping_forget(struct dt_stopping *stopping)
{
	if (stopping->signal)
		close(stopping->tasks);
	*stopping = (struct dt_stopping){0};
}
