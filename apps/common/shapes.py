"""Holds values against JSON schemas that strangers wrote, at a bounded cost.

Hides: what a schema can do to whoever evaluates it. Invariants: nothing is fetched;
a check ends after so many steps, whatever schema and value say, and one that does
not end in them is a problem; a pattern that could take for ever is not evaluated,
since the server that wrote it judges it itself.
"""

import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import jsonschema
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from . import canonical
from .errors import FieldProblem, Invalid

#: The most work that one check may be. Units: keywords, in part by their length.
MOST_STEPS: Final = 100_000
#: A reference is looked up each time, which takes as long as so many keywords.
REFERENCE_STEPS: Final = 20
#: More problems than anybody reads. Each one quotes what it is about.
MOST_PROBLEMS: Final = 50
#: Of a list, this many are quoted.
MOST_QUOTED: Final = 20
#: A longer schema is nothing that a person reviews. Units: characters.
LONGEST_SCHEMA: Final = 65_536
#: The most that one pattern may try on one text, all of one check together, and
#: the longest that is read.
MOST_TRIES: Final = 2_000_000
MOST_TRIES_IN_ALL: Final = 20_000_000
LONGEST_PATTERN: Final = 2_000
#: How long a text a pattern has to cope with to count as checked.
USUAL_TEXT: Final = 64
#: Members of a schema that hold data, not schemas.
_DATA: Final = frozenset({"const", "enum", "default", "examples"})
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_FOREIGN: Final = "$schema"

Keyword = Callable[..., Iterator[ValidationError] | None]
_left: ContextVar[list[int] | None] = ContextVar("shapes_left", default=None)


class _TooMuch(Exception):
    """This check is more work than it may be."""


def problems_of(value: Any, schema: dict[str, Any]) -> list[FieldProblem]:
    """List where a value breaks a JSON schema, at most `MOST_PROBLEMS` places."""
    validator = _validator(canonical.arguments(schema))
    began = _left.set([MOST_STEPS, MOST_TRIES_IN_ALL])
    try:
        found = islice(validator.iter_errors(value), MOST_PROBLEMS)
        errors = sorted(found, key=lambda error: error.json_path)
    except Unresolvable as error:
        return [FieldProblem(_FOREIGN, f"an unknown reference: {error}"[:300])]
    except (_TooMuch, RecursionError, ArithmeticError) as error:
        return [FieldProblem("$", _why_not(error), "a simpler schema")]
    finally:
        _left.reset(began)
    return [
        FieldProblem(error.json_path, error.message[:300], _expected(error))
        for error in errors
    ]


def schema_problem(schema: Any) -> str:
    """Say what is wrong with a schema itself; "" when nothing is."""
    if not isinstance(schema, dict):
        return "a schema is an object"
    try:
        length = len(canonical.arguments(schema))
        kind: Any = validator_for(schema, default=jsonschema.Draft202012Validator)
        # Patterns of other dialects are no fault: they are not evaluated.
        kind.check_schema(schema, format_checker=jsonschema.FormatChecker(()))
    except (jsonschema.SchemaError, RecursionError, Invalid) as error:
        return str(getattr(error, "message", error))[:300]
    if length > LONGEST_SCHEMA:
        return f"it has {length} characters; the limit is {LONGEST_SCHEMA}"
    return ""


def unchecked(schema: Any) -> list[str]:
    """Name the patterns of a schema that are left to whoever wrote them."""
    found: dict[str, None] = {}
    level = [schema]
    while level:
        item = level.pop()
        if isinstance(item, list):
            level += item
        if not isinstance(item, dict):
            continue
        named = [item.get("pattern"), *(item.get("patternProperties") or ())]
        for each in named:
            if isinstance(each, str) and _affordable(each, USUAL_TEXT) is None:
                found[each] = None
        level += item.values()
    return list(found)


# --- one check


@lru_cache(maxsize=1024)
def _validator(schema_text: str) -> Validator:
    schema = canonical.loads(schema_text)
    kind = _bounded(validator_for(schema, default=jsonschema.Draft202012Validator))
    # A schema comes from a stranger: what it refers to outside is never fetched.
    return kind(_one_dialect(schema), registry=Registry())


@lru_cache(maxsize=8)
def _bounded(kind: type[Validator]) -> type[Validator]:
    """Make a dialect count what it does, and do by itself what may not end."""
    own: dict[str, Keyword] = {
        name: keyword for name, keyword in _OWN.items() if name in kind.VALIDATORS
    }
    every = {**kind.VALIDATORS, **own}
    counting = {name: _counted(name, each) for name, each in every.items()}
    made: type[Validator] = extend(kind, counting)  # type: ignore[no-untyped-call]
    return made


def _counted(name: str, keyword: Keyword) -> Keyword:
    cost = REFERENCE_STEPS if name in _REFERENCES else 1

    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        by_length = len(value) // 50 if isinstance(value, list | dict) else 0
        _spend(cost + by_length)
        yield from keyword(validator, value, instance, schema) or ()

    return counted


def _spend(steps: int) -> None:
    left = _left.get()
    if left is not None:
        left[0] -= steps
        if left[0] < 0:
            raise _TooMuch()


def _one_dialect(schema: Any) -> Any:
    """Leave a schema's first word on its dialect to its top: one inside would go on
    with a validator that counts nothing."""
    if isinstance(schema, list):
        return [_one_dialect(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: each if name in _DATA else _one_dialect(each)
        for name, each in schema.items()
        if not (name == _FOREIGN and isinstance(each, str))
    }


def _why_not(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "cannot be checked: the schema refers to itself without end"
    if isinstance(error, ArithmeticError):
        return f"cannot be checked: {error}"[:300]
    return f"cannot be checked in {MOST_STEPS} steps"


def _expected(error: ValidationError) -> str:
    wanted = error.validator_value
    shown = wanted[:MOST_QUOTED] if isinstance(wanted, list) else wanted
    return f"{error.validator}: {shown}"[:200]


# --- keywords that do not end by themselves


def _pattern(_: Any, pattern: Any, instance: Any, schema: Any) -> Any:
    if isinstance(instance, str) and not _fits(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _enum(_: Any, known: Any, instance: Any, schema: Any) -> Any:
    # Unlike Python, JSON tells true from 1 and false from 0.
    same = (each for each in known if each == instance)
    if not any(isinstance(each, bool) == isinstance(instance, bool) for each in same):
        yield ValidationError(f"{instance!r} is not one of {known[:MOST_QUOTED]!r}")


def _pattern_properties(
    validator: Any, patterns: Any, instance: Any, schema: Any
) -> Any:
    if not isinstance(instance, dict):
        return
    for pattern, inner in patterns.items():
        for name, each in instance.items():
            _spend(1)
            found = _affordable(pattern, len(name) + 1)
            if found is not None and found.search(name):
                yield from validator.descend(
                    each, inner, path=name, schema_path=pattern
                )


def _additional_properties(
    validator: Any, more: Any, instance: Any, schema: Any
) -> Any:
    if not isinstance(instance, dict):
        return
    named = schema.get("properties") or {}
    patterns = list(schema.get("patternProperties") or {})
    others = []
    for name in instance:
        _spend(1 + len(patterns))
        # A name that an unevaluated pattern may mean is no stranger.
        if name not in named and not any(_fits(each, name) for each in patterns):
            others.append(name)
    if isinstance(more, dict):
        for name in others:
            yield from validator.descend(instance[name], more, path=name)
    elif more is False and others:
        shown = ", ".join(repr(name[:80]) for name in others[:20])
        yield ValidationError(f"Additional properties are not allowed: {shown}")


def _unique_items(_: Any, wanted: Any, instance: Any, schema: Any) -> Any:
    if not wanted or not isinstance(instance, list):
        return
    _spend(len(instance) // 10)
    if len({canonical.arguments(each) for each in instance}) != len(instance):
        yield ValidationError("has non-unique elements")


def _left_out(_: Any, value: Any, instance: Any, schema: Any) -> Any:
    """What was evaluated elsewhere is found by a search that has no end of its own."""
    return ()


_OWN: Final[dict[str, Keyword]] = {
    "enum": _enum,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
    "unevaluatedProperties": _left_out,
    "unevaluatedItems": _left_out,
}


# --- patterns


def _fits(pattern: str, text: str) -> bool:
    """Tell whether a text has what a pattern looks for, or nobody can say."""
    found = _affordable(pattern, len(text) + 1)
    return found is None or found.search(text) is not None


def _affordable(pattern: str, length: int) -> re.Pattern[str] | None:
    """Return a pattern that ends soon on a text of this length; None where it may
    not, or where this check has tried enough."""
    found = _compiled(pattern)
    if found is None:
        return None
    compiled, tries = found
    wanted, left = tries.at(length), _left.get()
    if wanted > MOST_TRIES or (left is not None and wanted > left[1]):
        return None
    if left is not None:
        left[1] -= wanted
    return compiled


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> "tuple[re.Pattern[str], _Tries] | None":
    tries = _tries(pattern) if len(pattern) <= LONGEST_PATTERN else None
    if tries is None:
        return None
    try:
        return re.compile(pattern), tries
    except (re.error, OverflowError, RecursionError):
        return None


class _Tries:
    """How often a pattern may try: a number of times the text's length to a power."""

    def __init__(self) -> None:
        self.times, self.power = 1, 0

    def at(self, length: int) -> int:
        return self.times * int(length) ** min(self.power, 20)


_QUANTIFIER: Final = re.compile(r"[*+?]|\{(\d*)(?:(,)(\d*))?\}")
_CLASS: Final = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_OPENING: Final = re.compile(r"\((?:\?(?:P?<\w+>|<?[=!]|[aiLmsux-]*:))?")
#: From this spread on a repeat counts as one of any length.
_WIDE: Final = 1_000


def _tries(pattern: str) -> _Tries | None:
    """Bound a pattern's tries; None for what backtracks without a bound: a repeated
    group whose inside varies, and a reference back.

    Reads the text of the pattern; whatever it does not know has no bound.
    """
    found, place = _Tries(), 0
    #: Whether each open group's inside varies so far; the last is the whole.
    inside, closed = [False], False
    while place < len(pattern):
        step = _step(pattern, place, inside, closed, found)
        if step is None:
            return None
        place, closed = step
    if len(inside) != 1:
        return None
    is_anchored = pattern.startswith("^") and not _branches(pattern)
    found.power += 0 if is_anchored else 1
    return found


def _step(
    pattern: str, place: int, inside: list[bool], closed: bool, found: _Tries
) -> tuple[int, bool] | None:
    """Read one piece. Returns where the next begins, and whether this one closed a
    group that varies; None where there is no bound."""
    char = pattern[place]
    if char == "\\":
        known = pattern[place + 1 : place + 2]
        return (place + 2, False) if known and known not in "123456789" else None
    if char == "[":
        match = _CLASS.match(pattern, place)
        return (match.end(), False) if match else None
    if char == "(":
        match = _OPENING.match(pattern, place)
        if match is None or pattern.startswith("?", match.end()):
            return None
        inside.append(False)
        return match.end(), False
    if char == ")":
        if len(inside) == 1:
            return None
        varies = inside.pop()
        inside[-1] |= varies
        return place + 1, varies
    if char == "|":
        inside[-1], found.times = True, found.times * 2
        return place + 1, False
    match = _QUANTIFIER.match(pattern, place)
    if match is None or match.group() in ("{}", "{,}"):
        return place + 1, False
    return _repeat(pattern, match, inside, closed, found)


def _repeat(
    pattern: str,
    match: re.Match[str],
    inside: list[bool],
    closed: bool,
    found: _Tries,
) -> tuple[int, bool] | None:
    low, high = _range(match)
    if closed and (high is None or high > 1):
        return None
    spread = _WIDE + 1 if high is None else max(high - low + 1, 1)
    if spread > _WIDE:
        found.power += 1
    else:
        found.times *= spread
    if pattern[match.start() - 1 : match.start()] == ")":
        found.times *= max(low, 1)
    inside[-1] |= high is None or high != low
    end = match.end()
    return end + (pattern[end : end + 1] in ("?", "+")), closed


def _range(match: re.Match[str]) -> tuple[int, int | None]:
    plain = {"*": (0, None), "+": (1, None), "?": (0, 1)}
    if match.group() in plain:
        return plain[match.group()]
    low = int(match.group(1) or 0)
    if match.group(2) is None:
        return low, low
    return low, int(match.group(3)) if match.group(3) else None


def _branches(pattern: str) -> bool:
    return "|" in pattern
