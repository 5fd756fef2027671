"""The rules that decide whether a person is asked, without any table.

The approval stage decides by them and the what-if replays by them, so the two
cannot say different things.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from apps.gateway.models import Call, Grant
from apps.gateway.ports import PRIVATE, SECRET, UNTRUSTED, Json

#: Arguments whose text or items say whom or what a call reaches.
TARGET_NAMES = frozenset(
    {"to", "cc", "bcc", "recipient", "recipients", "target", "targets"}
    | {"url", "urls", "uri", "host", "hosts", "domain", "domains"}
    | {"email", "emails", "address", "addresses", "channel", "channels"}
    | {"path", "paths", "file", "files", "destination", "destinations", "ids"}
)
#: From this many targets on a person is asked, unless the capability says other.
BULK = 50
#: Asks that need their own decision, whatever was granted or planned.
OWN_DECISION = frozenset(
    {"destructive", "label_conflict", "bulk", "plan", "reject_window"}
)
#: Asks by its agent's mode: an approved plan answers it, a standing grant does not.
STRICT = "strict"


def risk_asks(risk: Json) -> list[str]:
    """Name what a risk asks a person for. Shape: `Risk.as_dict()`."""
    asks = []
    if risk.get("riskLevel") == "destructive":
        asks.append("destructive")
    if risk.get("sideEffects") == "external":
        asks.append("external" if risk.get("riskLevel") == "read" else "external_write")
    if risk.get("dataEgress") == "network":
        asks.append("network_egress")
    return asks


def three_legs(kind: str, risk: Json, labels: Iterable[str]) -> bool:
    """Tell whether untrusted, private and outward come together."""
    marks = set(labels)
    outward = (kind == "tool" and risk.get("dataEgress") == "network") or risk.get(
        "sideEffects"
    ) == "external"
    return outward and UNTRUSTED in marks and bool(marks & {PRIVATE, SECRET})


def writes(risk: Json) -> bool:
    """Tell whether a call changes anything, so that many targets matter."""
    return risk.get("riskLevel") != "read" or risk.get("sideEffects") != "none"


def strict_asks(kind: str, risk: Json) -> list[str]:
    """Name what a strict agent's call asks for: a tool that changes anything, or
    that sends."""
    changes = writes(risk) or risk.get("dataEgress") == "network"
    return [STRICT] if kind == "tool" and changes else []


def is_plannable(asks: list[str]) -> bool:
    """Tell whether the approval of a plan may answer these."""
    return not OWN_DECISION & set(asks)


def is_grantable(asks: list[str]) -> bool:
    """Tell whether a standing grant may answer these."""
    return is_plannable(asks) and STRICT not in asks


def targets_of(arguments: Any) -> list[str]:
    """Read from the arguments whom or what a call would reach, in order."""
    found: dict[str, None] = {}
    level = [arguments]
    for _ in range(64):
        level = [child for item in level for child in _look(item, found)]
        if not level:
            break
    return list(found)


def _look(item: Any, found: dict[str, None]) -> list[Any]:
    if isinstance(item, list):
        return item
    if not isinstance(item, dict):
        return []
    for name, value in item.items():
        if str(name).lower() in TARGET_NAMES:
            values = value if isinstance(value, list) else [value]
            named = [each for each in values if isinstance(each, str | int)]
            found.update((_shown(str(each)), None) for each in named)
    return list(item.values())


def _shown(text: str) -> str:
    """A URL's target is its host; everything else is its own."""
    try:
        return (urlsplit(text).hostname or text) if "://" in text else text
    except ValueError:
        return text


def count_targets(arguments: Any) -> int:
    """Count what a call would reach: its named targets, or its longest list."""
    longest, level = 0, [arguments]
    for _ in range(64):
        longest = max([longest, *(len(i) for i in level if isinstance(i, list))])
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            break
    return max(longest, len(targets_of(arguments)))


def exactly(text: str) -> str:
    """Make a pattern that matches this text and nothing else."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)


def covers(
    capabilities: list[str],
    constraints: Json,
    *,
    capability: str,
    agent: str,
    targets: list[str],
) -> bool:
    """Tell whether a grant's patterns reach a call. A grant that names targets
    reaches only calls whose every target it names."""
    if not any(fnmatchcase(capability, name) for name in capabilities):
        return False
    if not constraints:
        return True
    agents = constraints.get("agents")
    if agents and not any(fnmatchcase(agent, name) for name in agents):
        return False
    allowed = constraints.get("targets")
    if not allowed:
        return True
    return bool(targets) and all(
        any(fnmatchcase(target, name) for name in allowed) for target in targets
    )


def grant_reaches(grant: Grant, call: Call) -> bool:
    """Tell whether a grant answers what a recorded call was asked for."""
    facts = call.facts
    return (
        grant.kind == call.kind
        and grant.principal_id in (None, call.principal_id)
        and grant.workspace_id in (None, call.workspace_id)
        and is_grantable(facts.get("asks", []))
        and covers(
            grant.capabilities,
            grant.constraints,
            capability=call.capability,
            agent=call.agent,
            targets=facts.get("targets", []),
        )
    )
