"""One answer per `Idempotency-Key`: a repeat gets what the first was answered.

Invariants: a key belongs to a principal; the row is there before the work starts,
so a crash in between leaves an honest doubt and never a second effect. A write that
keeps its answer in its own transaction leaves no doubt: `hold_answer` lets one
request of a key through at a time, and after a crash the repeat does the work.
Source: draft-ietf-httpapi-idempotency-key-header-07
"""

from datetime import timedelta

from django.db import transaction
from django.utils.crypto import salted_hmac

from apps.access.models import KeyedAnswer, Principal
from apps.common import clock
from apps.common.errors import Conflict, FieldProblem, Invalid

#: A request may carry a password: what is kept of it cannot be guessed at without
#: the key of this install.
SALT = "polar.access.answers"
LONGEST_KEY = 200
KEPT_FOR = timedelta(hours=24)
#: How many answers that are over one write clears.
CLEARED = 50


def begin_answer(
    *, principal: Principal, key: str, request: bytes, held: bool = False
) -> tuple[KeyedAnswer, bool]:
    """Claim a key for one request, or find what it was answered.

    Shape: (row, is_first); with `held`, what is not answered counts as first, and
    the caller goes on with `hold_answer`.   Raises: Invalid for a key that cannot
    be one; Conflict when the key was used with another body, when the first request
    is still under way, or when its answer was shown once and not kept.
    """
    if not key.isprintable() or not 0 < len(key) <= LONGEST_KEY:
        problem = FieldProblem(
            "Idempotency-Key", "cannot be a key", f"1 to {LONGEST_KEY} characters"
        )
        raise Invalid("This Idempotency-Key cannot be one.", fields=(problem,))
    digest = salted_hmac(SALT, request, algorithm="sha256").hexdigest()
    now = clock.now()
    with transaction.atomic():
        over = KeyedAnswer.objects.filter(expires_at__lte=now).values("id")[:CLEARED]
        KeyedAnswer.objects.filter(
            id__in=list(over.values_list("id", flat=True))
        ).delete()
        KeyedAnswer.objects.filter(
            principal=principal, key=key, expires_at__lte=now
        ).delete()
        mine = KeyedAnswer(
            principal=principal,
            key=key,
            request_digest=digest,
            expires_at=now + KEPT_FOR,
        )
        KeyedAnswer.objects.bulk_create([mine], ignore_conflicts=True)
        found = KeyedAnswer.objects.get(principal=principal, key=key)
    if found.id == mine.id:
        return found, True
    if found.request_digest != digest:
        raise Conflict("This Idempotency-Key was used for another request.")
    if not found.status and held:
        return found, True
    if not found.status:
        raise Conflict(
            "The first request with this Idempotency-Key has not finished: look "
            "whether it took effect before you send it under a new key."
        )
    if not found.is_kept:
        raise Conflict("This was done; its answer was shown once and not kept.")
    return found, False


def hold_answer(*, row: KeyedAnswer) -> KeyedAnswer:
    """Hold a key until the transaction at hand ends; tell what it was answered.

    Shape: `status` 0 when the work is to be done, in this transaction.
    Raises: Conflict when the key was given back meanwhile.
    """
    held = KeyedAnswer.objects.select_for_update().filter(id=row.id).first()
    if held is None:
        raise Conflict("The same request was refused just now; send it again.")
    return held


def finish_answer(
    *, row: KeyedAnswer, status: int, content_type: str, body: str, is_kept: bool
) -> None:
    """Keep the answer for the repeat; a secret one is not kept."""
    KeyedAnswer.objects.filter(id=row.id, status=0).update(
        status=status,
        content_type=content_type[:100],
        body=body if is_kept else "",
        is_kept=is_kept,
    )


def release_answer(*, row: KeyedAnswer) -> None:
    """Give a key back: the request was refused before it could do anything."""
    KeyedAnswer.objects.filter(id=row.id, status=0).delete()
