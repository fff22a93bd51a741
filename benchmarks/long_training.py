"""A training of minutes, with batches made by a thread: a checkpoint every second, beside the same without.

``python -m benchmarks.long_training --seconds 180`` in a checkout, in an environment with torch. Both
trainings run in turn in one process, ten seconds each, so that a machine that becomes slower slows both. It
is no row of ``dirtytrack bench``, whose rows take seconds.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np

from dirtytrack.checkpoint import Save
from dirtytrack.torch import TorchCheckpointer

_WINDOW = 10.0  # seconds
_ROWS, _WIDTH, _BATCH, _WORDS = 262_144, 256, 64, 8  # the table has 256 MiB
_LINE = "{:>6} {:>9} {:>9} {:>6} {:>6} {:>9} {:>9} {:>9} {:>9}"
_HEAD = "second", "without/s", "with/s", "ratio", "saves", "MiB each", "save ms", "lag ms", "most ms"


class _Loader:
    """A thread that makes batches: words as texts have them, few often and many now and then."""

    def __init__(self) -> None:
        self._torch: Any = importlib.import_module("torch")
        self.batches: Queue[Any] = Queue(maxsize=8)
        self._is_done = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        random = np.random.default_rng(0)
        while not self._is_done:
            words = (random.zipf(1.3, (_BATCH, _WORDS)) * 2_654_435_761) % _ROWS
            self.batches.put((self._torch.from_numpy(words), self._torch.randn(_BATCH, 1)))

    def close(self) -> None:
        """Ends the thread."""
        self._is_done = True
        while self._thread.is_alive():
            if not self.batches.empty():
                self.batches.get()
            self._thread.join(0.01)


class _Training:
    """A table of embeddings under a small network, by Adam."""

    def __init__(self, loader: _Loader) -> None:
        torch: Any = importlib.import_module("torch")
        torch.manual_seed(0)
        self._loader = loader
        self._table = torch.nn.EmbeddingBag(_ROWS, _WIDTH, sparse=True)
        nn = torch.nn
        self._net = nn.Sequential(nn.Linear(_WIDTH, 2048), nn.ReLU(), nn.Linear(2048, 1))
        self.model = torch.nn.ModuleList([self._table, self._net])
        self.optimizer = torch.optim.Adam(self._net.parameters())
        self._rows = torch.optim.SGD(self._table.parameters(), lr=0.1)

    def step(self) -> None:
        """One batch."""
        words, wanted = self._loader.batches.get()
        loss = ((self._net(self._table(words)) - wanted) ** 2).mean()
        self.optimizer.zero_grad()
        self._rows.zero_grad()
        loss.backward()
        self.optimizer.step()
        self._rows.step()


class _Saves:
    """What the checkpoints of a window took."""

    def __init__(self, save: Callable[[], Save | None]) -> None:
        self._save = save
        self.seconds: list[float] = []
        self.lags: list[float] = []  # seconds from the return of save() until it is committed
        self.nbytes: list[int] = []

    def __call__(self) -> None:
        """Saves if that is due."""
        begun = time.perf_counter()
        save = self._save()
        if save is None:
            return
        returned = time.perf_counter()
        self.seconds.append(returned - begun)

        def committed(saved: Save) -> None:
            self.lags.append(time.perf_counter() - returned)
            self.nbytes.append(saved.nbytes or 0)

        save.add_done_callback(committed)


def _rate(training: _Training, after: Callable[[], object]) -> float:
    # Steps in a second, over a window.
    begun, steps = time.perf_counter(), 0
    while (taken := time.perf_counter() - begun) < _WINDOW:
        training.step()
        after()
        steps += 1
    return steps / taken


def main() -> None:
    """Prints a line for each pair of windows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=180, help="of each training (default: 180)")
    seconds = parser.parse_args().seconds
    importlib.import_module("torch").set_num_threads(1)
    loader = _Loader()
    try:
        saving, plain = _Training(loader), _Training(loader)
        ratios = []
        with (
            tempfile.TemporaryDirectory() as folder,
            TorchCheckpointer.open(
                Path(folder, "chain"), model=saving.model, optimizer=saving.optimizer, compression="none"
            ) as checkpoints,
        ):
            checkpoints.save(wait=True)
            schedule = checkpoints.save_every(seconds=1)
            print(_LINE.format(*_HEAD))
            for window in range(max(1, round(seconds / _WINDOW))):
                without = _rate(plain, lambda: None)
                saves = _Saves(schedule)
                rate = _rate(saving, saves)
                checkpoints.flush()
                ratios.append(rate / without)
                print(
                    _LINE.format(
                        round((window + 1) * _WINDOW),
                        f"{without:.0f}",
                        f"{rate:.0f}",
                        f"{rate / without:.2f}",
                        len(saves.lags),
                        f"{statistics.median(saves.nbytes) / (1 << 20):.1f}",
                        f"{statistics.median(saves.seconds) * 1e3:.1f}",
                        f"{statistics.median(saves.lags) * 1e3:.0f}",
                        f"{max(saves.lags) * 1e3:.0f}",
                    ),
                    flush=True,
                )
        print(f"median of the ratios: {statistics.median(ratios):.2f}")
    finally:
        loader.close()


if __name__ == "__main__":
    main()
