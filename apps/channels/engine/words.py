"""What the slash commands say of work, money and memory, and what they stop.

Each reads as the person behind the sender sees it; in a group nothing is said that
is about that person alone.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.db.models import Count, Q, Sum

from apps.access.models import Principal, Workspace
from apps.agents import queries as agents_queries
from apps.agents import services as agents
from apps.agents.models import Conversation, Memory, MemoryScope
from apps.boards import queries as boards
from apps.boards import services as boards_services
from apps.channels.engine import pairing
from apps.channels.models import ChannelIdentity, Tier
from apps.channels.queries import find_person
from apps.common import clock
from apps.common.errors import Invalid
from apps.gateway import services as gateway
from apps.providers.models import Lane, UsageRow
from apps.runs.models import Schedule

MOST_LISTED = 10
#: How much of a title is shown. Units: characters.
SHOWN = 80


@dataclass(frozen=True, slots=True)
class Asked:
    """A command as it came."""

    identity: ChannelIdentity
    conversation: Conversation
    argument: str
    is_direct: bool = True

    @property
    def principal(self) -> Principal:
        return self.identity.principal

    @property
    def workspace(self) -> Workspace:
        return self.conversation.workspace


def lane(asked: Asked) -> str:
    """Show this chat's agent's lane, or switch it for everybody (SOP 2.1)."""
    profile = agents_queries.resolve_profile(
        workspace=asked.workspace,
        principal=asked.principal,
        conversation=asked.conversation,
    ).profile
    if not asked.argument:
        lanes = ", ".join(Lane.values)
        return f"@{profile.slug} asks the {profile.lane} lane. Lanes: {lanes}."
    saved = agents.save_profile(
        by=asked.principal,
        workspace=asked.workspace,
        slug=profile.slug,
        changes={"lane": asked.argument.lower()},
        expected_version=profile.version,
    )
    return f"@{saved.slug} asks the {saved.lane} lane from now on, everywhere."


def tasks(asked: Asked) -> str:
    wanted = boards.TaskFilter(status=asked.argument.lower())
    found = boards.tasks(asked.principal, wanted).filter(workspace=asked.workspace)
    if not wanted.status:
        found = found.exclude(status="done")
    lines = [
        f"{each.status.replace('_', ' ')}: {each.title[:SHOWN]} ({each.id})"
        for each in found[:MOST_LISTED]
    ]
    return "\n".join(lines) or "No open tasks."


def task(asked: Asked) -> str:
    """Show a task by its id; any other text becomes a new one."""
    if not asked.argument:
        raise Invalid("Name a task by its id, or say what is to be done.")
    try:
        found = boards.get_task(asked.principal, UUID(asked.argument))
    except ValueError:
        return _new_task(asked)
    due = f", due {found.due_date:%Y-%m-%d}" if found.due_date else ""
    return f"{found.title}\n{found.status.replace('_', ' ')}{due}\n{found.body[:1000]}"


def _new_task(asked: Asked) -> str:
    board = boards_services.ensure_board(
        by=asked.principal, workspace=asked.workspace, slug="default", title="Tasks"
    )
    title, _, body = asked.argument.partition("\n")
    made = boards_services.upsert_task(
        by=asked.principal,
        board=board,
        draft=boards_services.TaskDraft(title=title[:200], body=body[:20_000]),
    )
    return f"On the board: {made.title[:SHOWN]} ({made.id})."


def halt(asked: Asked) -> str:
    """Stop everything, now. The first word may name what to stop."""
    scope, reason = "all", asked.argument
    first, _, rest = asked.argument.partition(" ")
    if ":" in first:
        scope, reason = first, rest
    row = gateway.halt(
        by=asked.principal, scope=scope, reason=reason or "halted in chat"
    )
    return f"Stopped: {row.scope}. Nothing new starts; resume on the desk."


def usage(asked: Asked) -> str:
    since = clock.now() - timedelta(days=1)
    found = UsageRow.objects.filter(
        workspace_id=asked.workspace.id, created_at__gte=since, origin="real"
    ).aggregate(
        calls=Count("id"),
        failed=Count("id", filter=Q(ok=False)),
        tokens_in=Sum("tokens_in"),
        tokens_out=Sum("tokens_out"),
        micros=Sum("micros"),
    )
    tokens = (found["tokens_in"] or 0) + (found["tokens_out"] or 0)
    spent = (found["micros"] or 0) / 1_000_000
    return (
        f"In 24 h: {found['calls']} model calls, {found['failed']} failed, "
        f"{tokens} tokens, {spent:.4f} USD."
    )


def memory(asked: Asked) -> str:
    found = Memory.objects.shown_to(asked.principal).filter(workspace=asked.workspace)
    if not asked.is_direct:
        found = found.filter(scope=MemoryScope.WORKSPACE)
    for word in asked.argument.split()[:5]:
        found = found.filter(text__icontains=word)
    lines = [each.text[:200] for each in found.order_by("-updated_at")[:MOST_LISTED]]
    return "\n".join(f"• {line}" for line in lines) or "Nothing is kept."


def automations(asked: Asked) -> str:
    found = Schedule.objects.visible_to(asked.principal).filter(
        workspace=asked.workspace
    )
    lines = [
        f"{each.slug}: {each.state}"
        + (f", next {each.next_at:%Y-%m-%d %H:%M} UTC" if each.next_at else "")
        for each in found.order_by("slug")[:MOST_LISTED]
    ]
    return "\n".join(lines) or "Nothing is planned."


def pair(asked: Asked) -> str:
    """Let a stranger in by their code, as somebody who may."""
    code, _, rest = asked.argument.partition(" ")
    named, _, username = rest.strip().partition(" ")
    if not code:
        raise Invalid("Say the code, then: public, or a tier and a person, or reject.")
    if named == "reject":
        pairing.decide(by=asked.principal, code=code, approve=False, tier="")
        return "Turned down."
    who = find_person(username.strip().lstrip("@")) if username.strip() else None
    row = pairing.decide(
        by=asked.principal,
        code=code,
        approve=True,
        tier=named or Tier.PUBLIC,
        who=who,
    )
    return f"{row.display or row.external_user} is let in as {named or Tier.PUBLIC}."
