// A thread that stores to one byte of each of n pages in turn, until it is told to stop.
#include <stdatomic.h>

static atomic_int stop;

void halt(int value)
{
	atomic_store(&stop, value);
}

void hammer(volatile unsigned char *memory, long pages, long page_size)
{
	unsigned char value = 1;
	while (!atomic_load(&stop))
		for (long i = 0; i < pages; i++)
			memory[i * page_size + 7] = value++;
}
