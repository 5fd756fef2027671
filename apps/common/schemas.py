"""Shapes that every API answer shares: camelCase names, problems, cursors."""

from math import isfinite
from typing import Any
from uuid import UUID

from django.db.models import Model, QuerySet
from django.http import HttpResponse
from ninja import Schema
from pydantic import ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

from .errors import FieldProblem, Invalid

MOST_ROWS = 500
BIGGEST = 2**63 - 1
#: How deep a JSON value may be nested.
DEEPEST = 60
#: What an answer says that is shown once.
NO_STORE = "no-store"


class Out(Schema):
    """An answer: snake_case inside, camelCase outside."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, from_attributes=True
    )


class In(Schema):
    """A request body: unknown fields are refused, and so is what no store keeps."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid"
    )

    @field_validator("*", mode="after")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        if problem := unstorable(value):
            raise ValueError(problem)
        return value


def unstorable(value: Any) -> str:
    """Say why a JSON value cannot be stored, or "".

    PostgreSQL keeps no NUL and no lone surrogate; no column keeps an integer of
    more than 64 bits; JSON knows no NaN. Walks without recursion, to any depth.
    """
    waiting, depth = [(value, 0)], 0
    while waiting:
        each, depth = waiting.pop()
        if depth > DEEPEST:
            return f"nested deeper than {DEEPEST}"
        if isinstance(each, str):
            if "\0" in each:
                return "carries a NUL character"
            if not each.isascii() and any("\ud800" <= c <= "\udfff" for c in each):
                return "carries half a character"
        elif isinstance(each, dict):
            waiting += [(part, depth + 1) for pair in each.items() for part in pair]
        elif isinstance(each, list | tuple):
            waiting += [(part, depth + 1) for part in each]
        elif isinstance(each, int) and not -BIGGEST - 1 <= each <= BIGGEST:
            return "is larger than 64 bits"
        elif isinstance(each, float) and not isfinite(each):
            return "is not a finite number"
    return ""


class Problem(Out):
    """Source: RFC 9457, with `code`, `fields` and `traceId`."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    fields: list[dict[str, str]] = Field(default_factory=list)
    trace_id: str = ""


#: What every operation may answer besides its own result.
PROBLEMS: dict[Any, Any] = dict.fromkeys(
    (400, 401, 402, 403, 404, 409, 413, 422, 429, 503), Problem
)


def keep_nowhere(response: HttpResponse) -> None:
    """Mark an answer that is shown once: no cache and no `Idempotency-Key` keeps it."""
    response["Cache-Control"] = NO_STORE


class Cursor(Schema):
    """Keyset paging: the id of the last row seen, newest first."""

    cursor: str = ""
    limit: int = Field(50, ge=1, le=MOST_ROWS)


def cut(rows: "QuerySet[Any]", cursor: Cursor) -> tuple[list[Any], str]:
    """Return one page, newest first, and the cursor of the next ("" at the end).

    Raises: Invalid for a cursor that is not an id.
    """
    if cursor.cursor:
        try:
            rows = rows.filter(id__lt=UUID(cursor.cursor))
        except ValueError as error:
            raise Invalid(
                "The cursor is not one of ours.",
                fields=(FieldProblem("cursor", "unknown", "nextCursor of a page"),),
            ) from error
    found: list[Model] = list(rows.order_by("-id")[: cursor.limit + 1])
    more = len(found) > cursor.limit
    page = found[: cursor.limit]
    return page, str(page[-1].pk) if more else ""
