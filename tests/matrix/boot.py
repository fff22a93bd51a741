"""One kernel, booted once under qemu, by KVM where that works, else emulated, with what its guest said.

The guest panics on an oops and on a task that hangs for five minutes; the emulator ends then, and so it does
when the guest says nothing for too long. All of that is a failure of the test that was running.

A busy host makes a guest slow, and that is no failure: how long a guest takes is measured by the processor
time of its emulator, and it looks for no lockup that only the host's scheduler can bring about.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import platform
import shlex
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matrix.fetch import Package, cache, image, need
from matrix.initramfs import initramfs

LIMIT_SECONDS = 3600  # of the emulator's processor time, for all of a boot
SILENCE_SECONDS = 300  # of the emulator's processor time, between two lines of results
STILLNESS_SECONDS = 1800  # by the clock, the same: for a guest that waits for ever. A test may wait for 900.
TRIAL_SECONDS = 20  # by the clock, for a kernel without a root to panic by KVM; who is later is emulated
_POLL_SECONDS = 0.5
_COMMAND_LINE = (
    "loglevel=5 oops=panic panic=-1 root=/dev/nvme0n1 rootfstype=ext4 rw init=/init "
    # The detector takes the host's other work for a processor that hangs, and the self-tests of the ciphers
    # take long enough at boot for it to do so.
    "nosoftlockup cryptomgr.notests"
)


@dataclass
class Group:
    """What came of one directory of tests.

    Attributes:
        name: the directory below tests/.
        counts: tests by outcome: passed, failed, skipped.
        failures: test and the end of its traceback.
        skips: how many tests were skipped for each reason.
        seconds: by test, as the guest measured them.
        exit: pytest's exit status; None if the guest ended before pytest did.
    """

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    skips: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    exit: int | None = None

    @property
    def good(self) -> bool:
        """No test failed, and pytest came to its end and says so."""
        return not self.failures and self.exit == 0


@dataclass
class Boot:
    """What came of one boot.

    Attributes:
        doctor: the object that ``dirtytrack doctor --json`` printed; empty if it did not get there.
        groups: in the order in which they ran.
        trouble: how the guest failed as a whole; empty if it came to its end.
        warnings: lines of the console in which the kernel complained.
        seconds: from start to end of the emulator.
        console: where the guest's console was written to.
        handed_on: the archive that the guest said last; empty if it did not get there.
    """

    doctor: dict[str, Any]
    groups: list[Group]
    trouble: str
    warnings: list[str]
    seconds: float
    console: Path
    handed_on: bytes = b""

    def then(self, later: Boot) -> Boot:
        """This boot and a later one of the same kernel, as one."""
        return Boot(
            self.doctor or later.doctor,
            self.groups + later.groups,
            self.trouble or later.trouble,
            self.warnings + later.warnings,
            self.seconds + later.seconds,
            self.console if self.trouble else later.console,
            later.handed_on,
        )


def provide(package: Package) -> None:
    """Have everything here that booting a kernel takes.

    Raises:
        UnavailableError: the emulator is not installed, or the kernel can't be had.
    """
    need(package.machine.emulator[0])
    image(package)
    if not package.machine.has_root_drivers:
        initramfs(package)


def boot(package: Package, root: Path, groups: list[str], *, args: str = "") -> Boot:
    """Run *groups* of tests on a kernel.

    Args:
        package: the kernel, for which `provide` was called.
        root: the root file system; the guest's changes to it are forgotten.
        groups: directories below tests/, in the order to run.
        args: more words for pytest.
    """
    logs = cache() / "logs"
    logs.mkdir(exist_ok=True)
    console = logs / f"{package.name}_{package.version}_{'+'.join(groups)}.console"
    with tempfile.TemporaryDirectory() as work:
        results = Path(work) / "results"
        results.touch()
        command = _command(package, root, console, results, groups, args)
        started = time.monotonic()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as guest:
            trouble = _watch(guest, results)
            assert guest.stderr is not None
            complaint = guest.stderr.read().strip()
        seconds = time.monotonic() - started
        lines = results.read_text(errors="replace").splitlines()
    told = console.read_text(errors="replace")
    return understand(lines, told, trouble, complaint, seconds, console)


def _command(
    package: Package, root: Path, console: Path, results: Path, groups: list[str], args: str
) -> list[str | Path]:
    machine = package.machine
    words = f"console={machine.console} {machine.words} {machine.hugetlb} {_COMMAND_LINE}"
    words += f" dirtytrack.results={machine.results} dirtytrack.groups={','.join(groups)}"
    if args:
        # The kernel knows no escapes inside its quotes.
        words += f' "dirtytrack.args={args}"'
    common = f"-accel {accelerator(package)} -smp 1 -m {machine.memory}"
    common += " -display none -monitor none -no-reboot -nic none"
    return [
        *machine.emulator,
        *shlex.split(common),
        *("-kernel", image(package), "-append", words),
        *(() if machine.has_root_drivers else ("-initrd", initramfs(package))),
        # One disk only: the kernel may swap the names of two.
        *("-drive", f"file={root},if=none,id=d0,format=raw,snapshot=on", "-device", "nvme,drive=d0,serial=r"),
        *(word.format(console=console, results=results) for word in machine.serial),
    ]


@functools.cache
def accelerator(package: Package) -> str:
    """``kvm`` where the kernel runs by it, else ``tcg``. Some machines have one by which it only crawls."""
    machine = package.machine
    if platform.machine() != machine.native:
        return "tcg"
    words = "-accel kvm -m 1024 -display none -monitor none -no-reboot -nic none -serial stdio"
    command = [
        *("timeout", "--kill-after=5", str(TRIAL_SECONDS)),
        *machine.emulator,
        *shlex.split(words),
        "-kernel",
        image(package),
    ]
    command += ["-append", f"console={machine.console} panic=-1 {machine.words}"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, **pipes, text=True, errors="replace") as trial:
        runs = comes_to_its_end(trial.stdout or ())
        trial.terminate()  # which is handed on; killed, it would leave the emulator at work
    return "kvm" if runs else "tcg"


def comes_to_its_end(told: Iterable[str]) -> bool:
    """Whether a kernel finds that it has no root, before it or the emulator gives up."""
    for line in told:
        if "Unable to mount root fs" in line or "KVM internal error" in line:
            return "root fs" in line
    return False


def _watch(guest: subprocess.Popen[str], results: Path) -> str:
    """Wait for the guest's end, bring it about if need be, and say what was wrong."""
    size, computed, heard = 0, 0.0, time.monotonic()
    while True:
        try:
            guest.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        else:
            return ""
        used, now = processor_seconds(guest.pid), time.monotonic()
        if results.stat().st_size != size:
            size, computed, heard = results.stat().st_size, used, now
        late = used > LIMIT_SECONDS
        silent = used - computed > SILENCE_SECONDS or now - heard > STILLNESS_SECONDS
        if late or silent:
            guest.kill()
            return "ended by the watchdog: " + ("out of time" if late else "silent for too long")


def processor_seconds(pid: int) -> float:
    """The processor time that a child has taken; also of one that has ended and is not waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def understand(
    lines: list[str], told: str, trouble: str, complaint: str, seconds: float, console: Path
) -> Boot:
    """Put together what the guest said.

    Args:
        lines: of its results, each JSON.
        told: its console.
        trouble: what the watchdog had to do.
        complaint: what the emulator said.
        seconds: how long it took.
        console: where its console is.
    """
    doctor: dict[str, Any] = {}
    groups: list[Group] = []
    running, ended, handed_on = "", False, b""
    current = Group("")
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:
            continue  # cut off by the guest's end; what is missing then shows below
        if "doctor" in said:
            doctor = said["doctor"]
        elif "begin" in said:
            current = Group(said["begin"])
            groups.append(current)
        elif "start" in said:
            running = said["start"]
        elif "test" in said:
            _count(current, said)
        elif "exit" in said:
            current.exit = said["exit"]
        elif "handed on" in said:
            handed_on = base64.b64decode(said["handed on"])
        elif "end" in said:
            ended = True
    if not ended:
        trouble = trouble or _last_words(told) or complaint or "ended without a word"
        if running and current.exit is None:
            trouble += f", in {running}"
    warnings = [line.strip() for line in told.splitlines() if "WARNING: CPU" in line or "BUG:" in line]
    return Boot(doctor, groups, trouble, warnings, seconds, console, handed_on)


def _count(group: Group, said: dict[str, Any]) -> None:
    name = said["test"]
    group.counts[said["outcome"]] += 1
    group.seconds[name] = group.seconds.get(name, 0) + said["seconds"]
    if said["outcome"] == "failed":
        group.failures[name] = said["text"]
    elif said["outcome"] == "skipped":
        group.skips[said["text"]] += 1


def _last_words(told: str) -> str:
    """The line in which the kernel gave up."""
    for line in told.splitlines():
        if "Kernel panic" in line:
            return line.partition("] ")[2].strip() or line.strip()
    return ""
