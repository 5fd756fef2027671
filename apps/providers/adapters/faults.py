"""Turns whatever went wrong at a vendor into one of Polar's error classes.

Invariant: the detail is cut short and scrubbed of every leased secret.
"""

from typing import Final

from pydantic_ai import exceptions as ai

from apps.common import redaction
from apps.providers.adapters.watch import Watch
from apps.providers.errors import ModelCallFailed

#: What a vendor's library raises on garbage, besides its own errors.
GARBAGE: Final = (ValueError, LookupError, TypeError, AttributeError, AssertionError)
#: A used-up quota says no time; ask again after five minutes. Units: seconds.
QUOTA_PAUSE_SECONDS: Final = 300.0
DETAIL_LENGTH: Final = 400

_BY_TYPE: Final[tuple[tuple[type[Exception], str], ...]] = (
    (ai.ModelRateLimitError, "rate_limited"),
    (ai.ModelQuotaExceededError, "rate_limited"),
    (ai.ModelAuthenticationError, "auth"),
    (ai.ModelContextWindowExceededError, "context_overflow"),
    (ai.ContentFilterError, "content_refused"),
    (ai.ModelUnavailableError, "server_error"),
    (ai.ModelServerError, "server_error"),
    (ai.ModelTimeoutError, "timeout_idle"),
    (ai.ModelConnectionError, "network"),
)
_REFUSAL_WORDS: Final = ("content_policy", "content_filter", "safety", "moderation")


def classify(error: Exception, watch: Watch) -> ModelCallFailed:
    """Name the failure. The watch knows best: it saw the wire."""
    detail = watch.detail or _excerpt(error, watch)
    error_class = watch.tripped or _by_type(error)
    retry_after = getattr(error, "retry_after", None)
    if isinstance(error, ai.ModelQuotaExceededError):
        retry_after = retry_after or QUOTA_PAUSE_SECONDS
    return ModelCallFailed(error_class, tidy(detail), retry_after=retry_after)


def tidy(text: str) -> str:
    """Scrub first, then cut: a cut could leave half a secret standing."""
    return redaction.scrub(text)[:DETAIL_LENGTH]


def _by_type(error: Exception) -> str:
    for kind, error_class in _BY_TYPE:
        if isinstance(error, kind):
            return error_class
    if isinstance(error, ai.ModelHTTPError):
        return _by_status(error)
    return "bad_response"


def _by_status(error: ai.ModelHTTPError) -> str:
    if error.status_code in (401, 403):
        return "auth"
    if error.status_code == 429:
        return "rate_limited"
    if error.status_code >= 500:
        return "server_error"
    code = f"{error.provider_error_code} {error.provider_error_type}".lower()
    if any(word in code for word in _REFUSAL_WORDS):
        return "content_refused"
    return "bad_response"


def _excerpt(error: Exception, watch: Watch) -> str:
    said = str(error) or type(error).__name__
    if isinstance(error, ai.ModelAPIError) or not watch.head:
        return said
    return f"{said}: {bytes(watch.head[:200]).decode(errors='replace')}"
