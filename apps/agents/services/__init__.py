"""The verbs of agents: start a turn, shape a profile, pin it, watch an answer."""

from apps.agents.queries import resolve_profile
from apps.agents.services.profiles import (
    install_default_profiles,
    pin,
    save_profile,
    unpin,
)
from apps.agents.services.turns import (
    RUN_KIND,
    carry_automation,
    carry_heartbeat,
    close_orphans,
    ensure_conversation,
    start_conversation,
    start_turn,
    watch_turn,
)

__all__ = [
    "RUN_KIND",
    "carry_automation",
    "carry_heartbeat",
    "close_orphans",
    "ensure_conversation",
    "install_default_profiles",
    "pin",
    "resolve_profile",
    "save_profile",
    "start_conversation",
    "start_turn",
    "unpin",
    "watch_turn",
]
