"""How a turn begins: its event says where in the tree of work it stands."""

from typing import Any

from apps.agents.models import Turn
from apps.audit import services as audit

RUN_KIND = "agents.turn"


def record_started(turn: Turn) -> None:
    """Write the event from which trees and heat maps are read."""
    parent = turn.parent
    above: dict[str, Any] = {}
    if parent is not None:
        above = {"parent_turn": str(parent.id), "parent_agent": parent.profile.slug}
    audit.record(
        type="turn.started",
        actor=turn.principal.actor,
        subject=("turn", str(turn.id)),
        workspace_id=turn.conversation.workspace_id,
        run_id=turn.run_id,
        trace_id=turn.trace_id,
        data={
            "agent": turn.profile.slug,
            "depth": turn.depth,
            "root": str(turn.run.root_id),
            "profile_version": turn.profile_version,
            "conversation": str(turn.conversation_id),
            "channel": turn.conversation.channel,
            "trigger": turn.run.trigger,
            "lane": turn.requested_lane,
            "labels": turn.labels,
            **above,
        },
        payload={"message": turn.message_text},
    )
