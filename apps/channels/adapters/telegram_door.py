"""Telegram's secret header: who calls us knows it, or is turned away unread.

The secret follows from the bot's token, so that there is nothing more to keep, and
a new token makes the old header worthless. Comparing takes equally long however
wrong a header is.
Source: https://core.telegram.org/bots/api#setwebhook
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final

from apps.channels.errors import Forged

HEADER: Final = "x-telegram-bot-api-secret-token"
_SHAPE: Final = re.compile(r"[0-9a-f]{64}")
_LABEL: Final = b"polar.channels.telegram.hook.v1"


def secret_of(token: str) -> str:
    """Return the secret that the vendor is told, and sends with each call."""
    return hmac.new(token.encode(), _LABEL, hashlib.sha256).hexdigest()


def check_shape(headers: Mapping[str, str]) -> None:
    """Refuse what carries no secret at all.   Raises: Forged."""
    if not _SHAPE.fullmatch(_given(headers)):
        raise Forged("The request carries no secret.")


def check_secret(headers: Mapping[str, str], token: str) -> None:
    """Raises: Forged."""
    check_shape(headers)
    if not hmac.compare_digest(_given(headers), secret_of(token)):
        raise Forged("The secret does not fit.")


def _given(headers: Mapping[str, str]) -> str:
    found = (value for name, value in headers.items() if name.lower() == HEADER)
    return str(next(found, ""))
