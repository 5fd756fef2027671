"""The tools that ship with Polar and need nothing but this process."""

from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

from apps.common import clock
from apps.common.errors import FieldProblem
from apps.extensions.engine import calculator
from apps.extensions.errors import ToolValidationError
from apps.extensions.ports import NativeTool, ToolContext
from apps.gateway.ports import Json


def _clock_now(arguments: Json, context: ToolContext) -> dict[str, Any]:
    """Tell the time, in a zone when one is named."""
    name = str(arguments.get("timezone") or "UTC")
    local = clock.now().astimezone(UTC if name == "UTC" else _zone(name))
    return {"now": f"{local.isoformat(timespec='seconds')} {local:%A} ({name})"}


def _zone(name: str) -> ZoneInfo:
    """ZoneInfo refuses what leaves its folder; a folder or a long name is no zone."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError) as error:
        raise ToolValidationError(
            f"There is no time zone {name[:80]!r}.",
            fields=(
                FieldProblem("$.timezone", "unknown", "a name such as Europe/Berlin"),
            ),
        ) from error


def _calculate(arguments: Json, context: ToolContext) -> dict[str, Any]:
    return {"result": calculator.evaluate(str(arguments.get("expression", "")))}


def _one_text(member: str) -> Json:
    return {
        "type": "object",
        "properties": {member: {"type": "string"}},
        "required": [member],
    }


TOOLS = (
    NativeTool(
        capability_id="clock.now",
        title="Clock",
        description="Tell the present date and time, by default in UTC.",
        input_schema={
            "type": "object",
            "properties": {
                "timezone": {
                    "type": "string",
                    "description": "IANA time zone, such as Europe/Berlin",
                    "maxLength": 64,
                }
            },
            "required": [],
            "additionalProperties": False,
        },
        output_schema=_one_text("now"),
        fn=_clock_now,
    ),
    NativeTool(
        capability_id="calculator.evaluate",
        title="Calculator",
        description="Work out arithmetic exactly: + - * / // % ** and brackets.",
        input_schema={
            "type": "object",
            "properties": {
                "expression": {
                    "type": "string",
                    "description": "Arithmetic, such as 2 * (3 + 4.5)",
                    "minLength": 1,
                    "maxLength": calculator.MOST_CHARACTERS,
                }
            },
            "required": ["expression"],
            "additionalProperties": False,
        },
        output_schema=_one_text("result"),
        fn=_calculate,
    ),
)
