"""What the calls of one root come to so far, summed up by the ledger."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import connection

from apps.gateway.models import Call
from apps.gateway.ports import CallKind, CallRequest

COUNTED = frozenset({CallKind.TOOL, CallKind.HANDOFF})
_TREE = """
    SELECT min(created_at), coalesce(sum(micros), 0),
           count(DISTINCT CASE WHEN kind = %s AND capability = %s AND args_digest = %s
                                AND idempotency_key <> %s THEN idempotency_key END)
      FROM gateway_call WHERE root_id = %s
"""


@dataclass(frozen=True, slots=True)
class Tree:
    """What the calls of one root come to.   Units: micro-USD, distinct effects."""

    began: datetime | None
    micros: int
    same: int


def ask_ahead(request: CallRequest, call: Call) -> Callable[[], Tree] | None:
    """Ask in the trip of what is read next, where the loop guard will want it.

    Handoffs are summed up later, once they hold their tree.
    """
    lineage = request.lineage
    wanted = request.kind == CallKind.TOOL or lineage.depth
    if lineage.root_id is None or request.kind == CallKind.HANDOFF or not wanted:
        return None
    return ask(request, call)


def ask(request: CallRequest, call: Call) -> Callable[[], Tree]:
    """Sum the tree up in one plain statement, which travels with the next."""
    root = key_of(request.lineage.root_id)
    this = [str(request.kind), request.capability, call.args_digest]
    here: Any = connection  # a method of our own backends
    found = here.execute_later(_TREE, [*this, call.idempotency_key, root])
    return lambda: _tree(*found())


def _tree(began: Any, micros: Any, same: int) -> Tree:
    if isinstance(began, str):  # SQLite knows no times
        began = datetime.fromisoformat(began).replace(tzinfo=UTC)
    return Tree(began, int(micros), same)


def key_of(value: Any) -> Any:
    """Give an id as the driver takes it."""
    return value if connection.features.has_native_uuid_field else value.hex
