"""Reads of profiles, pins, conversations, turns and traces. Never writes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.db.models.functions import Substr
from django.urls import reverse

from apps.access.models import Principal, Workspace
from apps.agents.errors import PinBroken
from apps.agents.models import (
    DEFAULT_PROFILE,
    AgentProfile,
    Conversation,
    Delta,
    PinScope,
    ProfilePin,
    Step,
    StepKind,
    Turn,
)
from apps.common import clock
from apps.common.errors import NotFound
from apps.common.search import MOST_HITS, Hit, Words
from apps.common.statements import Reading
from apps.gateway import queries as gateway
from apps.gateway.models import Call
from apps.providers import queries as providers
from apps.providers.models import Attempt
from apps.runs.models import Run
from apps.runs.ports import About

#: A trace shows at most so many rows of each kind.
MOST_ROWS = 500
#: Words are looked for among so many of the newest messages.
MOST_RECENT = 20_000

#: What was asked is said in so many characters where it names a run.
LONGEST_TITLE = 90
#: An agent's page shows so many of its turns, of so many newest of all agents.
SHOWN, AMONG = 8, 1_000

#: The narrowest pin wins.
SCOPE_ORDER = [PinScope.SESSION, PinScope.USER, PinScope.WORKSPACE, PinScope.GLOBAL]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The profile that serves, and which pin or default chose it."""

    profile: AgentProfile
    source: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the waterfall.

    Units: milliseconds from the beginning of the trace; micro-USD; tokens.
    """

    kind: str
    id: str
    parent_id: str
    label: str
    state: str
    began_at: datetime
    ended_at: datetime | None
    reason: str = ""
    lane: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    micros: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    depth: int = 0
    offset_ms: int = 0
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """Bars in the order in which they are drawn, and their sums."""

    trace_id: str
    began_at: datetime | None
    duration_ms: int
    micros: int
    turns: tuple[Turn, ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """What was read about one trace."""

    turns: list[Turn]
    steps: list[Step]
    calls: list[Call]
    attempts: list[Attempt]


_PROFILE = Reading(
    AgentProfile.objects.all, "WHERE workspace_id = %s AND slug = %s AND is_active"
)


def get_profile(*, workspace: Workspace, slug: str) -> AgentProfile:
    """Return an active profile of a workspace. Raises: NotFound."""
    slug = slug.removeprefix("@")
    found = _PROFILE.fetch(workspace.id, slug)
    if not found:
        raise NotFound(f"There is no active agent @{slug} here.", slug=slug)
    return found[0]


def profiles(*, visible_to: Principal) -> QuerySet[AgentProfile]:
    """Return the profiles a principal may see, by slug."""
    found = AgentProfile.objects.visible_to(visible_to)
    return found.select_related("pinned_model__provider").order_by("slug", "id")


def resolve_profile(
    *,
    workspace: Workspace,
    principal: Principal,
    conversation: Conversation | None = None,
) -> Resolved:
    """Find the profile that serves: session, user, workspace, global, default.

    Raises: PinBroken when the deciding pin leads nowhere; NotFound without default.
    """
    pin = find_pin(workspace=workspace, principal=principal, conversation=conversation)
    if pin is not None:
        return Resolved(_pinned_profile(pin, workspace), pin.scope)
    if conversation is not None and conversation.profile_id:
        return Resolved(_active(conversation.profile, "conversation"), "conversation")
    return Resolved(get_profile(workspace=workspace, slug=DEFAULT_PROFILE), "default")


_PINS = Reading(
    lambda: ProfilePin.objects.select_related("profile"),
    f"WHERE (scope = '{PinScope.SESSION}' AND key = %s)"
    f" OR (scope = '{PinScope.USER}' AND key = %s)"
    f" OR (scope = '{PinScope.WORKSPACE}' AND key = %s)"
    f" OR (scope = '{PinScope.GLOBAL}' AND key = '')",
)


def find_pin(
    *,
    workspace: Workspace,
    principal: Principal,
    conversation: Conversation | None = None,
) -> ProfilePin | None:
    """Return the narrowest pin that applies, or None."""
    session = str(conversation.id) if conversation is not None else "-"
    # One row a scope at most, so the narrowest is picked here.
    found = _PINS.fetch(session, str(principal.id), str(workspace.id))
    rank = {str(scope): place for place, scope in enumerate(SCOPE_ORDER)}
    return min(found, key=lambda pin: rank[pin.scope], default=None)


def pins(*, visible_to: Principal) -> QuerySet[ProfilePin]:
    """Return the pins to profiles that a principal may see, the narrowest first."""
    mine = AgentProfile.objects.visible_to(visible_to)
    found = ProfilePin.objects.filter(profile__in=mine)
    return found.select_related("profile").order_by("scope", "key", "id")


def transcript(conversation: Conversation) -> QuerySet[Turn]:
    """Return a conversation's turns in the order in which they were written."""
    turns = Turn.objects.filter(conversation=conversation, parent=None)
    return turns.select_related("profile", "principal", "run").order_by(
        "created_at", "id"
    )


def conversations(*, visible_to: Principal) -> QuerySet[Conversation]:
    """Return the conversations a principal may see, newest first."""
    return Conversation.objects.visible_to(visible_to).recent()


def get_conversation(*, conversation_id: UUID, principal: Principal) -> Conversation:
    """Return one conversation the principal may see. Raises: NotFound."""
    found = Conversation.objects.visible_to(principal).filter(id=conversation_id)
    conversation = found.select_related("workspace", "profile").first()
    if conversation is None:
        raise NotFound("There is no such session, or it is not yours to see.")
    return conversation


def get_turn(*, turn_id: UUID, principal: Principal) -> Turn:
    """Return one turn the principal may see. Raises: NotFound."""
    found = Turn.objects.visible_to(principal).filter(id=turn_id)
    turn = found.select_related("conversation", "profile", "run").first()
    if turn is None:
        raise NotFound("There is no such turn, or it is not yours to see.")
    return turn


def deltas_after(*, turn_id: UUID, seq: int) -> QuerySet[Delta]:
    """Return the pieces of a streaming answer that a page has not seen."""
    return Delta.objects.filter(turn_id=turn_id, seq__gt=seq).order_by("seq")


def steps_of(turns: list[Turn]) -> dict[UUID, list[Step]]:
    """Return the journals of several turns with one query."""
    found: dict[UUID, list[Step]] = {turn.id: [] for turn in turns}
    for step in Step.objects.filter(turn__in=turns).order_by("turn_id", "seq"):
        found[step.turn_id].append(step)
    return found


def trace(*, trace_id: str, principal: Principal) -> Trace:
    """Join turns, steps, calls and route attempts of one trace.

    Reads: four queries, whatever the size. What the principal may not see is left
    out; a call or an attempt appears under the step that made it.
    """
    turns = list(
        Turn.objects.visible_to(principal)
        .filter(trace_id=trace_id)
        .select_related("profile", "conversation", "run", "principal")
        .order_by("created_at", "id")[:MOST_ROWS]
    )
    calls = list(gateway.calls_of_trace(trace_id, principal)[:MOST_ROWS])
    attempts = []
    if turns or calls:
        attempts = list(providers.attempts_of_trace(trace_id)[:MOST_ROWS])
    steps = [step for journal in steps_of(turns).values() for step in journal]
    return _draw(trace_id, Rows(turns, steps, calls, attempts))


def _draw(trace_id: str, rows: Rows) -> Trace:
    """Put a trace's rows into one tree and lay it out in time."""
    bars = [
        *map(_turn_bar, rows.turns),
        *map(_step_bar, rows.steps),
        *map(_call_bar, rows.calls),
        *map(_attempt_bar, rows.attempts),
    ]
    if not bars:
        return Trace(trace_id, None, 0, 0, (), ())
    began = min(bar.began_at for bar in bars)
    ended = max(bar.ended_at or clock.now() for bar in bars)
    laid = tuple(_laid_out(bars, began))
    return Trace(
        trace_id,
        began,
        _ms(began, ended),
        sum(call.micros for call in rows.calls),
        tuple(rows.turns),
        laid,
    )


def _laid_out(bars: list[Bar], began: datetime) -> Iterable[Bar]:
    known = {bar.id for bar in bars}
    below: dict[str, list[Bar]] = {}
    for bar in sorted(bars, key=lambda bar: (bar.began_at, bar.id)):
        below.setdefault(bar.parent_id if bar.parent_id in known else "", []).append(
            bar
        )
    waiting = [(bar, 0) for bar in reversed(below.get("", []))]
    while waiting:
        bar, depth = waiting.pop()
        yield _placed(bar, depth, began)
        waiting += [(each, depth + 1) for each in reversed(below.get(bar.id, []))]


def _placed(bar: Bar, depth: int, began: datetime) -> Bar:
    values = {name: getattr(bar, name) for name in Bar.__slots__}
    values |= {
        "depth": depth,
        "offset_ms": _ms(began, bar.began_at),
        "duration_ms": _ms(bar.began_at, bar.ended_at or clock.now()),
    }
    return Bar(**values)


def _turn_bar(turn: Turn) -> Bar:
    return Bar(
        kind="turn",
        id=str(turn.id),
        parent_id=str(turn.parent_id or ""),
        label=f"@{turn.profile.slug}",
        state=turn.state,
        reason=turn.reason,
        began_at=turn.started_at or turn.created_at,
        ended_at=turn.finished_at,
        lane=turn.lane,
        facts={
            "requestedLane": turn.requested_lane,
            "laneReason": turn.lane_reason,
            "servedBy": turn.served_by,
            "laneChange": turn.lane_change,
            "degraded": turn.degraded,
            "runId": str(turn.run_id),
            "runState": turn.run.state,
            "labels": turn.labels,
        },
    )


def _step_bar(step: Step) -> Bar:
    is_model = step.kind == StepKind.MODEL
    name = step.request.get("capability") or step.request.get("name", "")
    return Bar(
        kind="step",
        id=str(step.id),
        parent_id=str(step.turn_id),
        label=f"{step.seq}. {'model' if is_model else name}",
        state=step.state,
        reason=step.error_code,
        began_at=step.started_at or step.created_at,
        ended_at=step.finished_at,
        lane=step.result.get("lane", ""),
        tokens_in=int(step.result.get("tokens_in", 0)),
        tokens_out=int(step.result.get("tokens_out", 0)),
        micros=int(step.result.get("micros", 0)),
        facts={
            "stepKind": step.kind,
            "servedBy": step.result.get("served_by", ""),
            "routing": step.result.get("routing", {}),
        },
    )


def _call_bar(call: Call) -> Bar:
    return Bar(
        kind="call",
        id=str(call.id),
        parent_id=str(call.step_id or call.turn_id or ""),
        label=call.capability,
        state=call.state,
        reason=call.reason_code or call.error_code,
        began_at=call.started_at or call.created_at,
        ended_at=call.finished_at or (call.created_at if call.reason_code else None),
        lane=call.lane,
        tokens_in=call.tokens_in,
        tokens_out=call.tokens_out,
        micros=call.micros,
        facts={"callKind": call.kind, "stage": call.stage, **call.facts},
    )


def _attempt_bar(attempt: Attempt) -> Bar:
    """An attempt is written when it is over, so it began that much earlier."""
    ended = attempt.created_at
    return Bar(
        kind="attempt",
        id=str(attempt.id),
        parent_id=str(attempt.step_id or attempt.turn_id or ""),
        label=attempt.route_name,
        state="failed" if attempt.error_class else attempt.outcome,
        reason=attempt.reason or attempt.error_class,
        began_at=ended - timedelta(milliseconds=attempt.duration_ms),
        ended_at=ended,
        lane=attempt.lane,
        tokens_in=attempt.tokens_in,
        tokens_out=attempt.tokens_out,
        micros=attempt.micros,
        facts={
            "requestedLane": attempt.requested_lane,
            "laneReason": attempt.lane_reason,
            "callId": str(attempt.call_id or ""),
            "ttftMs": attempt.ttft_ms,
            "detail": attempt.detail,
        },
    )


def _ms(since: datetime, until: datetime) -> int:
    return max(round((until - since).total_seconds() * 1000), 0)


def _pinned_profile(pin: ProfilePin, workspace: Workspace) -> AgentProfile:
    """A global pin names a slug that each workspace fills for itself."""
    profile = pin.profile
    if profile is not None and profile.workspace_id != workspace.id:
        same = AgentProfile.objects.filter(workspace=workspace, slug=profile.slug)
        profile = same.first()
    return _active(profile, pin.scope, pin.profile_slug)


def _active(profile: AgentProfile | None, scope: str, slug: str = "") -> AgentProfile:
    if profile is not None and profile.is_active:
        return profile
    name = profile.slug if profile is not None else slug
    raise PinBroken(
        f"The {scope} pin leads to @{name}, which is missing or inactive here.",
        scope=scope,
        slug=name,
    )


def find(words: Words, principal: Principal) -> Iterator[Hit]:
    """Find traces by id, agents by name, and turns by the words of their message."""
    turns = Turn.objects.visible_to(principal).select_related("profile")
    if words.id is not None:
        named = Q(trace_id=words.id.hex) | Q(pk=words.id)
        for turn in turns.filter(named).order_by("pk")[:1]:
            yield _turn_hit(turn, is_exact=True)
        return
    profiles = AgentProfile.objects.visible_to(principal).filter(
        Q(slug__icontains=words.name) | Q(title__icontains=words.text)
    )
    for profile in profiles.order_by("slug")[:MOST_HITS]:
        url = reverse("agents:detail", args=[profile.pk])
        exact = profile.slug == words.name
        yield Hit("Agent", f"@{profile.slug}", url, profile.title, is_exact=exact)
    recent = Turn.objects.order_by("-pk").values("pk")[:MOST_RECENT]
    said = turns.filter(pk__in=recent, message_text__icontains=words.text)
    for turn in said.order_by("-pk")[:MOST_HITS]:
        yield _turn_hit(turn)


def _turn_hit(turn: Turn, *, is_exact: bool = False) -> Hit:
    url = reverse("agents:trace", args=[turn.trace_id])
    detail = f"@{turn.profile.slug}, {turn.state}"
    return Hit("Turn", turn.message_text[:80], url, detail, is_exact=is_exact)


def newest_turns(*, profile: AgentProfile, principal: Principal) -> list[Turn]:
    """Return an agent's newest turns, among the newest of all."""
    recent = Turn.objects.order_by("-pk").values("pk")[:AMONG]
    mine = Turn.objects.visible_to(principal).filter(pk__in=recent, profile=profile)
    asked = mine.annotate(asked=Substr("message_text", 1, LONGEST_TITLE + 1))
    return list(asked.defer("message_text", "answer_text").order_by("-pk")[:SHOWN])


def about_runs(run_ids: list[UUID], principal: Principal) -> dict[UUID, About]:
    """Say of the runs of turns what was asked of whom."""
    mine = Turn.objects.visible_to(principal).filter(run_id__in=run_ids)
    rows = mine.annotate(asked=Substr("message_text", 1, LONGEST_TITLE + 1))
    return {
        run_id: About(_cut(asked), f"@{slug}")
        for run_id, asked, slug in rows.values_list("run_id", "asked", "profile__slug")
    }


def about_automations(run_ids: list[UUID], principal: Principal) -> dict[UUID, About]:
    """Say of the runs of automations what they ask whom, as their payload says."""
    mine = Run.objects.visible_to(principal).filter(id__in=run_ids)
    return {
        run_id: About(_cut(str(asks["text"])), f"@{asks.get('profile', '')} is asked")
        for run_id, asks in mine.values_list("id", "payload")
        if asks.get("text")
    }


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_TITLE else f"{line[: LONGEST_TITLE - 1]}…"
