"""Reads of profiles, conversations and turns. Never writes."""

from dataclasses import dataclass
from uuid import UUID

from django.db.models import Case, IntegerField, Q, QuerySet, Value, When

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
    Turn,
)
from apps.common.errors import NotFound

#: The narrowest pin wins.
SCOPE_ORDER = [PinScope.SESSION, PinScope.USER, PinScope.WORKSPACE, PinScope.GLOBAL]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The profile that serves, and which pin or default chose it."""

    profile: AgentProfile
    source: str


def get_profile(*, workspace: Workspace, slug: str) -> AgentProfile:
    """Return an active profile of a workspace. Raises: NotFound."""
    slug = slug.removeprefix("@")
    found = AgentProfile.objects.active().filter(workspace=workspace, slug=slug)
    profile = found.first()
    if profile is None:
        raise NotFound(f"There is no active agent @{slug} here.", slug=slug)
    return profile


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


def find_pin(
    *,
    workspace: Workspace,
    principal: Principal,
    conversation: Conversation | None = None,
) -> ProfilePin | None:
    """Return the narrowest pin that applies, or None."""
    keys = {
        PinScope.USER: str(principal.id),
        PinScope.WORKSPACE: str(workspace.id),
        PinScope.GLOBAL: "",
    }
    if conversation is not None:
        keys[PinScope.SESSION] = str(conversation.id)
    wanted = Q()
    for scope, key in keys.items():
        wanted |= Q(scope=scope, key=key)
    rank = Case(
        *(When(scope=scope, then=Value(n)) for n, scope in enumerate(SCOPE_ORDER)),
        output_field=IntegerField(),
    )
    found = ProfilePin.objects.filter(wanted).select_related("profile")
    return found.order_by(rank, "id").first()


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
