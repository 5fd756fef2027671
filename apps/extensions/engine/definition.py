"""What exactly was reviewed: one text, and one hash, for one form of an extension.

Hides: how aliases are made. Invariants: any difference in a name, description,
schema or risk is another hash; an alias is stored, so it can always be read back.
"""

import re
from functools import lru_cache

from apps.common import canonical
from apps.extensions.models import Capability
from apps.extensions.ports import NativeTool, native_tools
from apps.gateway.ports import Json

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
