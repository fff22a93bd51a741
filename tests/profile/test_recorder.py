"""Recordings of programs: what they wrote is found, and they run as ever."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import weakref
from pathlib import Path

import pytest

from _lib import limits
from _lib.support import PAGE_SIZE, optional
from dirtytrack import DirtyTrackError, UnsupportedError
from dirtytrack.profile import Recording, Report, _agent, _limits, _memory, _protocol, running
from dirtytrack.profile._protocol import Line
from dirtytrack.profile.recorder import Pace
from dirtytrack.profile.running import record

pytestmark = pytest.mark.slow

_WRITERS = f"""
import numpy as np
table = np.zeros(200 * {PAGE_SIZE} // 8)
first = -table.ctypes.data % {PAGE_SIZE} // 8  # the first element that begins a page

def store(*pages):
    for page in pages:
        table[first + page * {PAGE_SIZE} // 8] += 1

def few():
    store(1, 2, 3)

def inner():
    store(7)

def outer():
    store(10)
    inner()
    store(11)

def fails():
    store(20)
    raise KeyError
"""
_PROGRAM = """
import sys, writers
for _ in range(5):
    writers.few()
    writers.store(50)
    writers.outer()
try:
    writers.fails()
except KeyError:
    pass
print("argv", sys.argv, "name", __name__, "first path", sys.path[0])
"""
_QUICK = Pace(0.02, 1.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a program in it, which is the current one."""
    (tmp_path / "writers.py").write_text(_WRITERS)
    (tmp_path / "program.py").write_text(_PROGRAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def by_phase(recording: Recording, area: str) -> dict[str, tuple[int, int]]:
    """Page-writes and pages of an area, by the last part of a phase's name."""
    return {
        phase.name: (tally.writes, tally.distinct)
        for phase in recording.phases
        for tally in phase.tallies
        if recording.areas[tally.area].name == area
    }


def test_phases_have_what_their_functions_wrote(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Exactly: of an array whose pages are known, in functions within functions and one that fails."""
    names = [f"writers:{name}" for name in ("few", "outer", "inner", "fails")]
    (folder / "program.py").write_text(
        "import os, signal, time, writers\n"
        "os.kill(os.getpid(), signal.SIGURG)\n"  # as the recorder does once a second: arrays are looked for
        + _PROGRAM
    )
    report, code = record(["program.py", "--x", "y"], phases=names, pace=Pace(0.5, 1.0))
    assert code == 0
    found = by_phase(report.recording, "writers.table")
    assert {phase: found[phase] for phase in found if "writers" in phase} == {
        "writers:few": (15, 3),
        "writers:outer": (10, 2),
        "writers:outer/writers:inner": (5, 1),
        "writers:fails": (1, 1),
    }
    out = capfd.readouterr().out
    assert f"argv ['program.py', '--x', 'y'] name __main__ first path {folder}" in out


def test_a_module_runs_as_with_python(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Also its name, and where its modules are looked for."""
    report, code = record(["program", "a"], is_module=True, pace=_QUICK)
    assert code == 0
    assert f"argv ['{folder}/program.py', 'a'] name __main__ first path {folder}" in capfd.readouterr().out
    assert report.recording.program == "program a"
    assert report.recording.kind == "record"
    assert report.recording.watched > 1 << 20


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("raise SystemExit(7)", 7, ""),
        ("raise KeyError('on purpose')", 1, "on purpose"),
        ("import os; os._exit(3)", 3, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("import threading; threading.Thread(target=print, args=('late',)).start()", 0, ""),
        ("import sys; print(sys.stdin.read())", 0, ""),
    ],
)
def test_a_program_ends_as_it_would(
    folder: Path, capfd: pytest.CaptureFixture[str], program: str, code: int, said: str
) -> None:
    """With its own exit code, and there is a report all the same; one without a last look says so."""
    (folder / "program.py").write_text(program)
    report, ended = record(["program.py"], pace=_QUICK)
    assert ended == code
    assert said in capfd.readouterr().err
    assert report.recording.collects >= 1
    is_abrupt = "SIGKILL" in program
    assert any("without a word" in note for note in report.recording.notes) == is_abrupt


def test_children_go_their_own_way(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """They are counted, run the same functions, and disturb nobody."""
    (folder / "program.py").write_text("""
import os, writers
os.kill(os.getpid(), 23)  # arrays are looked for
for number in range(3):
    pid = os.fork()
    if pid == 0:
        writers.few()
        os.kill(os.getpid(), 23)  # SIGURG, which is ignored here as ever
        os._exit(40 + number)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
writers.few()
""")
    report, code = record(["program.py"], phases=["writers:few"], pace=_QUICK)
    assert code == 0
    assert capfd.readouterr().out.split() == ["40", "41", "42"]
    assert any("forked 3 times" in note for note in report.recording.notes)
    assert by_phase(report.recording, "writers.table")["writers:few"] == (3, 3)


_FAMILY = """
import os, signal, threading, writers

def child(*pages, end=lambda: os._exit(0)):
    pid = os.fork()
    if pid == 0:
        writers.store(*pages)
        end()
    os.waitpid(pid, 0)
"""


def _pages_of(recording: Recording, area: str) -> list[tuple[int, int]]:
    """Page-writes and pages of an area, of each forked child that has written it, in their order."""
    found = {}
    for phase in recording.phases:
        for tally in phase.tallies:
            if recording.areas[tally.area].name == area and phase.process:
                writes, distinct = found.get(phase.process, (0, 0))
                found[phase.process] = (writes + tally.writes, distinct + tally.distinct)
    return [found[process] for process in sorted(found)]


@pytest.mark.parametrize(
    ("program", "pages"),
    [
        ("child(1, 2, 3)\nchild(4)\nchild(5, 6)", [(3, 3), (1, 1), (2, 2)]),
        ("child(1, 2, end=lambda: child(5, 6, 7))", [(2, 2), (3, 3)]),
        ("threading.Thread(target=child, args=(1, 2)).start()", [(2, 2)]),
        ("child(1, 2, end=lambda: sys.exit(3))", [(2, 2)]),
        (
            "import multiprocessing\n"
            "one = multiprocessing.get_context('fork').Process(target=writers.store, args=(8, 9))\n"
            "one.start(); one.join()",
            [(2, 2)],
        ),
    ],
    ids=["children", "grandchild", "thread", "exit", "multiprocessing"],
)
def test_forked_children_are_followed(folder: Path, program: str, pages: list[tuple[int, int]]) -> None:
    """Each has the pages that it wrote itself, exactly: nothing of its parent's, which are the same pages."""
    (folder / "program.py").write_text(f"""{_FAMILY}
import sys
os.kill(os.getpid(), signal.SIGURG)  # arrays are looked for
writers.store(0, 1, 2, 30)
{program}
""")
    report, code = record(["program.py"], pace=Pace(60.0, 1.0), follow_forks=True)
    assert code == 0
    recording = report.recording
    assert _pages_of(recording, "writers.table") == pages
    first, *children = recording.processes
    assert len(children) == len(pages)
    assert {child.parent for child in children} <= {first.pid, *(child.pid for child in children)}
    assert all(0 < child.start <= child.stop <= recording.duration for child in children)
    assert all(child.distinct >= distinct for child, (_, distinct) in zip(children, pages, strict=True))
    assert sum(one.writes for one in recording.processes) == recording.writes
    assert not any("without a word" in note for note in recording.notes)
    Report(recording).save(folder / "family")
    assert Report.load(folder / "family").recording == recording


def test_a_child_is_in_the_phase_that_it_was_forked_in(folder: Path) -> None:
    """And has phases of its own, beside its parent's."""
    (folder / "writers.py").write_text(f"""{_WRITERS}
import os
def forks():
    pid = os.fork()
    if pid == 0:
        store(40)
        few()
        os._exit(0)
    few()
    os.waitpid(pid, 0)
""")
    (folder / "program.py").write_text("import writers\nwriters.forks()\n")
    report, _ = record(
        ["program.py"], phases=["writers:forks", "writers:few"], pace=Pace(60.0, 1.0), follow_forks=True
    )
    pid = report.recording.processes[1].pid
    assert {phase.name for phase in report.recording.phases if "few" in phase.name} == {
        "writers:forks/writers:few",
        f"process {pid}/writers:forks/writers:few",
    }
    assert f"process {pid}/writers:forks" in {phase.name for phase in report.recording.phases}


def test_a_child_that_is_killed_or_becomes_another_program(folder: Path) -> None:
    """It is not waited for; what it wrote after its last look is missing, and the report says so."""
    (folder / "program.py").write_text(f"""{_FAMILY}
import sys
child(1, end=lambda: os.kill(os.getpid(), signal.SIGKILL))
child(2, end=lambda: os.execv(sys.executable, [sys.executable, "-c", "import os; os.fork()"]))
child(3)
""")
    report, code = record(["program.py"], pace=Pace(60.0, 1.0), follow_forks=True)
    assert code == 0
    assert len(report.recording.processes) == 4
    assert any("Of 2 forked children the last look is missing" in note for note in report.recording.notes)


def test_more_children_than_there_may_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The later ones run as ever, are not recorded, and are counted."""
    monkeypatch.setattr(_limits, "PROCESSES", 3)
    (folder / "program.py").write_text(f"{_FAMILY}\nfor page in range(5): child(page)\n")
    report, code = record(["program.py"], pace=_QUICK, follow_forks=True)
    assert code == 0
    assert len(report.recording.processes) == 3
    assert "3 of 5 forked children could not be recorded." in report.recording.notes


def test_children_outlive_the_program(folder: Path) -> None:
    """The recording ends with the program; a daemon that it leaves goes on."""
    os.mkfifo(folder / "fifo")
    (folder / "program.py").write_text("""
import os, select
parent = os.getpid()
reader, writer = os.pipe()
if os.fork() == 0:
    os.write(writer, b"up")
    while os.getppid() == parent: select.select([], [], [], 0.01)
    with open("fifo", "w") as fifo: fifo.write("went on")
    os._exit(0)
os.read(reader, 2)
""")
    report, code = record(["program.py"], pace=_QUICK, follow_forks=True)
    assert code == 0
    assert len(report.recording.processes) == 2
    assert (folder / "fifo").read_text() == "went on"


def test_a_program_that_closes_everything(folder: Path) -> None:
    """As daemons do: nothing of the recorder's comes to what has those numbers then."""
    (folder / "program.py").write_text("""
import os, socket, writers
os.closerange(3, 100)
ends = [socket.socketpair() for _ in range(8)]
writers.few()
pid = os.fork()
if pid == 0:
    writers.few()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
for one, other in ends:
    for end in (one, other):
        end.setblocking(False)
        try: said = end.recv(100)
        except BlockingIOError: continue
        raise SystemExit(f"heard {said}")
""")
    _, code = record(["program.py"], phases=["writers:few"], pace=_QUICK, follow_forks=True)
    assert code == 0


class _Signalled(socket.socket):
    """A socket at which a signal comes just before something is sent."""

    def sendall(self, data: object, flags: int = 0) -> None:  # type: ignore[override]
        os.kill(os.getpid(), signal.SIGURG)
        super().sendall(data, flags)  # type: ignore[arg-type]


def test_a_signal_in_the_middle_of_a_message_takes_no_answer() -> None:
    """Whatever is said then: nobody waits for an answer that another one has got."""
    ours, its = socket.socketpair()
    agent = _agent.Agent(_Signalled(fileno=its.detach()))
    before = signal.signal(signal.SIGURG, lambda *_: (agent.enter("handler"), agent.leave(), agent.end()))
    heard: list[dict[str, object]] = []

    def hear() -> None:
        line = Line(ours)
        while not line.is_over:
            for message in line.read():
                heard.append(message)
                line.answer()

    thread = threading.Thread(target=hear)
    thread.start()
    try:
        agent.enter("a")
        agent.leave()
        agent.end()
    finally:
        signal.signal(signal.SIGURG, before)
        agent._line.close()
        thread.join()
        ours.close()
    assert heard == [{"phase": "a"}, {"phase": ""}, {"end": True, "forks": 0}]


def test_shared_memory_and_files(folder: Path) -> None:
    """With --shared what each process stores to them, exactly: not what it reads, nor what others store."""
    (folder / "program.py").write_text(f"""
import mmap, os, signal
file = open("file", "w+b")
file.truncate(200 * {PAGE_SIZE})
mapped = mmap.mmap(file.fileno(), 0)
anonymous = mmap.mmap(-1, 64 * {PAGE_SIZE})
anonymous[0] = mapped[0] = 1  # before it is seen
def store(memory, *pages):
    for page in pages: memory[page * {PAGE_SIZE}] = 7
os.kill(os.getpid(), signal.SIGURG)  # a look: from here on it is watched
read = sum(mapped[page * {PAGE_SIZE}] for page in range(200))
store(mapped, 3, 4, 150)
store(anonymous, 1, 2)
os.pwrite(file.fileno(), b"by a call", 90 * {PAGE_SIZE})
if os.fork() == 0:
    store(mapped, 150, 199)
    store(anonymous, 60)
    os._exit(0)
os.wait()
os.kill(os.getpid(), signal.SIGURG)
mapped.resize(300 * {PAGE_SIZE})
os.kill(os.getpid(), signal.SIGURG)
store(mapped, 250)
""")
    report, code = record(["program.py"], pace=Pace(60.0, 1.0), follow_forks=True, shared=True)
    assert code == 0
    recording = report.recording
    found = [
        (phase.process, recording.areas[tally.area].name, tally.distinct)
        for phase in recording.phases
        for tally in phase.tallies
        if recording.areas[tally.area].name.startswith("/")
    ]
    path, zero = str(folder / "file"), "/dev/zero (deleted)"
    assert sorted(found) == [(0, zero, 2), (0, path, 1), (0, path, 3), (1, zero, 1), (1, path, 2)]
    report, _ = record(["program.py"], pace=Pace(60.0, 1.0))
    assert not any(area.name.startswith("/") for area in report.recording.areas)
    assert any("of shared memory and mapped files are not in it" in note for note in report.recording.notes)


def test_what_shared_memory_does_not_show(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that was reclaimed before a look, though written; and mappings that are too large."""
    (folder / "program.py").write_text(f"""
import ctypes, mmap, os, signal
from pathlib import Path
file = open("file", "w+b")
file.truncate(64 * {PAGE_SIZE})
mapped = mmap.mmap(file.fileno(), 0)
address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
os.kill(os.getpid(), signal.SIGURG)  # a look: from here on it is watched
mapped[3 * {PAGE_SIZE}] = mapped[5 * {PAGE_SIZE}] = 1
mapped.flush()
page = address + 3 * {PAGE_SIZE}
ctypes.CDLL(None).madvise(ctypes.c_void_p(page), {PAGE_SIZE}, 21)  # MADV_PAGEOUT
with open("/proc/self/pagemap", "rb") as pages:
    pages.seek(page // {PAGE_SIZE} * 8)
    Path("is_there").write_text(str(pages.read(8)[7] >> 7))
""")
    report, code = record(["program.py"], pace=Pace(60.0, 1.0), shared=True)
    assert code == 0
    optional((folder / "is_there").read_text() == "0", "pages of this file system are not reclaimed")
    assert [one.distinct for one in report.recording.areas if one.name == str(folder / "file")] == [1]
    monkeypatch.setattr(_memory, "_MOST_SHARED", PAGE_SIZE)
    report, _ = record(["program.py"], pace=Pace(60.0, 1.0), shared=True)
    assert not any(area.name.startswith("/") for area in report.recording.areas)
    assert any("each is of more than" in note for note in report.recording.notes)


def test_arrays_are_found_where_variables_lead(folder: Path) -> None:
    """In modules, in functions that run, in dictionaries and objects; a view is not told twice."""
    (folder / "program.py").write_text("""
import os, numpy as np
whole = np.ones(1 << 16)
view = whole[10:]
class Model:
    def __init__(self): self.weights = np.ones((100, 1000))
model = Model()
def main():
    local = {"state": np.ones(1 << 15)}
    buffer = bytearray(1 << 18)
    os.kill(os.getpid(), 23)
    for thing in (whole, model.weights, local["state"]): thing[:] = 2
    buffer[:] = bytes(range(256)) * 1024
main()
""")
    report, _ = record(["program.py"], pace=_QUICK)
    arrays = {area.name: area for area in report.recording.areas if area.kind == "array"}
    assert {"whole", "model.weights", "main.local['state']", "main.buffer"} <= set(arrays)
    assert "view" not in arrays
    assert arrays["model.weights"].shape == (100, 1000)
    assert arrays["whole"].writes >= (1 << 19) // PAGE_SIZE
    recorder = next(phase for phase in report.recording.phases if phase.name == "(recorder)")
    assert recorder.collects >= 1


def test_arrays_are_found_while_the_main_thread_waits(folder: Path) -> None:
    """It hears no signal in a lock: what other threads say at the borders of phases has them."""
    (folder / "program.py").write_text("""
import threading, time
def work():
    import writers
    end = time.monotonic() + 0.5
    while time.monotonic() < end: writers.few()
thread = threading.Thread(target=work)
thread.start()
thread.join()
""")
    report, code = record(["program.py"], phases=["writers:few"], pace=_QUICK)
    assert code == 0
    (table,) = [area for area in report.recording.areas if area.name == "writers.table"]
    assert (table.kind, table.itemsize) == ("array", 8)


def test_variables_are_left_alone(folder: Path) -> None:
    """What locals() has returned is as it was, and what is deleted is gone, though arrays were looked for."""
    (folder / "program.py").write_text("""
import os, signal, weakref, numpy as np
class Array(np.ndarray): pass
def main():
    first, second = 1, "two"
    mine = locals()
    large = np.ones(1 << 16).view(Array)
    reference = weakref.ref(large)
    os.kill(os.getpid(), signal.SIGURG)
    assert mine["first"] == 1 and mine["second"] == "two", mine
    def inner():
        other = np.ones(1 << 16).view(Array)
        reference = weakref.ref(other)
        os.kill(os.getpid(), signal.SIGURG)
        del other
        assert reference() is None
    inner()
main()
class Body:
    x = 1
    os.kill(os.getpid(), signal.SIGURG)
    assert x == 1
""")
    assert record(["program.py"], pace=_QUICK)[1] == 0


def test_threads_in_phases(folder: Path) -> None:
    """Borders of several threads take turns; nobody waits for ever, and no phase stays open."""
    (folder / "program.py").write_text("""
import threading, writers
def work(function):
    for _ in range(10): function()
threads = [threading.Thread(target=work, args=(one,)) for one in (writers.few, writers.outer, writers.inner)]
for thread in threads: thread.start()
for thread in threads: thread.join()
writers.store(60)
""")
    names = [f"writers:{name}" for name in ("few", "outer", "inner")]
    report, code = record(["program.py"], phases=names, pace=_QUICK)
    assert code == 0
    phases = {phase.name for phase in report.recording.phases}
    assert phases <= {
        "",
        "(recorder)",
        *(
            " + ".join(part)
            for count in (1, 2, 3)
            for part in itertools.combinations(sorted([*names, "writers:outer/writers:inner"]), count)
        ),
    }
    assert report.recording.collects > 60


def test_a_training_over_the_standard_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real program: of word embeddings the frequent words, which come first, are written most often."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # more would wait for each other
    (folder / "program.py").write_text("""
import os, numpy as np
from dirtytrack.cli import _embedding
rng = np.random.default_rng(1)
corpus = _embedding.read_corpus(8_000, 2048, rng)
model = _embedding.Embedding(len(corpus.words), 256, rng)
batches = _embedding.batches(corpus, 32, rng)
os.kill(os.getpid(), 23)  # arrays are looked for
for step in range(40):
    model.step(next(batches), 0.1)
""")
    report, code = record(["program.py"], pace=Pace(0.005, 1.0))
    assert code == 0
    inputs = next(area for area in report.recording.areas if area.name == "model.inputs")
    assert inputs.shape[1] == 256
    cells = [0] * (-(-inputs.page_count // inputs.cell))
    for start, stop, writes in inputs.counts:
        cells[start:stop] = [writes] * (stop - start)
    front, back = cells[: len(cells) // 8], cells[len(cells) // 2 :]
    assert sum(front) / len(front) > sum(back) / len(back)


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "1 / 0"])
def test_what_is_written_last_is_seen(folder: Path, capfd: pytest.CaptureFixture[str], end: str) -> None:
    """The last look comes before the program's variables go, and their memory with them."""
    (folder / "program.py").write_text(f"""
import mmap, os, signal, numpy as np
table = np.frombuffer(mmap.mmap(-1, 64 * {PAGE_SIZE}, mmap.MAP_PRIVATE), np.uint8).reshape(64, {PAGE_SIZE})
os.kill(os.getpid(), signal.SIGURG)  # arrays are looked for
table[5:12] = 1
{end}
""")
    report, code = record(["program.py"], pace=Pace(60.0, 1.0))  # no look but at the beginning and the end
    assert code == {"": 0, "1 / 0": 1}.get(end, 3)
    (table,) = [area for area in report.recording.areas if area.name == "table"]
    assert table.distinct == 7
    assert ("ZeroDivisionError" in capfd.readouterr().err) == (end == "1 / 0")


def test_looking_for_arrays_keeps_nothing_alive() -> None:
    """What is looked through goes as ever, without a collection of cycles."""
    module = types.ModuleType("passing")
    sys.modules["passing"] = module
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        _agent.arrays()
        reference = weakref.ref(module)
        del module, sys.modules["passing"]
        assert reference() is None
    finally:
        if is_enabled:
            gc.enable()


def test_what_a_program_without_userfaultfd_says() -> None:
    """Why it has none, as an error of the library."""
    ours, its = socket.socketpair()
    with ours, its:
        its.sendall(b'{"failed": "Operation not permitted", "errno": 1}\n')
        with pytest.raises(UnsupportedError, match="In the program: Operation not permitted"):
            Line(ours).hello()
        its.close()
        with pytest.raises(DirtyTrackError, match="ended before"):
            Line(ours).hello()


def test_ctrl_c_ends_it_with_a_report(folder: Path) -> None:
    """As from a terminal, to the program and to the recorder: the program ends as ever, the file is there."""
    (folder / "program.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(100)\n")
    command = [sys.executable, "-m", "dirtytrack", "record", "program.py"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests in the background of a shell lack
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as recording:
        assert recording.stdout is not None
        assert recording.stdout.readline() == "up\n"
        os.killpg(recording.pid, signal.SIGINT)
        _, err = recording.communicate(timeout=100)
    assert "KeyboardInterrupt" in err
    assert "Next: dirtytrack report program.dirtytrack" in err
    assert recording.returncode == 130
    assert Report.load(folder / "program.dirtytrack").recording.collects >= 1


@pytest.mark.parametrize("where", ["sitecustomize", "program", "phase", "exit"])
def test_an_interrupt_of_the_recorder_alone(folder: Path, where: str) -> None:
    """At any point it leaves the program to itself, which did not get it and ends as ever; it is recorded."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests in the background of a shell lack
    interrupt = "import os, signal; os.kill(os.getppid(), signal.SIGINT)\n"
    (folder / "writers.py").write_text(f"def few():\n    {interrupt if where == 'phase' else 'pass'}\n")
    at_exit = f"import atexit\ndef last():\n    {interrupt}\natexit.register(last)\n"
    start = {"program": interrupt, "exit": at_exit}.get(where, "")
    (folder / "program.py").write_text(f"{start}\nimport writers\nwriters.few()\nraise SystemExit(7)\n")
    environment = dict(os.environ)
    if where == "sitecustomize":  # while the recorder waits to hear of it; only in the program
        (folder / "sitecustomize.py").write_text(
            f"import sys\nif '-c' in sys.orig_argv[1:]:\n    {interrupt}"
        )
        environment["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "dirtytrack", "record", "--phase", "writers:few", "program.py"]
    done = limits.run(command, env=environment)
    assert done.returncode == 7, done.stderr
    assert "Next: dirtytrack report program.dirtytrack" in done.stderr
    assert Report.load(folder / "program.dirtytrack").recording.collects >= 3


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b'{"failed": "Operation not permitted", "errno": 1}\n', "In the program: Operation not permitted"),
        (b"", "did not answer within"),
        (b"no json\n", "ended before it could be recorded"),
    ],
)
def test_a_program_that_can_not_be_recorded_does_not_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: bytes, message: str
) -> None:
    """It is ended where it waits for an answer, and nobody waits for it."""
    agent = (
        "import socket\n"
        "def run(line, *_):\n"
        "    line = socket.socket(fileno=line)\n"
        f"    line.send({said!r})\n"
        "    line.recv(1)\n"
        "    open('ran', 'w')\n"
    )
    monkeypatch.setattr(running, "loaded_agent", lambda: f"scope = {{}}; exec({agent!r}, scope)")
    monkeypatch.setattr(_protocol, "HELLO", 60.0 if said else 0.1)
    with pytest.raises(DirtyTrackError, match=message):
        record(["program.py"])
    assert not (folder / "ran").exists()


def test_phases_that_there_are_not(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No names, and functions that nobody calls."""
    with pytest.raises(TypeError, match="phases are a list of str, not the one 'writers:few'"):
        record(["program.py"], phases="writers:few")
    with pytest.raises(TypeError, match="arguments are a list of str, not the one"):
        record("program.py")
    with pytest.raises(ValueError, match="no name of a function"):
        record(["program.py"], phases=["writers"])
    if hasattr(sys, "monitoring"):  # what will be imported is known when it is
        report, code = record(["program.py"], phases=["writers:nothing"])
        assert code == 0
        assert "No call of writers:nothing was seen." in report.recording.notes
        return
    for name, said in (("writers:nothing", "there is no 'nothing'"), ("__main__:f", "from Python 3.12 on")):
        with pytest.raises(DirtyTrackError, match="ended before it could be recorded"):
            record(["program.py"], phases=[name])
        assert said in capfd.readouterr().err


def test_looks_are_put_off_where_they_cost_too_much(folder: Path) -> None:
    """By the share that they may take; the report says so."""
    (folder / "program.py").write_text("""
import time, numpy as np
a = np.ones(1 << 19)
end = time.process_time() + 0.05
while time.process_time() < end: a += 1
""")
    often, _ = record(["program.py"], pace=Pace(0.001, 1.0))
    seldom, _ = record(["program.py"], pace=Pace(0.001, 0.01))
    assert seldom.recording.collects < often.recording.collects
    assert any("put off" in note for note in seldom.recording.notes)


def test_a_program_that_tracks_by_itself_is_told_so(folder: Path) -> None:
    """Its memory has one userfaultfd: the recorder's came first, and its session says that it is busy."""
    (folder / "program.py").write_text("""
import dirtytrack
memory = dirtytrack.alloc(1 << 20)
import time; time.sleep(0.3)  # until the recorder has it
with dirtytrack.Session() as session:
    try:
        session.track(memory)
    except dirtytrack.BusyError as error:
        raise SystemExit(9)
""")
    _, code = record(["program.py"], pace=_QUICK)
    assert code == 9


def test_time_is_that_of_the_program(folder: Path) -> None:
    """Not that of starting it."""
    (folder / "program.py").write_text("pass")
    began = time.time()
    report, _ = record(["program.py"], pace=_QUICK)
    assert began <= report.recording.started <= time.time()
    assert report.recording.duration < time.time() - began
