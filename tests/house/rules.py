"""The rules of the house, R1 to R11, read from the source text alone.

Each rule takes the root of a tree (the folder that holds `apps/`) and returns its
violations as "file:line message". Nothing is imported or run, so a tree that does
not even start can be judged. R6 has a second half in test_tables.py, which walks
the real models.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.house import lists
from tests.house.source import (
    Reference,
    Source,
    docstrings,
    dotted,
    names,
    root_name,
    sources,
    text_of,
)


def _own_modules(source: Source) -> Iterator[tuple[str, str, Reference]]:
    """The app and room that each import of ours leads to; room "" is the package."""
    for reference in source.references:
        parts = reference.dotted.split(".")
        if parts[0] == "apps" and len(parts) > 1:
            yield parts[1], parts[2] if len(parts) > 2 else "", reference


def r1_floors(root: Path) -> list[str]:
    """An app imports only apps on floors below."""
    bad = [
        f"apps/{app.name}:0 R1 {app.name} stands on no floor"
        for app in sorted((root / "apps").iterdir())
        if app.is_dir() and app.name != "__pycache__" and app.name not in lists.FLOOR_OF
    ]
    for source in sources(root):
        if not source.room:
            continue
        here = lists.FLOOR_OF.get(source.app, -1)
        for app, _, reference in _own_modules(source):
            if app != source.app and lists.FLOOR_OF.get(app, 99) >= here:
                bad.append(
                    source.at(
                        reference.line,
                        f"R1 {source.app} imports {app}, which is not on a floor below",
                    )
                )
    return bad


def r2_roof(root: Path) -> list[str]:
    """Nobody imports polar_site."""
    return [
        source.at(reference.line, f"R2 imports {reference.module}")
        for source in sources(root)
        for reference in source.references
        if reference.dotted.split(".")[0] == "polar_site"
    ]


def r3_front_door(root: Path) -> list[str]:
    """Another app is entered through its front door."""
    return [
        source.at(reference.line, f"R3 enters {app} by {room or 'its package'}")
        for source in sources(root)
        for app, room, reference in _own_modules(source)
        if app not in (source.app, "common") and room not in lists.FRONT_DOOR
    ]


def r4_rooms(root: Path) -> list[str]:
    """Rooms have listed names and import only rooms below."""
    bad = [
        f"{path}:0 R4 {reason}"
        for app in sorted((root / "apps").iterdir())
        if app.is_dir() and app.name != "__pycache__"
        for path, reason in _unlisted(root, app)
    ]
    for source in sources(root):
        rank = lists.RANK_OF.get(source.room)
        if rank is None or source.app == "common":
            continue
        for app, room, reference in _own_modules(source):
            if app == source.app and lists.RANK_OF.get(room, rank) > rank:
                bad.append(
                    source.at(reference.line, f"R4 {source.room} imports {room}")
                )
    return bad


def _unlisted(root: Path, app: Path) -> Iterator[tuple[str, str]]:
    files, folders = lists.rooms_of(app.name)
    for entry in sorted(app.iterdir()):
        listed = entry.name in folders if entry.is_dir() else entry.name in files
        if not listed and entry.name != "__pycache__":
            yield entry.relative_to(root).as_posix(), "is an unlisted room"
    for inner in (app / "templates").glob("*"):
        if inner.name != app.name:
            path = inner.relative_to(root).as_posix()
            yield path, f"belongs in templates/{app.name}"
    for inner in (app / "management").rglob("*.py"):
        if inner.parent.name != "commands" and inner.stem != "__init__":
            yield inner.relative_to(root).as_posix(), "belongs in commands"


def r5_adapters(root: Path) -> list[str]:
    """Only adapters reach outside, and only their own apps.py knows them."""
    bad = []
    for source in sources(root):
        for app, room, reference in _own_modules(source):
            own = app == source.app and source.room in ("apps", "adapters")
            if room == "adapters" and not own:
                bad.append(source.at(reference.line, f"R5 imports adapters of {app}"))
        if source.room != "adapters":
            bad += _outward(source)
        if not source.path.startswith(lists.CRYPTO_HOMES):
            bad += [
                source.at(reference.line, "R5 imports cryptography")
                for reference in source.references
                if reference.dotted.split(".")[0] == "cryptography"
            ]
    return bad


def _outward(source: Source) -> Iterator[str]:
    exempt = lists.OUTWARD_EXEMPT.get(source.path, frozenset())
    full = names(source)
    for reference in source.references:
        found = _outward_name(reference.dotted)
        if found and found not in exempt and not _harmless(source, reference, full):
            yield source.at(reference.line, f"R5 imports {found} outside an adapter")
    for node in source.of(ast.Call):
        assert isinstance(node, ast.Call)
        called = dotted(node.func, full)
        if lists.OUTWARD_CALLS.match(called):
            yield source.at(node, f"R5 calls {called} outside an adapter")
        if called in ("importlib.import_module", "__import__") and node.args:
            found = _outward_name(text_of(node.args[0]))
            if found and found not in exempt:
                yield source.at(node, f"R5 imports {found} outside an adapter")


def _harmless(source: Source, reference: Reference, full: dict[str, str]) -> bool:
    """Is all that this import is used for on the harmless list?"""
    if reference.name:
        return reference.dotted in lists.HARMLESS
    uses = {
        dotted(node, full)
        for node in source.of(ast.Attribute)
        if root_name(node) == reference.local
    }
    return bool(uses) and uses <= lists.HARMLESS


def _outward_name(dotted: str) -> str:
    parts = dotted.split(".")
    prefixes = (".".join(parts[: end + 1]) for end in range(len(parts)))
    return next((prefix for prefix in prefixes if prefix in lists.OUTWARD), "")


def r6_foreign_keys(root: Path) -> list[str]:
    """A foreign key named as text points down."""
    bad = []
    for source in sources(root):
        for node in source.of(ast.Call):
            assert isinstance(node, ast.Call)
            kind = dotted(node.func, {}).rsplit(".", 1)[-1]
            if kind not in ("ForeignKey", "OneToOneField", "ManyToManyField"):
                continue
            to = next((k.value for k in node.keywords if k.arg == "to"), None)
            target = text_of(node.args[0] if node.args else to)
            app = target.split(".")[0] if "." in target else source.app
            if "AUTH_USER_MODEL" in ast.dump(node):
                app = "access"
            if not points_down(source.app, app):
                bad.append(source.at(node, f"R6 a foreign key points up to {app}"))
    return bad


def points_down(source: str, target: str) -> bool:
    """Tell whether a table of `source` may hold a key to a table of `target`."""
    if source == target or target not in lists.FLOOR_OF:
        return True
    return lists.FLOOR_OF[target] < lists.FLOOR_OF.get(source, -1)


def r7_writers(root: Path) -> list[str]:
    """A model is written only by its own app's services or engine.

    Followed as far as one function shows: a model's manager, a row or QuerySet
    made from it, and rows that another app's services and queries handed out.
    """
    bad: list[str] = []
    for source in sources(root):
        foreign_only = source.room in lists.WRITERS
        models, givers = set(), set()
        for app, room, reference in _own_modules(source):
            if app == "common" or (foreign_only and app == source.app):
                continue
            if room == "models":
                models.add(reference.local)
            elif room in ("services", "queries"):
                givers.add(reference.local)
        for scope in _scopes(source) if models or givers else ():
            bad += _writes(source, scope, models, givers)
    return bad


def _writes(
    source: Source, scope: ast.AST, models: set[str], givers: set[str]
) -> Iterator[str]:
    held = models | _instances(scope, models)
    given = _instances(scope, givers)
    for node in ast.walk(scope):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        verb, owner = node.func.attr, root_name(node.func.value)
        if owner == "statements" and verb in lists.WRITES:
            owner = _first_held(node, held | given)
            held_here = bool(owner)
        else:
            held_here = owner in held
        written = verb in lists.WRITES and held_here
        saved = verb in lists.ROW_WRITES and owner in given
        if written or saved:
            yield source.at(node, f"R7 {owner} is written here: .{verb}()")


def _first_held(call: ast.Call, held: set[str]) -> str:
    """Name the row or table that is given to one of the kept statements."""
    names = (
        root_name(arg.value if isinstance(arg, ast.Starred) else arg)
        for arg in call.args
    )
    return next((name for name in names if name in held), "")


def _scopes(source: Source) -> Iterator[ast.AST]:
    """Each function alone, and the module without its functions and classes."""
    inner = (ast.FunctionDef, ast.AsyncFunctionDef)
    outside = [n for n in source.tree.body if not isinstance(n, (*inner, ast.ClassDef))]
    yield ast.Module(outside, [])
    yield from source.of(*inner)


def _instances(scope: ast.AST, origins: set[str]) -> set[str]:
    """Names that hold a row or a QuerySet of the given origins."""
    held: set[str] = set()
    if not origins:
        return held
    for node in ast.walk(scope):
        match node:
            case ast.arg(arg=name, annotation=ast.expr() as value):
                pairs = [(name, value)]
            case ast.AnnAssign(target=ast.Name(id=name), annotation=value):
                pairs = [(name, value)]
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                pairs = [(name, value)]
            case ast.Assign(targets=[target], value=value):
                pairs = [(name, value) for name in _stored(target)]
            case ast.For(target=target, iter=value):
                pairs = [(name, value) for name in _stored(target)]
            case _:
                continue
        held |= {name for name, value in pairs if _gives_rows(value, origins | held)}
    return held


def _gives_rows(value: ast.expr, origins: set[str]) -> bool:
    """Does this annotation or expression stand for a row or a QuerySet?"""
    if isinstance(value, ast.BinOp):
        return any(_gives_rows(side, origins) for side in (value.left, value.right))
    if isinstance(value, ast.Name):
        return value.id in origins
    if isinstance(value, ast.Attribute):
        return value.attr[:1].isupper() and root_name(value) in origins
    if not isinstance(value, ast.Call) or root_name(value) not in origins:
        return False
    made = isinstance(value.func, ast.Name)
    verb = "" if made else value.func.attr  # type: ignore[attr-defined]
    manager = any(
        isinstance(node, ast.Attribute) and node.attr == "objects"
        for node in ast.walk(value.func)
    )
    return made or manager or verb in lists.ROW_GIVERS or verb[:1].isupper()


def _stored(target: ast.expr) -> list[str]:
    items = target.elts if isinstance(target, ast.Tuple) else [target]
    return [item.id for item in items if isinstance(item, ast.Name)]


def r8_clock(root: Path) -> list[str]:
    """The time is read in common/clock.py; SQL never says now()."""
    bad = []
    for source in sources(root, "apps", "polar_site"):
        if source.path == lists.CLOCK_HOME:
            continue
        full = names(source)
        bad += [
            source.at(reference.line, f"R8 imports {reference.dotted}")
            for reference in source.references
            if reference.module == "time"
        ]
        bad += _clock_reads(source, full)
    return bad


def _clock_reads(source: Source, full: dict[str, str]) -> Iterator[str]:
    prose = docstrings(source)
    for node in source.nodes:
        if isinstance(node, ast.Attribute | ast.Name):
            read = dotted(node, full)
            if read in lists.CLOCK_READS:
                yield source.at(node, f"R8 reads the time by {read}")
        elif isinstance(node, ast.Call) and not node.args:
            read = dotted(node.func, full)
            if read in lists.CLOCK_READS_BARE:
                yield source.at(node, f"R8 reads the time by {read}()")
        elif isinstance(node, ast.keyword) and node.arg in ("auto_now", "auto_now_add"):
            yield source.at(node, f"R8 {node.arg} reads the time by itself")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            sql = lists.SQL_TEXT.search(node.value) and lists.SQL_CLOCK.search(
                node.value
            )
            if sql and id(node) not in prose:
                yield source.at(node, "R8 SQL reads the time")


def r9_adapters_hold_no_database(root: Path) -> list[str]:
    """An adapter knows no database (the run-time half is in gateway.ports)."""
    bad = []
    for source in sources(root):
        if source.room != "adapters":
            continue
        bad += [
            source.at(reference.line, f"R9 an adapter imports {reference.dotted}")
            for reference in source.references
            if reference.dotted.startswith("django.db")
        ]
        bad += [
            source.at(node, "R9 an adapter reads a table")
            for node in source.of(ast.Attribute)
            if isinstance(node, ast.Attribute) and node.attr == "objects"
        ]
    return bad


def r10_no_escape(root: Path) -> list[str]:
    """Nothing is named so as to get around a guard."""
    bad = []
    for source in sources(root, "apps", "polar_site"):
        for node in source.nodes:
            for name in _given_names(node):
                if lists.ESCAPE.match(name) and name not in lists.ESCAPE_ALLOWED:
                    bad.append(source.at(node, f"R10 the name {name!r}"))
    return bad


def _given_names(node: ast.AST) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return [name]
        case ast.arg(arg=name) | ast.Attribute(attr=name) | ast.Name(id=name):
            return [name]
        case ast.keyword(arg=str(name)):
            return [name]
        case ast.Call(func=ast.Attribute(attr="add_argument"), args=args):
            return [text_of(arg).strip("-").replace("-", "_") for arg in args]
    return []


def r11_broad_excepts(root: Path) -> list[str]:
    """Broad excepts stand at the three boundaries, once each."""
    found = [
        (source.path, source.at(node, "R11 a broad except"))
        for source in sources(root)
        for node in source.nodes
        if _is_broad(node)
    ]
    bad = []
    spent: set[int] = set()
    for path, line in found:
        place = next(
            (n for n, allowed in enumerate(lists.BROAD_ALLOWED) if allowed.match(path)),
            None,
        )
        if place is None or place in spent:
            bad.append(line)
        else:
            spent.add(place)
    return bad


def _is_broad(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        return any(
            kind is None or (isinstance(kind, ast.Name) and kind.id in lists.BROAD)
            for kind in kinds
        )
    if isinstance(node, ast.Call) and dotted(node.func, {}).endswith("suppress"):
        return any(isinstance(a, ast.Name) and a.id in lists.BROAD for a in node.args)
    return False


RULES: dict[str, Callable[[Path], list[str]]] = {
    "R1": r1_floors,
    "R2": r2_roof,
    "R3": r3_front_door,
    "R4": r4_rooms,
    "R5": r5_adapters,
    "R6": r6_foreign_keys,
    "R7": r7_writers,
    "R8": r8_clock,
    "R9": r9_adapters_hold_no_database,
    "R10": r10_no_escape,
    "R11": r11_broad_excepts,
}
