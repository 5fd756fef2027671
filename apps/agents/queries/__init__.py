"""Reads of profiles, pins, conversations, turns and traces. Never writes."""

from collections.abc import Iterator
from dataclasses import dataclass
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
    Turn,
)
from apps.common.errors import NotFound
from apps.common.search import MOST_HITS, Hit, Words
from apps.common.statements import Reading
from apps.runs.models import Run
from apps.runs.ports import About

from .tracing import Bar, Rows, Trace, steps_of, trace

__all__ = ["Bar", "Rows", "Trace", "steps_of", "trace"]

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
