"""What one plan leaves behind: an attempt row per route and one usage row.

Rows are collected while the plan is walked and written together at its end: in
the transaction that settles the call that answered, or in one of their own. The
gateway's Call rows are the record of anything in flight.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from apps.common import clock, ids, statements
from apps.common.errors import PolarError
from apps.gateway.ports import Lineage, Usage
from apps.gateway.services import Outcome as CallOutcome
from apps.providers.engine.plan import Plan, Step
from apps.providers.errors import ModelCallFailed
from apps.providers.models import (
    Attempt,
    BreakerState,
    LaneChange,
    LaneReason,
    Outcome,
    SkipReason,
    UsageRow,
)
from apps.providers.ports import CUT

REPLAYED = "replayed from the record"
OVER_ITS_CAP = "cut at its cap of tokens, which the server did not keep"


class Ledger:
    """Collects the rows of one plan."""

    def __init__(
        self, plan: Plan, principal_id: UUID, workspace_id: UUID, lineage: Lineage
    ) -> None:
        self._plan = plan
        self._principal_id, self._workspace_id = principal_id, workspace_id
        self._where = {
            "run_id": lineage.run_id,
            "turn_id": lineage.turn_id,
            "step_id": lineage.step_id,
            "trace_id": lineage.trace_id or ids.current_trace_id(),
            "origin": plan.wish.origin,
        }
        self._rows: list[Attempt] = []
        self._refusals: list[PolarError | None] = []
        self._began = self._step_began = clock.monotonic()
        self._served: Step | None = None
        self._replayed = self._is_saved = False

    def started(self, step: Step) -> None:
        self._step_began = clock.monotonic()

    def skipped(self, step: Step, reason: str, detail: str) -> None:
        self._add(step, Outcome.SKIPPED, reason=reason, detail=detail)
        self._refusals.append(None)

    def refused(self, step: Step, reason: str, refusal: PolarError) -> None:
        """Note a route that the gateway refused."""
        self._add(
            step,
            Outcome.SKIPPED,
            reason=reason,
            detail=refusal.detail,
            call_id=refusal.facts.get("call_id"),
        )
        self._refusals.append(refusal)

    def failed(self, step: Step, error: ModelCallFailed) -> None:
        self._add(
            step,
            Outcome.ATTEMPTED,
            error_class=error.error_class,
            reason=error.error_class,
            detail=error.detail,
            call_id=error.facts.get("call_id"),
            duration_ms=_since(self._step_began),
        )
        self._refusals.append(None)

    def served(self, step: Step, outcome: CallOutcome) -> None:
        self._served, self._replayed = step, outcome.replayed
        was_cut = outcome.output["finish"] == CUT
        self._add(
            step,
            Outcome.ATTEMPTED,
            detail=REPLAYED if outcome.replayed else OVER_ITS_CAP if was_cut else "",
            call_id=outcome.call_id,
            duration_ms=_since(self._step_began),
            ttft_ms=outcome.output["ttft_ms"],
            **_spent(outcome.usage),
        )

    def ended_with(self, error_class: str) -> bool:
        """Tell whether the newest route was tried and failed in this way."""
        return bool(self._rows) and self._rows[-1].error_class == error_class

    def lane_change(self, step: Step) -> LaneChange:
        """Say why the answer came from the lane it came from. A budget that lowers
        the lane does so by an operator's plan, when nothing else stood in the way."""
        said = self._plan.lane_change(step)
        lowered = said == LaneChange.FALLBACK and self._is_lowered()
        return LaneChange.PLANNED if lowered else said

    def lane_reason(self, step: Step) -> str:
        """Say in one word why a route was tried in its lane."""
        said = self._plan.lane_reason(step)
        lowered = said == LaneReason.LANE_FAILED and self._is_lowered()
        return LaneReason.OVER_BUDGET if lowered else said

    def _is_lowered(self) -> bool:
        left = [row.reason for row in self._rows if row.reason]
        return bool(left) and all(r == SkipReason.OVER_BUDGET for r in left)

    def summary(self) -> tuple[dict[str, str], ...]:
        """Shape: one {"route", "lane", "outcome", "reason", "detail"} per route."""
        return tuple(
            {
                "route": row.route_name,
                "lane": row.lane,
                "outcome": str(row.outcome),
                "reason": str(row.reason),
                "detail": row.detail,
            }
            for row in self._rows
        )

    def reasons(self) -> tuple[dict[str, str], ...]:
        """Name every route and why it did not answer."""
        return tuple(
            {
                "route": row.route_name,
                "lane": row.lane,
                "reason": f"{row.reason} ({row.detail})" if row.detail else row.reason,
            }
            for row in self._rows
        )

    def shared_refusal(self) -> PolarError | None:
        """Return the gateway's refusal when every route met the same kind."""
        first = self._refusals[0] if self._refusals else None
        if first is None or any(type(r) is not type(first) for r in self._refusals):
            return None
        return first

    def retry_at(self) -> datetime | None:
        """The earliest moment at which a resting route may be tried again."""
        moments: list[datetime] = []
        for step in self._plan.steps:
            if step.route is None:
                continue
            breaker = getattr(step.route, "breaker", None)
            if breaker is not None and breaker.state != BreakerState.CLOSED:
                moments.append(breaker.probe_at)
            if step.route.model.provider.quiet_until is not None:
                moments.append(step.route.model.provider.quiet_until)
        now = clock.now()
        return min((each for each in moments if each > now), default=None)

    def save(self) -> None:
        """Write all rows, once. A replayed answer was metered when it was given."""
        if not self._rows or self._is_saved:
            return
        self._is_saved = True
        with transaction.atomic(savepoint=False):
            statements.insert(*self._rows)
            if not self._replayed:
                statements.insert(self._usage_row())

    def _usage_row(self) -> UsageRow:
        wish, step = self._plan.wish, self._served
        wanted = self._rows[0].route_name.partition("/")
        tried = [row for row in self._rows if row.outcome == Outcome.ATTEMPTED]
        last = self._rows[-1]
        row = UsageRow(
            **self._where,
            workspace_id=self._workspace_id,
            principal_id=self._principal_id,
            requested_lane=wish.lane,
            requested_provider=wanted[0][:40],
            requested_model=wanted[2][:120],
            lane_reason=wish.reason,
            attempts=len(tried),
            ok=step is not None,
            fallback_used=step is not None and len(self._rows) > 1,
            duration_ms=_since(self._began),
            error_class=next((each.error_class for each in reversed(tried)), ""),
        )
        if step is not None and step.route is not None:
            row.served_lane = step.route.lane
            row.served_provider = step.route.model.provider.slug
            row.served_model = step.route.model.name
            row.lane_change = self.lane_change(step)
            row.lane_reason = last.lane_reason
            row.degraded = self._plan.is_degraded(step)
            row.ttft_ms, row.tokens_in, row.tokens_out = (
                last.ttft_ms,
                last.tokens_in,
                last.tokens_out,
            )
            row.cached, row.micros = last.cached, last.micros
        return row

    def _add(self, step: Step, outcome: Outcome, **facts: Any) -> None:
        route = step.route
        facts["detail"] = str(facts.get("detail", ""))[:500]
        self._rows.append(
            Attempt(
                **self._where,
                route_id=route.pk if route else None,
                route_name=step.name[:180],
                lane=route.lane if route else "",
                requested_lane=self._plan.wish.lane,
                lane_reason=self.lane_reason(step),
                outcome=outcome,
                seq=len(self._rows) + 1,
                **facts,
            )
        )


def _since(began: float) -> int:
    return int((clock.monotonic() - began) * 1000)


def _spent(usage: Usage) -> dict[str, int]:
    return {
        "tokens_in": usage.tokens_in,
        "tokens_out": usage.tokens_out,
        "cached": usage.tokens_cached,
        "micros": usage.micros,
    }
