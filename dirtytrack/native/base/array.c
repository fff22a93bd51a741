// Growing arrays.
#include "array.h"

#include <errno.h>
#include <string.h>

#include "memory.h"

int dt_grow(void *array, size_t *room, size_t wanted, size_t size)
{
	void **items = array;
	if (wanted <= *room)
		return 0;
	size_t more = *room * 2 > wanted ? *room * 2 : wanted;
	void *grown = dt_alloc(more * size);
	if (!grown)
		return -ENOMEM;
	if (*room)
		memcpy(grown, *items, *room * size);
	dt_free(*items, *room * size);
	*items = grown;
	*room = more;
	return 0;
}

int dt_make_room(void *array, size_t *room, size_t wanted, size_t size)
{
	void **items = array;
	if (wanted <= *room)
		return 0;
	void *fresh = dt_alloc(wanted * size);
	if (!fresh)
		return -ENOMEM;
	dt_free(*items, *room * size);
	*items = fresh;
	*room = wanted;
	return 0;
}
