"""Do the arguments keep within what the scope allows this extension to touch?

Shape: {"constraints": {"<extension>": {"domainsAllowlist": [...],
"pathsAllowlist": [...], "maxTargets": n, "ratePerMinute": n}}}. The arguments are
read for hosts and paths here; the sandbox and the egress wall hold the same lists
where code reaches for them by itself.
"""

import posixpath
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

from apps.common.errors import RateLimited
from apps.gateway.engine import locks
from apps.gateway.engine.decision import Decision
from apps.gateway.errors import CapabilityDenied
from apps.gateway.models import Call
from apps.gateway.ports import CallKind, Json

WINDOW = timedelta(minutes=1)
_HOST_KEYS = re.compile(r"(^|[_-])(domain|host|hostname|server)s?$", re.IGNORECASE)
_PATH_KEYS = re.compile(
    r"(^|[_-])(path|file|filename|folder|dir|directory|cwd)s?$", re.IGNORECASE
)
_DRIVE = re.compile(r"^[A-Za-z]:[\\/]")


def check(decision: Decision) -> str:
    """Refuse a host, a path, a number of targets or a rate beyond the scope's."""
    request = decision.request
    if request.kind != CallKind.TOOL:
        return "none needed"
    extension_id = request.capability.partition("/")[0]
    rules = ((request.scope or {}).get("constraints") or {}).get(extension_id) or {}
    if not rules:
        return "none"
    decision.facts["constraints"] = rules
    found = list(texts(request.arguments, ""))
    _check_domains(rules, found)
    _check_paths(rules, found)
    _check_targets(rules, request.arguments)
    _check_rate(rules, extension_id, decision)
    return "kept"


def host_is_in(host: str, allowed: list[str]) -> bool:
    """Tell whether a host is listed: exactly, or below a "*.name"."""
    host = host.rstrip(".").lower()
    for entry in allowed:
        name = entry.rstrip(".").lower()
        if host == name or (name.startswith("*.") and host.endswith(name[1:])):
            return True
    return False


def path_is_in(path: str, allowed: list[str]) -> bool:
    """Tell whether a path stays below a listed folder once ".." is worked out."""
    if "\0" in path or path.startswith("~") or "\\" in path or _DRIVE.match(path):
        return False
    plain = posixpath.normpath(unquote(path))
    if not plain.startswith("/"):
        return False
    roots = [posixpath.normpath(entry) for entry in allowed]
    return any(plain == root or plain.startswith(f"{root}/") for root in roots)


def _check_domains(rules: Json, found: list[tuple[str, str, str]]) -> None:
    allowed = rules.get("domainsAllowlist")
    if allowed is None:
        return
    for path, key, text in found:
        host = _host(key, text)
        if host is not None and not host_is_in(host, allowed):
            _refuse(path, f"the host {host[:80]!r}", "domainsAllowlist", allowed)


def _check_paths(rules: Json, found: list[tuple[str, str, str]]) -> None:
    allowed = rules.get("pathsAllowlist")
    if allowed is None:
        return
    for path, key, text in found:
        if _looks_like_path(key, text):
            plain = text[7:] if text.lower().startswith("file://") else text
            if not path_is_in(plain, allowed):
                _refuse(path, f"the path {text[:80]!r}", "pathsAllowlist", allowed)


def _check_targets(rules: Json, arguments: Json) -> None:
    most = rules.get("maxTargets")
    count = longest_list(arguments)
    if most is not None and count > most:
        _refuse("$", f"{count} targets", "maxTargets", most)


def _check_rate(rules: Json, extension_id: str, decision: Decision) -> None:
    most = rules.get("ratePerMinute")
    if most is None:
        return
    request = decision.request
    locks.exclude([f"rate:{extension_id}:{request.principal.id}"])
    recent = Call.objects.filter(
        principal_id=request.principal.id,
        kind=CallKind.TOOL,
        capability__startswith=f"{extension_id}/",
        id__gte=_first_id(decision.now - WINDOW),
        created_at__gt=decision.now - WINDOW,
    ).exclude(state="denied")
    if recent.count() >= most:
        oldest = recent.order_by("created_at").values_list("created_at", flat=True)[0]
        wait = max(1, int((oldest + WINDOW - decision.now).total_seconds()) + 1)
        raise RateLimited(
            f"{extension_id} may be called {most} times a minute in this scope.",
            retry_after_seconds=wait,
            constraint="ratePerMinute",
        )


def _first_id(moment: datetime) -> UUID:
    """The least id of a moment, so that the primary key cuts the window."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def longest_list(value: Any) -> int:
    """Count the targets of a call: its longest list, or one."""
    longest, level = 1, [value]
    while level:
        item = level.pop()
        if isinstance(item, list):
            longest = max(longest, len(item))
            level += item
        elif isinstance(item, dict):
            level += item.values()
    return longest


def texts(value: Any, key: str, path: str = "$") -> Iterator[tuple[str, str, str]]:
    """Every text with its JSON path and the nearest member name."""
    if isinstance(value, str):
        yield path, key, value.strip()
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from texts(item, str(name), f"{path}.{name}")
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from texts(item, key, f"{path}[{place}]")


def _host(key: str, text: str) -> str | None:
    """The host that a text names; "" for a URL that names none cleanly."""
    if "://" in text or text.startswith("//"):
        if text.lower().startswith("file:"):
            return None
        try:
            parts = urlsplit(text.replace("\\", "/"))
            return "" if "@" in parts.netloc else (parts.hostname or "")
        except ValueError:
            return ""
    if _HOST_KEYS.search(key) and text:
        return text.partition("/")[0].rpartition("@")[2].partition(":")[0]
    return None


def _looks_like_path(key: str, text: str) -> bool:
    if "://" in text:
        return text.lower().startswith("file://")
    starts = text.startswith(("/", "~", "./", "../", "\\")) or _DRIVE.match(text)
    return bool(starts) or (bool(text) and bool(_PATH_KEYS.search(key)))


def _refuse(path: str, what: str, rule: str, allowed: Any) -> None:
    raise CapabilityDenied(
        f"{what} at {path} is outside {rule}.",
        reason_code="constraint_violated",
        constraint=rule,
        path=path,
        allowed=allowed,
    )
