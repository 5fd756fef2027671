"""What exactly was reviewed: one text, and one hash, for one form of an extension.

Hides: how aliases are made. Invariants: any difference in a name, description,
schema or risk is another hash; an alias is stored, so it can always be read back.
"""

import re
from functools import lru_cache

from apps.common import canonical
from apps.common.shapes import schema_problem
from apps.extensions import ports
from apps.extensions.errors import PackageRefused
from apps.extensions.models import Capability, Extension
from apps.extensions.ports import NativeTool, native_tools
from apps.gateway.ports import Json

from . import drafts

LONGEST_ALIAS = 64
_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_-]")


def describe(extension_id: str, tools: list[NativeTool]) -> Json:
    """Shape: {"extensionId", "capabilities": [everything that is reviewed]}."""
    return {
        "extensionId": extension_id,
        "capabilities": [_described(tool) for tool in tools],
    }


def hash_of(definition: Json) -> str:
    return canonical.digest(definition)


def native_hash(extension_id: str) -> str:
    """Hash what the code of this process offers now."""
    return _native_hash(extension_id, native_tools.generation)


@lru_cache(maxsize=64)
def _native_hash(extension_id: str, generation: int) -> str:
    return hash_of(describe(extension_id, native_tools.of(extension_id)))


def alias_of(extension_id: str, capability_id: str) -> str:
    """Make the name that models see; one that is taken or long ends in a hash."""
    name = f"{extension_id}/{capability_id}"
    alias = _FORBIDDEN.sub("_", f"{extension_id}__{capability_id}")
    taken = Capability.objects.filter(alias=alias).exclude(
        extension__ext_id=extension_id, capability_id=capability_id
    )
    if len(alias) <= LONGEST_ALIAS and not taken.exists():
        return alias
    tail = canonical.digest(name)[:10]
    return f"{alias[: LONGEST_ALIAS - 11]}_{tail}"


#: Columns of a capability and their names in a manifest.
FIELDS = {
    "title": "title",
    "description": "description",
    "inputSchema": "input_schema",
    "outputSchema": "output_schema",
    "annotations": "annotations",
    "part": "part",
    "target": "target",
    "effectClass": "effect_class",
    "riskLevel": "risk_level",
    "sideEffects": "side_effects",
    "dataEgress": "data_egress",
    "bulkThreshold": "bulk_threshold",
    "riskBy": "risk_by",
    "riskReason": "risk_reason",
}
MOST_CAPABILITIES = 500
#: A manifest and a schema that lies in it.
MOST_LEVELS = canonical.MOST_LEVELS + 16


def manifest_of(row: Extension) -> Json:
    """Write an extension's rows as the manifest that is reviewed and hashed."""
    current = row.capabilities.filter(is_current=True).order_by("capability_id")
    return {
        "extensionId": row.ext_id,
        "extensionType": row.type,
        "title": row.title,
        "description": row.description,
        "version": row.version,
        "package": row.package,
        "parts": row.parts,
        "grants": row.grants,
        "limits": row.limits,
        "notRun": row.not_run,
        "degraded": row.accepts_degraded,
        "capabilities": [
            {
                "capabilityId": each.capability_id,
                **{name: getattr(each, column) for name, column in FIELDS.items()},
            }
            for each in current
        ],
    }


def check(manifest: Json) -> None:
    """Refuse what no person should have to read. Raises: PackageRefused."""
    if canonical.depth_of(manifest, MOST_LEVELS) > MOST_LEVELS:
        raise PackageRefused(f"It is nested deeper than {MOST_LEVELS} levels.")
    drafts.check(manifest["grants"], drafts.GRANTS_SCHEMA, "grants")
    drafts.check(manifest["limits"], drafts.LIMITS_SCHEMA, "limits")
    if not canonical.is_storable(manifest):
        raise PackageRefused("Its words hold U+0000 or half a character.")
    found = manifest["capabilities"]
    if len(found) > MOST_CAPABILITIES:
        raise PackageRefused(f"{len(found)} capabilities; {MOST_CAPABILITIES} at most.")
    names = [each["capabilityId"] for each in found]
    for each in found:
        name = each["capabilityId"]
        problem = (
            schema_problem(each["inputSchema"])
            or (each["outputSchema"] and schema_problem(each["outputSchema"]))
            or ("its name is empty or too long" if not 0 < len(name) <= 120 else "")
            or ("two capabilities have this name" if names.count(name) > 1 else "")
        )
        if problem:
            raise PackageRefused(f"{name[:80]}: {problem}.")


def write(row: Extension, manifest: Json) -> None:
    """Make the rows say what a manifest says. The caller saves `row`."""
    row.title = manifest["title"][:160]
    row.description = manifest["description"]
    row.version, row.package = manifest["version"], manifest["package"]
    row.parts, row.grants = manifest["parts"], manifest["grants"]
    row.limits, row.not_run = manifest["limits"], manifest["notRun"]
    row.accepts_degraded = bool(manifest.get("degraded"))
    kept = [each["capabilityId"] for each in manifest["capabilities"]]
    row.capabilities.exclude(capability_id__in=kept).update(is_current=False)
    for each in manifest["capabilities"]:
        columns = {column: each[name] for name, column in FIELDS.items()}
        columns |= {"title": (each["title"] or each["capabilityId"])[:160]}
        Capability.objects.update_or_create(
            extension=row,
            capability_id=each["capabilityId"],
            defaults={
                **columns,
                "alias": alias_of(row.ext_id, each["capabilityId"]),
                "is_current": True,
            },
        )


def with_served(manifest: Json, part: str, served: ports.Definition) -> Json:
    """Put what a part serves now into a manifest. Known risks stay, for review.

    Raises: PackageRefused for two tools of one name.
    """
    prefix = f"{part}." if part else ""
    known = {each["capabilityId"]: each for each in manifest["capabilities"]}
    others = [each for each in manifest["capabilities"] if each["part"] != part]
    fresh = [
        _offered(offer, f"{prefix}{offer.name}", part, known) for offer in served.offers
    ]
    found = {**manifest, "capabilities": [*others, *fresh]}
    check(found | {"server": served.server})
    parts = [
        {**each, "served": served.digest, "server": served.server}
        if each["name"] == part
        else each
        for each in manifest["parts"]
    ]
    return {**found, "parts": parts}


def _offered(offer: ports.Offer, name: str, part: str, known: dict[str, Json]) -> Json:
    risk = {
        key: value
        for key, value in known.get(name, {}).items()
        if key
        in (*drafts.RISKS, "bulkThreshold", "effectClass", "riskBy", "riskReason")
    }
    return drafts.capability(
        name,
        title=(offer.title or offer.name)[:160],
        description=offer.description,
        inputSchema=offer.input_schema or {"type": "object"},
        outputSchema=offer.output_schema,
        annotations=offer.annotations,
        part=part,
        target=offer.name,
        **risk,
    )


def _described(tool: NativeTool) -> Json:
    return {
        "capabilityId": tool.capability_id,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": tool.input_schema,
        "outputSchema": tool.output_schema,
        "effectClass": str(tool.effect_class),
        **tool.risk.as_dict(),
    }
