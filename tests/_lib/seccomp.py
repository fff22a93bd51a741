"""Fault injection: make chosen system calls fail in this process, with a seccomp filter.

The product has no code for tests; the kernel itself plays the old or the forbidding one. A filter can't be
taken off again and is inherited by children and through exec: use it in a forked child only.

Source of the layouts: seccomp(2), bpf(2), include/uapi/linux/seccomp.h and audit.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from dataclasses import dataclass

PAGEMAP_SCAN = 0xC0606610
PROCMAP_QUERY = 0xC0686611
UFFDIO_API = 0xC018AA3F
UFFDIO_REGISTER = 0xC020AA00
UFFDIO_UNREGISTER = 0x8010AA01
UFFDIO_WRITEPROTECT = 0xC018AA06
UFFDIO_RWPROTECT = 0xC018AA09
UFFDIO_SET_MODE = 0x4010AA0A
USERFAULTFD_IOC_NEW = 0xAA00

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBERS = {
    "x86_64": {
        "ioctl": 16,
        "msync": 26,
        "madvise": 28,
        "fsync": 74,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "userfaultfd": 323,
    },
    "aarch64": {
        "ioctl": 29,
        "fsync": 82,
        "msync": 227,
        "madvise": 233,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "userfaultfd": 282,
    },
}
_LOADER = os.getpid()

# Offsets in struct seccomp_data; both machines are little-endian, so the low half of an argument comes first.
_NR, _ARCH, _ARG0 = 0, 4, 16
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2


@dataclass(frozen=True)
class Refuse:
    """Make *call* fail with *errno*; with *request*, only as ioctl of that request number."""

    call: str
    errno: int
    request: int | None = None


def refuse_ioctl(request: int, errno: int) -> Refuse:
    """The rule that makes one ioctl fail, on whatever descriptor."""
    return Refuse("ioctl", errno, request)


def install(*rules: Refuse) -> None:
    """Put the rules into force for this process, for good. The first rule that fits a call decides.

    Raises:
        RuntimeError: in the process that loaded this module, which is the test run's own.
        OSError: the kernel refuses filters.
    """
    if os.getpid() == _LOADER:
        raise RuntimeError("a seccomp filter would outlive the test: use it in a forked child")
    program = b"".join(_program(rules))
    code = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    for call in ((_PR_SET_NO_NEW_PRIVS, 1, None), (_PR_SET_SECCOMP, _MODE_FILTER, fprog)):
        _prctl(*call)


def _prctl(option: int, number: int, pointer: bytes | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong]
    if libc.prctl(option, number, pointer, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")


def _program(rules: tuple[Refuse, ...]) -> list[bytes]:
    arch, numbers = _ARCHITECTURES[platform.machine()], _NUMBERS[platform.machine()]
    code = [
        _instruction(_LOAD, _ARCH),
        _instruction(_JUMP_EQUAL, arch, then=1),  # a foreign architecture's numbers mean something else
        _instruction(_RETURN, _ALLOW),
    ]
    for rule in rules:
        refusal = _instruction(_RETURN, _ERRNO | rule.errno)
        code.append(_instruction(_LOAD, _NR))
        if rule.request is None:
            code += [_instruction(_JUMP_EQUAL, numbers[rule.call], otherwise=1), refusal]
        else:
            code += [
                _instruction(_JUMP_EQUAL, numbers[rule.call], otherwise=3),
                _instruction(_LOAD, _ARG0 + 8),
                _instruction(_JUMP_EQUAL, rule.request, otherwise=1),
                refusal,
            ]
    return [*code, _instruction(_RETURN, _ALLOW)]


def _instruction(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """One struct sock_filter; jumps count the instructions to leave out."""
    return struct.pack("HBBI", code, then, otherwise, value)
