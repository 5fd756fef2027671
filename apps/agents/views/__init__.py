"""The pages of agents, by what they show."""

from apps.agents.views.measuring import recursion_map, spend, usage_csv, usage_page
from apps.agents.views.profiles import (
    agent_detail,
    agent_list,
    edit,
    new,
    pin_change,
    pin_list,
    switch_lane,
)
from apps.agents.views.remembering import memory_change, memory_list
from apps.agents.views.tracing import trace

__all__ = [
    "agent_detail",
    "agent_list",
    "edit",
    "memory_change",
    "memory_list",
    "new",
    "pin_change",
    "pin_list",
    "recursion_map",
    "spend",
    "switch_lane",
    "trace",
    "usage_csv",
    "usage_page",
]
