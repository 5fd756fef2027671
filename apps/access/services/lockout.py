"""Ten wrong answers in a minute close a door for five, for that account and address.

The count lies in the database, so all processes share it, and a name that nobody
bears is counted like any other: an answer tells nothing about who exists.
"""

import hashlib
from datetime import timedelta

from django.db import transaction
from django.db.models import F, Q

from apps.access.models import Lockout
from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import Actor
from apps.common.errors import RateLimited

MOST_FAILURES = 10
WINDOW = timedelta(seconds=60)
CLOSED_FOR = timedelta(minutes=5)
#: Rows older than this say nothing any more.
KEPT_FOR = timedelta(hours=1)


def check_open(door: str, account: str, address: str) -> None:
    """Refuse while the door is closed. Raises: RateLimited."""
    now = clock.now()
    row = Lockout.objects.filter(
        key=_key(door, account, address), locked_until__gt=now
    ).first()
    if row is not None and row.locked_until is not None:
        left = int((row.locked_until - now).total_seconds()) + 1
        raise RateLimited(
            f"Too many wrong answers: try again in {left} seconds.",
            retry_after_seconds=left,
        )


@transaction.atomic
def note_failure(door: str, account: str, address: str) -> None:
    """Count one wrong answer; the tenth in a minute closes the door.

    Writes: Lockout by conditional UPDATE; `access.locked` once per closing.
    """
    now = clock.now()
    key = _key(door, account, address)
    Lockout.objects.filter(since__lt=now - KEPT_FOR).delete()
    Lockout.objects.bulk_create([Lockout(key=key, since=now)], ignore_conflicts=True)
    rows = Lockout.objects.filter(key=key)
    rows.filter(since__lt=now - WINDOW).update(failures=0, since=now)
    rows.update(failures=F("failures") + 1)
    closing = rows.filter(
        Q(locked_until__isnull=True) | Q(locked_until__lte=now),
        failures__gte=MOST_FAILURES,
    )
    if closing.update(locked_until=now + CLOSED_FOR, failures=0, since=now):
        audit.record(
            type="access.locked",
            actor=Actor("system", "access", "polar"),
            subject=("door", door),
            data={"address": address, "account": key[:16]},
        )


def note_success(door: str, account: str, address: str) -> None:
    """Forget the wrong answers of this door; other doors keep theirs."""
    Lockout.objects.filter(key=_key(door, account, address)).delete()


def _key(door: str, account: str, address: str) -> str:
    parts = "\0".join((door, account.casefold(), address))
    return hashlib.sha256(b"polar-lockout\0" + parts.encode()).hexdigest()
