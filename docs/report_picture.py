"""Makes docs/report.png, the picture of a report: ``python docs/report_picture.py``.

Needs numpy, and Debian's chromium.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

import dirtytrack
from dirtytrack.profile import Profile, Report

_STEPS = 400
_SIZE = "1100,824"  # the table ends below a row


def simulate() -> Report:
    """A wave that goes through a field, particles that move at random, and a history that grows."""
    field = dirtytrack.empty((4000, 512), np.float32)
    particles = dirtytrack.empty((300_000, 4), np.float32)
    history = dirtytrack.empty((_STEPS, 1024), np.float32)
    for array in (field, particles, history):
        array[:] = 0
    rng = np.random.default_rng(1)
    with dirtytrack.Session() as session:
        session.track(field, name="field")
        session.track(particles, name="particles")
        session.track(history, name="history")
        with Profile(session, intervals=[0.01, 0.1, 1.0]) as profile:
            for step in range(_STEPS):
                began = time.perf_counter()
                with profile.phase("step"):
                    with profile.phase("advance"):
                        front = step * len(field) // _STEPS
                        field[max(front - 150, 0) : front + 150] += 1
                    with profile.phase("move"):
                        particles[rng.integers(0, len(particles), 60)] += 1
                if step % 100 == 99:
                    with profile.phase("renormalise"):
                        particles *= 0.5
                history[step, :512] = field[front]
                while time.perf_counter() - began < 0.003:  # every step takes as long
                    pass
    return profile.report()


def main() -> None:
    """Simulates, writes the page, and has a browser look at it."""
    picture = Path(__file__).with_name("report.png")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        report = simulate()
        report.to_html(page)
        page.write_text(page.read_text().replace(report.recording.program, "simulation.py"))
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command = [
            "chromium",
            *options,
            "--disable-background-networking",
            f"--user-data-dir={folder}/user",
            f"--window-size={_SIZE}",
        ]
        subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)
    print(f"wrote {picture}: {picture.stat().st_size} bytes")


if __name__ == "__main__":
    main()
