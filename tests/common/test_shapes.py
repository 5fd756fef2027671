"""Schemas of strangers: a check ends, whatever they say, and says what it can."""

import time
from typing import Any

import pytest

from apps.common import shapes


def text(pattern: str) -> dict[str, Any]:
    return {"properties": {"a": {"type": "string", "pattern": pattern}}}


def bomb(levels: int) -> dict[str, Any]:
    """Doubles with each level: 2 ** levels evaluations."""
    defs: dict[str, Any] = {"a0": {}}
    for number in range(levels):
        twice = {"$ref": f"#/$defs/a{number}"}
        defs[f"a{number + 1}"] = {"allOf": [twice, twice]}
    return {"$defs": defs, "$ref": f"#/$defs/a{levels}"}


def nested(schema: dict[str, Any]) -> dict[str, Any]:
    """Put a schema under a dialect of its own."""
    draft = "http://json-schema.org/draft-07/schema#"
    return {"properties": {"a": {"$schema": draft, "allOf": [schema]}}, **schema}


LONG, MANY = {"a": "a" * 5_000}, {"a": [{"b": n} for n in range(20_000)]}
ENDLESS = {
    "nested": (text("^(a+)+$"), {"a": "a" * 40 + "!"}),
    "alternatives": (text("^(a|aa)+$"), {"a": "a" * 60 + "!"}),
    "backwards": (text(r"^(a*)\1*b$"), LONG),
    "many stars": (text("a*a*a*a*a*b"), LONG),
    "empty rounds": (text("((){9999}){9999}"), LONG),
    "names": ({"patternProperties": {"^(a+)+$": {}}}, {"a" * 40 + "!": 1}),
    "strangers": (
        {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
        {"a" * 40 + "!": 1},
    ),
    "itself": ({"$ref": "#"}, {}),
    "doubling": (bomb(40), {}),
    "doubling inside": (nested(bomb(40)), {"a": {}}),
    "unevaluated": (
        {**bomb(40), "unevaluatedProperties": False},
        {"x": 1},
    ),
    "unique": ({"properties": {"a": {"uniqueItems": True}}}, MANY),
    "long list": (
        {"properties": {"a": {"items": {"enum": list(range(9_000))}}}},
        {"a": [-1] * 20_000},
    ),
    "many patterns": (
        {"properties": {"a": {"items": {"pattern": "[a-z]+[0-9]"}}}},
        {"a": ["a" * 1_000] * 1_000},
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_no_schema_keeps_the_gateway_busy(name: str) -> None:
    schema, value = ENDLESS[name]
    assert shapes.schema_problem(schema) == ""
    began = time.process_time()

    shapes.problems_of(value, schema)

    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "#"}, {}),
        (bomb(40), {}),
        ({"multipleOf": 0.1}, 10**400),
        ({"$ref": "https://example.org/elsewhere"}, {}),
    ],
)
def test_what_cannot_be_checked_is_a_problem_and_no_pass(
    schema: dict[str, Any], value: Any
) -> None:
    assert len(shapes.problems_of(value, schema)) == 1


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("^[a-z]+$", "abc", "aB"),
        (r"^\d{4}-\d{2}-\d{2}$", "2026-11-30", "30.11.2026"),
        ("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", "0" * 8, "x"),
        ("^(foo|bar)?baz$", "foobaz", "quxbaz"),
        (r"^[^\]]*\.txt$", "a.txt", "a.md"),
        (r"^https?://", "https://example.org", "ftp://example.org"),
    ],
)
def test_usual_patterns_are_held(pattern: str, good: str, bad: str) -> None:
    if pattern.endswith("{12}$"):
        good = "00000000-0000-0000-0000-000000000000"

    assert shapes.problems_of({"a": good}, text(pattern)) == []
    assert shapes.problems_of({"a": bad}, text(pattern)) != []
    assert shapes.unchecked(text(pattern)) == []


@pytest.mark.parametrize("pattern", [r"^\p{L}+$", "(", "a{4294967295}", "^(a+)+$"])
def test_patterns_that_nobody_here_evaluates_are_named(pattern: str) -> None:
    assert shapes.schema_problem(text(pattern)) == ""
    assert shapes.problems_of({"a": "x"}, text(pattern)) == []
    assert shapes.unchecked(text(pattern)) == [pattern]


def test_names_are_held_as_ever() -> None:
    schema = {
        "properties": {"a": {"type": "integer"}},
        "patternProperties": {"^x-": {"type": "string"}},
        "additionalProperties": False,
    }

    assert shapes.problems_of({"a": 1, "x-b": "c"}, schema) == []
    found = shapes.problems_of({"a": 1, "x-b": 2, "other": 3}, schema)
    assert [each.path for each in found] == ["$", "$['x-b']"]
    assert shapes.problems_of({"b": "c"}, {"additionalProperties": {"type": "null"}})


def test_equal_items_are_not_unique() -> None:
    schema = {"uniqueItems": True}

    assert shapes.problems_of([1, 2, {"a": 1}], schema) == []
    assert shapes.problems_of([{"a": 1, "b": 2}, {"b": 2, "a": 1}], schema) != []


def test_schema_that_nobody_could_review_is_refused() -> None:
    schema = {"enum": ["x" * 80 + str(number) for number in range(1_000)]}

    assert "the limit is" in shapes.schema_problem(schema)
