"""What is read of a file that a person attached: small texts, and nothing else.

Invariant: what is no text is named and not read, whatever its name says.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

from apps.channels.ports import Attachment
from apps.common.errors import Denied, UpstreamError

#: Larger files are not read. Units: bytes.
LARGEST_FILE: Final = 262_144
READABLE: Final = (
    "text/",
    "application/json",
    "application/xml",
    "application/yaml",
    "application/x-yaml",
    "application/toml",
    "application/sql",
    "application/x-sh",
)
#: Vendors that do not know a kind of text say one of these.
VAGUE: Final = ("", "application/octet-stream", "application/binary")
TEXT_NAMES: Final = re.compile(
    r"\.(txt|md|rst|log|csv|tsv|jsonl?|xml|ya?ml|toml|ini|cfg|conf|py|js|ts|sql|sh|html|css"
    r"|diff|patch|tex|srt|vtt|ics|eml)",
    re.IGNORECASE,
)


def read(attachment: Attachment, load: Callable[[], bytes]) -> Attachment:
    """Read a small text file by `load`; of anything else say why it was not read."""
    if not _is_text(attachment):
        return attachment
    if attachment.size > LARGEST_FILE:
        return replace(attachment, problem=f"larger than {LARGEST_FILE} bytes")
    try:
        raw = load()
    except (UpstreamError, Denied) as error:
        return replace(attachment, problem=error.detail[:200])
    if len(raw) > LARGEST_FILE:
        return replace(attachment, problem=f"larger than {LARGEST_FILE} bytes")
    if b"\0" in raw:
        return replace(attachment, problem="it is no text")
    return replace(attachment, text=raw.decode("utf-8-sig", "replace"))


def _is_text(attachment: Attachment) -> bool:
    kind = attachment.mimetype.partition(";")[0].strip().lower()
    if kind.startswith(READABLE):
        return True
    ending = PurePosixPath(attachment.name).suffix
    return kind in VAGUE and TEXT_NAMES.fullmatch(ending) is not None
