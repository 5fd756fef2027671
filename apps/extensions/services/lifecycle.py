"""Enable, roll back, remove, trust again: each through the gateway, each traced."""

from uuid import UUID

from django.db import transaction

from apps.access.models import Principal, Role
from apps.common.errors import Conflict
from apps.extensions.engine import definition
from apps.extensions.errors import ReviewMissing
from apps.extensions.models import (
    LIFECYCLE_TRANSITIONS,
    Extension,
    Lifecycle,
    Review,
    Trust,
    Version,
)
from apps.extensions.policies import check_may_enable
from apps.extensions.queries import get_extension, is_approved
from apps.gateway import services as gateway

from .disconnecting import disconnect_all
from .guarded import check_may, check_reason, decide, move, record


def enable_extension(*, by: Principal, extension_id: UUID, reason: str) -> Extension:
    """Let an extension run.

    Raises: RoleRequired below approver; NotTrusted when blocked; ReviewMissing
    when its present form was not reviewed; InvalidTransition.
    """
    check_may(by, Role.APPROVER)
    check_reason(reason)
    row = get_extension(extension_id)
    check_may_enable(row)
    LIFECYCLE_TRANSITIONS.check(row.lifecycle, Lifecycle.ENABLED)
    arguments = {"extensionId": row.ext_id, "reason": reason}
    return decide(
        by, "enable", arguments, lambda: _move(row, by, Lifecycle.ENABLED, reason)
    )


def remove_extension(*, by: Principal, extension_id: UUID, reason: str) -> Extension:
    """Take an extension out of use for good; its record and its forms stay.

    Raises: RoleRequired below approver; InvalidTransition while it is enabled.
    """
    check_may(by, Role.APPROVER)
    check_reason(reason)
    row = get_extension(extension_id)
    LIFECYCLE_TRANSITIONS.check(row.lifecycle, Lifecycle.REMOVED)
    if row.connections.exists():
        disconnect_all(by=by, row=row, reason=reason)
    arguments = {"extensionId": row.ext_id, "reason": reason}
    return decide(
        by, "remove", arguments, lambda: _move(row, by, Lifecycle.REMOVED, reason)
    )


def retrust_extension(*, by: Principal, extension_id: UUID, reason: str) -> Extension:
    """Trust an extension again as its newest review said.

    Raises: ReviewMissing unless its present form was approved after it was blocked.
    """
    check_may(by, Role.APPROVER)
    check_reason(reason)
    row = get_extension(extension_id)
    if row.trust == Trust.BLOCKED or not row.is_pinned:
        raise ReviewMissing(
            f"{row.ext_id} is trusted again by a new review of exactly its present "
            "form: reviewExtension.",
            definition_hash=row.definition_hash,
        )
    return row


def rollback_extension(
    *, by: Principal, extension_id: UUID, reason: str, definition_hash: str = ""
) -> Extension:
    """Bring an earlier form back, by default the last approved one before this.

    Writes: the rows of that form. It may run at once if its newest review approved
    it and nobody blocked the extension; else it waits for a review, disabled.
    Raises: RoleRequired below approver; Conflict without such a form.
    """
    check_may(by, Role.APPROVER)
    check_reason(reason)
    row = get_extension(extension_id)
    version = _earlier_form(row, definition_hash)
    arguments = {
        "extensionId": row.ext_id,
        "definitionHash": version.definition_hash,
        "reason": reason,
    }
    return decide(
        by, "rollback", arguments, lambda: _bring_back(row, version, by, reason)
    )


def _earlier_form(row: Extension, wanted: str) -> Version:
    forms = row.versions.exclude(definition_hash=row.definition_hash)
    if wanted:
        forms = forms.filter(definition_hash=wanted)
    else:
        approved = Review.objects.filter(extension=row, is_approved=True)
        forms = forms.filter(definition_hash__in=approved.values("definition_hash"))
    found: Version | None = forms.order_by("-id").first()
    if found is None or not row.parts:
        raise Conflict(f"{row.ext_id} has no earlier form to go back to.")
    return found


@transaction.atomic
def _bring_back(
    row: Extension, version: Version, by: Principal, reason: str
) -> Extension:
    gateway.hold_starts(f"extension:{row.ext_id}")
    fresh = get_extension(row.id)
    if fresh.definition_hash != row.definition_hash or fresh.trust != row.trust:
        raise Conflict("Somebody else has just decided about this extension.")
    definition.write(fresh, version.definition)
    found = definition.hash_of(definition.manifest_of(fresh))
    approved = fresh.trust != Trust.BLOCKED and is_approved(fresh, found)
    fresh.definition_hash, fresh.reviewed_hash = found, found if approved else ""
    fresh.source, fresh.revision = version.source, version.revision
    if not approved and fresh.lifecycle == Lifecycle.ENABLED:
        fresh.lifecycle = Lifecycle.DISABLED
    fresh.save()
    facts = {"before": row.definition_hash, "after": found, "approved": approved}
    record(fresh, by, "rolled_back", reason=reason, data=facts)
    return fresh


@transaction.atomic
def _move(row: Extension, by: Principal, target: Lifecycle, reason: str) -> Extension:
    gateway.hold_starts(f"extension:{row.ext_id}")
    if target == Lifecycle.ENABLED:
        check_may_enable(get_extension(row.id))
    changes = {"reviewed_hash": ""} if target == Lifecycle.REMOVED else {}
    move(row, lifecycle=target, **changes)
    record(row, by, str(target), reason=reason, data={"before": row.lifecycle})
    return row
