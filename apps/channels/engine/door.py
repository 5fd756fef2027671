"""The door of a webhook: what is refused before anything is parsed.

Order: origin and size, then the vendor's own proof over the raw bytes (its
transport's `verify_webhook`), then depth; only then JSON. No header says who
somebody is.
"""

import json
import re
from typing import Any, Final
from urllib.parse import parse_qsl

from django.http import HttpRequest

from apps.channels.errors import Forged, Malformed, TooLarge

#: Larger bodies are refused unread. Units: bytes.
LARGEST_BODY: Final = 262_144
DEEPEST: Final = 64
_STAMP: Final = re.compile(r"[0-9]{1,12}")
#: A string, which may end with the body, or one bracket: read once, never back.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z)?|[\[\]{}]', re.DOTALL)


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
    for token in _TOKEN.finditer(raw):
        if token[0] in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in (b"]", b"}"):
            depth -= 1
    return deepest
