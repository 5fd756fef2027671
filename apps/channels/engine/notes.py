"""What the audit log is told of an account."""

from typing import Any

from apps.access.models import Principal
from apps.audit import services as audit
from apps.channels.models import Account


def record(event: str, account: Account, by: Principal, **facts: Any) -> None:
    """Write one event about an account, in the caller's transaction."""
    audit.record(
        type=event,
        actor=by.actor,
        subject=("channel", str(account.id)),
        workspace_id=account.workspace_id,
        data={"slug": account.slug, "kind": account.kind, **facts},
    )
