"""The live grants, read once and kept while nothing about them changes.

Hides: an index by what a grant's pattern begins with, so that a decision looks at
the few grants that may fit and not at every one. Invariant: what is kept was read
after its stamp, and the stamp is read in the decision's own statement, so a grant
that was revoked before a decision began never answers it. Whether a grant has
expired, and whom it is for, is asked anew for each call.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from apps.gateway.models import Grant
from apps.gateway.ports import CallRequest, Json

#: Version, how many are live, and the newest: a change shows in one of them.
Stamp = tuple[int, int, str]
#: What a pattern may hold that is not itself.
_MARKS = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Standing:
    """One live grant, as the decision needs it."""

    id: UUID
    reason: str
    capabilities: list[str]
    constraints: Json
    principal_id: UUID | None
    workspace_id: UUID | None
    expires_at: datetime | None

    def is_for(self, request: CallRequest, now: datetime) -> bool:
        return (
            (self.expires_at is None or self.expires_at > now)
            and self.principal_id in (None, request.principal.id)
            and self.workspace_id in (None, request.workspace_id)
        )


Index = dict[tuple[str, str], list[tuple[int, Standing]]]


@dataclass(frozen=True, slots=True)
class _Kept:
    stamp: Stamp | None
    index: Index


_kept = _Kept(None, {})


def candidates(stamp: Stamp, request: CallRequest, now: datetime) -> Iterator[Standing]:
    """Yield the live grants that may reach a call, oldest first."""
    index = _index(stamp)
    kind, begins = str(request.kind), _begin(request.capability)
    found = index.get((kind, begins), []) + index.get((kind, ""), [])
    for _, each in sorted(found, key=lambda pair: pair[0]):
        if each.is_for(request, now):
            yield each


def _index(stamp: Stamp) -> Index:
    """Return the index of this stamp; two threads may read it at once, and then
    keep the same."""
    global _kept  # noqa: PLW0603 (one per process, replaced whole)
    kept = _kept
    if kept.stamp != stamp:
        kept = _kept = _Kept(stamp, _read())
    return kept.index


def _read() -> Index:
    rows = Grant.objects.filter(revoked_at__isnull=True).order_by("id")
    columns = ("id", "reason", "capabilities", "constraints")
    whose = ("principal_id", "workspace_id", "expires_at")
    index: Index = {}
    for place, row in enumerate(rows.values_list("kind", *columns, *whose)):
        kind, each = str(row[0]), Standing(*row[1:])
        for begins in {_begin(name) for name in each.capabilities}:
            index.setdefault((kind, begins), []).append((place, each))
    return index


def _begin(name: Any) -> str:
    """Return what a name or pattern surely begins with: all before its first
    slash, or "" when a mark comes earlier."""
    head, slash, _ = str(name).partition("/")
    return head if slash and not _MARKS & set(head) else ""
