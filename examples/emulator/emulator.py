"""An emulator that rewinds: ``dt_snapshot_diff`` keeps what a frame changes in the memory of a libretro core.

The loop is in C, beside this file, and runs a game of its own. What it rewinds and plays again is the same,
bit for bit; beside it the core serializes its state for each frame, as emulators do.

Needs gcc and gambatte, an emulator of the Game Boy (Debian: libretro-gambatte). Prints what it proves; exits
non-zero if it fails.
"""

import subprocess
import sys
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

import dirtytrack

FRAMES = 2000  # that are measured

cores = [*Path("/usr/lib").glob("*/libretro/gambatte_*.so"), *Path("/usr/lib").glob("libretro/gambatte_*.so")]
if not cores or not which("gcc"):
    print("skipped: it takes gcc and gambatte (Debian: libretro-gambatte)")
    sys.exit()

with TemporaryDirectory() as folder:
    source, program = Path(__file__).with_name("emulator.c"), Path(folder) / "emulator"
    command = ["gcc", "-std=gnu11", "-O2", "-pthread", f"-I{dirtytrack.get_include()}", str(source)]
    subprocess.run([*command, *dirtytrack.get_sources(), "-ldl", "-o", str(program)], check=True)
    sys.exit(subprocess.run([str(program), str(cores[0]), str(FRAMES)], check=False).returncode)
