"""What every page does alike: panels that stay quiet, lists that page by key.

Hides: how a panel knows that nothing changed, and how a page is cut by key.
Invariants: a list reads at most `size + 1` rows; an unchanged panel answers 204.
"""

import hashlib
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.template.loader import render_to_string

#: Stands in the rendered panel where its own digest goes.
SEEN_MARK = "seen-00000000"
PAGE_SIZE = 50


def is_partial(request: HttpRequest) -> bool:
    """Tell whether HTMX asks for a fragment rather than a page."""
    htmx: Any = getattr(request, "htmx", None)
    return bool(htmx and not htmx.boosted)


def panel(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    """Answer with a panel, or 204 when the asker has seen exactly this.

    Shape: the template writes `?seen={{ seen }}` into its own hx-get."""
    html = render_to_string(template, {**context, "seen": SEEN_MARK}, request)
    digest = hashlib.sha256(html.encode()).hexdigest()[:12]
    if request.GET.get("seen") == digest:
        return HttpResponse(status=204)
    return HttpResponse(html.replace(SEEN_MARK, digest))


@dataclass(frozen=True)
class Pager:
    """Query strings of the neighbouring pages; empty where there is none."""

    newer: str
    older: str
    label: str


@dataclass(frozen=True)
class Page:
    rows: list[Any]
    pager: Pager


def keyset(
    rows: "QuerySet[Model]", params: QueryDict, *, size: int = PAGE_SIZE
) -> Page:
    """Cut one page out of rows whose ids grow with time, newest first.

    Shape: `before=<id>` asks for older rows, `after=<id>` for newer ones."""
    before, after = _id(params.get("before")), _id(params.get("after"))
    if after is not None:
        found = list(rows.filter(pk__gt=after).order_by("pk")[: size + 1])
        has_newer, has_older = len(found) > size, True
        shown = found[:size][::-1]
    else:
        older = rows if before is None else rows.filter(pk__lt=before)
        found = list(older.order_by("-pk")[: size + 1])
        has_newer, has_older = before is not None, len(found) > size
        shown = found[:size]
    newer = _link(params, "after", shown[0].pk) if shown and has_newer else ""
    older_link = _link(params, "before", shown[-1].pk) if shown and has_older else ""
    return Page(shown, Pager(newer, older_link, f"{len(shown)} shown"))


def _id(value: str | None) -> UUID | None:
    try:
        return UUID(value) if value else None
    except ValueError:
        return None


def _link(params: QueryDict, name: str, pk: object) -> str:
    link = params.copy()
    for key in ("before", "after"):
        link.pop(key, None)
    link[name] = str(pk)
    return link.urlencode()
