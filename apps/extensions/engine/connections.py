"""The tokens of connected MCP servers: given for one call, renewed by one worker.

Hides: who renews. Invariants: a token lies only in the vault and leaves it by a
lease; it is for one URL; two workers never spend one refresh token, because the
right to renew is a conditional UPDATE on the version that both read; what ends a
connection is written with its event.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import SYSTEM, Actor
from apps.extensions import ports
from apps.extensions.errors import (
    AuthorizationRefused,
    AuthorizationWanted,
    ToolMisconfigured,
    ToolTransientError,
)
from apps.extensions.models import (
    LINK_TRANSITIONS,
    Connection,
    ConnectionAsk,
    Extension,
    Link,
)
from apps.gateway.ports import Json
from apps.vault import queries as vault_queries
from apps.vault import services as vault

#: What the vault keeps these secrets for.
PURPOSE = "oauth of an extension"
#: `verifier` and `asked` (a client's secret) belong to an ask that is under way.
KINDS = ("access", "refresh", "client", "verifier", "asked")
#: A token is renewed so long before it ends. Units: seconds.
EARLY_SECONDS = 60
#: Longer than a renewal can take; then somebody else may try. Units: seconds.
RENEWAL_SECONDS = 60
LOOK_SECONDS = 0.2
RECONNECT = "An administrator connects it again on its page."


def is_used(row: Extension) -> bool:
    """Tell whether a call of this extension opens the token of a connection."""
    return row.connections.filter(status=Link.CONNECTED).exists()


def bearer_of(row: Extension, part: str, url: str) -> "ConnectedBearer | None":
    """Find who gives the token for exactly this URL; None where nobody does."""
    used = (Link.CONNECTED, Link.EXPIRED)
    found = row.connections.filter(part=part, server_url=url, status__in=used).first()
    return None if found is None else ConnectedBearer(found.id, row.ext_id)


class ConnectedBearer:
    """Gives one call its token; see `ports.Bearer`."""

    def __init__(self, connection_id: UUID, ext_id: str) -> None:
        self._id, self._ext_id = connection_id, ext_id
        self._given = 0

    def lease(
        self, held: ExitStack, purpose: str, context: ports.ToolContext | None
    ) -> str:
        row = self._fresh()
        self._given = row.version
        secret = vault_queries.find_secret(row.secret_name("access"))
        if secret is None:
            raise self._ended(row)
        leased = vault.lease(
            secret.id,
            purpose=f"tool {purpose}"[:120],
            by=context.principal.actor if context else SYSTEM,
            run_id=context.run_id if context else None,
        )
        return held.enter_context(leased).reveal()

    def refused(self) -> None:
        row = _get(self._id)
        if row.version == self._given:
            self._renew(row, why="its server refused the token")

    def _fresh(self) -> Connection:
        row = _get(self._id)
        if row.status != Link.CONNECTED:
            raise self._ended(row)
        left = _seconds_left(row)
        if left is None or left > EARLY_SECONDS:
            return row
        try:
            return self._renew(row, why="its time ended")
        except ToolTransientError:
            if left <= 0:
                raise
            return row  # what we have is still good

    def _renew(self, row: Connection, *, why: str) -> Connection:
        """Have one worker renew; the others wait for what it brings."""
        if not row.has_refresh:
            raise self._expire(row, f"{why}, and nothing can renew it")
        deadline = clock.monotonic() + RENEWAL_SECONDS
        version = row.version
        while clock.monotonic() < deadline:
            until = _claim(row)
            if until is not None:
                return self._renew_alone(row, until)
            clock.sleep(LOOK_SECONDS)
            row = _get(self._id)
            if row.status != Link.CONNECTED:
                raise self._ended(row)
            if row.version != version:
                return row
        raise ToolTransientError(f"The token of {self._ext_id} is being renewed.")

    def _renew_alone(self, row: Connection, until: datetime) -> Connection:
        speaks = authorizer()
        try:
            with leased(row, "refresh", SYSTEM) as token, as_peer(row) as peer:
                tokens = speaks.refresh(peer, token)
                if keep_renewed(row, until, tokens):
                    return _get(self._id)
                if peer.authority.revocation_endpoint:
                    speaks.revoke(peer, tokens.access, "access_token")
        except AuthorizationRefused as error:
            raise self._expire(row, f"renewing it was refused: {error.error}") from None
        finally:
            _give_back(row, until)
        raise ToolTransientError(f"{self._ext_id} was disconnected meanwhile.")

    def _expire(self, row: Connection, why: str) -> AuthorizationWanted:
        expire(row, why)
        return self._ended(_get(row.id))

    def _ended(self, row: Connection) -> AuthorizationWanted:
        return AuthorizationWanted(
            f"The authorization of {self._ext_id} is {row.status}: "
            f"{row.problem or 'there is no token.'} {RECONNECT}",
            link=row.status,
        )


def url_of(row: Extension, part: str) -> str:
    """Return the URL of an MCP server that is a part of it, or ""."""
    for each in row.parts:
        if each["name"] == part and each["transport"] == ports.Transport.HTTP:
            return str(each["url"])
    return ""


@transaction.atomic
def note_wanted(row: Extension, part: str, wanted: AuthorizationWanted) -> None:
    """Remember that a server asks for an authorization, for an administrator.

    Writes: Connection; its event when that is news.
    """
    url = url_of(row, part)
    if wanted.challenge is None or not url:
        return
    found, is_new = Connection.objects.get_or_create(
        extension=row, part=part, defaults={"server_url": url}
    )
    changes: Json = {"challenge": wanted.challenge}
    if found.status in (Link.DISCONNECTED, Link.FAILED):
        LINK_TRANSITIONS.check(found.status, Link.WANTED)
        changes |= {"status": Link.WANTED, "problem": ""}
    elif found.status == Link.CONNECTED:
        changes["problem"] = _why_not_enough(found, url)
    is_news = is_new or any(getattr(found, k) != v for k, v in changes.items())
    if is_news:
        same = Connection.objects.filter(id=found.id, status=found.status)
        same.update(**changes)
        facts = {"scope": wanted.challenge.get("scope", "")}
        record(found, SYSTEM, "connection_wanted", data=facts)


def _why_not_enough(row: Connection, url: str) -> str:
    if row.server_url != url:
        return "It was connected under another URL; connect it again."
    return "Its server wants more than was allowed; connect it again."


def authorizer() -> ports.Authorizer:
    """The one that is plugged in. Raises: ToolMisconfigured without any."""
    for make in ports.authorizers.all():
        return make()
    raise ToolMisconfigured("Nothing here speaks OAuth.")


@contextmanager
def leased(row: Connection, kind: str, by: Actor) -> Iterator[str]:
    """Lease one of its secrets. Raises: ToolMisconfigured without it."""
    secret = vault_queries.find_secret(row.secret_name(kind))
    if secret is None:
        raise ToolMisconfigured(f"There is no {kind} secret of this connection.")
    with vault.lease(secret.id, purpose=f"oauth {kind}", by=by) as plain:
        yield plain.reveal()


@contextmanager
def as_peer(
    row: Connection | ConnectionAsk, by: Actor = SYSTEM
) -> Iterator[ports.Peer]:
    """Its authorization server, and Polar's own secret there while it is spoken to.

    An ask holds what was found when it was made; a connection, what it was made with.
    """
    owner = row if isinstance(row, Connection) else row.connection
    with ExitStack() as held:
        client_secret = ""
        if row.auth_method in ("client_secret_basic", "client_secret_post"):
            kind = "client" if owner is row else "asked"
            client_secret = held.enter_context(leased(owner, kind, by))
        yield ports.Peer(
            authority=ports.Authority(**row.authority),
            client=ports.Registration(
                client_id=row.client_id,
                client_secret=client_secret,
                auth_method=row.auth_method,
            ),
            **reach_of(owner.extension),
        )


def reach_of(extension: Extension) -> Json:
    """How far its authorization server may lead. Shape: of `ports.Peer`."""
    grants = extension.grants or {}
    return {
        "local": frozenset(grants.get("local") or ()),
        "domains": tuple(grants.get("domains") or ()),
    }


def authority_json(authority: ports.Authority) -> Json:
    return asdict(authority)


def put_secret(row: Connection, kind: str, value: str, by: Actor) -> None:
    """Keep one of its secrets, replacing the earlier one."""
    vault.put(by=by, name=row.secret_name(kind), purpose=PURPOSE, value=value)


def drop_secrets(row: Connection, by: Actor, *kinds: str) -> None:
    """Forget its secrets for good. Again: does nothing."""
    for kind in kinds or KINDS:
        secret = vault_queries.find_secret(row.secret_name(kind))
        if secret is not None:
            vault.delete(by=by, secret_id=secret.id, reason="connection ended")


def ends_at(tokens: ports.Tokens) -> datetime | None:
    """When a token ends, as far as its issuer said. Shape: None means unknown."""
    if tokens.expires_in is None:
        return None
    return clock.now() + timedelta(seconds=min(max(tokens.expires_in, 0), 31_536_000))


@transaction.atomic
def keep_renewed(row: Connection, until: datetime, tokens: ports.Tokens) -> bool:
    """Keep what a renewal brought; False when it was disconnected meanwhile."""
    held = Connection.objects.filter(
        id=row.id, version=row.version, status=Link.CONNECTED, renewing_until=until
    )
    written = held.update(
        version=row.version + 1,
        expires_at=ends_at(tokens),
        renewing_until=None,
        scope=tokens.scope or row.scope,
        problem="",
    )
    if not written:
        return False
    put_secret(row, "access", tokens.access, SYSTEM)
    if tokens.refresh:
        put_secret(row, "refresh", tokens.refresh, SYSTEM)
    record(row, SYSTEM, "token_refreshed", data={"version": row.version + 1})
    return True


@transaction.atomic
def expire(row: Connection, why: str) -> None:
    """End a connection that nothing renews; an operator is wanted.

    Writes: status, event; its tokens are forgotten. Again: does nothing.
    """
    LINK_TRANSITIONS.check(Link.CONNECTED, Link.EXPIRED)
    held = Connection.objects.filter(
        id=row.id, version=row.version, status=Link.CONNECTED
    )
    ended = held.update(
        status=Link.EXPIRED, problem=f"{why}."[:300], renewing_until=None
    )
    if ended:
        drop_secrets(row, SYSTEM, "access", "refresh")
        record(row, SYSTEM, "connection_expired", reason=why)


def record(
    row: Connection, by: Actor, verb: str, *, data: Json | None = None, reason: str = ""
) -> None:
    """Leave the event of a connection; no secret is ever among its facts."""
    audit.record(
        type=f"extension.{verb}",
        actor=by,
        subject=("extension", str(row.extension_id)),
        reason=reason[:300],
        data={
            "extension_id": row.extension.ext_id,
            "part": row.part,
            "issuer": row.authority.get("issuer", ""),
            **(data or {}),
        },
    )


def _get(connection_id: UUID) -> Connection:
    return Connection.objects.select_related("extension").get(id=connection_id)


def _seconds_left(row: Connection) -> float | None:
    if row.expires_at is None:
        return None
    return (row.expires_at - clock.now()).total_seconds()


def _claim(row: Connection) -> datetime | None:
    """Take the right to renew just this version, or None: somebody has it."""
    now = clock.now()
    until = now + timedelta(seconds=RENEWAL_SECONDS)
    free = Connection.objects.filter(
        Q(renewing_until=None) | Q(renewing_until__lte=now),
        id=row.id,
        version=row.version,
        status=Link.CONNECTED,
    )
    return until if free.update(renewing_until=until) == 1 else None


def _give_back(row: Connection, until: datetime) -> None:
    held = Connection.objects.filter(id=row.id, renewing_until=until)
    held.update(renewing_until=None)
