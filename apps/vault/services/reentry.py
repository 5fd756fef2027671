"""What must be entered again, by whom it is used, and whether it is good.

The checklist is the rows themselves: lost, unreadable, entered, tried out. Only the
place that uses a secret can say whether it is the right one; it plugs that in.
"""

import re
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import Actor
from apps.common.errors import Conflict, FieldProblem, Invalid
from apps.vault import ports
from apps.vault.models import Secret
from apps.vault.queries import find_secret, get_secret
from apps.vault.services.secrets import delete, put

MISSING, REFUSED, ENTERED, GREEN = "missing", "refused", "entered", "ok"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,119}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the checklist."""

    id: UUID
    name: str
    purpose: str
    fingerprint: str
    used_by: str
    page: str
    command: str
    state: str
    problem: str
    is_testable: bool
    instead: str


def checklist(*, everything: bool = False) -> list[Entry]:
    """List what is lost or unreadable, and what was entered since. Reads only.

    `everything` lists every secret: after a leak each is changed where it was
    issued.
    """
    rows = Secret.objects.order_by("name", "pk")
    if not everything:
        rows = rows.filter(Q(lost_at__isnull=False) | ~Q(unreadable_since=None))
    return [_entry(secret) for secret in rows.iterator(chunk_size=500)]


def reenter(*, by: Actor, secret_id: UUID, value: str) -> Entry:
    """Store a lost secret anew, in its own row, and try it out.

    Raises: NotFound, VaultSealed, Invalid; Conflict for one that nobody can type.
    Again: tries it out again.
    """
    row = get_secret(secret_id)
    if instead := ports.place_of(row.purpose, row.pk).instead:
        raise Conflict(f"{row.name} is not typed. {instead}")
    put(
        by=by,
        name=row.name,
        purpose=row.purpose,
        value=value,
        workspace_id=row.workspace_id,
    )
    return retest(by=by, secret_id=secret_id)


def store_secret(*, by: Actor, name: str, value: str) -> Entry:
    """Store what an extension is given, under the name that its grants say.

    Raises: VaultSealed; Invalid; Conflict for a name that something else owns.
    Again: the value that was stored last counts.
    """
    if not NAME.fullmatch(name):
        problem = FieldProblem("name", "cannot be a name", "such as orders/token")
        raise Invalid("This secret cannot be stored.", fields=(problem,))
    before = find_secret(name)
    if before is not None and before.purpose != ports.FOR_EXTENSIONS:
        owner = ports.place_of(before.purpose, before.pk).used_by
        raise Conflict(f"{name} belongs to {owner}; change it there.")
    row = put(by=by, name=name, purpose=ports.FOR_EXTENSIONS, value=value)
    return _entry(get_secret(row.pk))


def retest(*, by: Actor, secret_id: UUID) -> Entry:
    """Ask the place that uses a secret whether it is good, and note what it said.

    The asking may go outside, so no transaction is open meanwhile; a value stored
    meanwhile keeps its own verdict.
    """
    row = get_secret(secret_id)
    test = ports.place_of(row.purpose, row.pk).test
    if test is None or row.unreadable_since is not None:
        return _entry(row)
    said = test()
    with transaction.atomic():
        mine = Secret.objects.filter(pk=row.pk, ciphertext=row.ciphertext)
        problem = "" if said.ok else (said.problem or "refused")[:300]
        if mine.update(checked_at=clock.now(), check_problem=problem):
            audit.record(
                type="vault.reentry_checked",
                actor=by,
                subject=("secret", str(row.pk)),
                reason=problem,
                data={"name": row.name, "ok": said.ok},
            )
    return _entry(get_secret(secret_id))


def retest_entered(*, by: Actor) -> list[Entry]:
    """Try out all that was entered by another door, such as a provider's page.

    Returns the checklist as it is then.   Again: tries what is still not good.
    """
    for entry in checklist():
        if entry.state in (ENTERED, REFUSED):
            retest(by=by, secret_id=entry.id)
    return checklist()


def forget(*, by: Actor, secret_id: UUID, reason: str) -> None:
    """Remove a secret that nothing needs any more. Raises: NotFound, Conflict."""
    delete(by=by, secret_id=secret_id, reason=reason)


def _entry(secret: Secret) -> Entry:
    place = ports.place_of(secret.purpose, secret.pk)
    return Entry(
        id=secret.pk,
        name=secret.name,
        purpose=secret.purpose,
        fingerprint=secret.fingerprint,
        used_by=place.used_by,
        page=place.page,
        command=place.command or f"./polar vault recover --enter {secret.name}",
        state=_state(secret, is_testable=place.test is not None),
        problem=secret.check_problem,
        is_testable=place.test is not None,
        instead=place.instead,
    )


def _state(secret: Secret, *, is_testable: bool) -> str:
    if secret.unreadable_since is not None:
        return MISSING
    if secret.check_problem:
        return REFUSED
    return GREEN if secret.checked_at is not None or not is_testable else ENTERED
