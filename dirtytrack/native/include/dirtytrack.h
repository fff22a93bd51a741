// dirtytrack for native runtimes: which cards of my heap were written since I last asked?
//
// A tracker watches ranges of this process's memory, divided into cards, and needs no instruction at a store: the
// processor's page tables remember. dt_tracker_take gives the cards written since the last take into a map of the
// caller's, and begins anew; dt_tracker_peek gives the same and changes nothing. A collector peeks during a concurrent
// mark and takes in its final pause.
//
// No store is lost: one made before a take is in that take or was in an earlier one, one that races with a take is in
// that one, the next one, or both. A store by the kernel (read(2), recv(2)) counts as one of the process's own. What no
// page table sees (DMA into pinned pages, another mapping of the same memory) has to be told with dt_tracker_mark.
// Stores are seen by page: where cards are smaller than a page, all cards of a written page are dirty.
//
// Every function may be called from any thread; calls on one tracker take turns, but for dt_tracker_mark, which takes
// no lock. take, peek and mark allocate no memory once a take or a peek has been made since the last add. In a forked
// child all but dt_tracker_close return -DT_EFORKED, and touch nothing.
//
// Stopped threads. A collector may stop other threads by a signal, in whose handler they wait, at any instant, also in
// the middle of any function here, and may then call every function. None waits for a thread that was stopped:
// wherever the library holds a lock, of a tracker or of its allocator, signals are blocked in that thread, so that it
// stops when it has let go. A stop is late by at most one call. What a stopped thread was doing counts when it goes on:
// its mark is in this take or in the next one, the range that it removes is still there or not, and memory that it is
// handing back may still be its tracker's (-EBUSY from the dt_tracker_add of another one). The signals of faults
// (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS) are not blocked: stop threads with another one. A thread that
// ptrace(2) stops may hold a lock.
//
// Signal handlers may call every function, also one that interrupts another call in the same thread, but for the
// handler of a fault that the library itself raised.
//
// Cancellation. dt_tracker_take and dt_tracker_peek are cancellation points, before they have done anything: a thread
// that does nothing else can be cancelled, and what it has not taken is in somebody else's take. No other function is
// one. A thread that is cancelled in the middle of any function leaves it when that is done: no lock stays held, no
// descriptor and no range stays behind. A handler that takes or peeks is a cancellation point of what it interrupts.
// Asynchronous cancellation (PTHREAD_CANCEL_ASYNCHRONOUS) is not supported, as by most functions of C.
//
// Stopping threads. With DT_STOP_THREADS a take and a peek stop the other threads of the process for the instant of
// their scan: what they find is of that instant, and it costs the others no TLB flushes, and the scan no waiting for
// them. They are sent a signal, in whose handler they wait; dt_tracker_unstopped lists those that were not stopped. A
// collector that has stopped its threads itself has no use for it: each of them would be waited for, in vain.
//
// Linux 6.7 or later (arm64: 6.10). Built with -pthread from the files that dirtytrack.get_sources() names, with
// -I of dirtytrack.get_include(); -fvisibility=hidden keeps their names inside your library.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Functions return 0 (or what they say) for success and a negative number for failure: -errno of the kernel, or one of
// these. What each function says of its errors is complete but for the kernel's own -ENOMEM, which any may return.
enum dt_error {
	DT_EFORKED = 1000,    // the tracker belongs to the parent process
	DT_ECLOSED = 1001,    // the tracker was closed, or what is named was removed
	DT_ELOST = 1002,      // inside: never returned by the functions below
	DT_ESTALE = 1003,     // likewise
	DT_EMIXED = 1004,     // the range shares pages with one that is sparse, or is not, as this one is not, or is
	DT_EHUGETLB = 1005,   // the range is hugetlb memory
	DT_EUNTRACKED = 1006, // some of the addresses are in no range
	DT_EALIGN = 1007,     // the range does not begin and end on a card
	DT_EOVERLAP = 1008,   // the range overlaps another one of the tracker
	DT_ESIZE = 1009,      // the map has not the size that dt_tracker_map_bytes says
	DT_EMISSED = 1010,    // inside, too
};

enum dt_tracker_flags {
	DT_BITS = 0,  // a map has a bit for each card, the least significant first
	DT_BYTES = 1, // a map has a byte for each card: 0 or 1
	// Other threads are stopped while memory is scanned, by SIGURG, each scan waiting for 10 ms at most.
	DT_STOP_THREADS = 2,
	// Private memory that lay on transparent huge pages, and was split by being tracked, is put back on them once
	// eight looks in a row have found it unwritten, in a thread of the tracker's: takes of it are eight times as
	// fast then. A store that leaves the bytes as they were is not seen if it is made while its 2 MiB are on the
	// way back, about a millisecond. Where there are no huge pages of that size the flag does nothing. With it,
	// neither open nor close a tracker while threads are stopped: the C library's calls that begin and end a thread
	// take locks.
	DT_KEEP_HUGE_PAGES = 4,
};

enum dt_range_flags {
	DT_DENSE = 0, // page tables are made for all of the range
	// For big reservations: what is not populated is left alone; a first touch, even a read, is a store.
	DT_SPARSE = 1,
};

struct dt_tracker;

// A range as dt_tracker_add was given it.
struct dt_range {
	void *start;
	size_t bytes;
	uint64_t first_card; // its cards are first_card, first_card + 1, ...
	uint64_t cards;
};

// Opens a tracker without ranges.
//   card_size: bytes, a power of two, smaller or larger than a page.
//   flags: DT_BITS or DT_BYTES, DT_STOP_THREADS, and DT_KEEP_HUGE_PAGES.
// -EINVAL: no such card size, or flags. -ENOSYS, -EPERM: userfaultfd(2) is missing or forbidden here (a seccomp
// filter), and /dev/userfaultfd can't be opened instead. -EOPNOTSUPP: the kernel is older than Linux 6.7.
// -EMFILE, -ENFILE: too many descriptors. -EBUSY: SIGURG has a handler (see dt_tracker_stop_threads). -EAGAIN: there
// can be no more threads.
int dt_tracker_open(size_t card_size, unsigned flags, struct dt_tracker **tracker);

// Stops other threads from here on as with DT_STOP_THREADS, by a signal of the caller's choice.
//   signal: one that has no handler yet, or ours. It should be one that is ignored by default, such as SIGURG.
//   limit_ns: how long a scan waits for threads to stop, in nanoseconds. Those that have not are let go.
// -EBUSY: the signal has another handler. -EINVAL: it can't be handled, or tells of a fault or of children, or no time.
// -EMFILE, -ENFILE. The tracker is as it was then.
int dt_tracker_stop_threads(struct dt_tracker *tracker, int signal, uint64_t limit_ns);

// Forgets all ranges, closes the descriptors and frees the tracker; in a forked child it only closes the child's copies
// of the descriptors. Nobody may use the tracker any more. NULL is ignored.
void dt_tracker_close(struct dt_tracker *tracker);

// Adds a range of mapped memory that begins and ends on a card; what is stored there from now on counts.
//   flags: DT_DENSE or DT_SPARSE.
//   first_card: is given the number of its first card, a multiple of 8; may be NULL. A gap that a removed range has
//   left in the table is used again.
// -DT_EALIGN, -DT_EOVERLAP, -DT_EMIXED, -DT_EHUGETLB; -EINVAL: the flags, no bytes, or memory of a kind that can't be
// tracked. -ENOMEM: not mapped, or not all of it; or the process has too many mappings (vm.max_map_count). -EBUSY:
// another userfaultfd has a part of it. -EPERM: it can never be written. The tracker is as it was then.
int dt_tracker_add(struct dt_tracker *tracker, void *start, size_t bytes, unsigned flags, uint64_t *first_card);

// Removes the range that begins at start; the other cards keep their numbers. The memory may be unmapped already.
// -DT_EUNTRACKED: no range does.
int dt_tracker_remove(struct dt_tracker *tracker, void *start);

// The number of cards in the table: one more than the last card of any range. Gaps between ranges are never dirty.
uint64_t dt_tracker_cards(struct dt_tracker *tracker);
// The bytes that a map of all cards has.
size_t dt_tracker_map_bytes(struct dt_tracker *tracker);

// Writes the whole map: the cards stored to since the last take, and re-arms their pages, atomically page by page.
//   map, bytes: memory of dt_tracker_map_bytes bytes, outside of the ranges.
//   dirty: is given the number of cards set; may be NULL.
// A range whose memory is no longer what was added (unmapped, mapped over, moved) has all its cards set, in this and
// every later map until it is removed: see dt_tracker_lost.
// -DT_ESIZE: the map was not touched. -ENOMEM: the kernel had no memory for the scan; then all cards of all ranges are
// set, and what was not scanned is in the next take, so that a collector can go on. -EBUSY, only where threads are
// stopped: somebody has given the signal another handler; it is the same then, and nothing was scanned.
int dt_tracker_take(struct dt_tracker *tracker, void *map, size_t bytes, uint64_t *dirty);
// The same without re-arming: the next take has these cards, too.
int dt_tracker_peek(struct dt_tracker *tracker, void *map, size_t bytes, uint64_t *dirty);

// Declares bytes stored to: the next take has their pages' cards. It takes no lock and waits for nobody, so any thread
// may call it at any time, also beside a take; there is room for every mark. Its time grows with the number of ranges.
// -DT_EUNTRACKED: some are in no range; none was marked.
int dt_tracker_mark(struct dt_tracker *tracker, const void *start, size_t bytes);

// Lists up to room ranges that were lost when a take or a peek last looked; returns how many there are in all.
long dt_tracker_lost(struct dt_tracker *tracker, struct dt_range *ranges, size_t room);

// Lists up to room threads (gettid(2)) that the last take or peek was to stop, and that ran during some of its scan:
// they block the signal, or the kernel runs them, or is busy for them; returns how many there are in all.
long dt_tracker_unstopped(struct dt_tracker *tracker, int32_t *threads, size_t room);

#ifdef __cplusplus
}
#endif
