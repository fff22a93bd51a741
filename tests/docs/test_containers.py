"""The ways of docs/containers.md, and the image of Containerfile, for real: Podman with runc.

No image is fetched: the containers have this machine's own files, read-only.
"""

from __future__ import annotations

import json
import os
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
_RUNC = ("--runtime=runc", "--cgroup-manager=cgroupfs")
_RUN = ("run", "--rm", "--network=none")
_LIMITS = ("--ulimit=nofile=1000:1000", "--ulimit=nproc=400:400")
_DEVICE = "--device=/dev/userfaultfd"
_FILES = sorted({Path(place).resolve() for place in ("/usr", sys.base_prefix, sys.prefix)})

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    """``podman(*words)`` calls the engine, whose images and containers are this module's own."""
    require_root("containers without an engine of the user's own take root")
    optional(shutil.which("podman") is not None, "podman is not installed")
    optional(shutil.which("runc") is not None, "runc is not installed")
    own = tmp_path_factory.mktemp("engine")
    engine = ["podman", f"--root={own}/images", f"--runroot={own}/run", *_RUNC]

    def call(*words):
        return subprocess.run([*engine, *words], capture_output=True, text=True, check=False)

    yield call
    call("system", "reset", "--force")  # which also takes down its mounts


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The root of a container's files: empty places for those of this machine."""
    tree = tmp_path_factory.mktemp("tree")
    tree.chmod(0o755)
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    for place in ("etc", "tmp", *_FILES, _ROOT):
        (tree / str(place).lstrip("/")).mkdir(parents=True, exist_ok=True)
    return tree


def _read_only(places):
    return [f"--volume={place}:{place}:ro" for place in places]


@pytest.fixture(scope="module")
def doctor(podman, tree):
    """``doctor(*options)`` runs the doctor in a container and gives what it says, as JSON."""

    def run(*options):
        words = [*_RUN, *_LIMITS, *_read_only([*_FILES, _ROOT]), *options, "--rootfs", tree]
        done = podman(*words, sys.executable, "-m", "dirtytrack", "doctor", "--json")
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


@pytest.fixture(scope="module")
def image(podman, tree, tmp_path_factory):
    """The image that Containerfile makes, on an image of this machine's files; and those, to run it with."""
    packed = tmp_path_factory.mktemp("base") / "base.tar"
    subprocess.run(["tar", "-C", tree, "-cf", packed, "."], check=True)
    path = f"--change=ENV PATH={sys.base_prefix}/bin:/usr/bin"
    assert podman("import", path, packed, "localhost/base").returncode == 0
    index = [place for place in ("/etc/ssl", "/etc/pip.conf") if Path(place).exists()]  # pip's set-up here
    settings = [f"--env={name}={value}" for name, value in os.environ.items() if name.startswith("PIP_")]
    arguments = ["--build-arg=BUILDER=localhost/base", "--build-arg=BASE=localhost/base", "--network=host"]
    words = [*arguments, *_LIMITS, *_read_only([*_FILES, *index]), *settings]
    built = podman("build", *words, "--tag=dirtytrack", _ROOT)
    assert built.returncode == 0, built.stdout + built.stderr
    return [*_LIMITS, *_read_only(_FILES)], "dirtytrack"


def test_the_image_runs_the_demo(podman, image):
    """With the device, as the first lines of Containerfile say."""
    options, name = image
    done = podman(*_RUN, *options, _DEVICE, name, "demo", "--epochs=2", "--steps=5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout


def test_without_the_device_the_image_says_what_to_do(podman, image):
    """It runs the demo when it is given no command, and that names the option."""
    options, name = image
    done = podman(*_RUN, *options, name)
    assert done.returncode == 1
    assert "--device /dev/userfaultfd" in done.stderr
