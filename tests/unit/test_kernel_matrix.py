"""`make kernels` can fail: what its guests say, and what they no longer say, ends up as a complaint."""

from __future__ import annotations

import io
import json
import lzma
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dirtytrack
from _lib.support import require
from matrix import baton, boot
from matrix.fetch import Package, UnavailableError, choose, provide
from matrix.initramfs import in_order, understand
from matrix.machine import parse
from matrix.relay import Relay, unpack
from matrix.table import Result, page, text

X86, _ = parse("6.12")
ARM, _ = parse("arm64/6.12")
OLD = Package("linux-image-6.1.0-1-cloud-amd64", "6.1.9-1", X86)
NEW = Package("linux-image-6.12.43+deb12-cloud-amd64", "6.12.43-1~bpo12+1", X86)
DOCTOR = {"works": True, "hole_reporting": "blind"}

GOOD: list[dict[str, Any]] = [
    {"doctor": DOCTOR},
    {"begin": "kernel"},
    {"start": "a.py::one"},
    {"test": "a.py::one", "outcome": "passed", "seconds": 1, "text": ""},
    {"start": "a.py::two"},
    {"test": "a.py::two", "outcome": "skipped", "seconds": 0, "text": "no such thing"},
    {"exit": 0},
    {"end": True},
]
FAILED = {"test": "a.py::two", "outcome": "failed", "seconds": 0, "text": "E  assert False"}


def result_of(lines: list[dict[str, Any]], told: str = "", package: Package = NEW) -> Result:
    """What is made of a guest's lines and its console."""
    said = [json.dumps(line) for line in lines]
    result = Result("6.12", package)
    result.add(boot.understand(said, told, "", "", 9.0, Path("console")), ["kernel"])
    return result


def test_a_good_guest_is_good() -> None:
    """Counts, skips with reasons, hole reporting; and nothing to complain about."""
    result = result_of(GOOD)
    assert result.complaints == []
    for shown, counts in (
        (text([result], ["kernel"]), "1 passed, 1 skipped"),
        (page([result], ["kernel"], "", ["a machine"]), "| 1 / 1 |"),
    ):
        assert counts in shown
        assert "no such thing" in shown
        assert "blind" in shown


@pytest.mark.parametrize(
    ("lines", "told", "complaint"),
    [
        pytest.param([*GOOD[:5], FAILED, *GOOD[6:]], "", "a.py::two failed", id="a test fails"),
        pytest.param([*GOOD[:6], {"exit": 1}, *GOOD[7:]], "", "ended with status 1", id="pytest fails"),
        pytest.param([*GOOD[:6], {"exit": 5}, *GOOD[7:]], "", "ended with status 5", id="no tests"),
        pytest.param([*GOOD[:6], {"exit": -9}, *GOOD[7:]], "", "ended with status -9", id="pytest is killed"),
        pytest.param(GOOD[:5], "[ 1.0] Kernel panic - not syncing: x", "x, in a.py::two", id="a panic"),
        pytest.param(GOOD[:7], "", "ended without a word", id="an early end"),
        pytest.param(GOOD[:1] + GOOD[-1:], "", "tests/kernel did not run", id="no group"),
        pytest.param(GOOD, "[ 1.0] WARNING: CPU: 0 PID: 1", "WARNING", id="a warning"),
        pytest.param(GOOD[1:], "", "doctor says None", id="no doctor"),
        pytest.param(
            [{"doctor": {"works": False, "cause": "config", "remedy": "Do."}}, *GOOD[1:]], "", "False"
        ),
    ],
)
def test_every_way_to_fail_is_a_complaint(lines: list[dict[str, Any]], told: str, complaint: str) -> None:
    """A failed test, a dead pytest, a panic, a guest that ends early or says nothing: none looks good."""
    result = result_of(lines, told)
    assert any(complaint in line for line in result.complaints), result.complaints


def test_a_second_boot_adds_to_the_first() -> None:
    """Its groups and seconds come on top; what was wrong with either stays."""
    result = result_of(GOOD)
    for lines, complaint in ((GOOD[:7], "ended without a word"), (GOOD, "ended without a word")):
        said = [json.dumps(line).replace("kernel", "relay") for line in lines]
        result.add(boot.understand(said, "", "", "", 1.0, Path("console")), ["relay"])
        assert result.complaints == [complaint]
    assert result.boot is not None
    assert result.boot.seconds == 11
    assert "1 passed, 1 skipped" in text([result], ["relay"])


@pytest.mark.parametrize(
    ("program", "limits", "verdict"),
    [
        ("", {}, ""),
        ("while True: pass", {"SILENCE_SECONDS": 0.1}, "silent for too long"),
        ("while True: pass", {"LIMIT_SECONDS": 0.1}, "out of time"),
        ("import signal; signal.pause()", {"STILLNESS_SECONDS": 0.1}, "silent for too long"),
    ],
)
def test_a_guest_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, limits: dict[str, float], verdict: str
) -> None:
    """By its processor time if it computes, by the clock if it waits; one that ends by itself is good."""
    (tmp_path / "results").touch()
    for name, seconds in {"_POLL_SECONDS": 0.01, **limits}.items():
        monkeypatch.setattr(boot, name, seconds)
    with subprocess.Popen([sys.executable, "-c", program]) as guest:
        trouble = boot._watch(guest, tmp_path / "results")
    assert trouble == (verdict and f"ended by the watchdog: {verdict}")


@pytest.mark.parametrize(
    ("native", "told", "expected"),
    [
        (platform.machine(), "[ 2.3] Kernel panic - not syncing: VFS: Unable to mount root fs", "kvm"),
        (platform.machine(), "[ 0.0] Linux version 6.1", "tcg"),  # which goes on for ever
        (platform.machine(), "KVM internal error. Suberror: 1", "tcg"),
        (platform.machine(), "failed to set MSR 0x10a", "tcg"),
        ("", "[ 2.3] Kernel panic - not syncing: VFS: Unable to mount root fs", "tcg"),
    ],
)
def test_a_guest_is_emulated_where_kvm_does_not_work(
    monkeypatch: pytest.MonkeyPatch, native: str, told: str, expected: str
) -> None:
    """A kernel is tried, and only for a machine that this one could be."""
    monkeypatch.setattr(boot, "image", lambda package: "image")
    asked = replace(X86, native=native, emulator=("sh", "-c", f"echo '{told}'"))
    assert boot.accelerator(replace(NEW, machine=asked)) == expected


def test_processor_time_is_that_of_the_process() -> None:
    """As the process itself sees it, to a tick."""
    before, told, after = time.process_time(), boot.processor_seconds(os.getpid()), time.process_time()
    assert before - 0.03 <= told <= after + 0.03


def test_an_old_kernel_must_not_work() -> None:
    """Tracking that seems to work before 6.7 is a complaint, and so is a kernel that can't be had."""
    assert any("doctor says True" in line for line in result_of(GOOD, package=OLD).complaints)
    assert Result("9.9").complaints == ["apt serves no kernel 9.9"]


def _rewritten(relay: Relay, rewrite: Callable[[Path], None]) -> str:
    """What is said when a guest hands on what *rewrite* made of the chain."""
    with tempfile.TemporaryDirectory() as guest, io.BytesIO() as file:
        unpack(io.BytesIO(relay.pack().read_bytes()), Path(guest))
        rewrite(Path(guest) / "chain")
        with tarfile.open(fileobj=file, mode="w:xz") as archive:
            archive.add(guest, ".")
        return relay.take_back(file.getvalue())


def _spoil(chain: Path) -> None:
    (base, *_) = sorted(chain.glob("*.base"))
    data = bytearray(base.read_bytes())
    data[len(data) // 2] ^= 1
    base.write_bytes(data)


def _begin_anew(chain: Path) -> None:
    shutil.rmtree(chain)
    baton.hand_on(chain)


def test_a_relay_takes_back_what_is_good(tmp_path: Path) -> None:
    """A chain with more epochs; not one that is gone, spoilt, or shorter than it was."""
    require(dirtytrack.support().works, "this system cannot track")
    relay = Relay(tmp_path)
    assert _rewritten(relay, baton.hand_on) == ""
    assert relay.by == [baton.whoami()] * 2
    for rewrite, complaint in ((shutil.rmtree, "gone"), (_spoil, "is wrong"), (_begin_anew, "lacks epochs")):
        assert complaint in _rewritten(relay, rewrite)
    assert "no chain" in relay.take_back(b"")
    assert _rewritten(relay, baton.hand_on) == ""
    assert len(relay.by) == 3


def test_kernels_are_chosen_by_number() -> None:
    """6.1 is not 6.12; oldest, newest and exact versions are as they say."""
    more = Package("linux-image-6.12.9+deb13-cloud-amd64", "6.12.9-1", X86)
    served = [OLD, more, NEW]
    assert [choose(served, asked) for asked in ("6.1", "6.12", "6.12-oldest", "newest", "6.12.9", "7")] == [
        *(OLD, NEW, more, NEW, more),
        None,
    ]


def test_machines_are_chosen_by_name() -> None:
    """x86-64 unless another one is named; and tracking has to work from another kernel on there."""
    assert [parse(asked)[0].name for asked in ("6.12", "arm64/6.12-oldest", "arm64-16k/newest")] == [
        *("x86-64", "arm64", "arm64-16k")
    ]
    assert parse("arm64/6.12-oldest")[1] == "6.12-oldest"
    with pytest.raises(ValueError, match="the machines are x86-64, arm64"):
        parse("vax/6.12")
    for kernel, works in (("6.9.9-1", False), ("6.10.1-1", True)):
        assert (
            any(
                "doctor" in line for line in result_of(GOOD, package=Package("linux", kernel, ARM)).complaints
            )
            is not works
        )


def test_modules_come_after_what_they_need() -> None:
    """By name or by alias, each once; what is not there is part of the kernel."""
    modules = [
        understand("./kernel/fs/ext4/ext4.ko", b"\0depends=jbd2,mb-cache,crc16\0alias=fs-ext4\0"),
        understand("./kernel/fs/jbd2/jbd2.ko", b"\0softdep=pre: crypto-crc32c post: late\0depends=\0"),
        understand("./kernel/fs/mb-cache.ko", b"\0depends=\0"),
        understand("./kernel/crypto/crc32c_generic.ko.xz", lzma.compress(b"\0alias=crypto-crc32c\0")),
    ]
    by_name = {name: module for module in modules for name in (module.name, *module.aliases)}
    assert [module.name for module in in_order(by_name, "ext4")] == [
        "crc32c_generic",
        "jbd2",
        "mb_cache",
        "ext4",
    ]


@pytest.mark.parametrize(
    ("apt", "user", "complaint"),
    [
        ('echo "#!" > "$(dirname "$0")/$5"; chmod +x "$(dirname "$0")/$5"', 0, None),
        ("echo no network >&2; exit 100", 0, "apt-get update failed: no network"),
        ("exit 0", 0, "not installed: dt-emulator"),
        ("exit 0", 1000, "not installed: dt-emulator"),
    ],
)
def test_what_is_missing_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apt: str, user: int, complaint: str | None
) -> None:
    """By root and with apt; a failure of that is a reason not to go on."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("os.geteuid", lambda: user)
    (tmp_path / "apt-get").write_text(f"#!/bin/sh\n{apt}\n")
    (tmp_path / "apt-get").chmod(0o755)
    told = nullcontext() if complaint is None else pytest.raises(UnavailableError, match=complaint)
    with told:
        provide({"dt-emulator": "dt-emulator"})
