"""Has this tree of work gone round too often?"""

from apps.gateway.engine.decision import Decision
from apps.gateway.errors import LoopGuardTripped
from apps.gateway.models import Call
from apps.gateway.ports import CallKind

COUNTED = frozenset({CallKind.TOOL, CallKind.HANDOFF})


def check(decision: Decision) -> str:
    """Refuse depth, repetition and fan-out beyond the limits, across runs.

    Reads: Call, by root: counts distinct idempotency keys, so a resumed effect
    is not a repetition.
    """
    lineage, setting = decision.request.lineage, decision.setting
    if lineage.depth > setting.max_depth:
        _trip(f"depth {lineage.depth} is over the limit {setting.max_depth}", "depth")
    if lineage.root_id is None or decision.request.kind not in COUNTED:
        return "clear"
    same = _distinct_keys(decision, args_digest=decision.call.args_digest)
    if same >= setting.max_same_call:
        _trip(
            f"{decision.request.capability} was called {same} times with the same "
            f"arguments; the limit is {setting.max_same_call}",
            "same_call",
        )
    if decision.request.kind == CallKind.HANDOFF:
        _check_handoffs(decision)
    return f"{same} same"


def _check_handoffs(decision: Decision) -> None:
    setting, lineage = decision.setting, decision.request.lineage
    edge = _distinct_keys(decision, agent=lineage.agent)
    if edge >= setting.max_same_edge:
        _trip(f"@{lineage.agent} handed over the same way {edge} times", "same_edge")
    handed = Call.objects.filter(root_id=lineage.root_id, kind=CallKind.HANDOFF)
    if handed.count() >= setting.max_turns_per_root:
        _trip(f"the tree has {setting.max_turns_per_root} turns", "turns")


def _distinct_keys(decision: Decision, **narrow: str) -> int:
    return (
        Call.objects.filter(
            root_id=decision.request.lineage.root_id,
            capability=decision.request.capability,
            **narrow,
        )
        .exclude(idempotency_key=decision.call.idempotency_key)
        .values("idempotency_key")
        .distinct()
        .count()
    )


def _trip(detail: str, limit: str) -> None:
    raise LoopGuardTripped(
        f"Loop guard: {detail}.", reason_code="loop_guard", limit=limit
    )
