"""How far a turn may reach, and how much it may still spend.

A name is "extension/capability", or "extension/*" for all of an extension's.
Invariant: what `narrow` returns is covered by both of its arguments.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Sum

from apps.agents.models import Handoff, HandoffState, SafetyMode, Turn
from apps.gateway.models import Call

_ABOVE = """
    WITH RECURSIVE above(parent_id, profile_id, steps) AS (
        SELECT parent_id, profile_id, 0 FROM agents_turn WHERE id = %s
        UNION ALL
        SELECT turn.parent_id, turn.profile_id, above.steps + 1
          FROM agents_turn turn JOIN above ON turn.id = above.parent_id)
    SELECT profile.slug, profile.safety_mode
      FROM above JOIN agents_agentprofile profile ON profile.id = above.profile_id
     ORDER BY above.steps
"""


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


def left_of(turn: Turn) -> int | None:
    """Say what is left of a turn's share. Units: micro-USD; None is no share."""
    if turn.budget_micros is None:
        return None
    own = Call.objects.filter(run_id=turn.run_id, turn_id=turn.id)
    spent = own.aggregate(spent=Sum("micros"))["spent"]
    given = Handoff.objects.filter(step__turn=turn).exclude(state=HandoffState.REFUSED)
    gone = sum(
        (row.budget_micros or 0) if row.state == HandoffState.OPEN else row.micros
        for row in given
    )
    return turn.budget_micros - int(spent or 0) - gone


@dataclass(frozen=True, slots=True)
class Above:
    """The agents that handed a turn down, nearest first, and whether one is strict."""

    agents: tuple[str, ...] = ()
    is_strict: bool = False


def above_of(turn: Turn) -> Above:
    """Say who handed this turn down."""
    if turn.parent_id is None:
        return Above()
    above: Any = turn.parent_id
    key = above if connection.features.has_native_uuid_field else above.hex
    with connection.cursor() as cursor:
        cursor.execute(_ABOVE, [key])
        rows = cursor.fetchall()
    is_strict = any(mode == SafetyMode.STRICT for _, mode in rows)
    return Above(tuple(slug for slug, _ in rows), is_strict)
