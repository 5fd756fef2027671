"""Has this tree of work gone round too often, or taken too much?

Hides: how calls of one root in many processes are counted. Invariant: handoffs of
a root are decided one after another, under its `CallTree` row, so their counts
are exact; everything is derived from the ledger, nothing from what a caller says.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import F

from apps.common.errors import BudgetExceeded
from apps.common.units import format_usd
from apps.gateway.engine.decision import Decision
from apps.gateway.errors import LoopGuardTripped
from apps.gateway.models import ApprovalRequest, Call, CallState, CallTree
from apps.gateway.ports import CallKind

COUNTED = frozenset({CallKind.TOOL, CallKind.HANDOFF})
#: A refused handoff opened no turn; a refused tool call is still a repetition.
NOT_MADE = [CallState.REQUESTED, CallState.DENIED]
_TREE = """
    SELECT min(created_at), coalesce(sum(micros), 0),
           count(DISTINCT CASE WHEN kind = %s AND capability = %s AND args_digest = %s
                                AND idempotency_key <> %s THEN idempotency_key END)
      FROM gateway_call WHERE root_id = %s
"""


@dataclass(frozen=True, slots=True)
class Tree:
    """What the calls of one root come to.   Units: micro-USD, distinct effects."""

    began: datetime | None
    micros: int
    same: int


def check(decision: Decision) -> str:
    """Refuse depth, repetition, fan-out and total cost beyond the limits.

    Reads: Call, by root: counts distinct idempotency keys, so a resumed effect
    is not a repetition.   Writes: CallTree, for handoffs.
    Raises: LoopGuardTripped; BudgetExceeded beyond a handoff's share.
    """
    lineage, setting = decision.request.lineage, decision.setting
    is_handoff = decision.request.kind == CallKind.HANDOFF
    depth = lineage.depth + is_handoff
    if depth > setting.max_depth:
        _trip(f"depth {depth} is over the limit {setting.max_depth}", "depth")
    _check_share(decision)
    is_counted = decision.request.kind in COUNTED
    if lineage.root_id is None or not (is_counted or lineage.depth):
        return "clear"
    if is_handoff:
        _enter_tree(decision)
    tree = _look(decision)
    _check_totals(decision, tree)
    if not is_counted:
        return "clear"
    same = tree.same
    if is_handoff:
        same = _count(decision, args_digest=decision.call.args_digest)
    if same >= setting.max_same_call:
        _trip(
            f"{decision.request.capability} was called {same} times with the same "
            f"arguments; the limit is {setting.max_same_call}",
            "same_call",
        )
    if is_handoff:
        _check_handoffs(decision)
    return f"{same} same"


def _check_share(decision: Decision) -> None:
    """A handoff gave this much and no more."""
    left, needed = (
        decision.request.lineage.allowance_micros,
        decision.request.estimate.micros,
    )
    if left is not None and needed > left:
        raise BudgetExceeded(
            f"The handoff's share has {format_usd(max(left, 0))} left and this needs "
            f"up to {format_usd(needed)}; it does not grow by itself.",
            limit=left,
        )


def _enter_tree(decision: Decision) -> None:
    """Hold the tree's row until the decision commits: one handoff at a time."""
    root = decision.request.lineage.root_id
    assert root is not None
    decision.before_writing()
    CallTree.objects.bulk_create([CallTree(root_id=root)], ignore_conflicts=True)
    CallTree.objects.filter(root_id=root).update(handoffs=F("handoffs") + 1)


def _look(decision: Decision) -> Tree:
    """Sum the tree up in one plain statement, as every tool call asks it."""
    request, call = decision.request, decision.call
    root: Any = request.lineage.root_id
    key = root if connection.features.has_native_uuid_field else root.hex
    this = [str(request.kind), request.capability, call.args_digest]
    with connection.cursor() as cursor:
        cursor.execute(_TREE, [*this, call.idempotency_key, key])
        began, micros, same = cursor.fetchone()
    if isinstance(began, str):  # SQLite knows no times
        began = datetime.fromisoformat(began).replace(tzinfo=UTC)
    return Tree(began, int(micros), same)


def _check_totals(decision: Decision, tree: Tree) -> None:
    setting = decision.setting
    limit = timedelta(seconds=setting.max_root_seconds)
    took = decision.now - tree.began if tree.began else timedelta()
    if took > limit and took - _waited(decision) > limit:
        _trip(f"the tree has worked for more than {limit}", "wall_time")
    if tree.micros >= setting.max_root_micros:
        _trip(
            f"the tree has spent {format_usd(tree.micros)}; the limit is "
            f"{format_usd(setting.max_root_micros)}",
            "money",
        )


def _waited(decision: Decision) -> timedelta:
    """How long the tree stood still for people: that is not work."""
    asked = ApprovalRequest.objects.filter(
        call__root_id=decision.request.lineage.root_id
    ).order_by("created_at")
    waited, until = timedelta(), None
    for began, decided, expires in asked.values_list(
        "created_at", "decided_at", "expires_at"
    ):
        ended = min(decided or expires, decision.now)
        since = max(began, until) if until else began
        waited += max(ended - since, timedelta())
        until = max(ended, until) if until else ended
    return waited


def _check_handoffs(decision: Decision) -> None:
    setting, request = decision.setting, decision.request
    agent = request.lineage.agent
    edge = _count(decision, capability=request.capability, agent=agent)
    if edge >= setting.max_same_edge:
        _trip(
            f"@{agent} handed over to {request.capability.partition('/')[2]} "
            f"{edge} times; the limit is {setting.max_same_edge}",
            "same_edge",
        )
    step_id = request.lineage.step_id
    if step_id and _count(decision, step_id=step_id) >= setting.max_fan_out:
        _trip(f"one step handed over to {setting.max_fan_out} agents", "fan_out")
    # The root is a turn too.
    if _count(decision) + 1 >= setting.max_turns_per_root:
        _trip(f"the tree has {setting.max_turns_per_root} turns", "turns")


def _count(decision: Decision, **narrow: object) -> int:
    """Count the effects of this kind in the tree, other than this one."""
    request = decision.request
    if "args_digest" in narrow:
        narrow["capability"] = request.capability
    made = Call.objects.filter(
        root_id=request.lineage.root_id, kind=request.kind, **narrow
    )
    if request.kind == CallKind.HANDOFF:
        made = made.exclude(state__in=NOT_MADE)
    others = made.exclude(idempotency_key=decision.call.idempotency_key)
    return others.values("idempotency_key").distinct().count()


def _trip(detail: str, limit: str) -> None:
    raise LoopGuardTripped(
        f"Loop guard: {detail}.", reason_code="loop_guard", limit=limit
    )
