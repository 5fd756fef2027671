"""Shapes of reliability in the API."""

from datetime import datetime
from uuid import UUID

from apps.common.schemas import In, Out


class SnapshotOut(Out):
    name: str
    taken_at: datetime
    events: int
    root: str
    epoch: str
    bytes: int
    sha256: str
    verified_at: datetime | None


class RollbackOut(Out):
    id: UUID
    state: str
    problem: str
    detected_at: datetime
    witness_size: int
    witness_head: str
    store_size: int
    store_head: str
    fork: int | None
    events_lost: int
    conflicted: int
    stale: int
    lost: int
    effects_held: int
    decided_by: str
    decided_reason: str


class StoreOut(Out):
    """Whether an alarm stands, and what it concerns."""

    in_doubt: bool
    problem: str
    rollback: RollbackOut | None


class ReasonIn(In):
    reason: str


class ResumedOut(Out):
    run_ids: list[UUID]
