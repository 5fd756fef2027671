"""Where tools and the runners of extension types plug in at start-up.

A native tool is code of this house that a model may call: its schemas and risk
stand beside it. A runner runs the capabilities of one extension type.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from apps.gateway.ports import READ, EffectClass, Json, Lineage, Permit, Result, Risk

if TYPE_CHECKING:
    # Plugged in at start-up, before any model may be loaded.
    from apps.access.models import Principal

#: The plugin that ships with Polar and whose tools the apps register.
SHIPPED = "polar"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """Who calls a tool, from where in the tree of work, and how far it may reach."""

    principal: "Principal"
    workspace_id: UUID
    lineage: Lineage
    scope: Json
    idempotency_key: str = ""

    @property
    def conversation_id(self) -> str:
        return self.lineage.session_id

    @property
    def turn_id(self) -> UUID | None:
        return self.lineage.turn_id

    @property
    def run_id(self) -> UUID | None:
        return self.lineage.run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeTool:
    """A capability in code: what it takes, gives and risks."""

    capability_id: str
    title: str
    description: str
    input_schema: Json
    fn: Callable[[Json, ToolContext], Any]
    output_schema: Json = field(default_factory=dict)
    risk: Risk = READ
    effect_class: EffectClass = EffectClass.PURE
    extension_id: str = SHIPPED

    @property
    def name(self) -> str:
        return f"{self.extension_id}/{self.capability_id}"


class NativeTools:
    """Every native tool of this process, by "extensionId/capabilityId"."""

    def __init__(self) -> None:
        self._tools: dict[str, NativeTool] = {}
        #: Grows with each change, so that what is derived can be kept.
        self.generation = 0

    def register(self, tool: NativeTool) -> None:
        """Make a tool known. Again: the same name is replaced."""
        self._tools[tool.name] = tool
        self.generation += 1

    def forget(self, name: str) -> None:
        self._tools.pop(name, None)
        self.generation += 1

    def find(self, name: str) -> NativeTool | None:
        return self._tools.get(name)

    def of(self, extension_id: str) -> list[NativeTool]:
        """Return one extension's tools in a fixed order."""
        mine = [t for t in self._tools.values() if t.extension_id == extension_id]
        return sorted(mine, key=lambda tool: tool.capability_id)


native_tools = NativeTools()


class Runner(Protocol):
    """Runs the capabilities of one extension type."""

    def effect_class(self, name: str) -> EffectClass:
        """Say what may be done when nobody knows whether it happened."""

    def run(
        self, permit: Permit, name: str, arguments: Json, context: ToolContext
    ) -> Result:
        """Spend the permit, do it, and bring back what came out."""


_runners: dict[str, Runner] = {}


def plug_runner(extension_type: str, runner: Runner) -> None:
    """Run extensions of this type here. Again: replaces the earlier one."""
    _runners[extension_type] = runner


def find_runner(extension_type: str) -> Runner | None:
    return _runners.get(extension_type)
