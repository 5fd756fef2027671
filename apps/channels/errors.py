"""What channels refuse.

PolarError
  Denied
    Forged           403
    SenderDenied     403
  Invalid
    TooLarge         413
    Malformed        400
  UpstreamError
    ChannelRefused   502
    OutcomeUnknown
      DeliveryUnknown  502
  Unavailable
    AccountPaused    503
"""

from typing import Any

from apps.common.errors import Denied, Invalid, Unavailable, UpstreamError
from apps.gateway.errors import OutcomeUnknown


class AccountPaused(Unavailable):
    """This channel is paused; nothing was sent and nothing was kept."""

    code = "POLAR_CHANNEL_PAUSED"


class Forged(Denied):
    """This request was not sent by the vendor, or is too old."""

    code = "POLAR_WEBHOOK_FORGED"


class SenderDenied(Denied):
    """This sender may not do that here."""

    code = "POLAR_SENDER_DENIED"


class TooLarge(Invalid):
    """The body is larger than a channel takes."""

    code = "POLAR_WEBHOOK_TOO_LARGE"
    http_status = 413


class Malformed(Invalid):
    """The body has not the shape that the vendor sends."""

    code = "POLAR_WEBHOOK_MALFORMED"
    http_status = 400


class ChannelRefused(UpstreamError):
    """The vendor refused it, and will again."""

    code = "POLAR_CHANNEL_REFUSED"

    def __init__(self, detail: str = "", **facts: Any) -> None:
        super().__init__(detail, permanent=True, **facts)


class DeliveryUnknown(OutcomeUnknown):
    """It was sent, and nobody knows whether it arrived."""

    code = "POLAR_DELIVERY_UNKNOWN"
