"""Does anything grow with history? The same figures after 0, 100,000, 1,000,000 events.

Events are put in as text made from one real event, in bulk; the log's own code seals
them, so that the tree, the journal and the checkpoints are those of a real store.
"""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from django.db import connection, transaction

from apps.audit import services as audit
from apps.audit.engine import body, merkle, recording
from apps.audit.models import Event
from apps.common import ids
from apps.common.actor import SYSTEM

from . import cpu, measures
from .measures import Row
from .stand import Stand

SIZES = (0, 100_000, 1_000_000)
BATCH = 5_000


def measure(stand: Stand, sizes: tuple[int, ...] = SIZES) -> list[Row]:
    """Turns and traces at each size; at the last, sealing and verifying."""
    rows: list[Row] = []
    held = 0
    for size in sizes:
        rows += _fill_to(size - held, f"after {size:,} events")
        held = size
        rows += _at(stand, f"after {size:,} events")
    return [*rows, *verified()]


def _at(stand: Stand, when: str) -> list[Row]:
    measures.turns(stand, 5, 1, "hello", "warm-up")
    return [
        *measures.turns(stand, 100, 1, "hello", f"{when}: answer"),
        *((f"{when}: {what}", value, unit) for what, value, unit in _trace(stand)),
    ]


def _trace(stand: Stand) -> list[Row]:
    return measures.trace(stand)


def _fill_to(count: int, when: str) -> list[Row]:
    if not count:
        return []
    begun = time.perf_counter()
    for start in range(0, count, BATCH):
        _insert(min(BATCH, count - start))
    filled = time.perf_counter() - begun
    before, begun = cpu.now(), time.perf_counter()
    sealed = audit.seal_all()
    took, used = time.perf_counter() - begun, cpu.now() - before
    return [
        (f"{when}: bulk insert of {count:,}", filled, "s"),
        (f"{when}: events sealed", sealed / took, "/s"),
        (
            f"{when}: events sealed, per second of Polar's CPU",
            sealed / used.polar,
            "/s",
        ),
    ]


def verified() -> list[Row]:
    """Verify all, by wall and by CPU."""
    before, begun = cpu.now(), time.perf_counter()
    verdict = audit.verify()
    took, used = time.perf_counter() - begun, cpu.now() - before
    if not verdict.ok:
        raise SystemExit(f"the log does not verify: {verdict}")
    size = verdict.size
    both = used.polar + used.server
    return [
        (f"verified {size:,} events in", took, "s"),
        ("verified, per second of wall", size / took, "/s"),
        ("verified, per second of CPU, server's included", size / both, "/s"),
    ]


def _insert(count: int) -> None:
    """Write so many events of one kind, four to a trace, nothing sealed yet."""
    pattern = recording.write(_draft(), None, audit.epoch(), "")
    fields: list[Any] = [*Event._meta.local_concrete_fields]
    fixed = [
        field.get_db_prep_save(getattr(pattern, field.attname), connection)
        for field in fields
    ]
    places = {field.attname: at for at, field in enumerate(fields)}
    text = body.write(body.columns_of(pattern), {"agent": "primary", "steps": 1})
    rows = list(_rows(text, pattern, fixed, places, count))
    columns = ", ".join(connection.ops.quote_name(field.column) for field in fields)
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY audit_event ({columns}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            marks = ", ".join(["%s"] * len(fields))
            cursor.executemany(
                f"INSERT INTO audit_event ({columns}) VALUES ({marks})",  # noqa: S608
                rows,
            )


def _draft() -> recording.Draft:
    return recording.Draft(
        type="turn.answered",
        actor=SYSTEM,
        subject=("turn", uuid.uuid4().hex),
        workspace_id=uuid.uuid4(),
        run_id=None,
        trace_id="f" * 32,
        decision="answered",
        reason="",
        data={"agent": "primary", "steps": 1},
    )


def _rows(
    text: str, pattern: Event, fixed: list[Any], places: dict[str, int], count: int
) -> Iterator[list[Any]]:
    native = connection.features.has_native_uuid_field
    trace = ""
    for at in range(count):
        new = ids.new_id()
        if at % 4 == 0:
            trace = uuid.uuid4().hex
        said = text.replace(pattern.id.hex, new.hex).replace("f" * 32, trace)
        row = list(fixed)
        row[places["id"]] = new if native else new.hex
        row[places["trace_id"]] = trace
        row[places["body"]] = said
        row[places["digest"]] = merkle.leaf_hash(said.encode()).hex()
        yield row
