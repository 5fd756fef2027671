"""Runs the tools that are code of this house. They never leave the process."""

import logging
from dataclasses import replace
from uuid import UUID

from apps.common import failpoints
from apps.extensions.errors import (
    InternalContractBug,
    ToolMisconfigured,
    ToolUnavailable,
)
from apps.extensions.ports import (
    Definition,
    NativeTool,
    Source,
    Target,
    Termination,
    ToolContext,
    native_tools,
)
from apps.gateway.errors import PermitRefused
from apps.gateway.ports import Json, Permit, Result

logger = logging.getLogger(__name__)


class NativeRuntime:
    """The runtime of code that ships with Polar. It has no process to stop."""

    def describe(self, source: Source) -> Definition:
        """Native tools are described by `NativeTool`, never asked."""
        raise ToolMisconfigured(f"{source.ext_id} is code of this house.")

    def execute(
        self, target: Target, arguments: Json, permit: Permit, context: ToolContext
    ) -> Result:
        """Run a tool once. Raises: what the tool raises; InternalContractBug when
        it breaks; PermitRefused without an unspent permit."""
        tool = _tool(target.capability)
        if not isinstance(permit, Permit):
            raise PermitRefused("A tool runs only with a permit.")
        failpoints.reach("tool.before_spend")
        permit.spend(arguments, waits=False)
        failpoints.reach("tool.in_flight")
        known = replace(context, idempotency_key=permit.idempotency_key)
        output = _run(tool, arguments, known)
        failpoints.reach("tool.answered")
        return Result(output)

    def stop(self, extension_id: UUID) -> list[Termination]:
        return []


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
