// One call after the other.
#include "file_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "../base/patience.h"

enum { FOR_ITS_OWNER = 0600 };

static int create(const struct dt_file_call *call)
{
	int fd = openat(call->directory, call->name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FOR_ITS_OWNER);
	if (fd < 0)
		return -errno;
	*call->file = fd;
	return 0;
}

static int close_file(const struct dt_file_call *call)
{
	int fd = *call->file;
	*call->file = -1;
	return close(fd) ? -errno : 0;
}

static int make_call(const struct dt_file_call *call)
{
	switch ((enum dt_file_act)call->act) {
	case DT_CREATE:
		return create(call);
	case DT_PACK:
		call->pack->file = call->file;
		return dt_pack_add(call->pack, call->batch);
	case DT_PACK_PLACE:
		return dt_pack_place(call->pack, call->first, call->stop);
	case DT_PACK_END:
		return dt_pack_end(call->pack, call->ending);
	case DT_WRITE_PACKED:
		return dt_write_all(*call->file, call->pack->writes, call->pack->write_count);
	case DT_WRITE:
		return dt_write_all(*call->file, call->pieces, call->count);
	case DT_WRITEBACK:
		return dt_start_writeback(*call->file);
	case DT_CLAIM:
		return dt_claim_holds(call->claim) ? 0 : -EAGAIN;
	case DT_FSYNC:
		return fsync(*call->file) ? -errno : 0;
	case DT_CLOSE:
		return close_file(call);
	case DT_RENAME:
		return dt_rename_new(call->directory, call->name, call->new_name);
	case DT_SYNC_DIRECTORY:
		return dt_sync_directory(call->directory);
	}
	return -EINVAL;
}

int dt_file_calls(const struct dt_file_call *calls, size_t n, size_t *done_ret)
{
	int error = 0;
	dt_takes_long();
	for (*done_ret = 0; !error && *done_ret < n; *done_ret += !error)
		error = make_call(&calls[*done_ret]);
	return error;
}
