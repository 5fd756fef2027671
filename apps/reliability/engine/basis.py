"""What a drill's proof stands on: its file, the code it exercises, and policies.

When one of them changes the proof is stale: what was shown was shown of another
system. Of code the bytes count, of policies what they say now.
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from apps.agents.models import AgentProfile
from apps.audit import ports as audit_ports
from apps.channels.models import Account
from apps.common import canonical
from apps.gateway.models import Setting
from apps.providers.models import Route
from apps.reliability.engine.shelf import Drill
from apps.vault.models import Recovery

APPS = Path(__file__).resolve().parents[2]
#: Of every drill: what plays it.
ALWAYS = ("reliability/engine/drilling", "reliability/engine/cloning.py")
WORDS = {
    "experiment": "the drill changed since it passed",
    "code": "the code it rehearses changed since it passed",
    "policy": "the policies it rehearses changed since it passed",
}
LIMITS = (
    "max_depth",
    "max_turns_per_root",
    "max_fan_out",
    "max_same_edge",
    "max_same_call",
)


class Bases:
    """Reads policies once for many drills."""

    def __init__(self) -> None:
        self._read: dict[str, Any] = {}

    def of(self, drill: Drill) -> dict[str, str]:
        """Shape: the digests of experiment, code and policy."""
        said = {name: self._policy(name) for name in drill.policy}
        return {
            "experiment": drill.digest,
            "code": _digest_of_code(drill.code + ALWAYS),
            "policy": canonical.digest(said) if said else "",
        }

    def _policy(self, name: str) -> Any:
        if name not in self._read:
            self._read[name] = POLICIES[name]()
        return self._read[name]


def changed(before: dict[str, str], now: dict[str, str]) -> str:
    """Say what is another than it was, or ""."""
    for name, words in WORDS.items():
        if before.get(name) != now[name]:
            return words
    return ""


@lru_cache(maxsize=64)
def _digest_of_code(paths: tuple[str, ...]) -> str:
    """A process runs the code that it started with, so this is read once."""
    found = hashlib.sha256()
    for path in paths:
        start = APPS / path
        files = sorted(start.rglob("*.py")) if start.is_dir() else [start]
        for file in files:
            found.update(f"{file.relative_to(APPS)}\n".encode())
            found.update(file.read_bytes())
    return found.hexdigest()


def _routes() -> list[list[Any]]:
    rows = Route.objects.order_by("lane", "position").values_list(
        "lane",
        "position",
        "enabled",
        "model__name",
        "model__provider__slug",
        "model__provider__kind",
        "model__provider__enabled",
    )
    return [list(row) for row in rows]


def _profiles() -> list[list[Any]]:
    rows = AgentProfile.objects.filter(is_active=True).order_by("workspace", "slug")
    return [
        [
            str(row.workspace_id),
            row.slug,
            row.lane,
            str(row.pinned_model_id or ""),
            row.fallbacks,
            row.lane_policy,
            row.max_depth,
            row.max_turns,
        ]
        for row in rows
    ]


def _limits() -> list[int]:
    row = Setting.objects.first() or Setting()
    return [int(getattr(row, name)) for name in LIMITS]


def _sinks() -> list[str]:
    return sorted(name for name, sink in audit_ports.sinks().items() if sink.is_on())


def _channels() -> list[list[str]]:
    rows = Account.objects.filter(secret__isnull=False).order_by("slug")
    return [list(row) for row in rows.values_list("slug", "kind", "state", "hears_by")]


def _recovery() -> list[str]:
    rows = Recovery.objects.filter(dropped_at__isnull=True).order_by("recipient")
    return list(rows.values_list("recipient", flat=True))


POLICIES: dict[str, Callable[[], Any]] = {
    "routes": _routes,
    "profiles": _profiles,
    "limits": _limits,
    "sinks": _sinks,
    "channels": _channels,
    "recovery": _recovery,
}
