"""Sealing: numbering events, growing the tree, then telling the witness.

1. Refuse a store that lacks what the journal or this process has seen.
2. In one transaction of its own, with the Head row locked: number up to `limit`
   events by insertion order, extend tiles and frontier.
3. After the commit: append the journal, fsync, sign a checkpoint when one is due.
A crash between 2 and 3 leaves the journal behind; the next seal refills it.
"""

import base64
from pathlib import Path
from typing import Any

from django.db import connection, transaction

from apps.audit.engine import keys, memory, merkle, recording, tiles, witness
from apps.audit.models import Checkpoint, Head
from apps.common import clock
from apps.common.errors import Invalid
from apps.common.failpoints import reach

#: What waits for a number, in the order in which it is numbered. SQLite would take the
#: index of the numbers for NULLs and sort all that wait for every batch.
_WAITING = (
    "SELECT id, digest FROM audit_event {index} WHERE gseq IS NULL ORDER BY id LIMIT %s"
)
_INDEX = {"sqlite": "INDEXED BY event_unsealed"}

CHECKPOINT_EVENTS = 100
CHECKPOINT_SECONDS = 10


def seal(limit: int) -> int:
    """Seal one batch and tell the witness. Returns the number of events sealed."""
    where = witness.folder()
    known = memory.known(where)
    memory.check(recording.ensure_head(), known)
    sealed = _number(limit)
    reach("audit.sealed")
    witness.catch_up(where)
    reach("audit.witnessed")
    head = Head.load()
    memory.remember(head)
    if _checkpoint_is_due(head):
        sign_checkpoint(where, head)
    return sealed


def sign_checkpoint(where: Path, head: Head) -> Checkpoint:
    """Sign the head and keep the note in the database and the witness."""
    note = note_for(head.size, head.root, head.epoch)
    row = Checkpoint(size=head.size, root=head.root, epoch=head.epoch, note=note)
    row.save(force_insert=True)
    witness.keep_note(where, head.size, note)
    return row


def note_for(size: int, root: str, epoch: str) -> str:
    """Write a signed C2SP tlog-checkpoint. The origin names key and epoch.

    Source: https://c2sp.org/tlog-checkpoint
    """
    signer = keys.signer()
    encoded = base64.b64encode(bytes.fromhex(root)).decode()
    return signer.note(f"{origin(epoch)}\n{size}\n{encoded}\n")


def origin(epoch: str) -> str:
    """An accepted recovery forks the tree, so each epoch is a log of its own."""
    return f"{keys.signer().name}/{epoch}"


def read_checkpoint(text: str) -> tuple[int, bytes, str]:
    """Shape: (size, root, origin). Raises: Invalid."""
    try:
        origin_line, size, root, *_ = text.split("\n")
        return int(size), base64.b64decode(root, validate=True), origin_line
    except ValueError as error:
        raise Invalid("This is not a checkpoint") from error


def begin_epoch() -> tuple[Head, str]:
    """Give the store a new epoch from its present size on.

    Shape: the head and the epoch before.
    """
    recording.ensure_head()
    head = Head.objects.select_for_update().get(id=1)
    before = head.epoch
    head.epoch = recording.new_epoch()
    head.epoch_size = head.size
    head.save(update_fields=["epoch", "epoch_size"])
    return head, before


def _number(limit: int) -> int:
    with transaction.atomic(durable=True):
        head = Head.objects.select_for_update().get(id=1)
        rows = _waiting(limit)
        if not rows:
            return 0
        _write_numbers([row[0] for row in rows], head.size)
        _grow(head, [bytes.fromhex(row[1]) for row in rows])
        reach("audit.seal.before_commit")
    return len(rows)


def _waiting(limit: int) -> list[tuple[Any, str]]:
    """Shape: (id as the database gives it, digest), oldest first."""
    with connection.cursor() as cursor:
        index = _INDEX.get(connection.vendor, "")
        cursor.execute(_WAITING.format(index=index), [limit])
        return list(cursor.fetchall())


def _grow(head: Head, leaves: list[bytes]) -> None:
    old = head.size
    edge = frontier(head)
    for level, nodes in edge.extend(leaves):
        if level % tiles.HEIGHT == 0:
            tiles.append(level // tiles.HEIGHT, old >> level, nodes)
    head.size = edge.size
    head.root = edge.root().hex()
    head.frontier = b"".join(edge.hashes())
    head.save(update_fields=["size", "root", "frontier"])


def frontier(head: Head) -> merkle.Frontier:
    text = bytes(head.frontier)
    hashes = [text[at : at + 32] for at in range(0, len(text), 32)]
    return merkle.Frontier(head.size, hashes)


def _write_numbers(ids: list[Any], first: int) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "UPDATE audit_event SET gseq = given.gseq"
                " FROM unnest(%s::uuid[], %s::bigint[]) AS given(id, gseq)"
                " WHERE audit_event.id = given.id",
                [ids, list(range(first, first + len(ids)))],
            )
        else:
            cursor.executemany(
                "UPDATE audit_event SET gseq = %s WHERE id = %s",
                list(enumerate(ids, start=first)),
            )
        assert cursor.rowcount == len(ids), "an event vanished while being sealed"


def _checkpoint_is_due(head: Head) -> bool:
    latest = Checkpoint.objects.order_by("-size", "-id").first()
    if latest is None:
        return head.size > 0
    fresh = head.size - latest.size
    if latest.epoch != head.epoch:
        return True
    age = (clock.now() - latest.created_at).total_seconds()
    return fresh >= CHECKPOINT_EVENTS or (fresh > 0 and age >= CHECKPOINT_SECONDS)
