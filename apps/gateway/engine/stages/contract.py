"""Does the request match its contract?"""

import logging
from typing import Any

from apps.common.errors import FieldProblem
from apps.gateway.engine.decision import Decision
from apps.gateway.errors import ContractBroken
from apps.gateway.models import Strictness
from apps.gateway.policies import problems_of
from apps.gateway.ports import CallKind, contracts

from .constraint import texts

logger = logging.getLogger(__name__)

#: Deeper JSON is an attack, not an argument.
MOST_LEVELS = 64
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
    if depth_of(request.arguments) > MOST_LEVELS:
        return [FieldProblem("$", "too deeply nested", f"≤ {MOST_LEVELS} levels")]
    if request.kind == CallKind.TOOL:
        nul = [path for path, _, text in texts(request.arguments, "") if "\0" in text]
        if nul:
            return [FieldProblem(nul[0], "holds U+0000", "text without it")]
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


def close(schema: dict[str, Any], hardened: bool) -> dict[str, Any]:
    """Under `hardened` an object that names its fields allows no others."""
    names_fields = schema.get("type") == "object" and "properties" in schema
    if hardened and names_fields and "additionalProperties" not in schema:
        return {**schema, "additionalProperties": False}
    return schema


def depth_of(value: Any) -> int:
    """Count levels of nesting without recursing."""
    deepest, level = 0, [value]
    while level:
        deepest += 1
        if deepest > MOST_LEVELS:
            return deepest
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return deepest
