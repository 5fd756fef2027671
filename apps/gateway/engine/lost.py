"""Effects of a future that the store no longer has.

The witness saw them start, so they may have happened; the rolled-back store would
do them once more. Each becomes a call in doubt under its old idempotency key: the
key is held, and an operator says what became of it.
"""

import json
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from apps.access import queries as access
from apps.access.models import Principal, Workspace
from apps.audit import services as audit
from apps.common import clock
from apps.gateway.models import HOLDING, Call, CallState
from apps.gateway.ports import CallKind, EffectClass


def hold(principal: Principal, bodies: Iterable[str]) -> list[Call]:
    """Hold the keys of the effects that these events say were started.

    Again: a key that is held stays with the call that holds it.
    """
    held = []
    for body in bodies:
        said = json.loads(body)
        key = str(said["data"].get("key", ""))
        taken = Call.objects.filter(idempotency_key=key, state__in=HOLDING)
        if not key or taken.exists():
            continue
        try:
            with transaction.atomic():
                held.append(_insert(principal, said))
        except IntegrityError:
            continue  # somebody took the key meanwhile
    return held


def _insert(principal: Principal, said: dict[str, Any]) -> Call:
    data, now = said["data"], clock.now()
    stated = str(data.get("effect_class", ""))
    known = stated in EffectClass.values
    call = Call.objects.create(
        workspace=_workspace(said["workspace_id"]),
        principal=principal,
        kind=data["kind"] if data["kind"] in CallKind.values else CallKind.TOOL,
        capability=str(data["capability"])[:200],
        state=CallState.UNKNOWN,
        effect_class=stated if known else EffectClass.NON_REPEATABLE,
        idempotency_key=str(data["key"])[:64],
        args_digest=data["args_digest"],
        facts={"lost_future": said["subject_id"], "started": said["occurred_at"]},
        error_code="lost_future",
        error_detail="The witness saw it start; the store has since gone back.",
        run_id=said["run_id"] and UUID(said["run_id"]),
        trace_id=said["trace_id"][:32],
        fence=int(data.get("fence", 0)),
        epoch=audit.epoch(),
        started_at=now,
        finished_at=now,
    )
    audit.record(
        type="call.held",
        actor=principal.actor,
        subject=("call", str(call.id)),
        workspace_id=call.workspace_id,
        run_id=call.run_id,
        trace_id=call.trace_id,
        decision=CallState.UNKNOWN,
        reason="lost_future",
        data={"key": call.idempotency_key, "capability": call.capability},
    )
    return call


def _workspace(known: str | None) -> Workspace:
    found = Workspace.objects.filter(id=UUID(known)).first() if known else None
    return found or access.default_workspace()
