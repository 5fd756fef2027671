"""One exact text for one value, so that a hash means something.

Records are RFC 8785 canonical JSON. Tool arguments, which may hold integers of
any size, are sorted compact JSON instead and enter records by digest.
"""

import hashlib
import json
from typing import Any

import rfc8785

from .errors import Invalid

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


def loads(text: str) -> Any:
    """Read JSON back. Raises: Invalid."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise Invalid(f"This is not JSON: {error}") from error
