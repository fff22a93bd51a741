// What errors mean, and which library this is.
#include <errno.h>
#include <stddef.h>

#include "../include/dirtytrack.h"

int dt_version(void)
{
	return DT_VERSION;
}

struct meaning {
	int error;
	const char *text;
};

static const struct meaning meanings[] = {
	{0, "no error"},
	{DT_EFORKED, "it belongs to the parent process: open one here"},
	{DT_ECLOSED, "it was closed, or what is named was removed"},
	{DT_ELOST, "some of the memory is no longer what was added: remove or replace it, or open another snapshot"},
	{DT_ESTALE, "regions have come or gone meanwhile"},
	{DT_EMIXED, "the range shares pages with a sparse one, or, sparse itself, with one that is not"},
	{DT_EHUGETLB, "the range is hugetlb memory"},
	{DT_EUNTRACKED, "some of the addresses are in no range"},
	{DT_EALIGN, "the range does not begin and end on a card, or the part of one not on a card and a page"},
	{DT_EOVERLAP, "the range overlaps another one of the tracker"},
	{DT_ESIZE, "the map has not the size that it has to have"},
	{DT_EMISSED, "a page has changed that no scan has reported"},
	{DT_EVERSION, "the table is of another version of the library"},
	{EACCES, "permission denied: the memory is protected, or /proc can't be read"},
	{EAGAIN, "there can be no more threads"},
	{EBADF, "a descriptor is closed: one of the library's, or one that it was given"},
	{EBUSY, "another userfaultfd or tracker has some of the memory, or somebody else the signal"},
	{EFAULT, "the memory can't be read or written"},
	{EINVAL, "an argument is not valid, or this kind of memory can't be tracked"},
	{EMFILE, "the process has too many descriptors"},
	{ENFILE, "the system has too many descriptors"},
	{ENOENT, "/proc is not there"},
	{ENOMEM, "not enough memory, or memory that is not mapped"},
	{ENOSYS, "userfaultfd(2) is missing: Linux without it, or a filter"},
	{ENOTTY, "a descriptor is another than it is to be: one of the library's, or one that it was given"},
	{EOPNOTSUPP, "the kernel is older than Linux 6.7"},
	{EPERM, "not permitted: userfaultfd(2) is forbidden here, or the memory can never be written"},
};

const char *dt_strerror(int error)
{
	for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++)
		if (meanings[i].error == error || -meanings[i].error == error)
			return meanings[i].text;
	return "an error of the kernel: see errno(3)";
}
