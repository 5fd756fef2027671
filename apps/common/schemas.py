"""Shapes that every API answer shares: camelCase names, problems, cursors."""

from typing import Any
from uuid import UUID

from django.db.models import Model, QuerySet
from ninja import Schema
from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from .errors import FieldProblem, Invalid

MOST_ROWS = 500


class Out(Schema):
    """An answer: snake_case inside, camelCase outside."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, from_attributes=True
    )


class In(Schema):
    """A request body: unknown fields are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid"
    )


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
