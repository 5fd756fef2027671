"""Replays a change of policy over recorded calls, before anybody saves it.

Decides by the same rules as the approval stage, from what each call recorded.
Invariants: writes nothing; what the record cannot say is counted "cannot tell".
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from apps.access.models import Principal
from apps.common import clock
from apps.common.errors import FieldProblem, Invalid
from apps.gateway.models import Budget, Call, CallState, Grant, OnExceed, Strictness
from apps.gateway.ports import CallKind, Json

from . import rules, whatif_money

ALLOWED, ASKS, DENIED, CANNOT_TELL = "allowed", "asks", "denied", "cannot tell"
#: How many calls one replay reads, newest first, and how many changes it lists.
MOST_CALLS = 10_000
MOST_SHOWN = 100
LEVELS = ("read", "write", "destructive")
#: Asks that come from elsewhere than the risk.
KEPT_ASKS = frozenset({"plan", "reject_window", rules.STRICT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of policy, not saved."""

    grant_added: Grant | None = None
    grant_removed: UUID | None = None
    strictness: str = ""
    risk_of: str = ""
    risk: Json = field(default_factory=dict)
    budget: Budget | None = None
    limit: int = 0

    def check(self) -> None:
        """Raises: Invalid when nothing is changed or a word is unknown."""
        changed = (
            self.grant_added is not None,
            self.grant_removed is not None,
            bool(self.strictness),
            bool(self.risk_of),
            self.budget is not None,
        )
        if sum(changed) != 1:
            raise Invalid(
                "Name exactly one change: a grant added or removed, the "
                "strictness, the risk of a capability, or a budget's limit."
            )
        if self.strictness and self.strictness not in Strictness.values:
            raise _unknown("strictness", ", ".join(Strictness.values))
        if self.risk_of and self.risk.get("riskLevel") not in LEVELS:
            raise _unknown("riskLevel", ", ".join(LEVELS))
        if self.budget is not None and self.limit < 0:
            raise _unknown("limit", "0 or more")


def _unknown(path: str, expected: str) -> Invalid:
    return Invalid(
        f"{path} is not one of: {expected}.",
        fields=(FieldProblem(path, "unknown", expected),),
    )


@dataclass(frozen=True, slots=True)
class Changed:
    """One recorded call that would have gone otherwise."""

    call: Call
    before: str
    after: str
    why: str


@dataclass(slots=True)
class Report:
    """What would have been different. Units: micro-USD, hours."""

    since: datetime
    hours: float
    calls: int = 0
    is_cut: bool = False
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    micros_before: int = 0
    micros_after: int = 0
    changed_count: int = 0
    changed: list[Changed] = field(default_factory=list)

    @property
    def cannot_tell(self) -> int:
        return self.after[CANNOT_TELL]

    @property
    def asks_per_hour_before(self) -> float:
        return self.before[ASKS] / self.hours

    @property
    def asks_per_hour_after(self) -> float:
        return self.after[ASKS] / self.hours


def replay(change: Change, *, principal: Principal, hours: int) -> Report:
    """Replay the calls of the last hours that the principal may see."""
    change.check()
    since = clock.now() - timedelta(hours=hours)
    mine = Call.objects.visible_to(principal).filter(created_at__gte=since)
    found = list(mine.select_related("principal").order_by("-id")[: MOST_CALLS + 1])
    report = Report(since, float(hours), is_cut=len(found) > MOST_CALLS)
    calls = found[:MOST_CALLS][::-1]
    if report.is_cut:
        report.since = calls[0].created_at
        span = clock.now() - report.since
        report.hours = max(span.total_seconds() / 3600, 1 / 60)
    judge = Judge(change, list(Grant.objects.all()))
    for call in calls:
        _count(report, call, judge)
    return report


def _count(report: Report, call: Call, judge: "Judge") -> None:
    before = verdict_of(call)
    after, why = judge.verdict(call, before)
    report.calls += 1
    report.before[before] += 1
    report.after[after] += 1
    report.micros_before += call.micros
    if after != DENIED:
        report.micros_after += call.micros
    if before == DENIED and after == ALLOWED:
        report.micros_after += call.reserved_micros
    if after != before:
        report.changed_count += 1
        if len(report.changed) < MOST_SHOWN:
            report.changed.append(Changed(call, before, after, why))


def verdict_of(call: Call) -> str:
    """Say what policy decided: a person's answer to a question is not policy."""
    facts = call.facts
    if call.state == CallState.DENIED and call.stage not in ("approval", ""):
        return DENIED
    asked = bool(facts.get("asks")) and "grant" not in facts
    return ASKS if asked else ALLOWED


class Judge:
    """Says what one call would have met under the change."""

    def __init__(self, change: Change, grants: Iterable[Grant]) -> None:
        self.change = change
        self.grants = [each for each in grants if each.id != change.grant_removed]
        self.money = (
            whatif_money.Meter(change.budget, change.limit)
            if change.budget is not None
            else None
        )

    def verdict(self, call: Call, before: str) -> tuple[str, str]:
        """Return the verdict and why it is another one."""
        if before == DENIED:
            return self._lifted(call)
        for judged in (self._by_contract(call), self._by_budget(call)):
            if judged is not None:
                return judged
        if self.change.strictness or self.change.budget is not None:
            return before, ""
        return self._by_approval(call, before)

    def _lifted(self, call: Call) -> tuple[str, str]:
        """A refused call never reached the later stages; only the budget comes
        late enough for the rest to be known."""
        change = self.change
        relaxes = change.strictness == Strictness.OBSERVE and call.stage == "contract"
        names_risk = change.risk_of == call.capability and (
            call.reason_code == "risk_unknown"
        )
        if relaxes or names_risk:
            return CANNOT_TELL, "it would go on, and the later stages were not asked"
        if call.stage != "budget" or self.money is None:
            return DENIED, ""
        if not self.money.covers(call):
            return DENIED, ""
        if call.error_detail and not self.money.may_be_the_refuser(call):
            return CANNOT_TELL, "another budget may have refused it"
        if not self.money.admits(call):
            return DENIED, ""
        return self._by_approval(call, DENIED)

    def _by_contract(self, call: Call) -> tuple[str, str] | None:
        wanted = self.change.strictness
        if not wanted:
            return None
        said = call.facts.get("stages", {}).get("contract", "")
        if said == "observed" and wanted != Strictness.OBSERVE:
            return DENIED, "its arguments break the contract"
        if wanted == Strictness.HARDENED and said in ("observe", "enforce"):
            return CANNOT_TELL, "the schemas of that time are not kept"
        return None

    def _by_budget(self, call: Call) -> tuple[str, str] | None:
        if self.money is None:
            return None
        if self.money.is_untold:
            return CANNOT_TELL, "calls do not record what this budget counts by"
        blocks = self.change.budget and self.change.budget.on_exceed == OnExceed.BLOCK
        if not self.money.admits(call) and blocks:
            return DENIED, "it would not fit into the budget"
        return None

    def _by_approval(self, call: Call, before: str) -> tuple[str, str]:
        asks = self._asks(call)
        if asks is None:
            return CANNOT_TELL, "its arguments were erased"
        if not asks:
            return ALLOWED, "nothing would ask"
        granted = rules.is_grantable(asks) and self._grant_for(call)
        if granted:
            return ALLOWED, f"the grant covers it: {granted.reason}"
        return ASKS, f"it would ask: {', '.join(asks)}"

    def _asks(self, call: Call) -> list[str] | None:
        """Recompute what asks; None where the record cannot say."""
        facts = call.facts
        recorded = facts.get("asks")
        if recorded is None and not call.arguments:
            return None
        if self.change.risk_of != call.capability and recorded is not None:
            return list(recorded)
        risk = facts.get("risk", {})
        if self.change.risk_of == call.capability:
            risk = {**risk, **self.change.risk}
        kept = [a for a in recorded or [] if a in KEPT_ASKS]
        asks = rules.risk_asks(risk) + kept
        labels = set(facts.get("labels", []))
        if rules.three_legs(call.kind, risk, labels):
            asks.append("label_conflict")
        if call.kind == CallKind.TOOL and rules.writes(risk):
            count = _count_of(call)
            if count is None:
                return None
            if count >= facts.get("bulk_threshold", rules.BULK):
                asks.append("bulk")
        return asks

    def _grant_for(self, call: Call) -> Grant | None:
        added = self.change.grant_added
        if added is not None and _reaches(added, call):
            return added
        live = (each for each in self.grants if _was_live(each, call.created_at))
        return next((each for each in live if _reaches(each, call)), None)


def _was_live(grant: Grant, moment: datetime) -> bool:
    ended = min(filter(None, (grant.revoked_at, grant.expires_at)), default=None)
    return grant.created_at <= moment and (ended is None or ended > moment)


def _reaches(grant: Grant, call: Call) -> bool:
    return (
        grant.kind == call.kind
        and grant.principal_id in (None, call.principal_id)
        and grant.workspace_id in (None, call.workspace_id)
        and rules.covers(
            grant.capabilities,
            grant.constraints,
            capability=call.capability,
            agent=call.agent,
            targets=call.facts.get("targets", []),
        )
    )


def _count_of(call: Call) -> int | None:
    if "target_count" in call.facts:
        return int(call.facts["target_count"])
    try:
        arguments: Any = json.loads(call.arguments)
    except ValueError:
        return None
    return rules.count_targets(arguments)
