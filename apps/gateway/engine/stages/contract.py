"""Does the request match its contract?"""

import logging
from typing import Any

from apps.common import canonical
from apps.common.errors import FieldProblem
from apps.common.shapes import problems_of
from apps.gateway.engine.decision import Decision
from apps.gateway.errors import ContractBroken
from apps.gateway.models import Strictness
from apps.gateway.ports import CallKind, contracts

from .constraint import texts

logger = logging.getLogger(__name__)

#: More problems than a person reads at once.
MOST_PROBLEMS = 20


def check(decision: Decision) -> str:
    """Refuse arguments that break the registered or the capability's schema.

    `observe` only logs; `enforce` refuses; `hardened` also refuses kinds of
    action that nobody registered and fields that the schema does not name.
    """
    strictness = decision.setting.strictness
    problems = list(_problems(decision))
    if not problems:
        return strictness
    if strictness == Strictness.OBSERVE:
        logger.warning("contract broken", extra={"event": "contract.observed"})
        return "observed"
    raise ContractBroken(
        f"{decision.request.capability} was called with arguments that do not match "
        "its contract.",
        fields=tuple(problems[:MOST_PROBLEMS]),
        schema=str(decision.request.kind),
    )


def _problems(decision: Decision) -> list[FieldProblem]:
    request = decision.request
    if canonical.depth_of(request.arguments) > canonical.MOST_LEVELS:
        levels = f"≤ {canonical.MOST_LEVELS} levels"
        return [FieldProblem("$", "too deeply nested", levels)]
    if request.kind == CallKind.TOOL and (broken := _broken_text(request.arguments)):
        return [broken]
    registered = contracts.find(request.kind)
    if registered is None:
        if decision.setting.strictness == Strictness.HARDENED:
            return [FieldProblem("kind", f"{request.kind} is not registered")]
        return []
    schemas = [registered, request.input_schema]
    hardened = decision.setting.strictness == Strictness.HARDENED
    found: list[FieldProblem] = []
    for schema in schemas:
        if schema is not None:
            found += problems_of(request.arguments, close(schema, hardened))
    return found


def _broken_text(arguments: Any) -> FieldProblem | None:
    for path, _, text in texts(arguments, ""):
        if "\0" in text:
            return FieldProblem(path, "holds U+0000", "text without it")
        if canonical.has_half(text):
            return FieldProblem(path, "holds half a character", "whole text")
    return None


def close(schema: dict[str, Any], hardened: bool) -> dict[str, Any]:
    """Under `hardened` an object that names its fields allows no others."""
    names_fields = schema.get("type") == "object" and "properties" in schema
    if hardened and names_fields and "additionalProperties" not in schema:
        return {**schema, "additionalProperties": False}
    return schema
