"""The ways of docs/containers.md, in a real container: Podman with runc, on this machine's own files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from _lib.support import optional, require_root

_ROOT = Path(__file__).parents[2]
_DOCS = _ROOT / "docs"
_PROFILE = Path("/usr/share/containers/seccomp.json")
_ENGINE = ("podman", "run", "--rm", "--runtime=runc", "--cgroup-manager=cgroupfs", "--network=none")
_LIMITS = ("--ulimit=nofile=1000:1000", "--ulimit=nproc=400:400")
_DEVICE = "--device=/dev/userfaultfd"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def doctor(tmp_path_factory):
    """``doctor(*options)`` runs the doctor in a container and gives what it says, as JSON."""
    require_root("containers without an engine of the user's own take root")
    optional(shutil.which("podman") is not None, "podman is not installed")
    optional(shutil.which("runc") is not None, "runc is not installed")
    tree = tmp_path_factory.mktemp("tree")
    tree.chmod(0o755)
    places = {Path(place).resolve() for place in ("/usr", sys.base_prefix, _ROOT)}
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    for place in ("etc", "tmp", *places):
        (tree / str(place).lstrip("/")).mkdir(parents=True, exist_ok=True)
    volumes = [f"--volume={place}:{place}:ro" for place in sorted(places)]

    def run(*options):
        words = [*_ENGINE, *_LIMITS, *volumes, *options, "--rootfs", tree]
        done = subprocess.run(
            [*words, sys.executable, "-m", "dirtytrack", "doctor", "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    return run


def test_the_filter_refuses_by_default(doctor):
    """And the doctor names it, and the page that has the remedy."""
    said = doctor()
    assert not said["works"]
    assert said["cause"] == "seccomp"
    assert "docs/containers.md" in said["remedy"]


@pytest.mark.parametrize("more", [[], ["--cap-drop=all"], ["--read-only"]])
def test_the_device_is_enough(doctor, more):
    """No capability is needed besides, and nothing is written to the container's own files."""
    assert doctor(_DEVICE, *more)["works"]


def test_the_profile_of_the_page_is_enough(doctor, tmp_path):
    """The engine's own profile, changed by the page's command."""
    optional(_PROFILE.exists(), f"{_PROFILE} is not installed")
    optional(shutil.which("jq") is not None, "jq is not installed")
    page = (_DOCS / "containers.md").read_text(encoding="utf-8")
    command = re.search(r"^    jq '.*?' default.json > userfaultfd.json$", page, re.MULTILINE | re.DOTALL)[0]
    shutil.copy(_PROFILE, tmp_path / "default.json")
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert doctor(f"--security-opt=seccomp={tmp_path}/userfaultfd.json")["works"]


def test_no_filter_is_enough(doctor):
    """For a trial, as the page says."""
    assert doctor("--security-opt=seccomp=unconfined")["works"]


def test_a_user_without_the_devices_permission_is_told(doctor):
    """The device belongs to root; who isn't, is told of that and not of the filter alone."""
    said = doctor(_DEVICE, "--user=1000:1000")
    assert not said["works"]
    assert "permissions" in said["remedy"]
