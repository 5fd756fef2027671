"""Signing on at an identity provider: who comes back, and what they may here.

Invariants: nobody enters whom the mapping gives no role, and nobody has more than it
gives; a person is their subject at their issuer, never a name or an e-mail address;
who was sent away here stays away; what was refused is recorded, and a person to whom
nothing is given any more loses role, sessions and tokens in the same transaction.
"""

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction

from apps.access import ports, queries
from apps.access.errors import SignOnRefused
from apps.access.models import ROLE_ORDER, ExternalIdentity, User
from apps.access.services import (
    lockout,
    people,
    principal_for_user,
    system_principal,
)
from apps.access.services.pace import Pace
from apps.audit import services as audit
from apps.common.actor import Actor
from apps.common.errors import Conflict, NotFound, RateLimited

DOOR = "single sign-on"
#: How many sign-ons an address may begin, and how many roles a claim may name.
BEGUN_PER_MINUTE, MOST_VALUES = 60, 1000
#: Units: random bytes; characters.
RANDOM_BYTES, LONGEST_NAME = 32, 120
NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9.@+_-]+")
ACTOR = Actor("system", "access", "polar")

_pace = Pace()


def begin(*, redirect_uri: str, address: str) -> tuple[ports.Trip, str]:
    """Prepare one way to the issuer and back; returns it and where the browser goes.

    Raises: NotFound when nothing is set up; RateLimited; SignOnAway.
    """
    setup = _setup()
    left = _pace.seconds_early(address, BEGUN_PER_MINUTE)
    if left:
        raise RateLimited(
            f"Too many sign-ons: try again in {left} seconds.", retry_after_seconds=left
        )
    trip = ports.Trip(
        state=secrets.token_urlsafe(RANDOM_BYTES),
        nonce=secrets.token_urlsafe(RANDOM_BYTES),
        verifier=secrets.token_urlsafe(RANDOM_BYTES),
        redirect_uri=redirect_uri,
    )
    return trip, ports.issuer().address(setup, trip)


def finish(*, trip: ports.Trip | None, answer: Mapping[str, str], address: str) -> User:
    """Let in whoever came back, when the issuer vouches and the mapping gives a role.

    `trip`: the one that was begun in this browser with the state that came back.
    Raises: SignOnRefused; SignOnAway; RateLimited once this address failed too often,
    while a right sign-on still enters.
    """
    setup = _setup()
    try:
        vouched = _vouched(setup, trip, answer)
    except SignOnRefused as error:
        lockout.check_open(DOOR, "", address)
        lockout.note_failure(DOOR, "", address)
        _refused(setup, error.reason, address)
        raise
    return _admit(setup, vouched, address)


def role_of_claims(setup: ports.SignOn, claims: Mapping[str, Any]) -> str:
    """Return the highest role that the mapping gives these claims, or ""."""
    given = {setup.roles[each] for each in _values(setup, claims) & set(setup.roles)}
    return next((str(each) for each in reversed(ROLE_ORDER) if each in given), "")


def _setup() -> ports.SignOn:
    setup = queries.sign_on()
    if setup is None:
        raise NotFound("Single sign-on is not set up here.")
    return setup


def _vouched(
    setup: ports.SignOn, trip: ports.Trip | None, answer: Mapping[str, str]
) -> ports.Vouched:
    if trip is None:
        raise SignOnRefused(reason="no such sign-on was begun in this browser")
    if "error" in answer or not answer.get("code"):
        raise SignOnRefused(reason="the issuer sent no code")
    return ports.issuer().redeem(setup, trip, answer)


def _admit(setup: ports.SignOn, vouched: ports.Vouched, address: str) -> User:
    """Find or make the person. A race for the same row is tried once more."""
    claims = vouched.claims
    role, why = role_of_claims(setup, claims), "the mapping gives no role"
    if not _domain_is_allowed(setup, claims):
        role, why = "", "the e-mail address is not verified or of another domain"
    for is_last in (False, True):
        try:
            with transaction.atomic():
                user, why = _enter(setup, vouched, role, why)
                if why:
                    _refused(setup, why, address, user)
            break
        except IntegrityError:
            if is_last:
                raise
    if why or user is None:
        raise SignOnRefused(reason=why)
    return user


def _enter(
    setup: ports.SignOn, vouched: ports.Vouched, role: str, why: str
) -> tuple[User | None, str]:
    """Make the rows say what the issuer says. Shape: (person, why they stay out)."""
    known = (
        ExternalIdentity.objects.select_for_update(of=("self",))
        .filter(issuer=setup.issuer, subject=vouched.subject)
        .select_related("user")
        .first()
    )
    if known is None:
        return (_create(setup, vouched, role), "") if role else (None, why)
    user, home = known.user, queries.default_workspace()
    if not user.is_active:
        return user, "the person was sent away"
    try:
        people.give_role(
            by=system_principal(), user=user, role=role, workspace=home, reason=DOOR
        )
    except Conflict:
        # The row stays, so that there is an administrator; nothing of it works.
        role, why = "", "the last administrator is given less"
    if not role:
        people.end_every_way_in(user=user)
        return user, why
    return user, ""


def _create(setup: ports.SignOn, vouched: ports.Vouched, role: str) -> User:
    user = User.objects.create_user(
        username=_free_name(setup, vouched), password=None, is_staff=True
    )
    principal_for_user(user=user)
    ExternalIdentity.objects.create(
        user=user, issuer=setup.issuer, subject=vouched.subject
    )
    home = queries.default_workspace()
    audit.record(
        type="user.created",
        actor=ACTOR,
        subject=("user", str(user.id)),
        reason=DOOR,
        workspace_id=home.id,
        data={
            "username": user.username,
            "role": role,
            "issuer": setup.issuer,
            "subject": vouched.subject,
        },
    )
    people.give_role(
        by=system_principal(), user=user, role=role, workspace=home, reason=DOOR
    )
    user.refresh_from_db()
    return user


def _free_name(setup: ports.SignOn, vouched: ports.Vouched) -> str:
    """Name a person in letters that nobody can mistake, and like nobody else here."""
    claims = vouched.claims
    wished = claims.get("preferred_username") or _email(claims)
    text = unicodedata.normalize("NFKC", wished) if isinstance(wished, str) else ""
    name = text if not NOT_IN_A_NAME.search(text) else ""
    mark = hashlib.sha256(f"{setup.issuer}\0{vouched.subject}".encode()).hexdigest()[:8]
    if not 0 < len(name) <= LONGEST_NAME:
        return f"sign-on-{mark}"
    is_taken = User.objects.filter(username__iexact=name).exists()
    return f"{name}-{mark}" if is_taken else name


def _values(setup: ports.SignOn, claims: Mapping[str, Any]) -> set[str]:
    """Return the texts that the claim of the mapping holds, each whole.

    The claim is named as it stands, or by a path with dots. An e-mail address counts
    only once the issuer has verified it.
    """
    name = setup.role_claim
    found: Any = claims.get(name)
    if name == "email":
        found = _email(claims)
    elif found is None:
        found = claims
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    held = found if isinstance(found, list) else [found]
    return {each for each in held[:MOST_VALUES] if isinstance(each, str) and each}


def _email(claims: Mapping[str, Any]) -> str:
    """Return the address that the issuer has verified, or ""."""
    email = claims.get("email")
    if claims.get("email_verified") is not True or not isinstance(email, str):
        return ""
    return email


def _domain_is_allowed(setup: ports.SignOn, claims: Mapping[str, Any]) -> bool:
    if not setup.domains:
        return True
    _, at, domain = _email(claims).rpartition("@")
    return bool(at) and domain.casefold() in setup.domains


@transaction.atomic
def _refused(
    setup: ports.SignOn, why: str, address: str, user: User | None = None
) -> None:
    audit.record(
        type="access.refused",
        actor=ACTOR,
        subject=("user", str(user.id)) if user else ("door", DOOR),
        reason=why,
        data={"address": address, "issuer": setup.issuer},
    )
