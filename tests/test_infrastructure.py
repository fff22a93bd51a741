"""The test infrastructure itself: a check that can't fail is none."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from _lib import limits, seccomp
from _lib.support import PAGE_SIZE, PMD_SIZE, Memory, in_child, library, require, reserve_hugepages

ROOT = Path(__file__).parent.parent


def run_pytest(
    tmp_path: Path, source: str, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a test file of its own with the project's configuration."""
    file = tmp_path / "test_deliberate.py"
    file.write_text(source)
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ} | environment
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), f"--rootdir={ROOT}"]
    command += ["-p", "conftest", "-p", "no:cacheprovider", *options, str(file)]
    return limits.run(command, env=environment)


@pytest.mark.parametrize("body", ["assert False", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"])
def test_a_forked_test_that_fails_or_crashes_is_reported(tmp_path: Path, body: str) -> None:
    """A forked test that asserts or dies fails the run, and its neighbour still counts."""
    source = f"import pytest\n@pytest.mark.forked\ndef test_bad():\n    {body}\n"
    result = run_pytest(tmp_path, source + "@pytest.mark.forked\ndef test_good():\n    pass\n")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "1 failed, 1 passed" in result.stdout


def test_a_warning_fails_a_test(tmp_path: Path) -> None:
    """A leaked file is an error, not a line that nobody reads."""
    result = run_pytest(tmp_path, "def test_leak():\n    open('/dev/null')\n")
    assert result.returncode == 1
    assert "ResourceWarning" in result.stdout


@pytest.mark.parametrize(("strict", "code", "word"), [("0", 0, "1 skipped"), ("1", 1, "1 failed")])
def test_require_skips_or_fails(tmp_path: Path, strict: str, code: int, word: str) -> None:
    """An unmet requirement skips with its reason, and fails under strict."""
    source = "from _lib.support import require\ndef test_it():\n    require(False, 'no such luck')\n"
    result = run_pytest(tmp_path, source, DIRTYTRACK_TEST_STRICT=strict)
    assert result.returncode == code, result.stdout + result.stderr
    assert word in result.stdout
    assert "no such luck" in result.stdout


def test_optional_skips_even_under_strict(tmp_path: Path) -> None:
    """What a machine may lack never fails the run."""
    source = "from _lib.support import optional\ndef test_it():\n    optional(False, 'no torch')\n"
    result = run_pytest(tmp_path, source, DIRTYTRACK_TEST_STRICT="1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "no torch" in result.stdout


@pytest.mark.parametrize(
    ("environment", "code", "word"),
    [({}, 5, "1 skipped"), ({"DIRTYTRACK_TEST_TORCH": "1"}, 2, "1 error")],
)
def test_a_file_whose_library_is_missing_is_skipped(
    tmp_path: Path, environment: dict[str, str], code: int, word: str
) -> None:
    """As a whole, with the reason; under strict it fails where the library has to be."""
    source = "from _lib.support import library\nlibrary('no_such_library')\ndef test_it():\n    pass\n"
    result = run_pytest(tmp_path, source, DIRTYTRACK_TEST_STRICT="1", **environment)
    assert result.returncode == code, result.stdout + result.stderr
    assert word in result.stdout
    assert "no_such_library is not installed: make test-torch has it" in result.stdout


def test_a_library_that_is_there_is_imported(tmp_path: Path) -> None:
    """And one that is broken is no missing one."""
    assert library("json").dumps(1) == "1"
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    source = (
        f"import sys\nsys.path.append({str(tmp_path)!r})\n"
        "from _lib.support import library\nlibrary('broken')\n"
    )
    result = run_pytest(tmp_path, source)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "No module named 'no_such_module'" in result.stdout


@pytest.mark.parametrize(
    ("limit", "body", "number"),
    [
        ("HANG_SECONDS", "signal.pause()", signal.SIGALRM),
        ("TEST_SECONDS", "while True: pass", signal.SIGPROF),
    ],
)
def test_a_hang_ends_with_a_traceback(tmp_path: Path, limit: str, body: str, number: signal.Signals) -> None:
    """A forked test that waits or computes for ever is reported as crashed, with the line it was at."""
    source = f"import pytest, signal\nfrom _lib import limits\nlimits.{limit} = 1\n"
    source += f"@pytest.mark.forked\ndef test_hang():\n    {body}\n"
    result = run_pytest(tmp_path, source)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"CRASHED with signal {number}" in result.stdout
    assert "line 6 in test_hang" in result.stderr


def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that computes by its processor time, one that waits by the clock; others return what they wrote."""
    assert limits.run([sys.executable, "-c", "print(1)"]).stdout == "1\n"
    with monkeypatch.context() as patched:
        patched.setattr(limits, "TEST_SECONDS", 1)
        assert limits.run([sys.executable, "-c", "while True: pass"]).returncode == -signal.SIGXCPU
    monkeypatch.setattr(limits, "CHILD_HANG_SECONDS", 0.2)
    with pytest.raises(subprocess.TimeoutExpired):
        limits.run([sys.executable, "-c", "import signal; signal.pause()"])


def test_a_quick_run_has_what_any_kernel_passes_without_processes(tmp_path: Path) -> None:
    """What says that it is slow is left out; who starts a process, in whatever way, is skipped."""
    source = """
        import os, subprocess, pytest
        from _lib.support import in_child
        from _lib.works import tracking_works
        def test_tracks(): pass
        @pytest.mark.anywhere
        def test_quick(): pass
        @pytest.mark.{mark}
        @pytest.mark.anywhere
        def test_marked(): pass
        @pytest.mark.anywhere
        @pytest.mark.parametrize("start", [lambda: subprocess.run("true"), lambda: in_child(int)])
        def test_starts(start): start()
    """
    for mark in ("slow", "forked"):
        result = run_pytest(tmp_path, textwrap.dedent(source.format(mark=mark)), "--quick")
        assert result.returncode == 0, result.stdout + result.stderr
        assert "1 passed, 2 skipped, 2 deselected" in result.stdout


def test_require_lets_pass_what_holds() -> None:
    """A condition that holds does nothing."""
    require(True, "never seen")


def test_child_reports_its_value() -> None:
    """The function's result comes back, larger than a pipe holds."""
    assert in_child(lambda: bytes(1 << 20)).check() == bytes(1 << 20)


def test_child_reports_its_exception() -> None:
    """An exception in the child is told to the parent, and check() fails with it."""
    child = in_child(lambda: 1 // 0)
    assert child.status == 1
    assert "ZeroDivisionError" in child.error
    with pytest.raises(pytest.fail.Exception, match="ZeroDivisionError"):
        child.check()


def test_child_reports_exit_status_and_signal() -> None:
    """A child that exits or is killed without a word is not taken for a success."""
    assert in_child(lambda: os._exit(7)).status == 7
    assert in_child(lambda: sys.exit(3)).status == 3
    killed = in_child(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert killed.status == -signal.SIGKILL
    assert "SIGKILL" in killed.error
    with pytest.raises(pytest.fail.Exception, match="status 7"):
        in_child(lambda: os._exit(7)).check()


def test_child_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that waits for ever ends by the clock, one that computes by its processor time; it says so."""
    with monkeypatch.context() as patched:
        patched.setattr(limits, "CHILD_HANG_SECONDS", 0.2)
        child = in_child(signal.pause)
    assert child.status == -signal.SIGKILL
    assert "still running" in child.error
    monkeypatch.setattr(limits, "TEST_SECONDS", 1)
    child = in_child(lambda: all(iter(lambda: 1, 0)))
    assert child.status == -signal.SIGXCPU
    assert "it computed for 1 s" in child.error


def test_grandchild_does_not_keep_the_parent_waiting() -> None:
    """A child's own child that holds the pipe does not delay the report."""

    def leave_one_behind() -> int:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        return pid

    grandchild = in_child(leave_one_behind).check()
    os.kill(grandchild, signal.SIGKILL)


def test_memory_knows_its_changes() -> None:
    """Changes against the shadow are found to the page, and forgotten once copied."""
    with Memory(8) as memory:
        assert memory.address % PAGE_SIZE == 0
        assert memory.changed() == set()
        memory.touch(2)
        memory.write(5, 9)
        assert ctypes.string_at(memory.address + 5 * PAGE_SIZE, PAGE_SIZE) == bytes([9]) * PAGE_SIZE
        assert memory.changed() == {2, 5}
        memory.copy([2])
        assert memory.changed() == {5}
        memory.sync()
        memory.touch(2)
        assert memory.changed() == {2}
        memory.advise(mmap.MADV_DONTNEED, 5, 6)
        assert memory.changed() == {2, 5}
        with pytest.raises(IndexError):
            memory.touch(8)


def test_hugepages_are_reserved_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reserve holds while the block runs and is what it was afterwards."""
    pool = Path(f"/sys/kernel/mm/hugepages/hugepages-{PMD_SIZE >> 10}kB")
    require(pool.exists(), "the kernel has no hugetlb support")
    with open(pool / "nr_hugepages") as reserve:
        fcntl.flock(reserve, fcntl.LOCK_EX)  # from before the first look to after the last
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)
        before = reserve.read()
        with reserve_hugepages(2) as size:
            assert size > PAGE_SIZE
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000  # MAP_HUGETLB
            with Memory(2, flags=flags, page_size=size) as memory:
                memory.touch(1)
                assert memory.changed() == {1}
        reserve.seek(0)
        assert reserve.read() == before


def test_seccomp_is_refused_outside_a_child() -> None:
    """The test run can't poison itself."""
    with pytest.raises(RuntimeError, match="forked child"):
        seccomp.install(seccomp.Refuse("userfaultfd", errno.EPERM))


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS])
def test_seccomp_refuses_one_system_call(code: int) -> None:
    """The call chosen fails with the errno chosen; others work."""

    def child() -> int | None:
        seccomp.install(seccomp.Refuse("fsync", code))
        with open("/dev/null", "wb") as file, pytest.raises(OSError) as caught:
            os.fsync(file.fileno())
        return caught.value.errno

    assert in_child(child).check() == code


def test_seccomp_refuses_one_ioctl() -> None:
    """The request chosen fails, another on the same file reaches the kernel; later rules count too."""

    def child() -> list[int]:
        libc = ctypes.CDLL(None, use_errno=True)
        seccomp.install(
            seccomp.Refuse("userfaultfd", errno.EPERM),
            seccomp.refuse_ioctl(seccomp.PAGEMAP_SCAN, errno.EXFULL),
        )
        codes = []
        with open("/proc/self/pagemap", "rb") as pagemap:
            for request in (seccomp.PAGEMAP_SCAN, seccomp.UFFDIO_API):
                assert libc.ioctl(pagemap.fileno(), ctypes.c_ulong(request), None) == -1
                codes.append(ctypes.get_errno())
        return codes

    refused, passed = in_child(child).check()
    assert refused == errno.EXFULL
    assert passed != errno.EXFULL
