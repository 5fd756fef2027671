"""The shapes that the vendors publish, and what does not fit them.

`published/telegram.json` and `published/slack.json` say where they come from.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

FOLDER = Path(__file__).parent / "published"


@cache
def published(vendor: str) -> dict[str, Any]:
    """Read what a vendor publishes."""
    found: dict[str, Any] = json.loads((FOLDER / f"{vendor}.json").read_text())
    return found


@cache
def _validator(vendor: str, *path: str) -> Draft202012Validator:
    book = published(vendor)
    schema: Any = book
    for name in path:
        schema = schema[name]
    shared = {name: book[name] for name in ("$defs", "definitions") if name in book}
    return Draft202012Validator({**schema, **shared})


def misfits(vendor: str, *path: str, value: Any) -> list[str]:
    """Say where a value differs from the published shape that stands at `path`."""
    return [
        f"{'.'.join(path)} {error.json_path}: {error.message[:200]}"
        for error in _validator(vendor, *path).iter_errors(value)
    ]


def fitting(vendor: str, *path: str, value: Any) -> Any:
    """Return the value, which has the published shape.   Raises: AssertionError."""
    wrong = misfits(vendor, *path, value=value)
    assert wrong == [], wrong
    return value
