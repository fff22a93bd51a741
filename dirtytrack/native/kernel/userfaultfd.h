// userfaultfd(2) and its ioctls, one thin function each. Every function returns 0 (or what it says) or -errno, keeps no
// state, takes no lock and knows no policy; it may be called from any thread.
#pragma once

#include <stdint.h>

#pragma GCC visibility push(hidden)

// userfaultfd(2) with the given flags (O_* and DT_UFFD_USER_MODE_ONLY): the descriptor, for the caller to close.
int dt_uffd_syscall(int flags);
// The same through /dev/userfaultfd, for which only the file's permissions count.
int dt_uffd_device(int flags);
// The handshake, once per descriptor. *features: asked for; on return, all that the kernel supports.
int dt_uffd_api(int fd, uint64_t *features);

// What a range is registered for: the first write to a page, or since Linux 7.3 its first use.
#define DT_REGISTER_WP (1ULL << 1)
#define DT_REGISTER_RWP (1ULL << 3)

// Registers [start, start + len) in one of these modes. *ioctls: the UFFDIO_* calls that the range supports.
int dt_uffd_register(int fd, uint64_t start, uint64_t len, uint64_t mode, uint64_t *ioctls);
int dt_uffd_unregister(int fd, uint64_t start, uint64_t len);
// Arms (protect != 0) or opens (protect == 0) every page of [start, start + len).
int dt_uffd_writeprotect(int fd, uint64_t start, uint64_t len, int protect);
int dt_uffd_rwprotect(int fd, uint64_t start, uint64_t len, int protect);
// Turns features of an initialised descriptor on and off.
int dt_uffd_set_mode(int fd, uint64_t enable, uint64_t disable);

// close(2), of any descriptor.
int dt_close(int fd);

#pragma GCC visibility pop
