"""The evidence of an incident: one JSON, signed, and the same as Markdown.

The signature is made with the audit key over the exact text of `incident`, so that
whoever has the public key can tell that not a byte was changed.
"""

import base64
from typing import Any
from uuid import UUID

from django.db import transaction

from apps.access.models import Principal, Role
from apps.audit import queries as audit_queries
from apps.audit import services as audit
from apps.boards.models import Task
from apps.common import canonical, clock
from apps.common.errors import Unavailable
from apps.reliability.engine import incidents as reading
from apps.reliability.engine import sops
from apps.reliability.models import Alert, Incident, Severity, StepResult
from apps.reliability.services import incidents


def evidence(*, by: Principal, incident_id: UUID) -> dict[str, Any]:
    """Gather everything that belongs to an incident, and sign it.

    Shape: incident (an object), signed (its canonical text), signature (base64,
    "" where this host has no audit key), publicKey.   Writes: one event.
    """
    row = incidents.get(by, incident_id, Role.VIEWER)
    body = _body(row)
    text = canonical.dumps(body)
    bundle = {"incident": body, "signed": text, **_signature(text.encode())}
    with transaction.atomic():
        audit.record(
            type="incident.exported",
            actor=by.actor,
            subject=("incident", str(row.id)),
            workspace_id=row.workspace_id,
            data={"sha256": canonical.digest(body)},
        )
    return bundle


def _signature(data: bytes) -> dict[str, str]:
    try:
        signature = base64.b64encode(audit.sign(data)).decode()
        return {"signature": signature, "publicKey": audit.public_key()}
    except Unavailable:
        return {"signature": "", "publicKey": ""}


def _body(row: Incident) -> dict[str, Any]:
    alerts = list(row.alerts.order_by("id"))
    head = audit_queries.head()
    return {
        "kind": "polar.incident.v1",
        "id": str(row.id),
        "name": row.name,
        "title": row.title,
        "severity": row.severity,
        "severityMeans": reading.MEANS[Severity(row.severity)],
        "because": row.because,
        "state": row.state,
        "origin": row.origin,
        "owner": row.owner,
        "roles": row.roles,
        "openedBy": row.opened_by,
        "openedAt": row.created_at.isoformat(),
        "resolvedAt": row.resolved_at.isoformat() if row.resolved_at else "",
        "traceIds": row.trace_ids,
        "alerts": [_alert(alert) for alert in alerts],
        "steps": [_step(each) for each in row.results.order_by("id")],
        "timeline": [
            {
                "at": entry.at.isoformat(),
                "type": entry.type,
                "who": entry.who,
                "words": entry.words,
                "gseq": entry.gseq,
                "digest": entry.digest,
            }
            for entry in reading.timeline(row, alerts)
        ],
        "tasks": [
            {"id": str(task.id), "title": task.title, "status": task.status}
            for task in Task.objects.filter(incident_id=row.id).order_by("id")[:100]
        ],
        "review": row.review,
        "log": {"size": head.size, "root": head.root, "epoch": head.epoch},
        "madeAt": clock.now().isoformat(),
    }


def _alert(alert: Alert) -> dict[str, str]:
    return {
        "id": str(alert.id),
        "code": alert.code,
        "key": alert.key,
        "level": alert.level,
        "state": alert.state,
        "summary": alert.summary,
        "raisedAt": alert.created_at.isoformat(),
        "clearedAt": alert.cleared_at.isoformat() if alert.cleared_at else "",
    }


def _step(result: StepResult) -> dict[str, Any]:
    return {
        "step": result.step,
        "title": sops.STEPS[result.step].title,
        "ok": result.ok,
        "summary": result.summary,
        "by": result.by,
        "at": result.created_at.isoformat(),
    }


def as_markdown(bundle: dict[str, Any]) -> str:
    """Say the same for a ticket."""
    one = bundle["incident"]
    lines = [
        f"# {one['name']}: {_plain(one['title'])}",
        "",
        f"- Class: {one['severity']}. {one['severityMeans']}",
        f"- Because: {_plain(one['because']) or 'no reason given'}",
        f"- State: {one['state']}, opened {one['openedAt']} by {one['openedBy']}",
        f"- Owner: {one['owner'] or 'nobody'}",
        f"- Log: {one['log']['size']} events, root {one['log']['root']}",
        "",
        "## Alerts",
        "",
        *[
            f"- {each['raisedAt']} {each['level']} {each['code']}:"
            f" {_plain(each['summary'])} ({each['state']})"
            for each in one["alerts"]
        ],
        "",
        "## Steps",
        "",
        *[
            f"- {each['at']} {'done' if each['ok'] else 'failed'}: {each['title']}, by"
            f" {each['by']}. {_plain(each['summary'])}"
            for each in one["steps"]
        ],
        "",
        "## Timeline",
        "",
        *[
            f"- {each['at']} {each['type']} by {_plain(each['who'])}"
            f" {_plain(each['words'])} (event {each['gseq']})"
            for each in one["timeline"]
        ],
        "",
        "## Review",
        "",
        *[f"- {name}: {_plain(said)}" for name, said in one["review"].items()],
        "",
        f"Signature: `{bundle['signature'] or 'none: this host has no audit key'}`",
        "",
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    return " ".join(str(text).split()).replace("`", "'").replace("|", "/")
