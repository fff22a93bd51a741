"""`make release` names what a version lacks, and what to type when it lacks nothing."""

from __future__ import annotations

import importlib.util
import subprocess
from datetime import date
from pathlib import Path

import pytest

pytestmark = pytest.mark.anywhere

_SCRIPT = Path(__file__).parents[1] / "_lib/packaging/release.py"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of version 1.2.0 that is ready, and the script looking at it."""
    specification = importlib.util.spec_from_file_location("release", _SCRIPT)
    release = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(release)
    monkeypatch.setattr(release, "ROOT", tmp_path)
    for name, text in {
        "dirtytrack/__init__.py": '__version__ = "1.2.0"\n',
        "CHANGELOG.md": f"## [1.2.0] - {date.today().isoformat()}\n\n[1.2.0]: https://example.org/\n",
        "CITATION.cff": "version: 1.2.0\n",
        ".gitignore": "dist\n",
        "dist/dirtytrack-1.2.0.tar.gz": "",
        "dist/dirtytrack-1.2.0-cp311-abi3-any.whl": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    _git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    _commit(tmp_path)
    return tmp_path, release.main


def _git(folder, *words):
    me = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *me, *words], cwd=folder, check=True)


def _commit(folder):
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", "all", "--allow-empty")


def test_what_is_ready_is_told_how_to_release_it(repository, capsys):
    """The commands are printed and not run."""
    folder, main = repository
    assert main() == 0
    assert "git push origin v1.2.0" in capsys.readouterr().out
    assert not subprocess.run(["git", "tag"], cwd=folder, check=True, capture_output=True).stdout


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("CHANGELOG.md", "## [Unreleased]\n\n[1.2.0]: https://example.org/\n", "has no heading"),
        ("CHANGELOG.md", "## [1.2.0] - 2020-01-01\n\n[1.2.0]: https://example.org/\n", "has no heading"),
        ("CHANGELOG.md", f"## [1.2.0] - {date.today().isoformat()}\n", "has no link for [1.2.0]"),
        ("CITATION.cff", "version: 1.1.0\n", "CITATION.cff is not of 1.2.0"),
        ("dirtytrack/__init__.py", '__version__ = "1.3.0"\n', "no sdist and wheel of 1.3.0: make wheel"),
    ],
)
def test_what_is_missing_is_named(repository, capsys, name, text, said):
    """One line says what, and nothing says that it is ready."""
    folder, main = repository
    (folder / name).write_text(text, encoding="utf-8")
    _commit(folder)
    assert main() == 1
    printed = capsys.readouterr().out
    assert said in printed
    assert "git push" not in printed


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["tag", "v1.2.0"], "the tag v1.2.0 is there already"),
        (["checkout", "--quiet", "-b", "other"], "the branch is not main"),
        (["rm", "--quiet", "--cached", "CITATION.cff"], "the working tree is not clean"),
    ],
)
def test_what_is_in_the_way_of_a_tag(repository, capsys, command, said):
    """The state of the repository counts as well."""
    folder, main = repository
    _git(folder, *command)
    assert main() == 1
    assert said in capsys.readouterr().out
