"""What an error means for a turn. Decided by type and code, never by wording."""

from apps.audit.errors import StoreInDoubt
from apps.common.errors import (
    Conflict,
    Denied,
    Fenced,
    Invalid,
    NotFound,
    PolarError,
    RateLimited,
    Unavailable,
    UpstreamError,
)

VALIDATION = "ToolValidationError"
TRANSIENT = "ToolTransientError"
MISCONFIGURED = "ToolMisconfigured"
UNAVAILABLE = "ToolUnavailable"
CONTRACT_BUG = "InternalContractBug"

LOOP_GUARD = "loop_guard"

#: The first that fits, most telling first.
TOOL_CLASSES: tuple[tuple[type[PolarError], str], ...] = (
    (Invalid, VALIDATION),
    (RateLimited, TRANSIENT),
    (Unavailable, TRANSIENT),
    (NotFound, UNAVAILABLE),
    (Denied, UNAVAILABLE),
)


def tool_class(error: PolarError) -> str:
    """Name the kind of a tool's failure, as people and models are shown it."""
    if isinstance(error, UpstreamError):
        return MISCONFIGURED if error.permanent else TRANSIENT
    for kind, name in TOOL_CLASSES:
        if isinstance(error, kind):
            return name
    return CONTRACT_BUG


def is_loop(error: PolarError) -> bool:
    """Tell whether the loop guard tripped: the whole tree is cut short."""
    return error.reason_code == LOOP_GUARD


def is_busy(error: PolarError) -> bool:
    """Tell whether the same effect is being done right now by another worker.

    A reused key is a `Conflict` too, but of its own type: that one is a bug.
    """
    return type(error) is Conflict


def suspends(error: PolarError) -> bool:
    """Tell whether the run waits or moves to another worker, its step kept.

    A store in doubt is nothing that a model could do better.
    """
    return bool(error.waits_as) or isinstance(error, Fenced | StoreInDoubt)


def told_to_model(error: PolarError) -> dict[str, str]:
    """Describe a failure so that a model can do better."""
    fields = "; ".join(
        f"{field.path}: {field.problem}"
        + (f", expected {field.expected}" if field.expected else "")
        for field in error.fields
    )
    text = f"{error.detail} ({fields})" if fields else error.detail
    kind = tool_class(error)
    return {"class": kind, "error": f"{kind}: {text}", "code": error.code}
