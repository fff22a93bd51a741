// Plain bytes.
#include "bytes.h"

#include <string.h>

int dt_is_zero(const uint8_t *data, size_t bytes)
{
	// Bytes that begin with a zero and equal themselves moved by one are zeros.
	return data[0] == 0 && memcmp(data, data + 1, bytes - 1) == 0;
}
