"""The verbs of agents: start a turn, shape a profile, pin it, watch an answer."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import transaction

from apps.access.models import Principal, Workspace
from apps.agents import policies, queries
from apps.agents.engine import automation, ending, handoffs, heartbeat, journal
from apps.agents.engine.beginning import RUN_KIND as RUN_KIND
from apps.agents.engine.beginning import record_started
from apps.agents.engine.shipped import SHIPPED
from apps.agents.models import (
    VERSIONED_FIELDS,
    AgentProfile,
    Conversation,
    PinScope,
    ProfilePin,
    ProfileVersion,
    Step,
    Turn,
    TurnState,
    as_body,
)
from apps.audit import services as audit
from apps.common import clock, ids, statements
from apps.common.errors import Conflict, FieldProblem, Invalid, NotFound
from apps.common.failpoints import reach
from apps.runs import services as runs
from apps.runs.models import Run, State, Trigger
from apps.runs.ports import Outcome, RunContext

#: The channel of conversations that a schedule begins.
SCHEDULE_CHANNEL = "schedule"
#: Longer messages belong in a file.
LONGEST_MESSAGE = 200_000
#: A watching page renews this before it runs out.
WATCH_SECONDS = 15
#: How many turns one tick closes.
TICK_LIMIT = 200

resolve_profile = queries.resolve_profile


def start_conversation(
    *,
    workspace: Workspace,
    principal: Principal,
    channel: str = "web",
    title: str = "",
    profile: AgentProfile | None = None,
) -> Conversation:
    """Begin a conversation, with an agent of its own or whichever is pinned."""
    return Conversation.objects.create(
        workspace=workspace,
        principal=principal,
        channel=channel,
        title=title[:200],
        profile=profile,
    )


def ensure_conversation(
    *,
    workspace: Workspace,
    principal: Principal,
    channel: str = "web",
    external_key: str = "",
    title: str = "",
) -> Conversation:
    """Return the conversation of an outside thread, making it at first use.

    Again: the same channel and key give the same row; without a key, a new one.
    """
    if not external_key:
        return start_conversation(
            workspace=workspace, principal=principal, channel=channel, title=title
        )
    values = {"principal": principal, "title": title[:200]}
    row, _ = Conversation.objects.get_or_create(
        workspace=workspace,
        channel=channel,
        external_key=external_key,
        defaults=values,
    )
    return row


class Arrival(TypedDict, total=False):
    """How a message came in, beyond who said what where."""

    trigger: str
    trace_id: str | None
    reply_run_kind: str
    labels: frozenset[str]
    origin: str
    #: The run that waits for this turn to end.
    parent_run: Run | None


@transaction.atomic
def start_turn(
    *,
    conversation: Conversation,
    principal: Principal,
    text: str,
    profile: AgentProfile | None = None,
    **arrival: Unpack[Arrival],
) -> Turn:
    """Take a message in and queue the run that answers it.

    Writes: Turn, Run, Conversation.last_at, `turn.started`.
    Raises: NotFound, Denied, Invalid, PinBroken.
    """
    policies.check_may_speak(principal, conversation)
    _check_text(text := journal.storable(text))
    workspace = conversation.workspace
    chosen = (
        profile
        or resolve_profile(
            workspace=workspace, principal=principal, conversation=conversation
        ).profile
    )
    trace_id = arrival.get("trace_id") or ids.current_trace_id() or ids.new_trace_id()
    turn_id = ids.new_id()
    run = runs.enqueue(
        kind=RUN_KIND,
        payload={"turn_id": str(turn_id)},
        principal=principal,
        workspace=workspace,
        trigger=arrival.get("trigger", "message"),
        trace_id=trace_id,
        serial_key=f"conversation:{conversation.id}",
        origin=arrival.get("origin", "real"),
        parent=arrival.get("parent_run"),
    )
    turn = Turn(
        id=turn_id,
        conversation=conversation,
        run=run,
        profile=chosen,
        profile_version=chosen.version,
        principal=principal,
        trace_id=trace_id,
        message_text=text,
        labels=sorted(arrival.get("labels", ())),
        requested_lane=chosen.lane,
        reply_run_kind=arrival.get("reply_run_kind", ""),
    )
    statements.insert(turn)
    _touch(conversation, text)
    record_started(turn)
    reach("turn.started")
    return turn


def carry_automation(ctx: RunContext) -> Outcome:
    """Ask an agent what a schedule says: the handler of `agents.automation`."""
    return automation.carry(ctx, _begin_scheduled)


def carry_heartbeat(ctx: RunContext) -> Outcome:
    """Let an agent look after things: the handler of `agents.heartbeat`."""
    return heartbeat.carry(ctx, _begin_scheduled)


def _begin_scheduled(run: Run, profile: AgentProfile, text: str) -> Turn:
    """Start the one turn of a planned run, or find it.

    The conversation is named after the run, so a run starts no second turn.
    """
    conversation = ensure_conversation(
        workspace=run.workspace,
        principal=run.principal,
        channel=SCHEDULE_CHANNEL,
        external_key=str(run.id),
        title=text,
    )
    before: Turn | None = conversation.turns.order_by("created_at").first()
    return before or start_turn(
        conversation=conversation,
        principal=run.principal,
        text=text,
        profile=profile,
        trigger=Trigger.HEARTBEAT if run.kind == heartbeat.KIND else run.trigger,
        trace_id=run.trace_id,
        origin=run.origin,
        parent_run=run,
        reply_run_kind=automation.DELIVER_KIND if run.payload.get("deliverTo") else "",
    )


def watch_turn(*, turn_id: UUID, seconds: float = WATCH_SECONDS) -> bool:
    """Say that somebody looks, so deltas are written. Again: renews.

    Returns whether the turn is still open.
    """
    until = clock.now() + timedelta(seconds=seconds)
    return bool(Turn.objects.open().filter(id=turn_id).update(watched_until=until))


@transaction.atomic
def save_profile(
    *,
    by: Principal,
    workspace: Workspace,
    slug: str,
    changes: Mapping[str, Any],
    expected_version: int,
) -> AgentProfile:
    """Make a profile (expected version 0) or its next version.

    Writes: AgentProfile, ProfileVersion; the old version stays.
    Raises: RoleRequired, Conflict when somebody was first, Invalid.
    Again: unchanged values make no version.
    """
    policies.check_may_shape(by, workspace)
    _check_names(changes)
    found = AgentProfile.objects.filter(workspace=workspace, slug=slug)
    profile = found.select_for_update().first()
    if (profile.version if profile else 0) != expected_version:
        raise Conflict(
            f"@{slug} is at version {profile.version if profile else 0}.",
            expected_version=expected_version,
        )
    before = as_body(profile) if profile else {}
    profile = profile or AgentProfile(workspace=workspace, slug=slug, version=0)
    for name, value in changes.items():
        setattr(profile, name, value)
    _validate(profile)
    body = as_body(profile)
    if body == before:
        return profile
    profile.version += 1
    profile.updated_at = clock.now()
    profile.save()
    ProfileVersion.objects.create(
        profile=profile, version=profile.version, body=body, by_label=by.label
    )
    changed = sorted(name for name in body if body[name] != before.get(name))
    _record_profile(profile, by, "profile.saved", {"changed": changed})
    return profile


@transaction.atomic
def pin(*, by: Principal, scope: str, key: str, profile: AgentProfile) -> ProfilePin:
    """Let a profile serve a session, a user, a workspace or everybody.

    Raises: Invalid, Denied.   Again: the newest pin of a scope and key counts.
    """
    key = _check_pin_key(scope, key)
    policies.check_may_pin(by, scope, key, profile.workspace)
    if not profile.is_active:
        raise Invalid(f"@{profile.slug} is inactive; nothing can be pinned to it.")
    row, _ = ProfilePin.objects.update_or_create(
        scope=scope,
        key=key,
        defaults={
            "profile": profile,
            "profile_slug": profile.slug,
            "by_label": by.label,
        },
    )
    _record_profile(profile, by, "profile.pinned", {"scope": scope, "key": key})
    return row


@transaction.atomic
def unpin(*, by: Principal, scope: str, key: str, workspace: Workspace) -> None:
    """Take a pin away. Raises: NotFound, Denied."""
    key = _check_pin_key(scope, key)
    policies.check_may_pin(by, scope, key, workspace)
    found = ProfilePin.objects.filter(scope=scope, key=key).first()
    if found is None:
        raise NotFound(f"Nothing is pinned for this {scope}.")
    found.delete()
    audit.record(
        type="profile.unpinned",
        actor=by.actor,
        subject=("pin", f"{scope}:{key}"),
        workspace_id=workspace.id,
        data={"scope": scope, "key": key, "slug": found.profile_slug},
    )


@transaction.atomic
def install_default_profiles(
    *, workspace: Workspace, by: Principal
) -> list[AgentProfile]:
    """Make the shipped profiles. Again: what exists is left as it is."""
    held = set(
        AgentProfile.objects.filter(workspace=workspace).values_list("slug", flat=True)
    )
    return [
        save_profile(
            by=by, workspace=workspace, slug=slug, changes=body, expected_version=0
        )
        for slug, body in SHIPPED.items()
        if slug not in held
    ]


def close_orphans() -> int:
    """End open turns whose run was cancelled, dismissed or ended without them.

    Again: idempotent; each turn is closed by one conditional UPDATE.
    """
    over = [State.CANCELLED, State.DISMISSED, State.FAILED, State.TRUNCATED]
    found = Turn.objects.open().filter(run__state__in=over)
    found = found.select_related(
        "run", "conversation__workspace", "principal", "profile"
    )
    turns = list(found.order_by("created_at", "id")[:TICK_LIMIT])
    for turn in turns:
        _close_orphan(turn, turn.run)
    return len(turns)


@transaction.atomic
def _close_orphan(turn: Turn, run: Run) -> None:
    cancelled = run.state in (State.CANCELLED, State.DISMISSED)
    steps = list(Step.objects.filter(turn=turn).order_by("seq"))
    close = ending.Close(
        TurnState.CANCELLED if cancelled else TurnState.FAILED,
        reason=(run.reason or run.error_code or run.state)[:40],
        replies=not cancelled,
    )
    ending.close_turn(turn, steps, close)
    for child in Turn.objects.open().filter(parent=turn).order_by("id"):
        handoffs.stop(child, "parent_over")


def _check_text(text: str) -> None:
    if not text.strip():
        raise Invalid(
            "There is nothing to answer.",
            fields=(FieldProblem("text", "empty", "a message"),),
        )
    if len(text) > LONGEST_MESSAGE:
        problem = FieldProblem("text", "too long", f"at most {LONGEST_MESSAGE}")
        raise Invalid("This message is too long.", fields=(problem,))


def _touch(conversation: Conversation, text: str) -> None:
    values: dict[str, Any] = {"last_at": clock.now()}
    if not conversation.title:
        values["title"] = " ".join(text.split())[:80]
    statements.update(Conversation, {"id": conversation.id}, values)
    for name, value in values.items():
        setattr(conversation, name, value)


def _check_names(changes: Mapping[str, Any]) -> None:
    known = {*VERSIONED_FIELDS, "pinned_model", "pinned_model_id"}
    unknown = sorted(set(changes) - known)
    if unknown:
        problems = (FieldProblem(name, "unknown") for name in unknown)
        raise Invalid("A profile has no such field.", fields=tuple(problems))


def _validate(profile: AgentProfile) -> None:
    problems = list(_shape_problems(profile))
    if problems:
        raise Invalid("This profile is not valid.", fields=tuple(problems))
    try:
        profile.full_clean(validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        fields = tuple(
            FieldProblem(name, " ".join(messages))
            for name, messages in error.message_dict.items()
        )
        raise Invalid("This profile is not valid.", fields=fields) from error


def _shape_problems(profile: AgentProfile) -> Iterator[FieldProblem]:
    for name in ("allowed_capabilities", "allowed_handoff_targets"):
        value = getattr(profile, name)
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            yield FieldProblem(name, "wrong shape", "a list of names")
    value = profile.fallbacks
    if not isinstance(value, list) or not all(
        isinstance(each, dict) and each.get("provider") for each in value
    ):
        expected = '[{"provider": "…", "model": "…"}]'
        yield FieldProblem("fallbacks", "wrong shape", expected)
    if profile.max_output_tokens * 2 > profile.context_window_tokens:
        expected = "at least twice max_output_tokens"
        yield FieldProblem("context_window_tokens", "too small", expected)


def _check_pin_key(scope: str, key: str) -> str:
    if scope not in PinScope.values:
        expected = ", ".join(PinScope.values)
        problem = FieldProblem("scope", "unknown", expected)
        raise Invalid("There is no such scope.", fields=(problem,))
    if scope == PinScope.GLOBAL:
        return ""
    try:
        return str(UUID(str(key)))
    except ValueError as error:
        problem = FieldProblem("key", "not an id", f"the id of a {scope}")
        raise Invalid("This pin needs an id.", fields=(problem,)) from error


def _record_profile(
    profile: AgentProfile, by: Principal, event: str, data: dict[str, Any]
) -> None:
    audit.record(
        type=event,
        actor=by.actor,
        subject=("profile", str(profile.id)),
        workspace_id=profile.workspace_id,
        data={"slug": profile.slug, "version": profile.version, **data},
    )
