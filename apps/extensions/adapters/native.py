"""Runs the tools that are code of this house. They never leave the process."""

import logging

from apps.common import failpoints
from apps.extensions.errors import InternalContractBug, ToolUnavailable
from apps.extensions.ports import NativeTool, ToolContext, native_tools
from apps.gateway.errors import PermitRefused
from apps.gateway.ports import EffectClass, Json, Permit, Result

logger = logging.getLogger(__name__)


class NativeRunner:
    """The runner of plugins."""

    def effect_class(self, name: str) -> EffectClass:
        return _tool(name).effect_class

    def run(
        self, permit: Permit, name: str, arguments: Json, context: ToolContext
    ) -> Result:
        """Run a tool once. Raises: what the tool raises; InternalContractBug when
        it breaks; PermitRefused without an unspent permit."""
        tool = _tool(name)
        if not isinstance(permit, Permit):
            raise PermitRefused("A tool runs only with a permit.")
        failpoints.reach("tool.before_spend")
        permit.spend(arguments, waits=False)
        failpoints.reach("tool.in_flight")
        output = _run(tool, arguments, context)
        failpoints.reach("tool.answered")
        return Result(output)


def _tool(name: str) -> NativeTool:
    tool = native_tools.find(name)
    if tool is None:
        raise ToolUnavailable(f"This version of Polar has no tool {name}.")
    return tool


def _run(tool: NativeTool, arguments: Json, context: ToolContext) -> object:
    try:
        return tool.fn(arguments, context)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as bug:
        logger.exception(
            "a native tool broke", extra={"event": "tool.broke", "tool": tool.name}
        )
        raise InternalContractBug(
            f"{tool.name} broke while it ran ({type(bug).__name__})."
        ) from bug
