"""The machines that are emulated: processor and page size, with what Debian and qemu call them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """An emulated machine.

    Attributes:
        name: as it is asked for and shown.
        architecture: Debian's name of its processor.
        flavour: the end of the names of Debian's kernel packages for it.
        first: the first Linux on which tracking has to work there; before it, it can't.
        emulator: program and options.
        native: the machine, as uname has it, on which a guest need not be emulated.
        console: the device that the kernel calls its console.
        results: the device for the results of the tests.
        serial: the emulator's options that lead both into files, with their names left open.
        words: for the kernel's command line.
        hugetlb: what it reserves at boot: the sizes of huge pages other than a page table's, which tests may
            not find in one piece later.
        memory: in MiB; tests count in pages, so it grows with their size. It has to have a GiB that nothing
            lies in at boot.
        has_root_drivers: the kernel can read its root file system without loading a module.
    """

    name: str
    architecture: str
    flavour: str
    first: tuple[int, int]
    emulator: tuple[str, ...]
    native: str
    console: str
    results: str
    serial: tuple[str, ...]
    hugetlb: str
    words: str = ""
    memory: int = 4096
    has_root_drivers: bool = True


_X86 = Machine(
    "x86-64",
    "amd64",
    "cloud-amd64",
    (6, 7),
    ("qemu-system-x86_64", "-cpu", "max"),
    "x86_64",
    "ttyS0",
    "ttyS1",
    ("-serial", "file:{console}", "-serial", "file:{results}"),
    "hugepagesz=1G hugepages=1",
    # qemu 7.2's cmpxchg16b corrupts flags, and one boot in two does not survive it. Hidden from the kernel
    # only: numpy refuses to start on a processor without it.
    # no_timer_check: on a busy host the emulated timer's first ticks come late, and the kernel panics for it.
    "clearcpuid=cx16 no_timer_check",
)
_ARM = Machine(
    "arm64",
    "arm64",
    "cloud-arm64",
    (6, 10),
    # Without pauth-impdef the signing of pointers takes three quarters of the time.
    ("qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth-impdef=on"),
    "",  # such a processor is there in emulation only
    "ttyAMA0",
    "ttyS0",
    # The machine has one serial port of its own.
    (
        "-serial",
        "file:{console}",
        "-chardev",
        "file,id=results,path={results}",
        "-device",
        "pci-serial,chardev=results",
    ),
    "hugepagesz=64K hugepages=3 hugepagesz=32M hugepages=3 hugepagesz=1G hugepages=1",
)
_ARM_16K = Machine(
    "arm64-16k",
    "arm64",
    "arm64-16k",
    (6, 10),
    _ARM.emulator,
    _ARM.native,
    _ARM.console,
    _ARM.results,
    _ARM.serial,
    "hugepagesz=2M hugepages=3 hugepagesz=1G hugepages=1",
    memory=6144,
    has_root_drivers=False,
)

_MACHINES = {machine.name: machine for machine in (_X86, _ARM, _ARM_16K)}


def parse(asked: str) -> tuple[Machine, str]:
    """The machine and the version in ``arm64/6.12``; without a machine it is x86-64.

    Raises:
        ValueError: there is no such machine.
    """
    name, _, version = asked.rpartition("/")
    if name and name not in _MACHINES:
        raise ValueError(f"{asked}: the machines are {', '.join(_MACHINES)}")
    return _MACHINES[name or _X86.name], version
