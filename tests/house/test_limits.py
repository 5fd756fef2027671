"""Sizes that keep the code readable, and imports that stay at the top."""

import ast
import re
from pathlib import Path

import pytest

from tests.house.source import Source, dotted, names, sources

ROOT = Path(__file__).resolve().parents[2]
LONGEST_MODULE = 450
LONGEST_CLASS = 250
LONGEST_FUNCTION = 45
MOST_PARAMETERS = 6

REASONED = re.compile(r"noqa: PLR0913 \W*\w+")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def ours() -> list[Source]:
    return list(sources(ROOT, "apps", "polar_site"))


def length(node) -> int:
    """Lines of a body without its docstring."""
    body = node.body
    prose = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    rest = body[1:] if prose else body
    return rest[-1].end_lineno - rest[0].lineno + 1 if rest else 0


def test_modules_are_short():
    counts = {s.path: len(lines(s)) for s in ours()}

    assert {path: n for path, n in counts.items() if n > LONGEST_MODULE} == {}


@pytest.mark.parametrize(
    ("kinds", "longest"), [(FUNCTIONS, LONGEST_FUNCTION), (ast.ClassDef, LONGEST_CLASS)]
)
def test_bodies_are_short(kinds, longest):
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)

    long = [
        source.at(node, f"{node.name} has {length(node)} lines")
        for source in ours()
        for node in source.of(*kinds)
        if length(node) > longest
    ]

    assert long == []


def test_functions_take_few_parameters():
    """As ruff's PLR0913 does; its exceptions carry a reason on their line."""
    many = [
        source.at(node, node.name)
        for source in ours()
        for node in source.of(*FUNCTIONS)
        if len([a for a in parameters(node) if a not in ("self", "cls")])
        > MOST_PARAMETERS
        and not REASONED.search(lines(source)[node.lineno - 1])
    ]

    assert many == []


def lines(source: Source) -> list[str]:
    return (ROOT / source.path).read_text().splitlines()


def parameters(node) -> list[str]:
    given = node.args
    return [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


def test_functions_import_nothing_of_ours():
    """Django wants late imports in AppConfig.ready() and in what composes."""
    hidden = [
        source.at(inner, "imports inside a function")
        for source in sources(ROOT, "apps")
        if source.room != "apps"
        for node in source.of(*FUNCTIONS)
        for inner in ast.walk(node)
        if _imports_ours(inner)
    ]

    assert hidden == []


def _imports_ours(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return bool(node.level) or (node.module or "").startswith("apps")
    return isinstance(node, ast.Import) and node.names[0].name.startswith("apps")


def test_modules_import_in_no_circle():
    known = {".".join(s.parts).removesuffix(".__init__"): s for s in ours()}
    graph = {
        name: {
            target
            for reference in source.references
            for target in (reference.dotted, reference.module)
            if target in known and target != name
        }
        for name, source in known.items()
    }
    graph = {name: {t for t in to if "." in t} for name, to in graph.items()}
    packages = {name for name, source in known.items() if "__init__" in source.path}

    circles = strongly_connected(
        {name: to - packages for name, to in graph.items() if name not in packages}
    )

    assert circles == []


def strongly_connected(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of two or more modules that reach each other (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in graph.get(name, ()):
            if target not in index:
                visit(target)
            if target in stack:
                low[name] = min(low[name], low[target])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def test_variables_are_read_in_the_settings_only():
    readers = [
        source.at(node, "reads the environment")
        for source in sources(ROOT, "apps")
        for node in source.of(ast.Attribute)
        if dotted(node, names(source)) in ("os.environ", "os.getenv")
    ]

    assert readers == []
