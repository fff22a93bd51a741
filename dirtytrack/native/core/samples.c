// The memory of the double check.
#include "samples.h"

#include "../base/array.h"
#include "../base/memory.h"

int dt_samples_fit(struct dt_samples *samples, size_t count, uint32_t page_shift)
{
	int error = dt_grow(&samples->samples, &samples->room, count, sizeof *samples->samples);
	return error ? error : dt_grow(&samples->copies, &samples->copy_room, count, (size_t)1 << page_shift);
}

uint8_t *dt_sample_copy(const struct dt_samples *samples, size_t at, uint32_t page_shift)
{
	return samples->copies + (at << page_shift);
}

void dt_free_samples(struct dt_samples *samples, uint32_t page_shift)
{
	dt_free(samples->samples, samples->room * sizeof *samples->samples);
	dt_free(samples->copies, samples->copy_room << page_shift);
	*samples = (struct dt_samples){0};
}

void dt_free_double_check(struct dt_double_check *check, uint32_t page_shift)
{
	dt_free(check->missed, check->missed_room * sizeof *check->missed);
	dt_free(check->page, (size_t)1 << page_shift);
	*check = (struct dt_double_check){0};
}
