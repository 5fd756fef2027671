"""How far a turn may reach: capabilities as names, narrowed and never widened.

A name is "extension/capability", or "extension/*" for all of an extension's.
Invariant: what `narrow` returns is covered by both of its arguments.
"""

from collections.abc import Iterable
from typing import Any

from apps.agents.models import Turn


def covers(wide: str, name: str) -> bool:
    """Tell whether one name allows all that another does."""
    extension, _, capability = wide.partition("/")
    other, _, wanted = name.partition("/")
    return extension == other and capability in ("", "*", wanted)


def narrow(names: Iterable[str], bounds: Iterable[str]) -> list[str]:
    """Return what both lists allow, in a fixed order."""
    left, right = [str(n) for n in names], [str(b) for b in bounds]
    both = {a for a in left if any(covers(b, a) for b in right)}
    both |= {b for b in right if any(covers(a, b) for a in left)}
    return sorted(both)


def capabilities_of(turn: Turn) -> list[str]:
    """Return what a turn may use: its profile's, within what was handed to it."""
    own = [str(name) for name in turn.profile.allowed_capabilities]
    return own if turn.scope is None else narrow(own, turn.scope)


def scope_of(turn: Turn) -> dict[str, Any]:
    """Put a turn's capabilities into the gateway's words."""
    allowed: dict[str, list[str]] = {}
    for name in capabilities_of(turn):
        extension, _, capability = name.partition("/")
        allowed.setdefault(extension, []).append(capability or "*")
    return {"allowed": allowed, "constraints": {}}
