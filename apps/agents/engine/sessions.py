"""What the extensions' floor asks of this one: whose session, and who depends on it."""

from typing import Any
from uuid import UUID

from apps.agents import queries
from apps.agents.errors import PinBroken
from apps.agents.models import AgentProfile, Conversation, Turn
from apps.common.errors import NotFound
from apps.extensions.ports import Dependent, Session
from apps.runs.models import Schedule, ScheduleState

#: The turns of a conversation whose labels a call from outside carries.
TURNS_TOLD = 100
#: More than a person reads on one page.
SHOWN = 200


def find_session(session_id: str) -> Session | None:
    """A session is a conversation; its profile narrows what it may use."""
    try:
        key = UUID(session_id)
    except ValueError:
        return None
    found = Conversation.objects.filter(id=key)
    conversation = found.select_related("workspace", "principal", "profile").first()
    return _session(conversation) if conversation else None


def newest_session(principal_id: UUID) -> Session | None:
    """Return the principal's conversation that was used last."""
    found = Conversation.objects.filter(principal_id=principal_id).recent()
    conversation = found.select_related("workspace", "principal", "profile").first()
    return _session(conversation) if conversation else None


def dependents(ext_id: str) -> list[Dependent]:
    """Name the profiles, schedules and runs in flight that use an extension."""
    profiles = [
        profile
        for profile in AgentProfile.objects.active().order_by("slug", "id")
        if any(
            str(name).partition("/")[0] == ext_id
            for name in profile.allowed_capabilities
        )
    ]
    slugs = sorted({profile.slug for profile in profiles})
    schedules = Schedule.objects.filter(
        payload__profile__in=slugs, state=ScheduleState.ACTIVE
    ).order_by("next_at", "id")
    turns = Turn.objects.open().filter(profile__in=profiles).order_by("id")
    return [
        *(Dependent(kind="profile", name=f"@{slug}") for slug in slugs),
        *(
            Dependent(kind="schedule", name=row.title or row.slug)
            for row in schedules[:SHOWN]
        ),
        *(
            Dependent(kind="run", name=str(turn.run_id or turn.id), detail="in flight")
            for turn in turns[:SHOWN]
        ),
    ]


def _session(conversation: Conversation) -> Session:
    try:
        resolved = queries.resolve_profile(
            workspace=conversation.workspace,
            principal=conversation.principal,
            conversation=conversation,
        )
        scope = _scope_of(resolved.profile)
    except (PinBroken, NotFound):
        # A session that no profile serves may use nothing.
        scope = {"allowed": {}}
    return Session(
        session_id=str(conversation.id),
        workspace_id=conversation.workspace_id,
        principal_id=conversation.principal_id,
        scope=scope,
        labels=_labels_of(conversation),
    )


def _labels_of(conversation: Conversation) -> frozenset[str]:
    """What the turns that a new one would be told have taken in."""
    turns = Turn.objects.filter(conversation=conversation).order_by("-id")
    return frozenset(
        label
        for labels in turns.values_list("labels", flat=True)[:TURNS_TOLD]
        for label in labels
    )


def _scope_of(profile: AgentProfile) -> dict[str, Any]:
    """Turn ["polar/clock.now", "web/*"] into a capability scope."""
    allowed: dict[str, list[str]] = {}
    for name in profile.allowed_capabilities:
        extension, _, capability = str(name).partition("/")
        allowed.setdefault(extension, []).append(capability or "*")
    return {"allowed": allowed, "constraints": {}}
