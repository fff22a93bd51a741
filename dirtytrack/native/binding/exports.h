// Objects of Python that export a buffer: whether each still exports the memory that it did.
#pragma once

#include <stdint.h>

struct dt_export {
	void *owner; // the object, which the caller keeps alive
	uint64_t address;
	uint64_t nbytes;
};

// Whether all of them do, up to one without an owner. It calls Python, so it has to hold the GIL, and does: it says of
// nothing that it takes long.
int dt_exports_hold(const struct dt_export *exports);
