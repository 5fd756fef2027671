"""Every refusal and failure that Polar knows, as one tree.

    PolarError
      Invalid                 422   the request does not match its contract
      Unauthenticated         401   nobody known is asking
      NotFound                404
      Conflict                409   somebody else was first
        InvalidTransition     409   the lifecycle has no such move
      Denied                  403   known, understood, and refused
        NotGranted            403   the scope or a grant does not cover it
        NotTrusted            403   the extension's trust or state forbids it
        Halted                403   an operator stopped it
        BudgetExceeded        402
        RateLimited           429
      ApprovalRequired        202   suspends: a person decides first
      UpstreamError           502   somebody else's system failed; may be retried
      Unavailable             503   something of ours is not ready
        Fenced                409   this worker lost its lease; drop everything

Only `UpstreamError` with `permanent=False` is ever retried. Any exception
outside the tree is a bug and travels to the boundary.
"""

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One field that is wrong, what was expected, and where it stands."""

    path: str
    problem: str
    expected: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"path": self.path, "problem": self.problem, "expected": self.expected}


class PolarError(Exception):
    """Something that Polar refuses or that failed, with a stable code."""

    code: ClassVar[str] = "POLAR_ERROR"
    http_status: ClassVar[int] = 500
    #: The run state in which work waits for this to pass; "" ends the run.
    waits_as: ClassVar[str] = ""
    permanent: bool = True

    def __init__(
        self, detail: str = "", *, fields: tuple[FieldProblem, ...] = (), **facts: Any
    ) -> None:
        self.detail = detail or (type(self).__doc__ or "").strip().split("\n")[0]
        self.fields = tuple(fields)
        self.facts = facts
        super().__init__(self.detail)

    @property
    def reason_code(self) -> str:
        return str(self.facts.get("reason_code", ""))

    def as_problem(self) -> dict[str, Any]:
        """Shape: the members that problem+json adds to status and title."""
        shown = {key: value for key, value in self.facts.items() if value is not None}
        return {
            "code": self.code,
            "detail": self.detail,
            "fields": [field.as_dict() for field in self.fields],
            **shown,
        }


class Invalid(PolarError):
    """The request does not match its contract."""

    code = "POLAR_CONTRACT_VALIDATION_ERROR"
    http_status = 422


class Unauthenticated(PolarError):
    """Sign in, or send a valid bearer token."""

    code = "POLAR_UNAUTHENTICATED"
    http_status = 401


class NotFound(PolarError):
    """There is no such thing, or it is not yours to see."""

    code = "POLAR_NOT_FOUND"
    http_status = 404


class Conflict(PolarError):
    """It changed meanwhile: read it again and decide anew."""

    code = "POLAR_CONFLICT"
    http_status = 409


class InvalidTransition(Conflict):
    """The lifecycle has no such move."""

    code = "POLAR_INVALID_TRANSITION"


class Denied(PolarError):
    """Policy refuses this."""

    code = "POLAR_FORBIDDEN"
    http_status = 403


class NotGranted(Denied):
    """Neither the scope nor a grant covers this."""

    code = "POLAR_EXTENSION_POLICY_DENIED"


class NotTrusted(Denied):
    """The extension's trust or state forbids this."""

    code = "POLAR_EXTENSION_BLOCKED"


class Halted(Denied):
    """An operator stopped this."""

    code = "POLAR_EXTENSION_POLICY_DENIED"
    #: Work waits until the halt is lifted.
    waits_as = "waiting_operator"


class BudgetExceeded(Denied):
    """The budget does not cover this."""

    code = "POLAR_BUDGET_EXCEEDED"
    http_status = 402


class RateLimited(Denied):
    """Too many in too short a time."""

    code = "POLAR_RATE_LIMITED"
    http_status = 429

    @property
    def retry_after_seconds(self) -> int:
        return int(self.facts.get("retry_after_seconds", 60))


class ApprovalRequired(PolarError):
    """A person decides before this happens."""

    code = "POLAR_APPROVAL_REQUIRED"
    http_status = 202
    waits_as = "waiting_approval"


class UpstreamError(PolarError):
    """A system outside Polar failed."""

    code = "POLAR_RUNTIME_EXECUTION_ERROR"
    http_status = 502

    def __init__(
        self,
        detail: str = "",
        *,
        permanent: bool = False,
        retry_after: float | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(detail, **facts)
        self.permanent = permanent
        #: Seconds the other side asked us to wait, when it did.
        self.retry_after = retry_after


class Unavailable(PolarError):
    """A part of Polar is not ready; try again soon."""

    code = "POLAR_UNAVAILABLE"
    http_status = 503
    permanent = False


class Fenced(Unavailable):
    """This worker lost its lease; somebody else carries on."""

    code = "POLAR_FENCED"
    http_status = 409
