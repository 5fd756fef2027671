"""How a tool fails, as agents and people are told. Decided by type, never by words.

NotFound
  ToolUnavailable        there is no such tool here, or nothing runs it
UpstreamError
  ToolMisconfigured      it cannot work until somebody changes its set-up
    AuthorizationWanted  an administrator has to connect it (OAuth)
    AuthorizationRefused its authorization server said no
  ToolTransientError     it failed this time; trying again may help
Invalid
  ToolValidationError    the arguments are wrong; fields say where
PolarError
  InternalContractBug    our own fault; never shown as "not available"
Conflict
  ReviewMissing          this form of the extension was not reviewed
  TypeMismatch           the claimed type is not the stored one
  TrustMismatch          the claimed trust is not the stored one
NotTrusted
  DefinitionChanged      what is served now is not what was reviewed
Invalid
  PackageRefused         a package that is not well-formed, or an attack
  RequestBroken          not a valid extension.gateway.execute.request
"""

from typing import Any

from apps.common.errors import (
    Conflict,
    Invalid,
    NotFound,
    NotTrusted,
    PolarError,
    UpstreamError,
)


class ToolUnavailable(NotFound):
    """There is no such tool here."""

    code = "POLAR_EXTENSION_NOT_INSTALLED"


class ToolMisconfigured(UpstreamError):
    """The tool cannot work until somebody changes its set-up."""

    def __init__(self, detail: str = "", **facts: Any) -> None:
        super().__init__(detail, permanent=True, **facts)


class AuthorizationWanted(ToolMisconfigured):
    """A server wants an authorization that an administrator can give it.

    `challenge` is what it said: {"metadata": URL, "scope"}; None when it only
    refused.
    """

    def __init__(
        self, detail: str = "", *, challenge: dict[str, str] | None = None, **facts: Any
    ) -> None:
        super().__init__(detail, reason_code="authorization_wanted", **facts)
        self.challenge = challenge


class AuthorizationRefused(ToolMisconfigured):
    """The authorization server refused; `error` is its own code, nothing else."""

    def __init__(self, detail: str = "", *, error: str = "", **facts: Any) -> None:
        super().__init__(detail, reason_code="authorization_refused", **facts)
        self.error = error


class ToolTransientError(UpstreamError):
    """The tool failed this time; trying again may help."""


class ToolValidationError(Invalid):
    """The arguments do not fit the tool."""


class InternalContractBug(PolarError):
    """A tool of ours broke its own contract."""

    code = "POLAR_RUNTIME_EXECUTION_ERROR"
    http_status = 502


class AdapterMissing(ToolMisconfigured):
    """Nothing is plugged in that could run this extension."""

    code = "POLAR_EXTENSION_ADAPTER_MISSING"


class ReviewMissing(Conflict):
    """This form of the extension has no approved review."""


class TypeMismatch(Conflict):
    """The claimed extension type is not the stored one."""

    code = "POLAR_EXTENSION_TYPE_MISMATCH"


class TrustMismatch(Conflict):
    """The claimed trust level is not the stored one."""

    code = "POLAR_EXTENSION_TRUST_LEVEL_MISMATCH"


class DefinitionChanged(NotTrusted):
    """What is served now is not what was reviewed.

    Raised by a runtime before it sends; `served` is a `ports.Definition`.
    """

    def __init__(self, detail: str = "", *, served: Any = None, **facts: Any) -> None:
        super().__init__(detail, reason_code="definition_changed", **facts)
        self.served = served


class PackageRefused(Invalid):
    """This package is not well-formed, or it is an attack."""


class RequestBroken(Invalid):
    """The request does not match extension.gateway.execute.request."""
