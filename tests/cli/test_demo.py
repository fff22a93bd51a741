"""The demo: a real program's writes, followed and checked; and its drawing, on every kind of output."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pty
import re
import subprocess
import sys
import sysconfig

import numpy as np
import pytest

import dirtytrack
from _lib.support import require
from dirtytrack.cli import _embedding, _heat, demo, main

_SMALL = ["demo", "--epochs", "3", "--steps", "4", "--words", "20000"]
_EPOCH_LINE = re.compile(
    r"^ +\d+ +\d+\.\d\d  \|([ .:=+*#%@-]+)\| \|([ .:=+*#%@-]+)\| +[\d.]+ MiB +[\d.]+ ms$"
)


@pytest.fixture
def tracking_works():
    """A kernel that can track."""
    found = dirtytrack.support()
    require(found.works, f"this system cannot track: {found.cause}")


@pytest.mark.usefixtures("tracking_works")
def test_a_small_run_in_a_pipe_passes():
    """In a pipe the demo prints one plain ASCII line per epoch, the front of the arrays hot, and passes."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "dirtytrack", *_SMALL], capture_output=True, check=False
    )
    text = done.stdout.decode("ascii")
    assert (done.returncode, done.stderr) == (0, b""), text
    assert "\x1b" not in text
    assert "\r" not in text
    epochs = [line for line in map(_EPOCH_LINE.match, text.splitlines()) if line]
    assert len(epochs) == 3
    for line in epochs:
        for bar in line.groups():
            heat = [" .:-=+*#%@".index(shade) for shade in bar]
            assert heat[0] >= 7, "nearly all of the most frequent words are written in every epoch"
            assert sum(heat[14:]) / len(heat[14:]) < heat[0] / 2, "of the rarer half, few"
    assert "\nPASSED: " in text


@pytest.mark.usefixtures("tracking_works")
def test_a_run_in_a_terminal_is_drawn_live():
    """In a terminal each epoch's line is redrawn while it grows, and every finished line stays."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "90", "PYTHONUTF8": "1"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "dirtytrack", *_SMALL]
    with subprocess.Popen(command, stdout=theirs, env=environment) as child:
        os.close(theirs)
        drawn = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while piece := os.read(ours, 1 << 16):
                drawn += piece
        os.close(ours)
    assert child.returncode == 0
    lines = drawn.decode().splitlines()
    assert sum("MiB  " in line for line in lines) == 3
    assert sum(line.startswith("    1  ") for line in lines) > 1
    assert re.search("\x1b\\[38;5;226m█", drawn.decode())
    assert "PASSED: " in drawn.decode()


@pytest.mark.usefixtures("tracking_works")
def test_a_page_that_is_not_copied_fails_the_run(monkeypatch, capsys):
    """When one reported page is dropped, the run stops there, says so, and the exit code is 1."""
    copy_pages = demo._copy_pages

    def drop_the_first_page(tracked, pages):
        first = min(pages)
        copy_pages(tracked, pages - tracked.region.page_set([(first, first + 1)]))

    monkeypatch.setattr(demo, "_copy_pages", drop_the_first_page)
    assert main(_SMALL) == 1
    text = capsys.readouterr().out
    assert "FAILED: after epoch 1 the copy of inputs and outputs differs" in text
    assert "PASSED" not in text


def test_without_numpy_the_extra_is_named(monkeypatch, capsys):
    """Without numpy the demo exits with 1 and one line that says what to install."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert main(_SMALL) == 1
    assert capsys.readouterr().err == 'dirtytrack: the demo needs numpy: pip install "dirtytrack[demo]"\n'


@pytest.mark.usefixtures("tracking_works")
def test_without_source_the_remedy_is_named(monkeypatch, capsys, tmp_path):
    """Where Python has no source of its library the demo exits with 1 and says what is missing."""
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert main(_SMALL) == 1
    error = capsys.readouterr().err
    assert f"no Python source under {tmp_path}" in error
    assert "install" in error


@pytest.mark.parametrize("option", ["--epochs", "--steps", "--words"])
def test_counts_below_one_are_refused(option, capsys):
    """A count below 1 is wrong usage."""
    with pytest.raises(SystemExit) as exit_:
        main(["demo", option, "0"])
    assert exit_.value.code == 2
    assert "must be a whole number from 1 on" in capsys.readouterr().err


def test_a_source_that_leads_nowhere_is_left_out(tmp_path, monkeypatch):
    """Debian's library has links to /etc, where a small container has nothing."""
    (tmp_path / "real.py").write_text("one two two", encoding="utf-8")
    (tmp_path / "sitecustomize.py").symlink_to(tmp_path / "missing.py")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    corpus = _embedding.read_corpus(100, 10, np.random.default_rng(1))
    assert (corpus.files, corpus.words) == (1, ["two", "one"])


def test_a_step_writes_its_own_rows_only():
    """A training step changes the input rows of the words in its text, and no others."""
    rng = np.random.default_rng(3)
    model = _embedding.Embedding(500, 16, rng)
    batch = _embedding.Batch(rng.integers(0, 500, 40), np.unique(rng.integers(0, 500, 10)))
    before = {name: array.copy() for name, array in vars(model).items()}
    for _ in range(2):  # the first step of outputs that are zero leaves the inputs as they are
        model.step(batch, 1.0)
    text, others = set(batch.text), set(batch.others)
    for name, array in vars(model).items():
        changed = set(np.flatnonzero((array != before[name]).reshape(500, -1).any(axis=1)))
        assert changed == (text if name.startswith("input") else text | others), name


def test_training_goes_on_from_its_arrays_alone():
    """A model with the arrays of another one, given the next batches, ends the same, to the bit."""
    text = np.random.default_rng(7).zipf(1.5, 3000) % 50
    corpus = _embedding.Corpus(1, [*map(str, range(50))], np.bincount(text, minlength=50), text)

    def batches(start):
        return itertools.islice(_embedding.batches(corpus, 64, np.random.default_rng(9)), start, 200)

    one, other = (_embedding.Embedding(50, 16, np.random.default_rng(seed)) for seed in (1, 2))
    for step, batch in enumerate(batches(0)):
        if step == 120:
            for name, array in vars(other).items():
                array[:] = getattr(one, name)
        one.step(batch, 1.0)
    for batch in batches(120):
        other.step(batch, 1.0)
    assert all(array.tobytes() == getattr(other, name).tobytes() for name, array in vars(one).items())


def test_training_lowers_the_loss():
    """On a text with a pattern the loss falls, and words of one pattern become neighbours."""
    rng = np.random.default_rng(5)
    text = np.concatenate([rng.permutation(4) + 4 * topic for topic in rng.integers(0, 10, 600)])
    model = _embedding.Embedding(40, 16, rng)
    batches = [
        _embedding.Batch(text[start : start + 60], np.unique(rng.integers(0, 40, 24)))
        for start in range(0, 2400, 60)
    ]
    losses = [model.step(batch, 1.0) for _ in range(20) for batch in batches]
    assert np.mean(losses[-40:]) < 0.8 * np.mean(losses[:40])
    assert set(model.neighbours(1, 3, 40)) == {0, 2, 3}


def test_heat_is_the_fraction_of_each_stretch():
    """Each cell is the fraction of its pages that are set, for counts that do not divide evenly, too."""
    assert list(_heat.heat(memoryview(bytes([1, 1, 0, 0, 1, 0])), 3)) == [1.0, 0.0, 0.5]
    assert list(_heat.heat(memoryview(bytes([1, 0, 0, 1, 0])), 2)) == [0.5, pytest.approx(1 / 3)]
    assert list(_heat.heat(memoryview(bytes([1, 0])), 4)) == [1.0, 1.0, 0.0, 0.0]


class _Terminal(io.TextIOWrapper):
    def __init__(self, encoding):
        self.written = io.BytesIO()
        super().__init__(self.written, encoding=encoding, write_through=True)

    def isatty(self):
        return True


@pytest.fixture
def environment(monkeypatch):
    """A colour terminal 90 columns wide."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return monkeypatch


_MASK = memoryview(bytes([1, 1, 1, 0, 0, 0, 0, 0, 1, 0]))


def test_a_terminal_gets_shaded_blocks_in_colour(environment):
    """A UTF-8 terminal gets block characters, in colour, redrawn in place; the colour ends with the bar."""
    terminal = _Terminal("utf-8")
    screen = _heat.Screen(terminal)
    bar = screen.bar(_MASK, 5)
    assert re.sub(r"\x1b\[[\d;]*m", "", bar) == "█▒  ▒"
    assert bar.endswith("\x1b[0m")
    screen.update("half")
    screen.line("whole")
    assert terminal.written.getvalue() == b"\rhalf\x1b[K\rwhole\x1b[K\n"


def test_no_color_is_honoured(environment):
    """With NO_COLOR a terminal gets the same blocks without any colour."""
    environment.setenv("NO_COLOR", "1")
    assert _heat.Screen(_Terminal("utf-8")).bar(_MASK, 5) == "█▒  ▒"


def test_a_terminal_without_blocks_gets_ascii(environment):
    """A terminal whose encoding lacks the block characters gets ASCII instead of an error."""
    environment.setenv("NO_COLOR", "1")
    assert _heat.Screen(_Terminal("latin-1")).bar(_MASK, 5) == "@+  +"


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("COLUMNS", "40")])
def test_lines_are_not_redrawn_where_they_cannot_be(environment, name, value):
    """A dumb terminal, or one so narrow that lines wrap, gets finished lines only."""
    environment.setenv(name, value)
    terminal = _Terminal("utf-8")
    screen = _heat.Screen(terminal)
    screen.update("half")
    screen.line("whole")
    assert terminal.written.getvalue() == b"whole\n"
