// System calls and digits: the C library may take a lock that a stopped thread holds.
#define _GNU_SOURCE
#include "tasks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct listed { // by getdents64(2)
	uint64_t inode;
	int64_t offset;
	uint16_t length; // of all of it, in bytes
	uint8_t type;
	char name[];
};

int dt_tasks_alive(int tasks)
{
	struct stat found; // the directory has a link for each thread, and two of its own
	return fstat(tasks, &found) == 0 ? (int)found.st_nlink - 2 : 0;
}

int dt_tasks_list(int tasks, char *listing, size_t bytes, void (*act)(void *context, int32_t id), void *context)
{
	int count = 0;
	long filled;
	lseek(tasks, 0, SEEK_SET);
	while ((filled = syscall(SYS_getdents64, tasks, listing, bytes)) > 0) {
		for (long at = 0; at < filled;) {
			const struct listed *entry = (const struct listed *)(listing + at);
			int32_t id = 0;
			for (const char *digit = entry->name; *digit >= '0' && *digit <= '9'; digit++)
				id = id * 10 + (*digit - '0');
			if (id > 0)
				act(context, id);
			count += id > 0;
			at += entry->length;
		}
	}
	return count;
}

// The path of a thread's state in the directory.
static const char *path_of(int32_t id, char path[static 24])
{
	char *at = path + 24 - sizeof "/stat";
	memcpy(at, "/stat", sizeof "/stat");
	for (; id; id /= 10)
		*--at = (char)('0' + id % 10);
	return at;
}

enum dt_fate dt_task_fate(int tasks, int32_t id)
{
	char path[24], text[512];
	int file = openat(tasks, path_of(id, path), O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return errno == ENOENT || errno == ESRCH ? DT_GONE : DT_ALIVE;
	ssize_t n = read(file, text, sizeof text - 1);
	bool is_gone = n < 0 && errno == ESRCH;
	close(file);
	if (is_gone)
		return DT_GONE;
	text[n > 0 ? n : 0] = '\0';
	const char *end = strrchr(text, ')'); // of its name; the state follows
	return end && end[1] && (end[2] == 'Z' || end[2] == 'X') ? DT_ENDED : DT_ALIVE;
}
