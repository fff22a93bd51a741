// The addresses that one call is about.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Whole pages of one kind, which is what a backend scans at a time.
struct dt_span {
	uint64_t start;      // address
	uint64_t stop;       // exclusive
	uint32_t page_shift; // log2 of the bytes of a page, which is the system's or larger (hugetlb)
	bool sparse;         // what is not populated is left alone, and clean
};

// Where the kernel refused, for the message.
struct dt_failure {
	const char *call; // a string constant
	uint64_t start;   // the addresses that it was about
	uint64_t stop;    // exclusive
};
