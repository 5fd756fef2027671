"""What a vendor sends by HTTP: proved, read, and kept before it is answered.

Order: age, signature, depth, shape. A plain message is taken in at once, so that
the order of arrival holds; a file or a pressed button is carried by a run, because
whoever sent it waits three seconds for our answer and no longer.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import transaction

from apps.access import services as access
from apps.audit import services as audit
from apps.channels.engine import door, intake, outbox, reading
from apps.channels.errors import AccountPaused, Forged, Malformed
from apps.channels.models import Account, AccountState
from apps.channels.ports import Hook, Json, Line, Update, hooks
from apps.common import clock
from apps.common.errors import NotFound, PolarError
from apps.runs import services as runs

HEAR_KIND: Final = "channels.hear"
#: That an event came is proof of hearing; it is written down so often.
NOTED_EVERY: Final = timedelta(seconds=5)
#: A flood of forgeries leaves one event in so long. Units: seconds.
ONE_EVENT_EVERY: Final = 10.0


@dataclass(frozen=True, slots=True)
class Refusals:
    """Counts what was refused, so that a flood cannot fill the log."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    #: Shape: by account, the count since the last event and when that was.
    seen: dict[str, tuple[int, float]] = field(default_factory=dict)

    def add(self, account: str) -> int:
        """Return how many to write down now; 0 is none yet."""
        now = clock.monotonic()
        with self.lock:
            count, told = self.seen.get(account, (0, -ONE_EVENT_EVERY))
            if now - told < ONE_EVENT_EVERY:
                self.seen[account] = (count + 1, told)
                return 0
            self.seen[account] = (0, now)
            return count + 1


_refusals = Refusals()


def take_for(
    *, account_id: UUID, kind: str, headers: Mapping[str, str], body: bytes
) -> Json:
    """Keep what a vendor sent by HTTP; return what to answer.

    Raises: NotFound, AccountPaused; as `take`.
    """
    account = Account.objects.select_related("workspace").filter(
        id=account_id, kind=kind, secret__isnull=False
    )
    found = account.first()
    if found is None:
        raise NotFound("There is no such account.")
    if found.state != AccountState.ACTIVE:
        raise AccountPaused()
    said = take(found, headers, body)
    now = clock.now()
    is_fresh = found.heard_at is not None and now - found.heard_at < NOTED_EVERY
    if not is_fresh or found.trouble or found.refused_at is not None:
        Account.objects.filter(id=found.id).update(
            heard_at=now, trouble="", refused_at=None
        )
    return said


def take(account: Account, headers: Mapping[str, str], body: bytes) -> Json:
    """Prove, read and keep what a vendor sent; return what to answer.

    Raises: Forged, Malformed; what passes, such as QueueFull: then it comes again.
    Again: the first time counts, whatever a retry's header says.
    """
    hook = hooks.find(account.kind)
    if hook is None:
        raise NotFound()
    try:
        hook.check_age(headers)
        # One lease for the proof and the reading: whoever sent it waits.
        with outbox.line_of(account, "prove and read an event") as line:
            raw = _proved(hook, line, headers, body)
            if raw.get("type") == "url_verification":
                return {"challenge": str(raw.get("challenge", ""))[:200]}
            update = _read(hook, raw, line)
    except (Forged, Malformed) as error:
        _note(account, error)
        raise
    if update is None:
        return {}
    if intake.is_kept(account, update):
        return {}
    if not (update.action or update.envelope.attachments):
        intake.keep(account, update)
        return {}
    try:
        _carry_later(account, raw)
    except intake.UNREADABLE as error:
        intake.set_aside(account, update, f"{type(error).__name__}: {error}")
    return {}


def _proved(hook: Hook, line: Line, headers: Mapping[str, str], body: bytes) -> Json:
    hook.verify(line, headers, body)
    kind = {name.lower(): value for name, value in headers.items()}
    if "form" not in kind.get("content-type", ""):
        return door.parse_json(body)
    form = door.parse_form(body)
    if "payload" in form:
        return door.parse_json(form["payload"].encode())
    return dict(form)


def _read(hook: Hook, raw: Json, line: Line) -> Update | None:
    try:
        return hook.read(raw, line)
    except ValueError as error:
        raise Malformed(f"This has no shape that we know: {error}.") from error


@transaction.atomic
def _carry_later(account: Account, raw: Json) -> None:
    runs.enqueue(
        kind=HEAR_KIND,
        payload={"account_id": str(account.id), "raw": reading.plain_all(raw)},
        principal=access.system_principal(),
        workspace=account.workspace,
        trigger="event",
        priority=1,
    )


def read_again(account: Account, raw: Json, line: Line) -> Update | None:
    """Read what was proved when it came."""
    hook = hooks.find(account.kind)
    return hook.read(raw, line) if hook is not None else None


@transaction.atomic
def _note(account: Account, error: PolarError) -> None:
    count = _refusals.add(str(account.id))
    if count:
        audit.record(
            type="channel.refused",
            actor=access.system_principal().actor,
            subject=("channel", str(account.id)),
            workspace_id=account.workspace_id,
            reason=error.detail[:300],
            data={"code": error.code, "times": count},
        )
