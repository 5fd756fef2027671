"""Browser sessions: begun at sign-in, listed, ended."""

from uuid import UUID

from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import QuerySet

from apps.access.models import SignIn, User
from apps.audit import services as audit
from apps.common import clock
from apps.common.errors import NotFound


@transaction.atomic
def open_session(
    *, user: User, session_key: str, address: str, browser: str, how: str = "password"
) -> SignIn:
    """Note a session that has just begun."""
    row = SignIn.objects.create(
        user=user,
        session_key=session_key,
        address=address[:45],
        browser=browser.replace("\0", "")[:200],
    )
    audit.record(
        type="access.signed_in",
        actor=user.principal.actor,
        subject=("user", str(user.id)),
        data={"address": row.address, "how": how},
    )
    return row


@transaction.atomic
def end_session(*, user: User, sign_in_id: UUID) -> None:
    """End one of a person's own sessions in every process. Again: does nothing."""
    row = SignIn.objects.filter(id=sign_in_id, user=user).first()
    if row is None:
        raise NotFound("There is no such session of yours.")
    if _close(SignIn.objects.filter(id=row.id)):
        audit.record(
            type="access.session_ended",
            actor=user.principal.actor,
            subject=("user", str(user.id)),
            data={"address": row.address},
        )


def close_all(*, user: User, but: str = "") -> int:
    """End a person's sessions, all but the one at hand."""
    return _close(SignIn.objects.filter(user=user).exclude(session_key=but))


def _close(rows: "QuerySet[SignIn]") -> int:
    open_rows = rows.filter(ended_at__isnull=True)
    keys = list(open_rows.values_list("session_key", flat=True))
    Session.objects.filter(session_key__in=keys).delete()
    return open_rows.update(ended_at=clock.now())
