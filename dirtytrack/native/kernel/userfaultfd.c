// userfaultfd(2) and its ioctls.
#include "userfaultfd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../base/patience.h"
#include "abi.h"

static int status(long result)
{
	return result < 0 ? -errno : (int)result;
}

int dt_uffd_syscall(int flags)
{
	return status(syscall(SYS_userfaultfd, flags));
}

int dt_uffd_device(int flags)
{
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (device < 0)
		return -errno;
	int fd = status(ioctl(device, DT_USERFAULTFD_IOC_NEW, flags));
	close(device);
	return fd;
}

int dt_uffd_api(int fd, uint64_t *features)
{
	struct dt_uffdio_api api = {.api = DT_UFFD_API, .features = *features};
	int error = status(ioctl(fd, DT_UFFDIO_API, &api));
	*features = api.features;
	return error;
}

int dt_uffd_register(int fd, uint64_t start, uint64_t len, uint64_t mode, uint64_t *ioctls)
{
	struct dt_uffdio_register arg = {.range = {start, len}, .mode = mode};
	int error = status(ioctl(fd, DT_UFFDIO_REGISTER, &arg));
	*ioctls = arg.ioctls;
	return error;
}

int dt_uffd_unregister(int fd, uint64_t start, uint64_t len)
{
	struct dt_uffdio_range range = {start, len};
	dt_takes_scan(len);
	return status(ioctl(fd, DT_UFFDIO_UNREGISTER, &range));
}

static int change(int fd, unsigned long request, uint64_t start, uint64_t len, int protect)
{
	struct dt_uffdio_protect arg = {.range = {start, len}, .mode = protect ? DT_UFFDIO_PROTECT : 0};
	dt_takes_scan(len);
	return status(ioctl(fd, request, &arg));
}

int dt_uffd_writeprotect(int fd, uint64_t start, uint64_t len, int protect)
{
	return change(fd, DT_UFFDIO_WRITEPROTECT, start, len, protect);
}

int dt_uffd_rwprotect(int fd, uint64_t start, uint64_t len, int protect)
{
	return change(fd, DT_UFFDIO_RWPROTECT, start, len, protect);
}

int dt_uffd_set_mode(int fd, uint64_t enable, uint64_t disable)
{
	struct dt_uffdio_set_mode arg = {enable, disable};
	dt_takes_long(); // it waits for all faults in flight
	return status(ioctl(fd, DT_UFFDIO_SET_MODE, &arg));
}

int dt_close(int fd)
{
	dt_takes_long(); // a userfaultfd lets go of all that is registered with it
	return status(close(fd));
}
