// The threads of this process, as the kernel lists them in a directory: /proc/self/task.
#pragma once

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

// How many there are; 0: it can't be told.
int dt_tasks_alive(int tasks);
// Calls act with the identifier of each, in memory of the caller's for so many bytes of the list. How many are listed.
int dt_tasks_list(int tasks, char *listing, size_t bytes, void (*act)(void *context, int32_t id), void *context);

// What the kernel says of a thread. ENDED, and still listed: a first thread is, until the others have ended, too.
enum dt_fate { DT_ALIVE, DT_ENDED, DT_GONE };
enum dt_fate dt_task_fate(int tasks, int32_t id);

#pragma GCC visibility pop
