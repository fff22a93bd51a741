"""The guest's first and only program: mounts, runs the tests, writes what came out to another serial port.

Every line there is a JSON object: ``{"doctor": ...}``, then ``{"begin": group}`` and ``{"exit": status}``
around the lines of guest_report.py, ``{"handed on": archive}`` if it was handed one, and last
``{"end": true}``. What the tests print goes to the console.
"""

import base64
import ctypes
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
import traceback
import tty
from pathlib import Path

HOME = "/home/dirtytrack"
HANDED = "/home/handed"  # a chain of checkpoints that goes from guest to guest, and before an archive of it
RB_AUTOBOOT = 0x01234567  # include/uapi/linux/reboot.h; the emulator ends at a reboot

MOUNTS = (
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devtmpfs", "/dev", "devtmpfs"),
    ("devpts", "/dev/pts", "devpts"),
    ("tmpfs", "/dev/shm", "tmpfs"),
    ("tmpfs", "/run", "tmpfs"),
)

SYSCTLS = {
    "vm/overcommit_memory": 1,  # tests reserve more than the guest has
    "kernel/panic_on_oops": 1,
    "kernel/hung_task_timeout_secs": 300,  # a busy host makes a minute of a few seconds
    "kernel/hung_task_panic": 1,
}

ENVIRONMENT = {
    "HOME": "/root",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "PYTHONPATH": f"{HOME}/packages",
    "COLUMNS": "120",
    "DIRTYTRACK_RELAY": f"{HANDED}/chain",
    "DIRTYTRACK_TEST_SECONDS": "3600",  # a guest can't tell its own time from the host's: boot.py watches it
}

libc = ctypes.CDLL(None, use_errno=True)


def mount() -> None:
    """Mount what a system has."""
    for source, target, kind in MOUNTS:
        os.makedirs(target, exist_ok=True)
        if libc.mount(source.encode(), target.encode(), kind.encode(), 0, None) != 0:
            raise OSError(ctypes.get_errno(), f"mount {target}")
    for link, target in (("/dev/fd", "/proc/self/fd"), ("/dev/stdin", "/proc/self/fd/0")):
        if not os.path.lexists(link):
            os.symlink(target, link)


def settle() -> None:
    """An oops or a task that hangs for good ends the guest: neither can pass unseen."""
    for name, value in SYSCTLS.items():
        path = Path("/proc/sys") / name
        if path.exists():
            path.write_text(f"{value}\n")


def options() -> dict[str, str]:
    """Our words on the kernel's command line, which leaves words with a dot to us."""
    words = shlex.split(Path("/proc/cmdline").read_text())
    ours = (word.removeprefix("dirtytrack.") for word in words if word.startswith("dirtytrack."))
    return {key: value for key, _, value in (word.partition("=") for word in ours)}


def run(*words: str, stdout: int | None = None, **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python as a child of ours, with more variables in its environment."""
    environment = ENVIRONMENT | more
    return subprocess.run([sys.executable, *words], cwd=HOME, env=environment, check=False, stdout=stdout)


def main() -> None:
    mount()
    settle()
    asked = options()
    device = f"/dev/{asked['results']}"
    with open(device, "wb") as results:
        tty.setraw(results.fileno())

        def report(**what: object) -> None:
            results.write(json.dumps(what).encode() + b"\n")
            results.flush()

        doctor = run("-m", "dirtytrack", "doctor", "--json", stdout=subprocess.PIPE)
        report(doctor=json.loads(doctor.stdout))
        handed = Path(f"{HANDED}.tar")
        if handed.exists():
            with tarfile.open(handed) as archive:
                archive.extractall(HANDED)
        args = shlex.split(asked.get("args", ""))
        for group in filter(None, asked.get("groups", "").split(",")):
            report(begin=group)
            words = ("-m", "pytest", "-p", "guest_report", "-q", f"tests/{group}", *args)
            done = run(*words, DIRTYTRACK_RESULTS=device)
            report(exit=done.returncode)
        if handed.exists():
            with io.BytesIO() as file:
                with tarfile.open(fileobj=file, mode="w:xz") as archive:
                    archive.add(HANDED, ".")
                report(**{"handed on": base64.b64encode(file.getvalue()).decode()})
        report(end=True)


def reap(worker: int) -> None:
    """Wait for every child, adopted orphans included, until the worker is gone."""
    while os.wait()[0] != worker:
        pass


try:
    pid = os.fork()
    if pid == 0:
        main()
    else:
        reap(pid)
except BaseException:
    traceback.print_exc()
finally:
    sys.stdout.flush()
    sys.stderr.flush()
    if os.getpid() == 1:
        libc.reboot(RB_AUTOBOOT)
    os._exit(0)
