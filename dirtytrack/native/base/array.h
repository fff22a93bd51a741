// Growing arrays in the library's own memory. An array is a pointer and its room, in items; both begin as zero.
#pragma once

#include <stddef.h>

#pragma GCC visibility push(hidden)

// Grows *array (a pointer to the items, of size bytes each) to a room of at least wanted items. The old items stay, the
// new ones are zero. 0, or -ENOMEM; then the array is what it was.
int dt_grow(void *array, size_t *room, size_t wanted, size_t size);
// The same for an array whose contents do not matter: they are lost.
int dt_make_room(void *array, size_t *room, size_t wanted, size_t size);

#pragma GCC visibility pop
