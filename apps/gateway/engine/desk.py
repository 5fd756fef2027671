"""What a person must see before deciding: the canonical tool, the exact arguments,
destinations, labels and risk, never a model's prose."""

import json
from dataclasses import dataclass, field
from typing import Any

from apps.access.models import Principal
from apps.common import clock
from apps.gateway import policies, queries
from apps.gateway.models import ApprovalMode, ApprovalRequest, PlanStep

from . import rules
from .explaining import Explanation, explain

#: What the answer did, in the words of the page.
DONE = {
    "approve": "Approved once.",
    "grant": "Approved, and granted for a while.",
    "reject": "Rejected.",
}
#: The reasons for asking, in words.
WHY = {
    "destructive": "it destroys: it asks every time",
    "external_write": "it writes outside",
    "external": "it reaches outside",
    "network_egress": "it sends over the network",
    "label_conflict": "untrusted, private and outward come together",
    "bulk": "it reaches many targets at once",
    "plan": "it is a plan of several steps",
    "reject_window": "it starts by itself unless rejected",
    "strict": "its agent asks before every change",
}
MOST_CALLS = 200
#: Longer arguments are decided on a page of their own, which shows all of them.
MOST_CHARACTERS = 6000


@dataclass(frozen=True, slots=True)
class Group:
    """Questions that are alike: one capability, one requester, one reason."""

    questions: list[dict[str, Any]] = field(default_factory=list)
    rules: dict[str, Any] = field(default_factory=dict)

    @property
    def is_cut(self) -> bool:
        return any(each["is_cut"] for each in self.questions)

    @property
    def first(self) -> dict[str, Any]:
        return self.questions[0]


def question(asked: ApprovalRequest, principal: Principal) -> dict[str, Any]:
    """Put one question into the words of the page."""
    return _shown(asked) | _rules_for(asked, principal)


def grouped(pending: list[ApprovalRequest], principal: Principal) -> list[Group]:
    """Lay alike questions together, in the order of their oldest.

    Who may decide, and whether a grant is worth suggesting, is the same within a
    group and is asked once."""
    groups: dict[tuple[Any, ...], Group] = {}
    for asked in pending:
        call = asked.call
        asks = tuple(call.facts.get("asks", []))
        key = (
            asked.workspace_id,
            call.capability,
            call.agent,
            asked.requester_id,
            asks,
        )
        group = groups.setdefault(key, Group())
        if not group.questions:
            group.rules.update(_rules_for(asked, principal))
        group.questions.append(_shown(asked) | group.rules)
    return list(groups.values())


def _rules_for(asked: ApprovalRequest, principal: Principal) -> dict[str, Any]:
    may_grant = rules.is_grantable(asked.call.facts.get("asks", []))
    return {
        "may_grant": may_grant,
        "alike": queries.alike_approved(asked, clock.now()) if may_grant else 0,
        "why_not": policies.can_decide(principal, asked),
    }


def _shown(asked: ApprovalRequest) -> dict[str, Any]:
    facts, risk = asked.call.facts, asked.call.facts.get("risk", {})
    would = asked.preview.get("would")
    steps = [_step(step) for step in asked.plan_steps.all()]
    arguments = pretty(asked.call.arguments)
    texts = [arguments, *(step["arguments"] for step in steps)]
    return {
        "is_cut": any(len(text) > MOST_CHARACTERS for text in texts),
        "asked": asked,
        "call": asked.call,
        "chips": [word for word in risk.values() if word and word != "none"],
        "labels": facts.get("labels", []),
        "why": [WHY.get(each, each) for each in facts.get("asks", [])],
        "arguments": arguments,
        "targets": facts.get("targets", [])[:10],
        "target_count": facts.get("target_count", 0),
        "is_dry_run": asked.mode == ApprovalMode.DRY_RUN,
        "would": pretty(json.dumps(would)) if would is not None else "",
        "steps": steps,
    }


def _step(step: PlanStep) -> dict[str, Any]:
    return {
        "row": step,
        "arguments": pretty(step.arguments),
        "asks_again": not rules.is_grantable(rules.risk_asks(step.risk)),
    }


def explanations(trace_id: str, principal: Principal) -> list[Explanation]:
    """Explain a trace's calls in order, as far as the principal may see them."""
    calls = list(queries.calls_of_trace(trace_id, principal)[:MOST_CALLS])
    asked = queries.approvals_of_calls([call.id for call in calls])
    return [explain(call, asked.get(call.id)) for call in calls]


def pretty(text: str) -> str:
    """Lay JSON out for reading; erased or broken text is shown as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text or "(erased)"
