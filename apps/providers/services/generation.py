"""Ask for an answer; walk the plan until a route gives one.

Hides: failover, breakers, prices and the rows each plan leaves behind.
Invariant: one gateway call per route attempt; when nothing answers, an error
says which routes were tried or left out and why.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from apps.access.models import Principal
from apps.common import clock, ids, redaction, tracing
from apps.common.errors import (
    BudgetExceeded,
    Halted,
    NotGranted,
    PolarError,
    RateLimited,
    UpstreamError,
)
from apps.gateway import services as gateway
from apps.gateway.errors import LoopGuardTripped
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    Estimate,
    Lineage,
    Permit,
    Result,
    Risk,
    Usage,
)
from apps.providers import ports, queries
from apps.providers.engine import breakers, plan
from apps.providers.engine.ledger import Ledger
from apps.providers.engine.plan import Fallback, Plan, Step, Wish
from apps.providers.errors import ModelCallFailed, NoRouteAvailable
from apps.providers.models import (
    ErrorClass,
    Kind,
    Lane,
    LaneReason,
    Model,
    Origin,
    Route,
    SkipReason,
)
from apps.providers.services import keys
from apps.vault.errors import VaultSealed

#: Refusals that rule out one route and let the plan go on.
_SKIPS: tuple[tuple[type[PolarError], SkipReason], ...] = (
    (Halted, SkipReason.HALTED),
    (BudgetExceeded, SkipReason.OVER_BUDGET),
    (RateLimited, SkipReason.OVER_BUDGET),
    (VaultSealed, SkipReason.VAULT_SEALED),
    (NotGranted, SkipReason.NOT_GRANTED),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """What somebody wants a model to answer."""

    lane: str
    messages: tuple[ports.Message, ...]
    principal: Principal
    workspace_id: UUID
    tools: tuple[ports.Tool, ...] = ()
    max_output_tokens: int = 4096
    pinned_model_id: UUID | None = None
    fallbacks: tuple[Fallback, ...] = ()
    lane_reason: str = LaneReason.ASKED
    lineage: Lineage = field(default_factory=Lineage)
    labels: frozenset[str] = frozenset()
    origin: str = Origin.REAL
    stopping: Callable[[], bool] | None = None

    @property
    def wish(self) -> Wish:
        return Wish(
            self.lane,
            self.pinned_model_id,
            self.fallbacks,
            self.origin,
            self.lane_reason,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """An answer, who gave it, and what it took."""

    text: str
    tool_calls: tuple[ports.ToolCall, ...]
    usage: Usage
    served_by: str
    lane: str
    degraded: bool
    lane_change: str
    finish: str
    attempts: tuple[dict[str, str], ...]
    parts: Any = None
    call_id: UUID | None = None
    is_scripted: bool = False


class _Deltas:
    """Passes text on and remembers whether any went out."""

    def __init__(self, on_delta: Callable[[str], None] | None) -> None:
        self._on_delta = on_delta
        self.sent = False

    @property
    def receiver(self) -> Callable[[str], None] | None:
        return self if self._on_delta is not None else None

    def __call__(self, text: str) -> None:
        if self._on_delta is not None:
            self.sent = True
            self._on_delta(text)


def generate(
    *,
    request: GenerateRequest,
    on_delta: Callable[[str], None] | None = None,
    on_reset: Callable[[], None] | None = None,
) -> Generated:
    """Answer from the first route of the plan that can.

    Writes: Attempt per route, one UsageRow, Breaker and Provider when they change.
    Raises: NoRouteAvailable naming every route; the refusal itself (Halted,
    BudgetExceeded, VaultSealed) when every route met the same; ApprovalRequired,
    LoopGuardTripped and CallCancelled at once.
    Again: a step that was answered replays its recorded answer, unpaid.
    """
    made = plan.build(request.wish, queries.plan_routes())
    ledger = Ledger(made, request.principal.pk, request.workspace_id, request.lineage)
    try:
        for step in _walk(made, ledger):
            deltas = _Deltas(on_delta)
            outcome = _attempt(step, request, ledger, deltas)
            if outcome is not None:
                return _generated(outcome, step, made, ledger)
            if deltas.sent and on_reset is not None:
                on_reset()
        raise _refusal(ledger, request.lane)
    finally:
        ledger.save()


def _walk(made: Plan, ledger: Ledger) -> Iterator[Step]:
    """Yield each route once, and some of them once more.

    Asked again is the first that garbled its answer, and one that refused a key
    on trial, with the key in use. The second asking is a call of its own, counted
    and paid like any other; a route whose breaker opened meanwhile is left.
    """
    has_asked_again = False
    for step in made.steps:
        on_trial = keys.is_on_trial(step.route)
        yield step
        if on_trial and ledger.ended_with(ErrorClass.AUTH):
            yield step
        garbled = ledger.ended_with(ErrorClass.BAD_RESPONSE)
        if has_asked_again or not garbled or not breakers.is_closed(step.route):
            continue
        has_asked_again = True
        yield step


def warm_up() -> None:
    """Load the vendor libraries that this install's providers need.

    For workers, at start: the first model call would otherwise wait seconds.
    """
    for kind in sorted({route.model.provider.kind for route in queries.plan_routes()}):
        ports.adapter_for(kind)


def _attempt(
    step: Step, request: GenerateRequest, ledger: Ledger, deltas: _Deltas
) -> gateway.Outcome | None:
    route = step.route
    if route is None:
        ledger.skipped(step, SkipReason.DISABLED, "no route leads there")
        return None
    reason, detail = _left_out(route, request)
    if reason:
        ledger.skipped(step, reason, detail)
        return None
    ledger.started(step)
    try:
        wanted = _call_request(route, request, deltas)

        def settled(outcome: gateway.Outcome) -> None:
            ledger.served(step, outcome)
            ledger.save()

        outcome = _traced(route, request, replace(wanted, settled=settled))
    except LoopGuardTripped:
        breakers.release(route)
        raise  # it is a NotGranted, but it ends the tree, not one route
    except tuple(kind for kind, _ in _SKIPS) as refusal:
        breakers.release(route)
        ledger.refused(step, _reason_for(refusal), refusal)
        _check_goes_on(refusal)
    except UpstreamError as error:
        failure = _as_failure(error)
        ledger.failed(step, failure)
        breakers.failed(route, failure)
        keys.react(route.model.provider, failure)
    except PolarError:
        breakers.release(route)
        raise
    else:
        breakers.succeeded(route)
        keys.answered(route.model.provider)
        return outcome
    return None


def _traced(
    route: Route, request: GenerateRequest, wanted: CallRequest
) -> gateway.Outcome:
    """Make the call inside a span, where spans are wanted."""
    model = route.model
    with tracing.span(
        tracing.CHAT,
        model.name,
        trace_id=request.lineage.trace_id,
        provider_name=model.provider.kind,
        request_max_tokens=request.max_output_tokens,
    ) as span:
        outcome = gateway.call(wanted)
        usage = outcome.usage
        span.note(
            {
                "gen_ai.usage.input_tokens": usage.tokens_in,
                "gen_ai.usage.output_tokens": usage.tokens_out,
                "gen_ai.response.model": model.name,
                "polar.lane": route.lane,
                "polar.lane_reason": request.lane_reason,
                "polar.micros": usage.micros,
            }
        )
        return outcome


def _left_out(route: Route, request: GenerateRequest) -> tuple[str, str]:
    reason, detail = queries.unavailable(route)
    if not reason and request.tools and not route.model.supports_tools:
        return SkipReason.NO_CAPABILITY, "the model cannot use tools"
    if not reason and (detail := breakers.refusal(route)):
        return SkipReason.BREAKER_OPEN, detail
    return reason, detail


def _check_goes_on(refusal: PolarError) -> None:
    """End the asking at a budget that blocks, or at a handoff's used-up share.

    One provider's budget leaves the others free; one that lowers the lane is why
    lower lanes are asked.
    """
    facts = refusal.facts
    lowers = facts.get("on_exceed") == "downgrade_lane"
    goes_on = lowers or facts.get("scope") == "provider"
    if isinstance(refusal, BudgetExceeded) and not goes_on:
        raise refusal


def _reason_for(refusal: PolarError) -> SkipReason:
    return next(reason for kind, reason in _SKIPS if isinstance(refusal, kind))


def _as_failure(error: UpstreamError) -> ModelCallFailed:
    if isinstance(error, ModelCallFailed):
        return error
    return ModelCallFailed("bad_response", error.detail, **error.facts)


def _call_request(
    route: Route, request: GenerateRequest, deltas: _Deltas
) -> CallRequest:
    model, provider = route.model, route.model.provider
    call = ports.ModelCall(
        target=provider.target,
        model=model.name,
        messages=request.messages,
        tools=request.tools,
        max_output_tokens=min(request.max_output_tokens, model.max_output_tokens),
        deadlines=route.deadlines,
        on_delta=deltas.receiver,
        stopping=request.stopping,
    )
    arguments = ports.arguments_of(call)
    tariff = tariff_of(model)

    def perform(permit: Permit) -> Result:
        with keys.key_of(provider, run_id=request.lineage.run_id) as key:
            adapter = ports.adapter_for(provider.kind)
            answer = adapter.generate(permit, call, key)
            output = redaction.scrub_tree(answer.as_json())
        return Result(output, usage_of(tariff, answer.usage))

    return CallRequest(
        kind=CallKind.MODEL,
        capability=f"provider:{model}",
        principal=request.principal,
        workspace_id=request.workspace_id,
        arguments=arguments,
        perform=perform,
        risk=risk_of(provider.kind),
        lineage=request.lineage,
        labels=request.labels,
        estimate=_estimate(tariff, arguments["bytes"], call.max_output_tokens),
        lane=route.lane,
        provider=provider.slug,
        idempotency_key=once(request.lineage),
        needs_secret=provider.secret_id is not None,
        max_output_bytes=2 * route.max_bytes,
    )


def once(lineage: Lineage) -> str:
    """Return the key of a call: outside a run, asking twice means two answers."""
    return "" if lineage.run_id is not None else f"once:{ids.new_id()}"


def risk_of(kind: str) -> Risk:
    """A model call reads; what it sends leaves the house unless it is scripted."""
    return Risk("read", data_egress="none" if kind == Kind.SCRIPTED else "network")


def tariff_of(model: Model) -> ports.Tariff:
    """Return the prices of today: a call costs what the day costs it began on."""
    return model.tariff(clock.now().date())


def usage_of(tariff: ports.Tariff, usage: ports.TokenUsage) -> Usage:
    """Price what was used."""
    return Usage(
        micros=tariff.price(usage),
        tokens_in=usage.tokens_in,
        tokens_out=usage.tokens_out,
        tokens_cached=usage.cached,
    )


def _estimate(tariff: ports.Tariff, sent_bytes: int, output_tokens: int) -> Estimate:
    """Bound a call: no token is shorter than a byte."""
    worst = ports.TokenUsage(tokens_in=sent_bytes, tokens_out=output_tokens)
    return Estimate(micros=tariff.price(worst), tokens=sent_bytes + output_tokens)


def _generated(
    outcome: gateway.Outcome, step: Step, made: Plan, ledger: Ledger
) -> Generated:
    answer = ports.Answer.from_json(outcome.output)
    if outcome.replayed:
        ledger.served(step, outcome)
    assert step.route is not None
    return Generated(
        text=answer.text,
        tool_calls=answer.tool_calls,
        usage=outcome.usage,
        served_by=step.name,
        lane=step.route.lane,
        degraded=made.is_degraded(step),
        lane_change=ledger.lane_change(step),
        finish=answer.finish,
        attempts=ledger.summary(),
        parts=answer.parts,
        call_id=outcome.call_id,
        is_scripted=step.route.model.provider.kind == Kind.SCRIPTED,
    )


def _refusal(ledger: Ledger, lane: str) -> PolarError:
    """Say why nothing answered: the one reason all routes share, or all of them."""
    shared = ledger.shared_refusal()
    if shared is not None:
        return shared
    return NoRouteAvailable(Lane(lane), ledger.reasons(), retry_at=ledger.retry_at())
