// The buffers of a scan.
#include "scan_context.h"

#include <errno.h>

#include "../base/array.h"
#include "../base/memory.h"

int dt_scan_context_init(struct dt_scan_context *context)
{
	*context = (struct dt_scan_context){.vec = dt_alloc(DT_VEC * sizeof *context->vec)};
	return context->vec ? 0 : -ENOMEM;
}

int dt_run_buffer_fit(struct dt_run_buffer *buffer, uint64_t pages)
{
	return dt_make_room(&buffer->runs, &buffer->room, pages / 2 + 1, sizeof *buffer->runs);
}

int dt_scan_context_fit(struct dt_scan_context *context, uint64_t pages)
{
	struct dt_run_buffer *buffers[] = {&context->written, &context->dropped, &context->looked, &context->found,
					   &context->assumed};
	int error = 0;
	for (size_t i = 0; !error && i < sizeof buffers / sizeof *buffers; i++)
		error = dt_run_buffer_fit(buffers[i], pages);
	return error;
}

static void free_buffer(struct dt_run_buffer *buffer)
{
	dt_free(buffer->runs, buffer->room * sizeof *buffer->runs);
}

void dt_scan_context_free(struct dt_scan_context *context)
{
	free_buffer(&context->written);
	free_buffer(&context->dropped);
	free_buffer(&context->looked);
	free_buffer(&context->found);
	free_buffer(&context->assumed);
	dt_free(context->bytes, context->byte_room);
	dt_free(context->vec, DT_VEC * sizeof *context->vec);
	*context = (struct dt_scan_context){0};
}
