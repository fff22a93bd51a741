// dirtytrack for native runtimes: which cards of my heap were written since I last asked?
//
// A tracker watches ranges of this process's memory, divided into cards, and needs no instruction at a store: the
// processor's page tables remember. dt_tracker_take gives the cards written since the last take into a map of the
// caller's, and begins anew; dt_tracker_peek gives the same and changes nothing. A collector peeks during a concurrent
// mark and takes in its final pause.
//
//	struct dt_tracker *tracker;
//	int error = dt_tracker_open(4096, DT_BITS, &tracker);
//	if (!error)
//		error = dt_tracker_add(tracker, heap, heap_bytes, DT_DENSE, NULL); // memory of mmap(2), on a page
//	if (!error)
//		error = dt_tracker_prepare(tracker); // before the pause, once the heap has grown
//	...
//	uint64_t dirty;
//	if (!error)
//		error = dt_tracker_take(tracker, map, dt_tracker_map_bytes(tracker), &dirty); // in the pause
//	if (error)
//		fprintf(stderr, "dirtytrack: %s\n", dt_strerror(error));
//	...
//	dt_tracker_close(tracker);
//
// No store is lost: one made before a take is in that take or was in an earlier one, one that races with a take is in
// that one, the next one, or both. A store by the kernel (read(2), recv(2)) counts as one of the process's own. What no
// page table sees (DMA into pinned pages, another mapping of the same memory) has to be told with dt_tracker_mark.
// Stores are seen by page: where cards are smaller than a page, all cards of a written page are dirty.
//
// Every function may be called from any thread; calls on one tracker take turns, but for dt_tracker_mark, which takes
// no lock. Looks (takes, peeks, runs, write watch) and marks allocate no memory once dt_tracker_prepare was called, or
// all was taken, since the last add or remove. In a forked child all but dt_tracker_close return -DT_EFORKED, and touch
// nothing.
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
// Cancellation. dt_tracker_take, dt_tracker_peek and the other looks are cancellation points, before they have done
// anything: a thread that does nothing else can be cancelled, and what it has not taken is in somebody else's take. No
// other function is one. A thread that is cancelled in the middle of any function leaves it when that is done: no lock
// stays held, no descriptor and no range stays behind. A handler that takes or peeks is a cancellation point of what it
// interrupts. Asynchronous cancellation (PTHREAD_CANCEL_ASYNCHRONOUS) is not supported, as by most functions of C.
//
// Stopping threads. With DT_STOP_THREADS a take and a peek stop the other threads of the process for the instant of
// their scan: what they find is of that instant, and it costs the others no TLB flushes, and the scan no waiting for
// them. They are sent a signal, in whose handler they wait; dt_tracker_unstopped lists those that were not stopped. A
// collector that has stopped its threads itself has no use for it: each of them would be waited for, in vain.
//
// Linux 6.7 or later (arm64: 6.10). C99 and later, C++98 and later; built with -pthread.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// What a function needs to be seen outside of the library that it is built into. All other symbols are hidden.
#ifndef DT_API
#define DT_API __attribute__((visibility("default")))
#endif

// The version of this header: 65536 for each major version, 256 for each minor one. What is declared here stays as it
// is within a major version.
#define DT_VERSION 0x000200
// That of the library.
DT_API int dt_version(void);

// Functions return 0 (or what they say) for success and a negative number for failure: -errno of the kernel, or one of
// these. What each function says of its errors is complete but for those that any may return: -ENOMEM, without memory;
// -EINVAL, NULL for what is needed; -DT_EFORKED; and from those that look at memory -EBADF and -ENOTTY, when somebody
// has closed the library's descriptors, or put others in their place. Then nothing was taken, and is not once they are
// back.
enum dt_error {
	DT_EFORKED = 1000,    // the tracker belongs to the parent process
	DT_ECLOSED = 1001,    // the tracker was closed, or what is named was removed
	DT_ELOST = 1002,      // some of the memory is no longer what was added
	DT_ESTALE = 1003,     // inside: never returned by the functions below
	DT_EMIXED = 1004,     // the range shares pages with one that is sparse, or is not, as this one is not, or is
	DT_EHUGETLB = 1005,   // the range is hugetlb memory
	DT_EUNTRACKED = 1006, // some of the addresses are in no range
	DT_EALIGN = 1007,     // the range does not begin and end on a card, or a part of one not on a card and a page
	DT_EOVERLAP = 1008,   // the range overlaps another one of the tracker
	DT_ESIZE = 1009,      // the map has not the size that it has to have
	DT_EMISSED = 1010,    // inside, too
	DT_EVERSION = 1011    // the table is of another version of the library
};

// What an error means, in English; of any number, negative or not. The string is never freed.
DT_API const char *dt_strerror(int error);

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
	DT_KEEP_HUGE_PAGES = 4
};

enum dt_range_flags {
	DT_DENSE = 0, // page tables are made for all of the range
	// For big reservations: what is not populated is left alone; a first touch, even a read, is a store. So pages
	// that MADV_DONTNEED drops are not found, nor the stores to them that were not taken, until something touches
	// them. Not for shared memory, of which the kernel may take away what was stored to (-EINVAL, from Linux 6.11).
	DT_SPARSE = 1
};

struct dt_tracker;

// Memory with its cards: a range, or what is left of one; or a run of written cards.
struct dt_range {
	void *start;
	size_t bytes;
	uint64_t first_card; // its cards are first_card, first_card + 1, ...
	uint64_t cards;
};

// Descriptors that this process opened for itself, since it can't later (a sandbox), each -1 to have it opened. The
// tracker has copies of them: they stay the caller's, who may close them.
struct dt_descriptors {
	int userfaultfd; // fresh: before UFFDIO_API
	int pagemap;     // of /proc/self/pagemap
	int tasks;       // of /proc/self/task, with O_DIRECTORY: for DT_STOP_THREADS only
};

// Where the memory comes from that the library needs itself: by mmap(2), unless another source is set before it has
// needed any. It never uses malloc, so that a heap that is tracked does not hold the tracker.
//   map: returns zeroed, private, writable pages that begin on a page, or NULL. From any thread, and with other threads
//   stopped. bytes: a multiple of 64.
//   unmap: takes them back, all that one call has given.
// -EBUSY: it has memory already.
DT_API int dt_set_memory(void *(*map)(size_t bytes, void *context),
			 void (*unmap)(void *memory, size_t bytes, void *context), void *context);

// Opens a tracker without ranges.
//   card_size: bytes, a power of two, smaller or larger than a page.
//   flags: DT_BITS or DT_BYTES, DT_STOP_THREADS, and DT_KEEP_HUGE_PAGES.
// -EINVAL: no such card size, or flags. -ENOSYS, -EPERM: userfaultfd(2) is missing or forbidden here (a seccomp
// filter), and /dev/userfaultfd can't be opened instead. -EOPNOTSUPP: the kernel is older than Linux 6.7.
// -EMFILE, -ENFILE: too many descriptors. -EBUSY: SIGURG has a handler (see dt_tracker_stop_threads). -EAGAIN: there
// can be no more threads. -ENOENT, -EACCES: /proc is not there.
DT_API int dt_tracker_open(size_t card_size, unsigned flags, struct dt_tracker **tracker);
// The same with descriptors of the caller's. -EBADF, -ENOTTY, -EINVAL, and -EOPNOTSUPP of a pagemap: one of them is not
// what it is to be, or another process's.
DT_API int dt_tracker_open_with(size_t card_size, unsigned flags, const struct dt_descriptors *descriptors,
				struct dt_tracker **tracker);

// Opens a second tracker on the memory of a first: it may have the same ranges, or others, and cards of another size.
// Each sees every store, whatever the other takes; a mark is the tracker's that it was made to, until that one looks.
// Both have the descriptors, the worker and the stopped threads of the first; the last one that is closed ends these.
// When one replaces a part, that part counts as stored to for both.
//   flags: DT_BITS or DT_BYTES.
// -EINVAL: no such card size, or flags.
DT_API int dt_tracker_open_shared(struct dt_tracker *with, size_t card_size, unsigned flags,
				  struct dt_tracker **tracker);

// The functions of a Session of the Python package, and a handle of it: what its c_api() has the address of. It is good
// as long as the Session object, open or closed.
struct dt_api;

// Opens a tracker on a Session of the Python package, so that a collector in C and checkpoints in Python have the same
// memory, which one userfaultfd tracks. It calls through the table only: the package has a copy of the library of its
// own, which may be another version. Each sees every store, whatever the other takes; ranges of the tracker are none of
// the Session's regions, and may overlap them. It finds stores as the Session does, with its options, and stops threads
// if that does. Either may be closed first: once the Session is, calls but close return -DT_ECLOSED, and looks set all
// cards of a map of the right size. To add or replace memory of which another Session has tracked some waits for a call
// of that one; not with other threads stopped.
//   flags: DT_BITS or DT_BYTES.
// -DT_EVERSION: there is no table of this version there. -DT_ECLOSED. -EINVAL: no such card size, or flags.
DT_API int dt_tracker_open_on(const struct dt_api *api, size_t card_size, unsigned flags, struct dt_tracker **tracker);

// Stops other threads from here on as with DT_STOP_THREADS, by a signal of the caller's choice.
//   signal: one that has no handler yet, or ours. It should be one that is ignored by default, such as SIGURG.
//   limit_ns: how long a scan waits for threads to stop, in nanoseconds. Those that have not are let go.
// -EBUSY: the signal has another handler. -EINVAL: it can't be handled, or tells of a fault or of children, or no time.
// -EMFILE, -ENFILE. -EPERM: it is on a Session of the Python package, which says so itself. The tracker is as it was
// then.
DT_API int dt_tracker_stop_threads(struct dt_tracker *tracker, int signal, uint64_t limit_ns);

// Forgets all ranges, closes the descriptors and frees the tracker. In a forked child it only closes the child's copies
// of the descriptors: the memory stays, since a thread of the parent may have been changing it. Nobody may use the
// tracker any more. NULL is ignored.
DT_API void dt_tracker_close(struct dt_tracker *tracker);

// Adds a range of mapped memory that begins and ends on a card; what is stored there from now on counts.
//   flags: DT_DENSE or DT_SPARSE.
//   first_card: is given the number of its first card; may be NULL. Where a part of a range was removed from its
//   middle, what is added there has the cards that it had; else it is a multiple of 8, and a gap that a removed range
//   has left in the table is used again.
// -DT_EALIGN, -DT_EOVERLAP, -DT_EMIXED, -DT_EHUGETLB; -EINVAL: the flags, no bytes, or memory of a kind that can't be
// tracked. -ENOMEM: not mapped, or not all of it; or the process has too many mappings (vm.max_map_count). -EBUSY:
// another userfaultfd has a part of it. -EPERM: it can never be written. The tracker is as it was then.
DT_API int dt_tracker_add(struct dt_tracker *tracker, void *start, size_t bytes, unsigned flags, uint64_t *first_card);

// Parts. These functions take any part of what was added: of one range, or of several that adjoin. It begins and ends
// where a range does, or else on a card and on a page. -EINVAL: no bytes, or addresses that wrap around.
// -DT_EUNTRACKED: some of it is in no range. -DT_EALIGN: it begins or ends in the middle of a card or of a page.

// Removes a part. What is left of its ranges keeps its cards, with their numbers, and what is pending for them. The
// memory may be unmapped already. Ranges that are lost because of what is removed are good again; what was written in
// them meanwhile is unknown, so that the next take has all of their cards.
DT_API int dt_tracker_remove(struct dt_tracker *tracker, void *start, size_t bytes);

// Says that a part was mapped anew, as by mmap(2) with MAP_FIXED: for decommitting memory, and for moving other memory
// there. All its cards count as stored to, once; the rest as by dt_tracker_remove. Until it is called, a take finds the
// range lost.
// Errors also as of dt_tracker_add, of which none leaves the range better than lost.
DT_API int dt_tracker_replace(struct dt_tracker *tracker, void *start, size_t bytes);

// The number of cards in the table: one more than the last card of any range. Gaps between ranges are never dirty. 0 in
// a forked child, as the next one.
DT_API uint64_t dt_tracker_cards(struct dt_tracker *tracker);
// The bytes that a map of all cards has.
DT_API size_t dt_tracker_map_bytes(struct dt_tracker *tracker);

// Lists up to room ranges, or what is left of them, by address; returns how many there are in all. The card of an
// address is first_card + (address - start) / card size.
DT_API long dt_tracker_ranges(struct dt_tracker *tracker, struct dt_range *ranges, size_t room);

// Makes room for the next looks, until a range is added or a part removed, so that they ask nobody for memory: to be
// called outside of a pause.
DT_API int dt_tracker_prepare(struct dt_tracker *tracker);

// Writes the whole map: the cards stored to since the last take, and re-arms their pages, atomically page by page.
//   map, bytes: memory of dt_tracker_map_bytes bytes, outside of the ranges.
//   dirty: is given the number of cards set; may be NULL.
// A range whose memory is no longer what was added (unmapped, mapped over, moved) has all its cards set, in this and
// every later map until it is removed or replaced: see dt_tracker_lost.
// -DT_ESIZE: the map was not touched. -ENOMEM: the kernel had no memory for the scan; then all cards of all ranges are
// set, and what was not scanned is in the next take, so that a collector can go on; so it is with -EBADF and -ENOTTY.
// -EBUSY, only where threads are stopped: somebody has given the signal another handler; it is the same then, and
// nothing was scanned.
DT_API int dt_tracker_take(struct dt_tracker *tracker, void *map, size_t bytes, uint64_t *dirty);
// The same without re-arming: the next take has these cards, too.
DT_API int dt_tracker_peek(struct dt_tracker *tracker, void *map, size_t bytes, uint64_t *dirty);

// The same for a part, at the cost of that part alone, however many ranges there are. The first card of the map is the
// one at start; it has map_bytes bytes: one for each card, or for each 8. Errors also as for any part.
DT_API int dt_tracker_take_range(struct dt_tracker *tracker, const void *start, size_t bytes, void *map,
				 size_t map_bytes, uint64_t *dirty);
DT_API int dt_tracker_peek_range(struct dt_tracker *tracker, const void *start, size_t bytes, void *map,
				 size_t map_bytes, uint64_t *dirty);

// What a listing does with what it lists.
enum dt_list_flags {
	DT_LIST_PEEK = 0, // nothing
	DT_LIST_TAKE = 1  // takes it, and nothing else
};

// Lists stored-to memory as runs of cards, by address: in place of a map, where little of a large heap is dirty.
//   start, bytes: what of these addresses is in ranges, widened to whole pages and cards; NULL and SIZE_MAX:
//   everything. runs, room: is given as many as there is room for, each within one range. If they are room there may be
//   more: they are behind the last one, and so are those to ask for next.
// A range that was lost is one run. Returns the number of runs. -EINVAL: the flags. -ENOMEM, -EBUSY as of take; but
// nothing is listed and nothing taken then.
DT_API long dt_tracker_runs(struct dt_tracker *tracker, unsigned flags, const void *start, size_t bytes,
			    struct dt_range *runs, size_t room);

// GetWriteWatch of Windows: lists the pages of some addresses that were stored to, by address.
//   flags: with DT_LIST_TAKE those that are listed are taken, and no others. It is the same state as that of takes.
//   start, bytes: are widened to whole pages.
//   addresses, count: room for *count, which is given how many were listed. If they are as many as there was room for,
//   there may be more: as above.
//   granularity: is given the bytes of a page; may be NULL.
// A read(2) into watched memory counts where and when it stores something: on Windows, all of the buffer counts when it
// begins.
// -DT_EUNTRACKED: some of the addresses are in no range. -DT_ELOST. -EINVAL: the flags, no bytes, or addresses that
// wrap around. -ENOMEM, -EBUSY as above.
DT_API int dt_write_watch(struct dt_tracker *tracker, unsigned flags, const void *start, size_t bytes, void **addresses,
			  size_t *count, size_t *granularity);
// ResetWriteWatch of Windows: takes all pages of some addresses, and lists none. Errors as above.
DT_API int dt_reset_write_watch(struct dt_tracker *tracker, const void *start, size_t bytes);

// Declares bytes stored to: the next take has their pages' cards. It takes no lock and waits for nobody, so any thread
// may call it at any time, also beside a take; there is room for every mark. Its time grows with the number of ranges.
// -DT_EUNTRACKED: some are in no range; none was marked.
DT_API int dt_tracker_mark(struct dt_tracker *tracker, const void *start, size_t bytes);

// Lists up to room ranges that were lost when a look last looked, by address; returns how many there are in all.
DT_API long dt_tracker_lost(struct dt_tracker *tracker, struct dt_range *ranges, size_t room);

// Lists up to room threads (gettid(2)) that the last take or peek was to stop, and that ran during some of its scan:
// they block the signal, or the kernel runs them, or is busy for them; returns how many there are in all. A thread that
// waits for its turn in a function here counts as stopped.
DT_API long dt_tracker_unstopped(struct dt_tracker *tracker, int32_t *threads, size_t room);

// Snapshots: memory that is put back, or compared, at the cost of what was stored to it. For loops that try something
// and undo it, a hundred thousand times a second (fuzzers), and for those that send what has changed (emulators). A
// snapshot is a copy of memory, with a tracker of its own; its functions may be called as those of a tracker, but none
// is a cancellation point. What they copy from and to is the memory itself: of a file that has become shorter, or
// memory that is no longer mapped, it raises a signal as it would for the program.
struct dt_snapshot;

// Opens a snapshot of no memory. Errors as of dt_tracker_open.
DT_API int dt_snapshot_open(struct dt_snapshot **snapshot);

// Forgets the copies, and everything else; the memory stays as it is. In a forked child it closes the child's copies of
// the descriptors, as dt_tracker_close does. Nobody may use the snapshot any more. NULL is ignored.
DT_API void dt_snapshot_close(struct dt_snapshot *snapshot);

// Adds memory as it is now. It may begin and end anywhere; what else is on its first and last page is left alone. A
// copy takes as much memory as what is not zeros. What other threads store meanwhile is in the copy, or found by the
// next call.
//   flags: DT_DENSE or DT_SPARSE.
// -DT_EOVERLAP: some of it was added already. Errors also as of dt_tracker_add; -EACCES, -EFAULT: it can't be read. The
// snapshot is as it was then.
DT_API int dt_snapshot_add(struct dt_snapshot *snapshot, void *start, size_t bytes, unsigned flags);

// Makes the memory what the copy is, and looks again: exact, also beside threads that store to it. Each of their stores
// is undone, or is found by the next call. Pages that were dropped (MADV_DONTNEED) count as stored to, in sparse memory
// if they are not zeros in the copy.
//   pages: is given how many pages had been stored to, of each memory that was added; may be NULL.
// -EACCES, -EFAULT: some of them can't be written, and none was. -DT_ELOST: some of the memory is no longer what was
// added: close the snapshot, and open another. Nothing is forgotten by the other errors: the next rollback has all that
// was stored since the last one.
DT_API int dt_snapshot_rollback(struct dt_snapshot *snapshot, size_t *pages);

// Makes the copy what the memory is. Errors as above, for reading.
DT_API int dt_snapshot_advance(struct dt_snapshot *snapshot, size_t *pages);

// Is given bytes that differ: their address, and what they were and are, both in memory of the library's that stays
// until it returns. Anything but 0 ends the diff, which returns it: a positive number, so that it is no error. It may
// call no function of the same snapshot, and has to return (no longjmp); signals are blocked meanwhile.
typedef int dt_difference(void *context, void *start, size_t bytes, const void *before, const void *after);

// Calls a function with all bytes in which the memory differs from the copy, by the order in which memory was added,
// and by address.
//   flags: with DT_LIST_TAKE the copy takes on exactly what is reported, unless the function ends it: then nothing of
//   it.
// Returns 0, what the function has returned, or an error as above.
DT_API int dt_snapshot_diff(struct dt_snapshot *snapshot, unsigned flags, dt_difference *function, void *context);

#ifdef __cplusplus
}
#endif
