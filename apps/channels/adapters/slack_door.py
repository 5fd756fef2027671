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
_STAMP: Final = re.compile(r"[0-9]{1,12}")


def check_signature(headers: Mapping[str, str], body: bytes, secret: str) -> None:
    """Check `v0:{timestamp}:{body}` against the signing secret.

    Raises: Forged when the secret, the bytes or the time are not Slack's.
    """
    given = {name.lower(): str(value) for name, value in headers.items()}
    stamp = given.get("x-slack-request-timestamp", "")
    signature = given.get("x-slack-signature", "")
    base = b"v0:" + stamp.encode("utf-8", "replace") + b":" + body
    expected = "v0=" + hmac.new(secret.encode(), base, hashlib.sha256).hexdigest()
    genuine = hmac.compare_digest(
        expected.encode(), signature.encode("utf-8", "replace")
    )
    if not secret or not genuine or not _STAMP.fullmatch(stamp):
        raise Forged("The signature does not fit.")
    age = clock.now().timestamp() - int(stamp)
    if abs(age) > WINDOW_SECONDS:
        raise Forged(
            f"The request is {age:.0f} s old; at most {WINDOW_SECONDS} s are taken. "
            "If this keeps happening, this machine's clock is wrong."
        )
