"""The site has every page, and a link that leads nowhere is found in it."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

_DOCS = Path(__file__).parents[2] / "docs"
_PACKAGES = Path(__file__).parents[2] / "dirtytrack"

pytestmark = pytest.mark.anywhere


def _module(name):
    specification = importlib.util.spec_from_file_location(f"site_{name}", _DOCS / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _pages(nav):
    for entry in nav:
        for target in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [target] if isinstance(target, str) else _pages(target)


def test_every_page_is_in_the_navigation_once():
    """A page of docs/ that the navigation lacks is on no site, and a name too many breaks it."""
    project = tomllib.loads((_DOCS / "site/zensical.toml").read_text(encoding="utf-8"))["project"]
    listed = sorted(page for page in _pages(project["nav"]) if not page.startswith("reference/"))
    assert listed == sorted({"examples.md", *(page.name for page in _DOCS.glob("*.md"))})


def test_every_public_package_has_a_reference():
    """A package whose name is plain and that says what of it is public is in the reference."""
    packages = {
        path.parent.name
        for path in _PACKAGES.glob("[a-z]*/__init__.py")
        if re.search(r"^__all__", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    listed = re.findall(
        r'^    "dirtytrack\.(\w+)":', (_DOCS / "site/reference.py").read_text(encoding="utf-8"), re.M
    )
    within = {"tracking", "objects", "native"}  # whose public names are dirtytrack's own
    assert sorted(listed) == sorted(packages - within)


def test_every_example_has_a_page_with_all_of_its_source():
    """Those in folders of their own as well, with their C."""
    made = _module("programs").pages(_DOCS.parent)
    sources = [path for path in (_DOCS.parent / "examples").rglob("*") if path.suffix in (".py", ".c", ".h")]
    assert sources
    for path in sources:
        folder = path.relative_to(_DOCS.parent / "examples").parts[0]
        page = made[f"examples/{Path(folder).stem}.md"]
        assert f"`{path.relative_to(_DOCS.parent)}`" in page
        assert path.read_text(encoding="utf-8").rstrip() in page


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ('<a href="other.html#there">', None),
        ('<a href="other.html#gone">', "the page has no such anchor"),
        ('<a href="#gone">', "the page has no such anchor"),
        ('<a href="gone.html">', "there is no such file"),
        ('<img src="gone.png">', "there is no such file"),
        ('<img src="%C3%A9.png">', None),
        ('<a href="https://example.org/">', None),
        ('<script src="https://example.org/a.js">', "is fetched from elsewhere"),
        ('<link href="//example.org/a.css">', "is fetched from elsewhere"),
        ('<link rel="canonical" href="https://example.org/index.html">', None),
        ('<img src="data:image/png;base64,AA==">', None),
    ],
)
def test_a_dead_link_is_found(tmp_path, link, fault):
    """Each kind of link that leads nowhere is named, with its page."""
    (tmp_path / "index.html").write_text(link, encoding="utf-8")
    (tmp_path / "other.html").write_text('<h1 id="there">', encoding="utf-8")
    (tmp_path / "é.png").write_bytes(b"")
    found = _module("check").faults(tmp_path)
    target = link.split('"')[-2]
    assert found == ([f"index.html: {target}: {fault}"] if fault else [])


def test_what_is_for_maintainers_is_folded():
    """Which test shows a line of a table is below it, in a fold; other tables stay; a check is left out."""
    page = """Text.

| what | how | shown by |
|---|---|---|
| a `x \\| y` | yes | `test_one`, `test_two` |
| b | no | |

| what | how |
|---|---|
| c | yes |

```python
print(1)
```

<!-- check
assert True
-->

<!-- c
}
-->

It is so (`test_one`,
`test_two`). Also that. Shown by
`test_three`. The end.
"""
    folding = _module("folding")
    assert (
        folding.without_tests(folding.fold(page))
        == """Text.

| what | how |
| --- | --- |
| a `x \\| y` | yes |
| b | no |

<details markdown="1"><summary>The tests that show it</summary>

- a `x \\| y`: `test_one`, `test_two`

</details>

| what | how |
|---|---|
| c | yes |

```python
print(1)
```

It is so. Also that. The end.
"""
    )
