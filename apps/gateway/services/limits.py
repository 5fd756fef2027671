"""How strict contracts are, and what may be spent."""

from django.db import transaction

from apps.access.models import Principal, Role
from apps.access.policies import check_role
from apps.access.queries import default_workspace
from apps.audit import services as audit
from apps.gateway.models import Budget, Setting, Strictness


@transaction.atomic
def set_strictness(*, by: Principal, strictness: Strictness, reason: str) -> Setting:
    """Change how strictly contracts are held. It relaxes nothing else."""
    check_role(by, Role.ADMIN, default_workspace())
    row = Setting.load()
    before = row.strictness
    Setting.objects.filter(id=row.id).update(strictness=strictness)
    audit.record(
        type="setting.changed",
        actor=by.actor,
        subject=("setting", "strictness"),
        reason=reason,
        data={"before": before, "after": str(strictness)},
    )
    row.refresh_from_db()
    return row


@transaction.atomic
def save_budget(*, by: Principal, budget: Budget) -> Budget:
    """Set a limit. Raises: RoleRequired below approver."""
    check_role(by, Role.APPROVER, budget.workspace or default_workspace())
    budget.save()
    audit.record(
        type="budget.set",
        actor=by.actor,
        subject=("budget", str(budget.id)),
        workspace_id=budget.workspace_id,
        data={
            "scope": budget.scope,
            "key": budget.scope_key,
            "limit": str(budget.limit),
            "unit": budget.unit,
            "window": budget.window,
            "on_exceed": budget.on_exceed,
        },
    )
    return budget
