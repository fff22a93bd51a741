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

// From here on the calling thread waits for its turn, and is as good as stopped. Whether that could be said, for the
// end: one that has left the stop under way could not.
uint32_t dt_begin_waiting(uint32_t *word);
void dt_end_waiting(uint32_t *word, uint32_t before);

#pragma GCC visibility pop
