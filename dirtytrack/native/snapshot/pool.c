// Things lie in chunks. A chunk of which nothing is in use gives its memory back to the kernel, but not its addresses,
// once more numbers are free than in use: as much as is in use is kept at hand.
#include "pool.h"

#include <errno.h>
#include <sys/mman.h>

#include "../base/array.h"
#include "../base/memory.h"
#include "../base/patience.h"

enum { CHUNK = 256 }; // things

void dt_pool_open(struct dt_pool *pool, uint64_t unit)
{
	pool->unit = unit;
}

void dt_pool_close(struct dt_pool *pool)
{
	dt_takes_copy(pool->used * pool->unit);
	for (size_t chunk = 0; chunk < pool->count / CHUNK; chunk++)
		dt_free(pool->chunks[chunk], CHUNK * pool->unit);
	dt_free(pool->chunks, pool->chunk_room * sizeof *pool->chunks);
	dt_free(pool->in_use, pool->in_use_room * sizeof *pool->in_use);
	dt_free(pool->references, pool->reference_room * sizeof *pool->references);
	dt_free(pool->free, pool->free_room * sizeof *pool->free);
}

uint64_t dt_pool_bytes(const struct dt_pool *pool)
{
	return pool->used * (pool->unit + sizeof *pool->references + sizeof *pool->free);
}

void *dt_pool_at(const struct dt_pool *pool, uint32_t number)
{
	return pool->chunks[number / CHUNK] + number % CHUNK * pool->unit;
}

static int grow(struct dt_pool *pool)
{
	size_t count = (size_t)pool->count + CHUNK, chunk = pool->count / CHUNK;
	int error = count > UINT32_MAX ? -ENOMEM : 0;
	if (!error)
		error = dt_grow(&pool->chunks, &pool->chunk_room, chunk + 1, sizeof *pool->chunks);
	if (!error)
		error = dt_grow(&pool->in_use, &pool->in_use_room, chunk + 1, sizeof *pool->in_use);
	if (!error)
		error = dt_grow(&pool->references, &pool->reference_room, count, sizeof *pool->references);
	if (!error)
		error = dt_grow(&pool->free, &pool->free_room, count, sizeof *pool->free);
	if (error)
		return error;
	pool->chunks[chunk] = dt_alloc(CHUNK * pool->unit);
	if (!pool->chunks[chunk])
		return -ENOMEM;
	for (size_t number = count; number-- > pool->count;)
		if (number)
			pool->free[pool->free_count++] = (uint32_t)number;
	pool->count = (uint32_t)count;
	return 0;
}

int dt_pool_take(struct dt_pool *pool, uint32_t *number_ret)
{
	int error = pool->free_count ? 0 : grow(pool);
	if (error)
		return error;
	*number_ret = pool->free[--pool->free_count];
	pool->references[*number_ret] = 1;
	pool->in_use[*number_ret / CHUNK]++;
	pool->used++;
	return 0;
}

void dt_pool_share(struct dt_pool *pool, uint32_t number)
{
	if (number)
		pool->references[number]++;
}

void dt_pool_drop(struct dt_pool *pool, uint32_t number)
{
	if (!number || --pool->references[number])
		return;
	pool->free[pool->free_count++] = number;
	pool->used--;
	if (--pool->in_use[number / CHUNK] == 0 && pool->free_count > pool->used)
		madvise(pool->chunks[number / CHUNK], CHUNK * pool->unit, MADV_DONTNEED);
}

bool dt_pool_is_own(const struct dt_pool *pool, uint32_t number)
{
	return pool->references[number] == 1;
}
