"""`extension.gateway.execute.request`: its schema, its scope, its smallest example.

Hides: how scopes are narrowed and how an example is made up from a schema.
Invariant: a scope only ever gets narrower.
"""

from typing import Any

from apps.common.errors import FieldProblem
from apps.common.shapes import problems_of
from apps.extensions.models import ExtensionType, Trust
from apps.gateway.ports import Json

SCHEMA_ID = "extension.gateway.execute.request"
REQUIRED = (
    "extensionId",
    "extensionType",
    "capabilityId",
    "sessionId",
    "userId",
    "capabilityScope",
    "input",
)
_TEXT: Json = {"type": "string", "minLength": 1, "maxLength": 160}
_NAMES: Json = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 500}
_LIST: Json = {"type": "array", "items": {"type": "string"}, "maxItems": 500}
SCOPE: Json = {
    "type": "object",
    "required": ["allowed"],
    "additionalProperties": False,
    "properties": {
        "allowed": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 100,
            "additionalProperties": _NAMES,
        },
        "constraints": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "domainsAllowlist": _LIST,
                    "pathsAllowlist": _LIST,
                    "maxTargets": {"type": "integer", "minimum": 0},
                    "ratePerMinute": {"type": "integer", "minimum": 1},
                },
            },
        },
    },
}
SCHEMA: Json = {
    "$id": SCHEMA_ID,
    "type": "object",
    "required": list(REQUIRED),
    "additionalProperties": False,
    "properties": {
        "extensionId": _TEXT,
        "extensionType": {"enum": list(ExtensionType.values)},
        "capabilityId": _TEXT,
        "sessionId": _TEXT,
        "userId": _TEXT,
        "capabilityScope": SCOPE,
        "input": {"type": "object"},
        "trustLevel": {"enum": list(Trust.values)},
        "traceId": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "idempotencyKey": {"type": "string", "minLength": 1, "maxLength": 200},
        "metadata": {"type": "object"},
    },
}
MOST_PROBLEMS = 20


def problems(body: Any) -> tuple[FieldProblem, ...]:
    """Name every field that breaks the contract, with what was expected.

    A missing field is named by its own path, not by its parent's.
    """
    found: list[FieldProblem] = []
    if isinstance(body, dict):
        found += [
            FieldProblem(f"$.{name}", "missing", _expected(name))
            for name in REQUIRED
            if name not in body
        ]
    found += [
        problem
        for problem in problems_of(body, SCHEMA)
        if not (problem.path == "$" and "is a required property" in problem.problem)
    ]
    return tuple(found[:MOST_PROBLEMS])


def narrow(scope: Json, other: Json | None) -> Json:
    """Intersect two scopes; None narrows nothing. Constraints add up."""
    if other is None:
        return scope
    mine, theirs = scope.get("allowed") or {}, other.get("allowed") or {}
    allowed = {name: _both(mine[name], theirs.get(name) or []) for name in mine}
    return {
        "allowed": {name: names for name, names in allowed.items() if names},
        "constraints": _both_constraints(
            scope.get("constraints") or {}, other.get("constraints") or {}
        ),
    }


def example(schema: Json) -> Json:
    """Make up the smallest input that a schema accepts, as far as one can tell."""
    made = _made_up(schema, 0)
    return made if isinstance(made, dict) else {}


def _both(mine: list[str], theirs: list[str]) -> list[str]:
    if "*" in mine:
        return list(theirs)
    if "*" in theirs:
        return list(mine)
    return [name for name in mine if name in theirs]


def _both_constraints(mine: Json, theirs: Json) -> Json:
    found = {}
    for name in {*mine, *theirs}:
        one, other = mine.get(name) or {}, theirs.get(name) or {}
        found[name] = {
            rule: _tighter(one.get(rule), other.get(rule)) for rule in {*one, *other}
        }
    return found


def _tighter(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, list):
        return [each for each in one if each in other]
    return min(one, other)


def _expected(name: str) -> str:
    schema = SCHEMA["properties"][name]
    if name == "capabilityScope":
        return '{"allowed": {"<extensionId>": ["<capabilityId>"]}}'
    if "enum" in schema:
        return " | ".join(schema["enum"])
    return str(schema["type"])


def _made_up(schema: Any, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > 6:
        return "example"
    for word in ("const", "default"):
        if word in schema:
            return schema[word]
    for word in ("examples", "enum"):
        if schema.get(word):
            return schema[word][0]
    for word in ("anyOf", "oneOf"):
        if schema.get(word):
            return _made_up(schema[word][0], depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    return _of_kind(str(kind or "object"), schema, depth)


def _of_kind(kind: str, schema: Json, depth: int) -> Any:
    if kind == "object":
        known = schema.get("properties") or {}
        names = schema.get("required") or ()
        return {name: _made_up(known.get(name, {}), depth + 1) for name in names}
    if kind == "array":
        count = int(schema.get("minItems") or 0)
        return [_made_up(schema.get("items") or {}, depth + 1)] * min(count, 20)
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return {"boolean": False, "null": None}.get(kind, _text(schema))


def _text(schema: Json) -> str:
    wanted = max(int(schema.get("minLength") or 1), 1)
    return "1" * min(wanted, 1000)
