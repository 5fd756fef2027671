"""What one call may reach: the part's grants, narrowed by the call's constraints."""

import os
from dataclasses import replace
from urllib.parse import urlsplit

from apps.extensions.errors import ToolMisconfigured
from apps.extensions.ports import Grants, Source, Target
from apps.gateway.errors import CapabilityDenied

PORTS = {"http": 80, "https": 443}


def narrowed(target: Target) -> Source:
    """Return the source with no more than the constraints leave of its grants."""
    source, grants = target.source, target.source.grants
    paths = target.constraints.get("pathsAllowlist")
    domains = target.constraints.get("domainsAllowlist")
    left = Grants(
        domains=_kept_domains(grants.domains, domains),
        read_paths=_kept_paths(grants.read_paths, paths),
        write_paths=_kept_paths(grants.write_paths, paths),
        secrets=grants.secrets,
    )
    return source if left == grants else replace(source, grants=left)


def check_host(source: Source) -> None:
    """Refuse a server whose host nobody granted. Raises: CapabilityDenied."""
    parts = urlsplit(source.url)
    if parts.scheme not in PORTS or not parts.hostname:
        raise ToolMisconfigured(f"{source.ext_id} has no http or https URL.")
    host = parts.hostname.lower()
    if f"{host}:{parts.port or PORTS[parts.scheme]}" in source.local:
        return
    if not any(covers(pattern, host) for pattern in source.grants.domains):
        raise CapabilityDenied(
            f"{source.ext_id} is not granted the domain {host}.",
            reason_code="constraint_violated",
            domain=host,
        )


def covers(pattern: str, host: str) -> bool:
    """Tell whether a granted domain ("a.example" or "*.a.example") names a host."""
    wanted = pattern.lower().rstrip(".")
    if wanted.startswith("*."):
        return host.endswith(wanted[1:])
    return host == wanted


def _kept_domains(granted: tuple[str, ...], allowed: object) -> tuple[str, ...]:
    if not isinstance(allowed, list):
        return granted
    return tuple(each for each in granted if any(covers(str(a), each) for a in allowed))


def _kept_paths(granted: tuple[str, ...], allowed: object) -> tuple[str, ...]:
    """Keep what lies inside an allowed folder; a wider grant shrinks to it."""
    if not isinstance(allowed, list):
        return granted
    kept = {each for each in granted for a in allowed if _inside(each, str(a))}
    kept |= {str(a) for each in granted for a in allowed if _inside(str(a), each)}
    return tuple(sorted(kept))


def _inside(path: str, folder: str) -> bool:
    real, root = os.path.realpath(path), os.path.realpath(folder)
    return real == root or real.startswith(root.rstrip("/") + "/")
