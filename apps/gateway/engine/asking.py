"""Opens one question for one effect, and closes what it replaces."""

from datetime import timedelta

from django.db.models import Q

from apps.access.models import PrincipalKind
from apps.common import canonical, redaction
from apps.common.errors import ApprovalRequired, PolarError
from apps.gateway.models import (
    ApprovalMode,
    ApprovalRequest,
    ApprovalState,
    Call,
    PlanStep,
)
from apps.gateway.ports import CallRequest, Json

from . import rules
from .decision import Decision

#: How long a question stays open: to somebody who is there, and on the desk.
CHAT_LIFETIME = timedelta(minutes=30)
DESK_LIFETIME = timedelta(hours=72)
#: The most steps that one person can judge at once.
MOST_STEPS = 50
OPEN = (ApprovalState.PENDING, ApprovalState.APPROVED)


def open_question(
    call: Call, request: CallRequest, refusal: ApprovalRequired, decision: Decision
) -> tuple[ApprovalRequest | None, bool]:
    """Write the question that a refusal asks, unless it is open already.

    Writes: ApprovalRequest, PlanStep; what this replaces becomes EXPIRED.
    Returns the question and whether it is new.
    """
    standing = refusal.facts.get("approval_id")
    if standing is not None:
        return ApprovalRequest.objects.filter(id=standing).first(), False
    close_open(call, binding=refusal.facts["binding"], why="asked again")
    mode = mode_of(request, call)
    asked = ApprovalRequest.objects.create(
        workspace_id=call.workspace_id,
        call=call,
        binding=refusal.facts["binding"],
        requester_id=request.principal.id,
        expires_at=decision.now + lifetime_of(request),
        mode=mode,
        starts_at=decision.now + (request.reject_window or timedelta())
        if mode == ApprovalMode.AUTO_START
        else None,
        preview=_preview(call, request),
    )
    _write_plan(asked, request)
    return asked, True


def close_open(call: Call, *, why: str, binding: str = "") -> None:
    """End the open questions of a call that no longer waits for them."""
    same = Q(call_id=call.id) | (Q(binding=binding) if binding else Q())
    ApprovalRequest.objects.filter(same, state__in=OPEN).update(
        state=ApprovalState.EXPIRED, preview={"closed": why}
    )


def lifetime_of(request: CallRequest) -> timedelta:
    """A person at an open conversation is there; who reads the answer in a messenger
    is not, and everything else waits on the desk."""
    if request.reject_window is not None:
        return request.reject_window + DESK_LIFETIME
    is_human = request.principal.kind == PrincipalKind.HUMAN
    present = is_human and not request.lineage.answers_later
    return CHAT_LIFETIME if present and request.lineage.session_id else DESK_LIFETIME


def mode_of(request: CallRequest, call: Call) -> ApprovalMode:
    """Only what could be granted starts by itself; destruction and bulk are
    shown as a dry run first."""
    asks = set(call.facts.get("asks", []))
    if asks & {"destructive", "bulk"}:
        return ApprovalMode.DRY_RUN
    if request.reject_window is not None and asks == {"reject_window"}:
        return ApprovalMode.AUTO_START
    return ApprovalMode.DRY_RUN if request.plan else ApprovalMode.ASK


def _preview(call: Call, request: CallRequest) -> Json:
    """What is known without doing anything."""
    shown: Json = {
        "targets": call.facts.get("targets", []),
        "target_count": call.facts.get("target_count", 0),
        "up_to_micros": request.estimate.micros,
    }
    if request.plan:
        shown["steps"] = [
            {
                "capability": step.capability,
                "asks": rules.risk_asks(step.risk.as_dict()),
                "asks_again": not rules.is_grantable(
                    rules.risk_asks(step.risk.as_dict())
                ),
            }
            for step in request.plan[:MOST_STEPS]
        ]
    return shown


def _write_plan(asked: ApprovalRequest, request: CallRequest) -> None:
    PlanStep.objects.bulk_create(
        PlanStep(
            approval=asked,
            position=number,
            capability=step.capability,
            arguments=redaction.scrub(canonical.arguments(step.arguments)),
            args_digest=step.args_digest,
            risk=step.risk.as_dict(),
        )
        for number, step in enumerate(request.plan[:MOST_STEPS], start=1)
    )


def rehearse(request: CallRequest, refusal: PolarError) -> None:
    """Let the capability say what it would do, outside any transaction.

    Nothing is executed: a preview is handed no permit, so it cannot send.
    """
    if request.preview is None or "approval_id" not in refusal.facts:
        return
    asked = ApprovalRequest.objects.filter(
        id=refusal.facts["approval_id"], mode=ApprovalMode.DRY_RUN
    ).first()
    if asked is None or "would" in asked.preview:
        return
    try:
        would = redaction.scrub_tree(request.preview())
    except PolarError as error:
        would = {"could_not_say": redaction.scrub(error.detail)}
    ApprovalRequest.objects.filter(id=asked.id, state=ApprovalState.PENDING).update(
        preview={**asked.preview, "would": would}
    )
