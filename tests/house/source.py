"""Source text as the rules read it: parsed once, walked once, never imported."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Reference:
    """One imported thing: the module, the name taken from it, the local name."""

    module: str
    name: str
    local: str
    line: int

    @property
    def dotted(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One parsed file with its nodes, walked once."""

    path: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...]
    references: tuple[Reference, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.path.removesuffix(".py").split("/"))

    @property
    def app(self) -> str:
        return self.parts[1] if self.parts[0] == "apps" else ""

    @property
    def room(self) -> str:
        return self.parts[2] if self.app and len(self.parts) > 2 else ""

    def at(self, node: ast.AST | int, message: str) -> str:
        line = node if isinstance(node, int) else getattr(node, "lineno", 0)
        return f"{self.path}:{line} {message}"

    def of(self, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
        return (node for node in self.nodes if isinstance(node, kinds))


def sources(root: Path, *tops: str) -> Iterator[Source]:
    """Give every module below the given folders, migrations excepted."""
    for top in tops or ("apps",):
        yield from _below(root, top)


@cache
def _below(root: Path, top: str) -> tuple[Source, ...]:
    files = sorted((root / top).rglob("*.py"))
    paths = [(file, file.relative_to(root).as_posix()) for file in files]
    return tuple(
        parse(path, file.read_text("utf-8"))
        for file, path in paths
        if "/migrations/" not in path
    )


def parse(path: str, text: str) -> Source:
    tree = ast.parse(text, path)
    nodes = tuple(ast.walk(tree))
    return Source(path, tree, nodes, tuple(_references(path, nodes)))


def _references(path: str, nodes: Iterable[ast.AST]) -> Iterator[Reference]:
    package = path.removesuffix(".py").removesuffix("/__init__").split("/")
    package = package if path.endswith("/__init__.py") else package[:-1]
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.split(".")[0]
                yield Reference(alias.name, "", local, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                local = alias.asname or alias.name
                yield Reference(module, alias.name, local, node.lineno)


def names(source: Source) -> dict[str, str]:
    """What each imported local name stands for, in full."""
    found = {}
    for reference in source.references:
        top = reference.module.split(".")[0]
        plain = not reference.name and reference.local == top
        found[reference.local] = top if plain else reference.dotted
    return found


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """Write `a.b.c` in full, with imports resolved; "" for anything else."""
    tail: list[str] = []
    while isinstance(node, ast.Attribute):
        tail.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([names.get(node.id, node.id), *reversed(tail)])


def root_name(node: ast.AST) -> str:
    """The name at the far left of a chain of calls and attributes."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Await | ast.Starred):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return ""
    return node.id


def text_of(node: ast.AST | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


def docstrings(source: Source) -> set[int]:
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = set()
    for node in source.of(*holders):
        body = node.body  # type: ignore[attr-defined]
        if body and isinstance(body[0], ast.Expr):
            found.add(id(body[0].value))
    return found
