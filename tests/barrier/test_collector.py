"""The example's collector, which moves objects by hand, under two sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import dirtytrack
from _lib import limits
from _lib.support import require

_EXAMPLE = Path(__file__).parents[2] / "examples/collector"
_MAIN = """
#include "program.c"
int main(int argc, char **argv)
{
	static struct report report;
	(void)argc;
	run(atoi(argv[1]), 17, 1500000, 0, &report);
	printf("%s%s", report.failure, report.checks && report.majors && report.minors ? "" : "no collection");
	return 0;
}
"""


def _build(folder, *options):
    source = folder / "main.c"
    source.write_text(_MAIN)
    command = ["gcc", "-std=gnu11", "-O1", "-g", "-pthread", "-fsanitize=address,undefined", *options]
    command += ["-fno-sanitize-recover=all", f"-I{_EXAMPLE}", f"-I{dirtytrack.get_include()}", source]
    command += [*dirtytrack.get_sources(), "-o", folder / "collector"]
    try:
        built = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        require(False, "gcc, to build the collector")
    require("cannot find" not in built.stderr, "gcc's runtime for the sanitizers")
    assert (built.returncode, built.stderr) == (0, "")
    return folder / "collector"


@pytest.mark.slow
@pytest.mark.parametrize("barrier", [0, 1, 2], ids=["dirtytrack", "full-scan", "software"])
def test_the_collector_is_clean(tmp_path, barrier):
    """With each way to know the stores: nothing wrong in the heap, nothing to say for a sanitizer."""
    program = _build(tmp_path, *(["-DSTORE_BARRIER"] if barrier == 2 else []))
    done = limits.run([program, str(barrier)])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
