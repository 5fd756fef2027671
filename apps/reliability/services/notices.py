"""Take the news of an alert to the board, to a channel and to webhooks.

Invariants: news is a row of the transaction that raised the alert; it is claimed
by one conditional UPDATE, tried eight times, and a failure is said, never dropped.
"""

import json
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import F

from apps.access import queries as access
from apps.access import services as access_services
from apps.access.models import Principal
from apps.audit import services as audit
from apps.boards import services as boards
from apps.boards.models import Task
from apps.common import clock
from apps.common.actor import SYSTEM
from apps.common.errors import NotFound, PolarError
from apps.gateway import services as gateway
from apps.gateway.ports import CallKind, CallRequest, EffectClass, Permit, Result, Risk
from apps.reliability import ports
from apps.reliability.models import (
    Alert,
    AlertOrigin,
    Level,
    Notice,
    NoticeRoute,
    NoticeState,
    Webhook,
)
from apps.vault import services as vault

MOST_ATTEMPTS = 8
BATCH = 20
BOARD_SLUG, BOARD_TITLE = "operations", "Operations"
CAPABILITY = "alert.deliver"
PURPOSE = "alert.webhook"
#: How news of what is not real begins.
MADE_UP = {
    str(AlertOrigin.SYNTHETIC): "Rehearsal: ",
    str(AlertOrigin.DRILL): "Drill: ",
}


def tell(alert: Alert, event: str) -> None:
    """Put the news on its ways, in the transaction at hand."""
    now = clock.now()
    rows = [Notice(alert=alert, route=NoticeRoute.BOARD, event=event, due_at=now)]
    if ports.has_messenger():
        rows.append(
            Notice(alert=alert, route=NoticeRoute.CHANNEL, event=event, due_at=now)
        )
    rows += [
        Notice(
            alert=alert,
            route=NoticeRoute.WEBHOOK,
            webhook_id=webhook_id,
            event=event,
            due_at=now,
        )
        for webhook_id in Webhook.objects.order_by("id").values_list("id", flat=True)
    ]
    Notice.objects.bulk_create(rows)


def send_due() -> int:
    """Send what is due. Returns how many arrived.   Again: each is sent once here;
    a webhook that answered after our time-out may hear the same id again.
    """
    now = clock.now()
    due = Notice.objects.filter(state=NoticeState.PENDING, due_at__lte=now)
    return sum(_send(row) for row in due.select_related("alert").order_by("id")[:BATCH])


def _send(row: Notice) -> bool:
    """1. Claim it by moving its next try on. 2. Send. 3. Say what came of it."""
    again = clock.now() + timedelta(seconds=min(15 * 2**row.attempts, 1800))
    mine = Notice.objects.filter(
        id=row.id, state=NoticeState.PENDING, attempts=row.attempts
    )
    if not mine.update(attempts=F("attempts") + 1, due_at=again):
        return False
    try:
        WAYS[NoticeRoute(row.route)](row)
    except (PolarError, OSError) as error:
        _failed(row, str(error)[:300])
        return False
    Notice.objects.filter(id=row.id).update(
        state=NoticeState.SENT, sent_at=clock.now(), problem=""
    )
    return True


def _failed(row: Notice, problem: str) -> None:
    last = row.attempts + 1 >= MOST_ATTEMPTS
    state = NoticeState.FAILED if last else NoticeState.PENDING
    with transaction.atomic():
        Notice.objects.filter(id=row.id).update(state=state, problem=problem)
        if last:
            audit.record(
                type="alert.notice_failed",
                actor=SYSTEM,
                subject=("alert", str(row.alert_id)),
                reason=problem,
                data={"route": str(row.route), "attempts": row.attempts + 1},
            )


def _to_board(row: Notice) -> None:
    alert, system = row.alert, access_services.system_principal()
    workspace = access.default_workspace()
    board = boards.ensure_board(
        by=system, workspace=workspace, slug=BOARD_SLUG, title=BOARD_TITLE
    )
    made_up = MADE_UP.get(alert.origin, "")
    draft = boards.TaskDraft(
        title=f"{made_up}{alert.code} {alert.summary}"[:200],
        body=f"{alert.summary}\n\nSince {alert.created_at:%F %T} UTC.",
        priority=0 if alert.level == Level.CRITICAL else 2,
        incident_id=alert.incident_id,
    )
    task = boards.upsert_task(
        by=system, board=board, draft=draft, request_key=f"alert:{alert.id}"
    )
    Alert.objects.filter(id=alert.id, task_id__isnull=True).update(task_id=task.id)
    if row.event != "raised":
        words = f"{row.event}: {alert.summary}"
        boards.comment_on_task(by=system, task_id=task.id, text=words, key=str(row.id))
    if row.event == "cleared" and alert.origin == AlertOrigin.SYNTHETIC:
        _finish(system, task.id)


def _finish(by: Principal, task_id: UUID) -> None:
    task = Task.objects.get(id=task_id)
    if task.status == "todo":
        boards.transition_task(
            by=by,
            task_id=task_id,
            status="done",
            expected_version=task.version,
            reason="the made-up breach arrived",
        )


def _to_channel(row: Notice) -> None:
    ports.messenger()(words_of(row), str(row.id))


def _to_webhook(row: Notice) -> None:
    hook = Webhook.objects.filter(id=str(row.webhook_id)).first()
    if hook is None:
        raise NotFound("This webhook was removed.")
    arguments = {"url": hook.url, "body": json.dumps(as_json(row), sort_keys=True)}
    system = access_services.system_principal()

    def perform(permit: Permit) -> Result:
        with vault.lease(hook.secret_id, purpose=PURPOSE, by=SYSTEM) as key:
            letter = ports.Letter(arguments, key, hook.local, str(row.id))
            return Result({"status": ports.courier().post(permit, letter)})

    gateway.call(
        CallRequest(
            kind=CallKind.MESSAGE,
            capability=CAPABILITY,
            principal=system,
            workspace_id=access.default_workspace().id,
            arguments=arguments,
            perform=perform,
            effect_class=EffectClass.KEYED,
            risk=Risk("write", "external", "network"),
            idempotency_key=f"notice:{row.id}",
            targets=(hook.url,),
            needs_secret=True,
        )
    )


WAYS = {
    NoticeRoute.BOARD: _to_board,
    NoticeRoute.CHANNEL: _to_channel,
    NoticeRoute.WEBHOOK: _to_webhook,
}


def as_json(row: Notice) -> dict[str, object]:
    """Say one piece of news as the webhook hears it."""
    alert = row.alert
    return {
        "id": str(row.id),
        "event": row.event,
        "alertId": str(alert.id),
        "code": str(alert.code),
        "key": alert.key,
        "level": str(alert.level),
        "origin": str(alert.origin),
        "summary": alert.summary,
        "since": alert.created_at.isoformat(),
        "incidentId": str(alert.incident_id or ""),
        "traceId": alert.trace_id,
    }


def words_of(row: Notice) -> str:
    alert = row.alert
    made_up = MADE_UP.get(alert.origin, "")
    return f"{made_up}{row.event} {alert.level}: {alert.code}. {alert.summary}"
