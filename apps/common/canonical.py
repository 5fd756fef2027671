"""One exact text for one value, so that a hash means something.

Records are RFC 8785 canonical JSON. Tool arguments, which may hold integers of
any size, are sorted compact JSON instead and enter records by digest.
"""

import hashlib
import json
import re
from typing import Any

import rfc8785

from .errors import Invalid

#: Deeper JSON is an attack, not an argument.
MOST_LEVELS = 64
_HALF = re.compile("[\ud800-\udfff]")
#: The largest integer that RFC 8785 can carry exactly.
MAX_SAFE_INTEGER = 2**53 - 1


def dumps(value: Any) -> str:
    """Write a value as RFC 8785 canonical JSON.

    Raises: Invalid for floats outside the standard, NaN, keys that are not text.
    """
    try:
        if _is_simple(value):
            text = arguments(value)
            text.encode()  # refuses half a surrogate pair
            return text
        return rfc8785.dumps(_safe(value)).decode()
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise Invalid(f"This value has no canonical form: {error}") from error


def arguments(value: Any) -> str:
    """Write tool arguments as sorted compact JSON with integers of any size."""
    try:
        return json.dumps(
            value,
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
        )
    except (TypeError, ValueError) as error:
        raise Invalid(f"These arguments are not JSON: {error}") from error


def digest(value: Any) -> str:
    """Hash text as it is, or anything else by its canonical text.

    Units: SHA-256 as 64 hex digits.
    """
    text = value if isinstance(value, str) else dumps(value)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _is_simple(value: Any) -> bool:
    """Tell whether sorted compact JSON is the canonical form already.

    It differs for floats, for large integers, and in the order of keys beyond the
    basic plane; of these there are none here.
    """
    if value is None or isinstance(value, str | bool):
        return True
    if isinstance(value, int):
        return abs(value) <= MAX_SAFE_INTEGER
    if isinstance(value, dict):
        return all(
            isinstance(key, str) and key.isascii() and _is_simple(item)
            for key, item in value.items()
        )
    return isinstance(value, list | tuple) and all(map(_is_simple, value))


def _safe(value: Any) -> Any:
    """Integers beyond 2^53 become text: RFC 8785 could not carry them."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= MAX_SAFE_INTEGER else str(value)
    if isinstance(value, dict):
        return {key: _safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_safe(item) for item in value]
    return value


def storable(text: str) -> str:
    """Write halves of characters in canonical text as JSON escapes: no database and
    no wire takes them bare."""
    return text if text.isascii() else _HALF.sub(_escaped, text)


def has_half(text: str) -> bool:
    """Tell whether a text holds half of a surrogate pair."""
    return not text.isascii() and _HALF.search(text) is not None


def is_storable(value: Any) -> bool:
    """Tell whether every database holds each text of a JSON value: none has U+0000
    or half of a surrogate pair."""
    level = [value]
    while level:
        item = level.pop()
        if isinstance(item, str):
            if "\0" in item or has_half(item):
                return False
        elif isinstance(item, dict):
            level += [*item, *item.values()]
        elif isinstance(item, list | tuple):
            level += item
    return True


def loads(text: str) -> Any:
    """Read JSON back. Raises: Invalid."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"This is not JSON: {error}") from error


def read_body(data: bytes) -> Any:
    """Read what a stranger sent: no deeper than `MOST_LEVELS`, and of whole text.

    Raises: Invalid.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid("The body is not UTF-8.") from error
    value = loads(text or "null")
    if depth_of(value) > MOST_LEVELS:
        raise Invalid(f"The JSON is nested deeper than {MOST_LEVELS} levels.")
    if "\\u" in text and has_half(arguments(value)):
        raise Invalid("The JSON holds half of a character: a lone \\ud800 to \\udfff.")
    return value


def depth_of(value: Any, most: int = MOST_LEVELS) -> int:
    """Count levels of nesting without recursing, as far as one beyond `most`."""
    deepest, level = 0, [value]
    while level:
        deepest += 1
        if deepest > most:
            return deepest
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return deepest


def _escaped(half: re.Match[str]) -> str:
    return f"\\u{ord(half.group()):04x}"
