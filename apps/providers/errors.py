"""What can go wrong between a request and an answer.

UpstreamError
  ModelCallFailed     one route failed, with the class of its failure
Unavailable
  NoRouteAvailable    no route of the plan could answer; the work waits
  CallCancelled       the worker is stopping; nothing is tried elsewhere
NotFound
  ProviderUnknown     no provider, model or route of that name
"""

from datetime import datetime
from typing import Any

from apps.common.errors import NotFound, Unavailable, UpstreamError


class ModelCallFailed(UpstreamError):
    """A model call failed."""

    def __init__(
        self,
        error_class: str,
        detail: str = "",
        *,
        retry_after: float | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(
            detail or f"The model call failed: {error_class}.",
            permanent=error_class in {"auth", "content_refused", "context_overflow"},
            retry_after=retry_after,
            error_class=error_class,
            **facts,
        )
        self.error_class = error_class


class NoRouteAvailable(Unavailable):
    """No route of the plan could answer."""

    code = "POLAR_NO_ROUTE_AVAILABLE"
    waits_as = "waiting_provider"

    def __init__(
        self,
        lane: str,
        routes: tuple[dict[str, str], ...],
        *,
        retry_at: datetime | None = None,
    ) -> None:
        listed = "; ".join(f"{each['route']}: {each['reason']}" for each in routes)
        super().__init__(
            f"No route of lane {lane} could answer ({listed or 'no route exists'}).",
            lane=lane,
            routes=list(routes),
        )
        self.routes = routes
        #: The earliest moment at which a route may be tried again, when known.
        self.retry_at = retry_at


class CallCancelled(Unavailable):
    """The call was cancelled because its worker is stopping."""


class ProviderUnknown(NotFound):
    """There is no such provider, model or route."""
