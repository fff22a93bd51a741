// Native calls that Python makes directly, where cffi would take as long as the call itself.
#pragma once

#include <stdint.h>

// Puts them into the namespace of a module, a dictionary that the caller keeps alive:
//
// cards_look(cards, verb, number, heard, out): dt_cards_look into a writable, contiguous buffer; the cards by their
// address.
//
// 0, or -1 without memory. It calls Python, so it has to hold the GIL, and does.
int dt_add_fastcalls(uintptr_t module_namespace);
