"""Slack's signature over the raw bytes of a request.

Invariant: comparing takes equally long however wrong a signature is.
Source: https://docs.slack.dev/authentication/verifying-requests-from-slack
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final

from apps.channels.errors import Forged
from apps.common import clock

#: How old a signed request may be. Units: seconds.
WINDOW_SECONDS: Final = 300
STAMP_HEADER: Final = "x-slack-request-timestamp"
_STAMP: Final = re.compile(r"[0-9]{1,12}")


def check_signature(headers: Mapping[str, str], body: bytes, secret: str) -> None:
    """Check `v0:{timestamp}:{body}` against the signing secret, and its age.

    Raises: Forged when the secret, the bytes or the time are not Slack's.
    """
    check_age(headers)
    base = b"v0:" + _header(headers, STAMP_HEADER) + b":" + body
    expected = "v0=" + hmac.new(secret.encode(), base, hashlib.sha256).hexdigest()
    given = _header(headers, "x-slack-signature")
    if not hmac.compare_digest(expected.encode(), given) or not secret:
        raise Forged("The signature does not fit.")


def check_age(headers: Mapping[str, str]) -> None:
    """Refuse what carries no signature, or is not of these minutes.

    Raises: Forged.
    """
    stamp = _header(headers, STAMP_HEADER).decode("utf-8", "replace")
    if not _STAMP.fullmatch(stamp) or not _header(headers, "x-slack-signature"):
        raise Forged("The request is not signed.")
    age = clock.now().timestamp() - int(stamp)
    if abs(age) > WINDOW_SECONDS:
        raise Forged(
            f"The request is {age:.0f} s old; at most {WINDOW_SECONDS} s are taken. "
            "If this keeps happening, this machine's clock is wrong."
        )


def _header(headers: Mapping[str, str], wanted: str) -> bytes:
    found = (value for name, value in headers.items() if name.lower() == wanted)
    return str(next(found, "")).encode("utf-8", "replace")
