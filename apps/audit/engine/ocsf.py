"""Export records: OCSF classes with the profiles ai_operation and record_integrity.

The hashed body travels unchanged under `unmapped.body`; the rest is a view of it.

Source: https://schema.ocsf.io/1.9.0-dev (class_uid = category * 1000 + uid)
"""

import json
from typing import Any

from apps.audit.models import Event

API_ACTIVITY = 6003
#: The first word of an event type decides its class.
CLASSES = {
    "extension": 6002,
    "skill": 6002,
    "mcp": 6002,
    "plugin": 6002,
    "vault": 6005,
    "secret": 6005,
    "user": 3002,
    "token": 3002,
    "session": 3002,
    "login": 3002,
    "run": 1006,
    "schedule": 1006,
    "incident": 2005,
    "alert": 2004,
    "guardrail": 2004,
}
USAGE = (
    "kind",
    "capability",
    "tokens_in",
    "tokens_out",
    "tokens_cached",
    "micros",
    "duration_ms",
)
_ACTIVITY_OTHER = 99
_FAILURES = ("deny", "denied", "refused", "failed")


def record(event: Event) -> dict[str, Any]:
    """Shape: one OCSF event."""
    class_uid = CLASSES.get(event.type.partition(".")[0], API_ACTIVITY)
    failed = event.decision in _FAILURES
    return {
        "activity_id": _ACTIVITY_OTHER,
        "activity_name": event.type,
        "actor": {
            "type": event.actor_kind,
            "user": {"name": event.actor_label, "uid": event.actor_id},
        },
        "attestation": {
            "chain_uid": event.epoch,
            "fingerprint": {"algorithm_id": 3, "value": event.digest},
        },
        "category_uid": class_uid // 1000,
        "class_uid": class_uid,
        "message": event.reason,
        "metadata": {
            "correlation_uid": event.trace_id,
            "product": {"name": "Polar", "vendor_name": "Polar"},
            "profiles": ["ai_operation", "record_integrity"],
            "sequence": event.gseq,
            "uid": event.id.hex,
            "version": "1.9.0-dev",
        },
        "severity_id": 2 if failed else 1,
        "status_id": 2 if failed else 1,
        "time": int(event.occurred_at.timestamp() * 1000),
        "type_uid": class_uid * 100 + _ACTIVITY_OTHER,
        "unmapped": {"body": event.body, "decision": event.decision, **_usage(event)},
    }


def _usage(event: Event) -> dict[str, Any]:
    """What a settled call used, so that usage can be counted where the sink is."""
    if event.type != "call.settled":
        return {}
    said = json.loads(event.body)["data"]
    return {"usage": {name: said[name] for name in USAGE if name in said}}


def line(event: Event) -> str:
    """Write the record as one line that a sink appends."""
    return json.dumps(
        record(event), ensure_ascii=False, sort_keys=True, separators=(",", ":")
    )
