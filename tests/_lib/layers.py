"""What the syntax trees of a package say of its house: who imports whom, and who reaches into whom."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# What every named tuple has, though it begins like something private.
_PUBLIC_AFTER_ALL = {"_asdict", "_field_defaults", "_fields", "_make", "_replace"}


@dataclass(frozen=True)
class Violation:
    """A rule that is broken.

    Attributes:
        what: the same wherever in the file it is.
    """

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


@dataclass(frozen=True)
class Import:
    """A module that names another one, at whatever place in it and for whatever purpose."""

    source: str
    target: str
    name: str  # of what is imported from the target; empty for the module itself
    line: int


@dataclass
class House:
    """Modules of one package by their dotted names, parsed.

    Attributes:
        layers: names of the parts below the package, lowest first; those of one layer don't know each other.
            The package itself is "".
        inner: the same within one part, by its dotted name: its folders, and "" for the modules beside these.
        shared: private parts that everybody may import.
    """

    root: str
    sources: Mapping[str, tuple[str, str]]  # file and text
    layers: Sequence[Sequence[str]]
    inner: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shared: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.trees = {name: ast.parse(text) for name, (_, text) in self.sources.items()}
        self.imports = [found for name in self.sources for found in self._imports(name)]

    @classmethod
    def read(cls, folder: Path, **rules: object) -> House:
        """The package in a folder; links are followed."""
        sources = {}
        for file in sorted(_python_files(folder)):
            parts = (folder.name, *file.relative_to(folder).with_suffix("").parts)
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            sources[name] = str(file.relative_to(folder.parent)), file.read_text(encoding="utf-8")
        return cls(folder.name, sources, **rules)  # type: ignore[arg-type]

    def violations(self) -> list[Violation]:
        """All of them, by file and line."""
        found = {
            *self._upward(),
            *self._private_modules(),
            *self._private_attributes(),
            *self._circles(),
        }
        return sorted(found, key=lambda one: (one.file, one.line, one.what))

    def _part(self, module: str) -> str:
        return module.split(".")[1] if "." in module else ""

    def _violation(self, module: str, line: int, what: str) -> Violation:
        return Violation(self.sources[module][0], line, what)

    def _is_package(self, module: str) -> bool:
        return self.sources[module][0].endswith("__init__.py")

    def _imports(self, module: str) -> Iterator[Import]:
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name in self.sources:
                        yield Import(module, alias.name, "", node.lineno)
            elif isinstance(node, ast.ImportFrom):
                origin = self._origin(module, node)
                for alias in node.names:
                    if f"{origin}.{alias.name}" in self.sources:
                        yield Import(module, f"{origin}.{alias.name}", "", node.lineno)
                    elif origin in self.sources:
                        yield Import(module, origin, alias.name, node.lineno)

    def _origin(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = module.split(".")
        parts = parts[: len(parts) - node.level + self._is_package(module)]
        return ".".join([*parts, *([node.module] if node.module else [])])

    def _upward(self) -> Iterator[Violation]:
        ranks = {part: rank for rank, parts in enumerate(self.layers) for part in parts}
        for one in self.imports:
            source, target = self._part(one.source), self._part(one.target)
            what = f"{one.source} imports {one.target}"
            for part in (source, target):
                if part not in ranks:
                    yield self._violation(one.source, one.line, f"{what}: no layer has {part!r}")
                    break
            else:
                if source != target and ranks[target] >= ranks[source]:
                    yield self._violation(one.source, one.line, f"{what}, which is not below it")
        for whole, folders in self.inner.items():
            yield from self._upward_within(whole, folders)

    def _upward_within(self, whole: str, folders: Sequence[str]) -> Iterator[Violation]:
        def rank(module: str) -> int | None:
            if not module.startswith(f"{whole}."):
                return len(folders) if module == whole else None
            folder = module[len(whole) + 1 :].split(".")[0]
            return folders.index(folder) if folder in folders else folders.index("")

        for one in self.imports:
            source, target = rank(one.source), rank(one.target)
            if target is None:
                continue
            what = f"{one.source} imports {one.target}"
            if source is None and target < folders.index(""):
                yield self._violation(one.source, one.line, f"{what}, which is not for those outside")
            elif source is not None and target > source:
                yield self._violation(one.source, one.line, f"{what}, which is not below it")

    def _private_modules(self) -> Iterator[Violation]:
        for one in self.imports:
            path = [*one.target.split(".")[1:], *([one.name] if one.name else [])]
            if not path or path[0] in self.shared or self._part(one.source) == self._part(one.target):
                continue
            if any(_is_private(part) for part in path):
                what = f"{one.source} imports {'.'.join([self.root, *path])}, which is private"
                yield self._violation(one.source, one.line, what)

    def _private_attributes(self) -> Iterator[Violation]:
        defined: dict[str, set[str]] = {}
        for module, tree in self.trees.items():
            defined.setdefault(self._part(module), set()).update(_definitions(tree))
        for module, tree in self.trees.items():
            foreign = self._foreign_names(tree)
            for node in ast.walk(tree):
                if not isinstance(node, ast.Attribute) or not _is_private(node.attr):
                    continue
                if node.attr in _PUBLIC_AFTER_ALL or node.attr in defined[self._part(module)]:
                    continue
                if isinstance(node.value, ast.Name) and node.value.id in {"self", "cls", *foreign}:
                    continue
                what = f"{module} reaches for {ast.unparse(node)}, which is private to another part"
                yield self._violation(module, node.lineno, what)

    def _foreign_names(self, tree: ast.Module) -> set[str]:
        # Of modules that are not the package's own: os._exit and the like are theirs to judge.
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias for alias in node.names if alias.name.split(".")[0] != self.root]
                found.update((alias.asname or alias.name).split(".")[0] for alias in names)
        return found

    def _circles(self) -> Iterator[Violation]:
        edges: dict[str, set[str]] = {name: set() for name in self.sources}
        for one in self.imports:
            if one.source != one.target:
                edges[one.source].add(one.target)
        for circle in strongly_connected(edges):
            if len(circle) > 1:
                inside = next(
                    one for one in self.imports if one.source == circle[0] and one.target in set(circle[1:])
                )
                what = f"these import each other: {', '.join(circle)}"
                yield self._violation(inside.source, inside.line, what)


def _python_files(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _python_files(entry)
        elif entry.suffix == ".py":
            yield entry


def _is_private(name: str) -> bool:
    # _x_ is a protocol of somebody's, such as that of ctypes.
    return name.startswith("_") and not name.endswith("_")


def _definitions(tree: ast.Module) -> Iterator[str]:
    """Private names that a module makes: functions, variables, fields, slots, and attributes of self."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                yield node.attr
        elif isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__slots__" for target in node.targets
        ):
            yield from (item.value for item in ast.walk(node.value) if isinstance(item, ast.Constant))


def strongly_connected(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The strongly connected components of a graph, each sorted, by Tarjan's algorithm without recursion."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []
    for root in edges:
        if root in number:
            continue
        work = [(root, iter(sorted(edges[root])))]
        number[root] = low[root] = len(number)
        stack.append(root)
        while work:
            node, successors = work[-1]
            for successor in successors:
                if successor not in number:
                    number[successor] = low[successor] = len(number)
                    stack.append(successor)
                    work.append((successor, iter(sorted(edges[successor]))))
                    break
                if successor in stack:
                    low[node] = min(low[node], number[successor])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    at = stack.index(node)
                    found.append(sorted(stack[at:]))
                    del stack[at:]
    return found
