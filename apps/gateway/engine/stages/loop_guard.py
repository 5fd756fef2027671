"""Has this tree of work gone round too often, or taken too much?

Hides: how calls of one root in many processes are counted. Invariant: handoffs of
a root are decided one after another, under its `CallTree` row, so their counts
are exact; everything is derived from the ledger, nothing from what a caller says.
"""

from dataclasses import dataclass
from datetime import timedelta

from django.db import connection
from django.db.models import F

from apps.common.errors import BudgetExceeded
from apps.common.units import format_usd
from apps.gateway.engine import trees
from apps.gateway.engine.decision import Decision
from apps.gateway.errors import LoopGuardTripped
from apps.gateway.models import ApprovalRequest, CallState, CallTree
from apps.gateway.ports import CallKind

#: A refused handoff opened no turn; a refused tool call is still a repetition.
NOT_MADE = [CallState.REQUESTED, CallState.DENIED]
#: Distinct keys: a resumed effect is not a repetition.
_HANDOFFS = """
    SELECT count(DISTINCT CASE WHEN capability = %s AND args_digest = %s
                               THEN idempotency_key END),
           count(DISTINCT CASE WHEN capability = %s AND agent = %s
                               THEN idempotency_key END),
           count(DISTINCT CASE WHEN step_id = %s THEN idempotency_key END),
           count(DISTINCT idempotency_key)
      FROM gateway_call
     WHERE root_id = %s AND idempotency_key <> %s AND kind = %s
       AND state NOT IN (%s, %s)
"""


@dataclass(frozen=True, slots=True)
class Made:
    """The handoffs of a tree that opened a turn: of these arguments, over this
    edge, of this step, and all."""

    same: int
    edge: int
    step: int
    total: int


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
    is_counted = decision.request.kind in trees.COUNTED
    if lineage.root_id is None or not (is_counted or lineage.depth):
        return "clear"
    if is_handoff:
        _enter_tree(decision)
    tree = (decision.sight.tree or trees.ask(decision.request, decision.call))()
    _check_totals(decision, tree)
    if not is_counted:
        return "clear"
    made = _made(decision) if is_handoff else None
    same = made.same if made else tree.same
    if same >= setting.max_same_call:
        _trip(
            f"{decision.request.capability} was called {same} times with the same "
            f"arguments; the limit is {setting.max_same_call}",
            "same_call",
        )
    if made is not None:
        _check_handoffs(decision, made)
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


def _check_totals(decision: Decision, tree: trees.Tree) -> None:
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


def _made(decision: Decision) -> Made:
    """Count the tree's handoffs other than this one, in one plain statement."""
    request, call = decision.request, decision.call
    line = request.lineage
    this = [request.capability, call.args_digest, request.capability, line.agent]
    where = [trees.key_of(line.root_id), call.idempotency_key, str(CallKind.HANDOFF)]
    step_id = line.step_id and trees.key_of(line.step_id)
    with connection.cursor() as cursor:
        cursor.execute(_HANDOFFS, [*this, step_id, *where, *map(str, NOT_MADE)])
        return Made(*cursor.fetchone())


def _check_handoffs(decision: Decision, made: Made) -> None:
    setting, request = decision.setting, decision.request
    if made.edge >= setting.max_same_edge:
        _trip(
            f"@{request.lineage.agent} handed over to "
            f"{request.capability.partition('/')[2]} {made.edge} times; the limit is "
            f"{setting.max_same_edge}",
            "same_edge",
        )
    if made.step >= setting.max_fan_out:
        _trip(f"one step handed over to {setting.max_fan_out} agents", "fan_out")
    # The root is a turn too.
    if made.total + 1 >= setting.max_turns_per_root:
        _trip(f"the tree has {setting.max_turns_per_root} turns", "turns")


def _trip(detail: str, limit: str) -> None:
    raise LoopGuardTripped(
        f"Loop guard: {detail}.", reason_code="loop_guard", limit=limit
    )
