// userfaultfd(2) and its ioctls, one thin function each. Every function returns 0 (or what it says) or -errno, keeps no
// state, takes no lock and knows no policy; it may be called from any thread.
#pragma once

#include <stdint.h>

// userfaultfd(2) with the given flags (O_* and DT_UFFD_USER_MODE_ONLY): the descriptor, for the caller to close.
int dt_uffd_syscall(int flags);
// The same through /dev/userfaultfd, for which only the file's permissions count.
int dt_uffd_device(int flags);
// The handshake, once per descriptor. *features: asked for; on return, all that the kernel supports.
int dt_uffd_api(int fd, uint64_t *features);
// Registers [start, start + len) in write-protect mode. *ioctls: the UFFDIO_* calls that the range supports.
int dt_uffd_register(int fd, uint64_t start, uint64_t len, uint64_t *ioctls);
int dt_uffd_unregister(int fd, uint64_t start, uint64_t len);
// Arms (protect != 0) or opens (protect == 0) every page of [start, start + len).
int dt_uffd_writeprotect(int fd, uint64_t start, uint64_t len, int protect);

// close(2), of any descriptor.
int dt_close(int fd);
