"""Allowing something for a while, and ending it."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import F

from apps.access.models import Principal, Role, Workspace
from apps.access.policies import check_role
from apps.access.queries import default_workspace
from apps.audit import services as audit
from apps.common import clock
from apps.common.errors import FieldProblem, Invalid, NotFound
from apps.gateway import queries
from apps.gateway.engine.rules import grant_reaches
from apps.gateway.models import Grant, Setting
from apps.gateway.policies import check_operator
from apps.gateway.ports import CallKind, Json, wake

#: Grants that a fresh install has; visible and revocable like any other.
SHIPPED_GRANTS = (
    (CallKind.MODEL, ["provider:*"], "model calls to configured providers"),
    (CallKind.RECEIVE, ["*"], "receiving from configured channels"),
    (CallKind.MESSAGE, ["reply:*"], "replies into the conversation that asked"),
)
#: What a grant may be narrowed by, each a list of names or patterns.
NARROWINGS = frozenset({"agents", "targets"})


@dataclass(frozen=True, slots=True)
class NewGrant:
    """What a grant would allow, to whom and until when.

    Shape: constraints {"agents": […], "targets": […]}, both optional patterns.
    """

    kind: CallKind
    capabilities: tuple[str, ...]
    reason: str
    workspace: Workspace | None = None
    principal: Principal | None = None
    expires_at: datetime | None = None
    constraints: Json = field(default_factory=dict)


@transaction.atomic
def make_grant(*, by: Principal, new: NewGrant) -> Grant:
    """Allow something for a while; what waits for exactly this goes on.

    Raises: RoleRequired below approver; Invalid naming the field.
    """
    check_role(by, Role.APPROVER, new.workspace or default_workspace())
    _check(new)
    row = Grant.objects.create(
        kind=new.kind,
        capabilities=list(new.capabilities),
        constraints=new.constraints,
        reason=new.reason.strip(),
        workspace=new.workspace,
        principal=new.principal,
        expires_at=new.expires_at,
        granted_by=by.label,
    )
    _record_grant(row, by, "grant.made")
    for asked in queries.open_approvals().filter(call__kind=new.kind):
        if grant_reaches(row, asked.call):
            wake(asked.call.run_id)
    return row


def _check(new: NewGrant) -> None:
    problems = []
    if not new.capabilities or not all(name.strip() for name in new.capabilities):
        problems.append(FieldProblem("capabilities", "empty", "at least one name"))
    if not new.reason.strip():
        problems.append(FieldProblem("reason", "empty", "why it is allowed"))
    if new.expires_at is not None and new.expires_at <= clock.now():
        problems.append(FieldProblem("expiresAt", "over", "a time to come"))
    problems += [
        FieldProblem(f"constraints.{name}", "not known or not a list", "a list of text")
        for name, value in new.constraints.items()
        if name not in NARROWINGS
        or not isinstance(value, list)
        or not all(isinstance(each, str) for each in value)
    ]
    if problems:
        named = ", ".join(f"{each.path} is {each.problem}" for each in problems)
        raise Invalid(f"No grant was made: {named}.", fields=tuple(problems))


@transaction.atomic
def revoke_grant(*, by: Principal, grant_id: UUID, reason: str = "") -> None:
    """End a grant; what was not yet decided asks again. Again: does nothing."""
    check_operator(by)
    row = Grant.objects.select_related("workspace").filter(id=grant_id).first()
    if row is None:
        raise NotFound("There is no such grant.")
    check_role(by, Role.OPERATOR, row.workspace or default_workspace())
    live = Grant.objects.filter(id=grant_id, revoked_at__isnull=True)
    if live.update(revoked_at=clock.now()):
        _record_grant(row, by, "grant.revoked", reason)


@transaction.atomic
def install_shipped_grants(*, by: Principal) -> None:
    """Make the standing grants of a fresh install. Again: adds what is missing;
    a revoked one stays revoked."""
    for kind, capabilities, reason in SHIPPED_GRANTS:
        if not Grant.objects.filter(is_shipped=True, kind=kind).exists():
            row = Grant.objects.create(
                kind=kind,
                capabilities=capabilities,
                reason=reason,
                is_shipped=True,
                granted_by=by.label,
            )
            _record_grant(row, by, "grant.made")


def _record_grant(row: Grant, by: Principal, type: str, reason: str = "") -> None:
    """Tell every process that what it keeps of the grants is old, and record it."""
    Setting.load()
    Setting.objects.filter(id=1).update(grants_version=F("grants_version") + 1)
    audit.record(
        type=type,
        actor=by.actor,
        subject=("grant", str(row.id)),
        workspace_id=row.workspace_id,
        reason=reason or row.reason,
        data={
            "kind": str(row.kind),
            "capabilities": list(row.capabilities),
            "constraints": row.constraints,
            "principal": str(row.principal_id or ""),
            "expires_at": row.expires_at.isoformat() if row.expires_at else "",
        },
    )
