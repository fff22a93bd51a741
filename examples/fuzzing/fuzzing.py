"""A fuzzer in one process: expat's state is put back after each input by ``dt_snapshot_rollback``.

The loop is in C, beside this file. It tries the same inputs with three ways back: dirtytrack's, a copy of all
of the state, and a forked child for each input. All have to find the same.

Needs gcc and expat's header (Debian: libexpat1-dev). Prints what it proves; exits non-zero if it fails.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import dirtytrack

WAYS = {"rollback": 0, "a copy of all": 1, "a child": 2}
INPUTS = 100  # that all three try


def build(folder: str) -> Path | None:
    """Compile the loop together with dirtytrack's sources; None if something for it is missing."""
    source, program = Path(__file__).with_name("fuzz.c"), Path(folder) / "fuzz"
    command = ["gcc", "-std=gnu11", "-O2", "-pthread", f"-I{dirtytrack.get_include()}", str(source)]
    command += [*dirtytrack.get_sources(), "-lexpat", "-o", str(program)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    if done.returncode and "expat" not in done.stderr:
        sys.exit(done.stderr)
    return None if done.returncode else program


with TemporaryDirectory() as folder:
    program = build(folder)
    if program is None:
        print("skipped: it takes gcc and expat's header (Debian: libexpat1-dev)")
        sys.exit()

    def run(way: str, inputs: int) -> tuple[float, str]:
        """Executions a second, and a hash of what they found."""
        command = [str(program), str(WAYS[way]), str(inputs)]
        rate, found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        return float(rate), found

    results = {way: run(way, INPUTS) for way in WAYS}
    rate, found = run("rollback", 50 * INPUTS)
    again, same = run("rollback", 50 * INPUTS)

assert len({found for _, found in results.values()}) == 1, results
assert found == same
print(f"holds: {INPUTS} inputs find the same with every way back")
print(f"holds: {50 * INPUTS} inputs find the same in two runs: nothing is left of those before")
for way, (speed, _) in {**results, "rollback": (max(rate, again), found)}.items():
    print(f"{way + ':':15} {speed:10,.0f} executions a second, with a state of 64 MiB")
