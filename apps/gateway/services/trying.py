"""Trying a change of policy over what was recorded, before saving it."""

from dataclasses import dataclass, field
from uuid import UUID

from apps.access.models import Principal
from apps.common.errors import NotFound
from apps.gateway import queries
from apps.gateway.engine.whatif import Change, Report, replay
from apps.gateway.models import Budget, Grant
from apps.gateway.ports import Json

#: How far back a replay may look. Units: hours.
LONGEST = 24 * 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One change, as somebody asks for it; exactly one group is filled."""

    hours: int = 168
    kind: str = ""
    capabilities: tuple[str, ...] = ()
    constraints: Json = field(default_factory=dict)
    grant_removed: UUID | None = None
    strictness: str = ""
    risk_of: str = ""
    risk: Json = field(default_factory=dict)
    budget_id: UUID | None = None
    limit: int = 0


def what_if(*, by: Principal, wanted: Wanted) -> Report:
    """Say what a change would have done to the calls that `by` may see.

    Writes: nothing.   Raises: Invalid naming the field; NotFound.
    """
    return replay(
        Change(
            grant_added=_added(wanted),
            grant_removed=_removed(wanted, by),
            strictness=wanted.strictness,
            risk_of=wanted.risk_of,
            risk=wanted.risk,
            budget=_budget(wanted, by),
            limit=wanted.limit,
        ),
        principal=by,
        hours=max(1, min(wanted.hours, LONGEST)),
    )


def _added(wanted: Wanted) -> Grant | None:
    if not wanted.capabilities:
        return None
    return Grant(
        kind=wanted.kind or "tool",
        capabilities=list(wanted.capabilities),
        constraints=wanted.constraints,
        reason="tried, not saved",
    )


def _removed(wanted: Wanted, by: Principal) -> UUID | None:
    if wanted.grant_removed is None:
        return None
    if not queries.grants(by).filter(id=wanted.grant_removed).exists():
        raise NotFound("There is no such grant.")
    return wanted.grant_removed


def _budget(wanted: Wanted, by: Principal) -> Budget | None:
    if wanted.budget_id is None:
        return None
    found = queries.budgets(by).filter(id=wanted.budget_id).first()
    if found is None:
        raise NotFound("There is no such budget.")
    return found
