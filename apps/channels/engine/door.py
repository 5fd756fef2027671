"""The door of a webhook: what is refused before anything is parsed.

Order: size, then time and signature over the raw bytes, then depth; only then JSON.
Invariants: comparing takes equally long however wrong a signature is; no header
says who somebody is.
Source: https://docs.slack.dev/authentication/verifying-requests-from-slack
"""

import hashlib
import hmac
import json
import re
from typing import Any, Final
from urllib.parse import parse_qsl

from django.http import HttpRequest

from apps.channels.errors import Forged, Malformed, TooLarge
from apps.common import clock

#: Larger bodies are refused unread. Units: bytes.
LARGEST_BODY: Final = 262_144
DEEPEST: Final = 64
#: How old a signed request may be. Units: seconds.
WINDOW_SECONDS: Final = 300
_STAMP: Final = re.compile(r"[0-9]{1,12}")
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def read_raw(request: HttpRequest) -> bytes:
    """Return the body as it came.   Raises: TooLarge, by its length or by reading."""
    said = request.headers.get("Content-Length") or "0"
    if not _STAMP.fullmatch(said) or int(said) > LARGEST_BODY:
        raise TooLarge()
    body = request.read(LARGEST_BODY + 1)
    if len(body) > LARGEST_BODY:
        raise TooLarge()
    return body


def check_browserless(request: HttpRequest) -> None:
    """Refuse what a web page sent: a vendor's server names no origin."""
    if request.headers.get("Origin") or request.headers.get("Sec-Fetch-Site"):
        raise Forged("A vendor's request carries no Origin.")


def check_slack_signature(request: HttpRequest, body: bytes, secret: str) -> None:
    """Check `v0:{timestamp}:{body}` against the signing secret.

    Raises: Forged when the secret, the bytes or the time are not Slack's.
    """
    stamp = request.headers.get("X-Slack-Request-Timestamp", "")
    signature = request.headers.get("X-Slack-Signature", "")
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


def parse_json(raw: bytes) -> dict[str, Any]:
    """Parse an object no deeper than `DEEPEST`.   Raises: Malformed."""
    if depth_of(raw) > DEEPEST:
        raise Malformed(f"The JSON is nested deeper than {DEEPEST}.")
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise Malformed("The body is not JSON.") from error
    if not isinstance(found, dict):
        raise Malformed("The body is no JSON object.")
    return found


def parse_form(raw: bytes) -> dict[str, str]:
    """Parse a form of at most 60 fields.   Raises: Malformed."""
    try:
        return dict(parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=60))
    except ValueError as error:
        raise Malformed("The body is no form.") from error


def depth_of(raw: bytes) -> int:
    """How deeply brackets are nested, without parsing: strings do not count."""
    depth = deepest = 0
    for mark in re.finditer(rb"[\[\]{}]", _STRING.sub(b"", raw)):
        depth += 1 if mark[0] in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
