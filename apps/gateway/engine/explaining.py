"""Says of a recorded call which stage refused it, by which rule, and what would
have allowed it. Reads only what the call itself recorded when it was decided."""

from dataclasses import dataclass

from apps.gateway.models import ApprovalRequest, Call, CallState

from .stages import DECIDE

#: What an operator may do about a refusal, by its reason or its stage.
WOULD_ALLOW = {
    "identify": "The asker is switched on and belongs to the call's workspace: an "
    "administrator changes that.",
    "halt": "The halt is lifted by an operator, on the page Halts or by `resume`.",
    "contract": "Arguments that match the contract; the fields are named in the "
    "refusal. Only an administrator changes how strict contracts are.",
    "trust": "The extension is enabled and reviewed in exactly its present form.",
    "definition_changed": "An operator reviews what changed in the extension and "
    "approves that form.",
    "scope_invalid": "A capability scope that names at least this capability.",
    "scope_capability_denied": "The profile, the session and the request all name "
    "this capability; a scope only narrows.",
    "risk_unknown": "An operator supplies the missing risk with a reason.",
    "constraint": "Arguments within the scope's constraints, or wider constraints.",
    "rate_limited": "Waiting until the minute is over, or a higher ratePerMinute.",
    "guardrail": "Fewer of untrusted, private and outward together: a child turn with "
    "declared inputs only, or a person's approval.",
    "loop_guard": "A shallower or less repetitive tree of work, or a higher limit in "
    "the settings; for calls from outside, a traceId of its own for other work.",
    "budget": "A higher limit, a smaller request, or waiting for the window to reset.",
    "approval": "An approver's answer; or, for what may be granted, a grant.",
    "destructive_grant_required": "Somebody with the role approver in this workspace; "
    "then an approval of exactly this call.",
    "label_conflict": "Somebody with the role approver in this workspace; or fewer of "
    "untrusted, private and outward together.",
    "approval_denied": "A new request that an approver accepts; this one was rejected.",
    "approval_expired": "Asking again and an answer before the question expires.",
    "credential": "The vault is opened.",
}


@dataclass(frozen=True, slots=True)
class Said:
    """One stage and what it said: passed, refused, asked or not reached."""

    stage: str
    verdict: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one call was or was not allowed."""

    call: Call
    stages: list[Said]
    rule: str
    would_allow: str
    approval: ApprovalRequest | None

    @property
    def refused(self) -> bool:
        return self.call.state == CallState.DENIED


def explain(call: Call, approval: ApprovalRequest | None) -> Explanation:
    """Explain one call from what it recorded."""
    stopped = call.stage if _was_stopped(call) else ""
    return Explanation(
        call=call,
        stages=_stages(call, stopped),
        rule=call.error_detail if stopped else "",
        would_allow=_would_allow(call, stopped),
        approval=approval,
    )


def _was_stopped(call: Call) -> bool:
    return call.state in (CallState.DENIED, CallState.AWAITING_APPROVAL)


def _stages(call: Call, stopped: str) -> list[Said]:
    said = call.facts.get("stages", {})
    shown = []
    for name, _ in DECIDE:
        verdict = str(said.get(name, ""))
        if name == stopped:
            asks = call.state == CallState.AWAITING_APPROVAL
            shown.append(Said(name, verdict, "asks" if asks else "refused"))
        elif name in said:
            shown.append(Said(name, verdict, "passed"))
        else:
            shown.append(Said(name, "", "not reached"))
    return shown


def _would_allow(call: Call, stopped: str) -> str:
    if not stopped:
        return ""
    known = WOULD_ALLOW.get(call.reason_code) or WOULD_ALLOW.get(stopped, "")
    if stopped == "capability" and call.reason_code == "scope_capability_denied":
        extension_id, _, name = call.capability.partition("/")
        return f'{known} Here: {{"allowed": {{"{extension_id}": ["{name}"]}}}}.'
    if stopped == "approval" and call.state == CallState.AWAITING_APPROVAL:
        asks = ", ".join(call.facts.get("asks", []))
        return f"{WOULD_ALLOW['approval']} It asks because of: {asks}."
    return known
