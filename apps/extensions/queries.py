"""Reads of extensions and of the tools that models are shown. Never writes."""

from dataclasses import dataclass
from uuid import UUID

from django.db.models import QuerySet

from apps.common.errors import NotFound
from apps.common.statements import Reading
from apps.gateway.ports import Json

from .models import Capability, Extension


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model is shown it. `capability` is "extensionId/capabilityId"."""

    alias: str
    description: str
    schema: Json
    capability: str
    title: str = ""


def extensions() -> QuerySet[Extension]:
    """Return every extension with what it offers."""
    return Extension.objects.prefetch_related("capabilities").order_by("ext_id")


def get_extension(extension_id: UUID) -> Extension:
    """Raises: NotFound."""
    found = Extension.objects.filter(id=extension_id).first()
    if found is None:
        raise NotFound("There is no such extension.")
    return found


def covers(scope: Json, ext_id: str, capability_id: str) -> bool:
    """Tell whether a capability scope names this capability."""
    names = ((scope or {}).get("allowed") or {}).get(ext_id) or ()
    return capability_id in names or "*" in names


_OFFERED = Reading(
    lambda: Capability.objects.offerable().select_related("extension"),
    "AND extensions_extension.ext_id = %s",
)
_BY_ALIAS = Reading(
    lambda: Capability.objects.select_related("extension"),
    "WHERE extensions_capability.alias = %s AND extensions_capability.is_current",
)


def tools_for(*, scope: Json) -> list[ToolSpec]:
    """List what a model may be shown under a scope, in a fixed order."""
    allowed = list((scope or {}).get("allowed") or {})
    if not allowed:
        return []
    rows = [row for ext_id in allowed for row in _OFFERED.fetch(ext_id)]
    return [
        ToolSpec(row.alias, row.description, row.input_schema, row.name, row.title)
        for row in sorted(rows, key=lambda row: str(row.alias))
        if covers(scope, row.extension.ext_id, row.capability_id)
    ]


def find_tool(alias: str) -> Capability | None:
    """Return the capability that a model calls by this alias, or None."""
    return next(iter(_BY_ALIAS.fetch(alias)), None)
