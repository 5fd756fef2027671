"""How strict contracts are, and what may be spent."""

from dataclasses import dataclass
from uuid import UUID
from zoneinfo import available_timezones

from django.db import transaction

from apps.access.models import Principal, Role, User, Workspace
from apps.access.policies import check_role
from apps.access.queries import default_workspace
from apps.audit import services as audit
from apps.common.errors import Conflict, FieldProblem, Invalid
from apps.gateway import queries
from apps.gateway.engine import meter
from apps.gateway.models import (
    NAMELESS,
    Budget,
    BudgetScope,
    BudgetUnit,
    BudgetWindow,
    OnExceed,
    Setting,
    Strictness,
)

#: More than anybody's limit, and far from the end of the column.
MOST = 10**15
#: What says how a budget counts; its counters start anew when one changes.
COUNTS_BY = ("scope", "scope_key", "unit", "window", "is_rolling", "timezone")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetWanted:
    """A limit as somebody wants it. Units: `limit` in micro-USD, tokens, calls or
    turns, as `unit` says."""

    scope: str
    limit: int
    key: str = ""
    unit: str = BudgetUnit.MICROS
    window: str = BudgetWindow.DAY
    is_rolling: bool = False
    timezone: str = "UTC"
    on_exceed: str = OnExceed.BLOCK


@transaction.atomic
def save_budget(
    *,
    by: Principal,
    wanted: BudgetWanted,
    budget_id: UUID | None = None,
    expected_version: int = 0,
) -> Budget:
    """Set a limit, or change one. What is spent stays spent, unless the budget now
    counts something else; what is set aside stays set aside.

    Raises: RoleRequired below approver; Invalid naming the fields; Conflict when
    somebody changed it meanwhile.   Again: a second click meets the Conflict.
    """
    fields = _checked(wanted)
    if budget_id is None:
        check_role(by, Role.APPROVER, default_workspace())
        row = Budget.objects.create(workspace=_home(wanted.scope), **fields)
        _record(by, row, "budget.set", before="")
        return row
    before = _found(by, budget_id)
    counts_anew = any(getattr(before, name) != fields[name] for name in COUNTS_BY)
    if counts_anew and before.reserved:
        raise Conflict("Calls are under way in this budget; change its limit only.")
    if counts_anew:
        fields |= {"spent": 0, "window_started_at": None, **meter.FRESH}
        before.slices.all().delete()
    fields |= {"workspace": _home(wanted.scope), "warned_at": None}
    row = _change(before, expected_version, fields)
    _record(by, row, "budget.set", before=str(before))
    return row


@transaction.atomic
def archive_budget(*, by: Principal, budget_id: UUID, expected_version: int) -> Budget:
    """End a limit; its figures stay. Again: Conflict."""
    before = _found(by, budget_id)
    row = _change(before, expected_version, {"is_active": False})
    _record(by, row, "budget.archived", before=str(before))
    return row


@transaction.atomic
def unblock_budget(*, by: Principal, budget_id: UUID, reason: str) -> Budget:
    """Let a budget serve again that an overrun blocked. Again: does nothing."""
    row = _found(by, budget_id)
    if not reason.strip():
        raise Invalid("Say why.", fields=(FieldProblem("reason", "empty"),))
    blocked = Budget.objects.filter(id=budget_id, blocked_at__isnull=False)
    if blocked.update(blocked_at=None):
        _record(by, row, "budget.unblocked", before=reason.strip()[:300])
    row.refresh_from_db()
    return row


def _home(scope: str) -> Workspace | None:
    """Providers and the install are everybody's; the rest is a workspace's."""
    shared = scope in (BudgetScope.GLOBAL, BudgetScope.PROVIDER)
    return None if shared else default_workspace()


def _found(by: Principal, budget_id: UUID) -> Budget:
    row = queries.get_budget(budget_id, by)
    check_role(by, Role.APPROVER, row.workspace or default_workspace())
    return row


def _change(before: Budget, expected: int, fields: dict[str, object]) -> Budget:
    same = Budget.objects.filter(id=before.id, version=expected, is_active=True)
    if not same.update(version=expected + 1, **fields):
        raise Conflict(
            f"This budget is at version {before.version}"
            f"{'' if before.is_active else ' and archived'}; you changed {expected}."
        )
    return Budget.objects.get(id=before.id)


def _checked(wanted: BudgetWanted) -> dict[str, object]:
    key, problems = _key(wanted)
    choices = {
        "scope": (wanted.scope, BudgetScope.values),
        "unit": (wanted.unit, BudgetUnit.values),
        "window": (wanted.window, BudgetWindow.values),
        "onExceed": (wanted.on_exceed, OnExceed.values),
    }
    for name, (said, known) in choices.items():
        if said not in known:
            problems.append(
                FieldProblem(name, f"{said!r} is unknown", ", ".join(known))
            )
    if not 0 <= wanted.limit <= MOST:
        problems.append(FieldProblem("limit", "out of range", f"0 to {MOST}"))
    if wanted.timezone not in available_timezones():
        problems.append(FieldProblem("timezone", "unknown", "like Europe/Zurich"))
    if wanted.is_rolling and wanted.window == BudgetWindow.TOTAL:
        problems.append(FieldProblem("isRolling", "a total has no window", "false"))
    if problems:
        named = "; ".join(f"{each.path}: {each.problem}" for each in problems)
        raise Invalid(f"No budget was saved: {named}.", fields=tuple(problems))
    return {
        "scope": wanted.scope,
        "scope_key": key,
        "unit": wanted.unit,
        "window": wanted.window,
        "is_rolling": wanted.is_rolling,
        "timezone": wanted.timezone,
        "on_exceed": wanted.on_exceed,
        "limit": wanted.limit,
    }


def _key(wanted: BudgetWanted) -> tuple[str, list[FieldProblem]]:
    """Whom it covers: a profile without its @; a person by name or id."""
    key = wanted.key.strip().removeprefix("@")[:160]
    if wanted.scope not in BudgetScope.values:
        return key, []
    if wanted.scope in NAMELESS:
        problem = FieldProblem("key", f"a {wanted.scope} budget names nobody", "empty")
        return key, [problem] if key else []
    if not key:
        return key, [FieldProblem("key", "empty", f"whose {wanted.scope} it is")]
    if wanted.scope != BudgetScope.USER:
        return key, []
    person = User.objects.filter(username=key).first()
    known = str(person.id) if person else key
    if not User.objects.filter(id__in=[known] if _is_id(known) else []).exists():
        return key, [FieldProblem("key", f"nobody is called {key!r}", "a user's name")]
    return known, []


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _record(by: Principal, row: Budget, type: str, *, before: str) -> None:
    audit.record(
        type=type,
        actor=by.actor,
        subject=("budget", str(row.id)),
        workspace_id=row.workspace_id,
        data={
            "scope": row.scope,
            "key": row.scope_key,
            "limit": str(row.limit),
            "unit": row.unit,
            "window": row.window,
            "rolling": row.is_rolling,
            "on_exceed": row.on_exceed,
            "before": before,
        },
    )
