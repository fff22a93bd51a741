// What a run tells. collector.py declares this file to cffi as it stands, so that there is nothing else in it.
enum { PAUSES = 4096 };

struct report {
	uint64_t minors, majors, checks;
	uint64_t scanned;   // bytes of old fields that minor collections looked at
	double mutator;     // seconds outside of pauses and checks
	double check;       // seconds
	size_t minor_count; // pauses of minor collections alone; the final pauses have one each, too
	double minor[PAUSES];
	size_t final_count;
	double final[PAUSES];
	char failure[128]; // what went wrong; empty: nothing
};

// Runs the program with a barrier, and perhaps a fault, of heap.h.
void run(int barrier, int stretch, size_t steps, int fault, struct report *report);
