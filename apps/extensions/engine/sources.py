"""What a runtime is told about a part: made from the rows, narrowed by trust.

Invariants: a `sandboxed` extension is handed no domain and no secret, a `reviewed`
one no secret but the token that was issued for it alone; a package is handed out
only if it still is what its hash says.
"""

from pathlib import Path
from uuid import UUID

from apps.extensions import ports
from apps.extensions.errors import DefinitionChanged, ToolMisconfigured
from apps.extensions.models import Capability, Extension, Trust
from apps.gateway.ports import PRIVATE, UNTRUSTED, EffectClass, Json
from apps.vault import ports as vault_ports
from apps.vault import queries as vault

from . import connections, store

ROOT = "${CLAUDE_PLUGIN_ROOT}"
_LIMITS = {
    "connectSeconds": "connect_seconds",
    "callSeconds": "call_seconds",
    "idleSeconds": "idle_seconds",
    "outputBytes": "output_bytes",
    "memoryBytes": "memory_bytes",
    "processes": "processes",
}
#: Parts that are started on this host.
OWN_PROCESS = frozenset({ports.Transport.SCRIPT, ports.Transport.STDIO})
REACHES_OUT = frozenset({Trust.REVIEWED, Trust.TRUSTED})


def grants_of(row: Extension, *, trust: str = "") -> ports.Grants:
    """The stored grants as far as the trust carries them."""
    trust = trust or row.trust
    grants = row.grants or {}
    secrets = grants.get("secrets") or {} if trust == Trust.TRUSTED else {}
    return ports.Grants(
        domains=tuple(grants.get("domains") or ()) if trust in REACHES_OUT else (),
        read_paths=tuple(grants.get("readPaths") or ()),
        write_paths=tuple(grants.get("writePaths") or ()),
        secrets={name: _secret_id(row, each) for name, each in secrets.items()},
    )


def needs_secret(row: Extension) -> bool:
    """Tell whether a call of this extension opens a secret."""
    if row.trust == Trust.TRUSTED and (row.grants or {}).get("secrets"):
        return True
    is_remote = any(each["transport"] == ports.Transport.HTTP for each in row.parts)
    return is_remote and connections.is_used(row)


def labels_of(capability: Capability) -> frozenset[str]:
    """What a result carries: whatever is foreign is untrusted; what was read with a
    credential, from granted folders or from an address on the inside is private."""
    row = capability.extension
    if not row.parts:
        tool = ports.native_tools.find(capability.name)
        return tool.labels if tool is not None else frozenset()
    grants = row.grants or {}
    inside = any(grants.get(name) for name in ("readPaths", "writePaths", "local"))
    is_private = inside or needs_secret(row)
    return frozenset({UNTRUSTED, *([PRIVATE] if is_private else [])})


def runs_open(row: Extension) -> bool:
    """Tell whether its own code runs here without isolation, as was accepted."""
    if not row.accepts_degraded or ports.isolation().is_available:
        return False
    return any(each["transport"] in OWN_PROCESS for each in row.parts)


def limits_of(row: Extension) -> ports.Limits:
    known = row.limits or {}
    return ports.Limits(**{_LIMITS[name]: known[name] for name in known})


def source_of(row: Extension, part: str, *, trust: str = "") -> ports.Source:
    """Raises: ToolMisconfigured without the part; DefinitionChanged when the
    package on disk is not what was installed."""
    if not row.parts:
        return ports.Source(
            extension_id=row.id,
            ext_id=row.ext_id,
            transport=ports.Transport.NATIVE,
            trust=row.trust,
        )
    found = next((each for each in row.parts if each["name"] == part), None)
    if found is None:
        raise ToolMisconfigured(f"{row.ext_id} has no part {part!r}.")
    package = _package(row)
    root = str(package or "")
    trust = trust or row.trust
    local = (row.grants or {}).get("local") or () if trust in REACHES_OUT else ()
    return ports.Source(
        extension_id=row.id,
        ext_id=row.ext_id,
        transport=ports.Transport(found["transport"]),
        part=part,
        trust=trust,
        command=tuple(each.replace(ROOT, root) for each in found["command"]),
        url=found["url"],
        folder=package / found["folder"] if package else None,
        env={name: text.replace(ROOT, root) for name, text in found["env"].items()},
        local=frozenset(local),
        grants=grants_of(row, trust=trust),
        limits=limits_of(row),
        accepts_degraded=row.accepts_degraded,
        bearer=_bearer(row, found, trust),
    )


def _bearer(row: Extension, part: Json, trust: str) -> ports.Bearer | None:
    """Who gives the token of this server, where an administrator connected exactly
    this URL and the extension may reach out at all."""
    if part["transport"] != ports.Transport.HTTP or trust not in REACHES_OUT:
        return None
    return connections.bearer_of(row, part["name"], part["url"])


def target_of(capability: Capability, scope: Json) -> ports.Target:
    """What one call of one capability is bound to."""
    row = capability.extension
    source = source_of(row, capability.part)
    served = {each["name"]: each.get("served", "") for each in row.parts}
    constraints = ((scope or {}).get("constraints") or {}).get(row.ext_id) or {}
    return ports.Target(
        source=source,
        name=capability.target or capability.capability_id,
        capability=capability.name,
        pinned=served.get(capability.part, ""),
        effect_class=EffectClass(capability.effect_class),
        constraints=constraints,
    )


def _package(row: Extension) -> Path | None:
    if not row.package:
        return None
    try:
        return store.folder_of(row.package)
    except store.PackageChanged as changed:
        raise DefinitionChanged(changed.detail) from changed


def _secret_id(row: Extension, name: str) -> UUID:
    found = vault.find_secret(name)
    if found is None:
        raise ToolMisconfigured(f"{row.ext_id} needs the secret {name!r}: store it.")
    if found.purpose != vault_ports.FOR_EXTENSIONS:
        raise ToolMisconfigured(
            f"{name!r} is a secret of something else and is never given to an "
            f"extension; store one for {row.ext_id} under a name of its own."
        )
    return found.id
