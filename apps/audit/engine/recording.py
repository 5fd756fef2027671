"""Inserting one event inside the caller's transaction.

1. Take the run's next number and the epoch in one statement (the run's row stays
   locked until the caller commits, so a run's events are in commit order). A fence
   below one that has written already is refused there.
2. Write the body, commit to the payload, insert. No global lock is taken.
"""

import secrets
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from apps.audit import ports
from apps.audit.engine import body, merkle
from apps.audit.errors import OutsideTransaction
from apps.audit.models import Event, Head, Payload
from apps.common import canonical, clock, statements
from apps.common.actor import Actor
from apps.common.errors import Fenced, Invalid

_EPOCH = "SELECT epoch FROM audit_head WHERE id = 1"
#: Fence 0 is of nobody who carries the run: an operator, the clock.
_NEXT = (
    "INSERT INTO audit_runhead (run_id, last_seq, fence) VALUES (%s, 1, %s)"
    " ON CONFLICT (run_id) DO UPDATE SET last_seq = audit_runhead.last_seq + 1,"
    " fence = CASE excluded.fence WHEN 0 THEN audit_runhead.fence"
    " ELSE excluded.fence END"
    " WHERE excluded.fence = 0 OR excluded.fence >= audit_runhead.fence"
    " RETURNING last_seq, (SELECT epoch FROM audit_head WHERE id = 1)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What the caller says about the event."""

    type: str
    actor: Actor
    subject: tuple[str, str]
    workspace_id: UUID | None
    run_id: UUID | None
    trace_id: str
    decision: str
    reason: str
    data: dict[str, Any] = field(default_factory=dict)
    payload: dict[str, Any] | None = None
    #: Under which it is written by whoever carries the run.
    fence: int = 0


def has_transaction() -> bool:
    """Tell whether the change and its event end together."""
    return bool(transaction.get_connection().in_atomic_block)


def insert(draft: Draft) -> Event:
    """Write the event. Raises: Invalid, OutsideTransaction, Fenced."""
    if not has_transaction():
        raise OutsideTransaction
    if not ports.is_declared(draft.type):
        raise Invalid(f"{draft.type!r} is not a declared event type")
    payload = None if draft.payload is None else canonical.arguments(draft.payload)
    salt, payload_digest = ("", "") if payload is None else body.commit_payload(payload)
    run_seq, epoch = _place(draft.run_id, draft.fence)
    event = write(draft, run_seq, epoch, payload_digest)
    statements.insert(event)
    if payload is not None:
        statements.insert(Payload(event=event, salt=salt, text=payload))
    return event


def write(draft: Draft, run_seq: int | None, epoch: str, payload_digest: str) -> Event:
    """Make the event's row, body and digest; nothing is stored yet."""
    event = Event(
        type=draft.type,
        actor_kind=draft.actor.kind,
        actor_id=draft.actor.id,
        actor_label=_fit(draft.actor.label, 200),
        workspace_id=draft.workspace_id,
        trace_id=draft.trace_id,
        run_id=draft.run_id,
        run_seq=run_seq,
        subject_kind=draft.subject[0],
        subject_id=draft.subject[1],
        decision=draft.decision,
        reason=_fit(draft.reason, 500),
        epoch=epoch,
        occurred_at=clock.now(),
        payload_digest=payload_digest,
    )
    event.body = body.write(body.columns_of(event), draft.data)
    event.digest = merkle.leaf_hash(event.body.encode()).hex()
    return event


def current_epoch() -> str:
    """Return the epoch, beginning the first one at first use."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT epoch FROM audit_head WHERE id = 1")
        row = cursor.fetchone()
    return str(row[0]) if row else ensure_head().epoch


def ensure_head() -> Head:
    head, _ = Head.objects.get_or_create(
        id=1,
        defaults={
            "epoch": secrets.token_hex(16),
            "root": merkle.EMPTY_ROOT.hex(),
        },
    )
    return head


def new_epoch() -> str:
    return secrets.token_hex(16)


def _place(run_id: UUID | None, fence: int) -> tuple[int | None, str]:
    with connection.cursor() as cursor:
        if run_id is None:
            cursor.execute(_EPOCH)
            row = cursor.fetchone()
            return None, row[0] if row else current_epoch()
        key = run_id if connection.vendor == "postgresql" else run_id.hex
        cursor.execute(_NEXT, [key, fence])
        row = cursor.fetchone()
    if row is None:
        raise Fenced("Somebody who carried this run later has written for it.")
    return row[0], row[1] or current_epoch()


def _fit(text: str, length: int) -> str:
    """Shorten what people wrote; an event is never lost to a long sentence."""
    return text if len(text) <= length else text[: length - 1] + "…"
