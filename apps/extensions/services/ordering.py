"""One door for every lifecycle operation, by its public name."""

from dataclasses import dataclass, field
from uuid import UUID

from apps.access.models import Principal
from apps.common.errors import FieldProblem, Invalid
from apps.extensions.models import Certificate
from apps.gateway.ports import Json

from . import lifecycle, stopping
from .installing import configure_extension

OPERATIONS = (
    "enable",
    "disable",
    "revoke",
    "rollback",
    "remove",
    "retrust",
    "configure",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be done with an extension, and why."""

    operation: str
    reason: str
    #: For `rollback`: the form to bring back; "" is the last approved one.
    definition_hash: str = ""
    #: For `configure`: grants, limits, degraded.
    changes: Json = field(default_factory=dict)


def apply_lifecycle(
    *, by: Principal, extension_id: UUID, order: Order
) -> Certificate | None:
    """Do what an operator ordered; the stops answer with their certificate.

    Raises: Invalid for an unknown operation; what the operation raises.
    """
    reason = order.reason
    match order.operation:
        case "disable" | "revoke":
            return stopping.stop_extension(
                by=by,
                extension_id=extension_id,
                operation=order.operation,
                reason=reason,
            )
        case "enable":
            lifecycle.enable_extension(by=by, extension_id=extension_id, reason=reason)
        case "remove":
            lifecycle.remove_extension(by=by, extension_id=extension_id, reason=reason)
        case "retrust":
            lifecycle.retrust_extension(by=by, extension_id=extension_id, reason=reason)
        case "rollback":
            lifecycle.rollback_extension(
                by=by,
                extension_id=extension_id,
                reason=reason,
                definition_hash=order.definition_hash,
            )
        case "configure":
            configure_extension(
                by=by, extension_id=extension_id, changes=order.changes, reason=reason
            )
        case _:
            raise Invalid(
                "There is no such operation.",
                fields=(FieldProblem("operation", "unknown", " | ".join(OPERATIONS)),),
            )
    return None
