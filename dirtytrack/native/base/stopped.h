// What the threads do that are to be stopped, each for itself.
#pragma once

#include <stdint.h>

#include "stop_words.h"

#pragma GCC visibility push(hidden)

// The handler of the signal: answers what the thread was asked, and waits for the end of the stop.
void dt_stop_handle(int signal);

// The calling thread's identifier, and its word.
int32_t dt_this_thread(void);
uint32_t *dt_word_of_this_thread(struct dt_stop_process *process);

#pragma GCC visibility pop
