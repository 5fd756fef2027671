"""No secret leaves by accident: known values are cut out of every text.

Redaction is by value. Whoever holds a plaintext registers it first; logs,
adapter results, streamed text and stored errors are scrubbed of all registered
values. A value is counted, so two leases of one secret do not unregister it.
"""

import threading
from collections import Counter
from typing import Any, NoReturn

MARK = "[redacted]"
#: Shorter values would blot out ordinary words.
SHORTEST = 6

_lock = threading.Lock()
_values: Counter[str] = Counter()
_ordered: tuple[str, ...] = ()


class SecretStr:
    """A secret that cannot be printed, logged or pickled by mistake."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Give the plaintext. Call it where it is sent, nowhere else."""
        return self._value

    def __repr__(self) -> str:
        return "SecretStr(…)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is never pickled")


def register(value: str) -> None:
    """Scrub this value from now on. Again: counted; forget as often."""
    if len(value) < SHORTEST:
        return
    with _lock:
        _values[value] += 1
        _reorder()


def forget(value: str) -> None:
    """Stop scrubbing this value once nobody holds it."""
    with _lock:
        if _values[value] <= 1:
            _values.pop(value, None)
        else:
            _values[value] -= 1
        _reorder()


def longest() -> int:
    """Tell how much of a stream to hold back. Units: characters."""
    return len(_ordered[0]) if _ordered else 0


def scrub(text: str) -> str:
    """Replace every registered value in a text."""
    for value in _ordered:
        if value in text:
            text = text.replace(value, MARK)
    return text


def scrub_tree(value: Any) -> Any:
    """Scrub all texts inside a JSON value, keys included."""
    if not _ordered:
        return value
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {scrub(str(key)): scrub_tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub_tree(item) for item in value]
    return value


def _reorder() -> None:
    """Longest first, so that a value inside another does not leave a rest."""
    global _ordered
    _ordered = tuple(sorted(_values, key=len, reverse=True))
