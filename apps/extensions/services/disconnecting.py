"""Ending a connection: forgotten here at once, then revoked where it was made."""

from contextlib import ExitStack, suppress
from uuid import UUID

from django.db import transaction
from django.db.models import F

from apps.access.models import Principal, Role
from apps.common.errors import Conflict, PolarError
from apps.extensions import ports
from apps.extensions.engine import connections
from apps.extensions.errors import ToolMisconfigured
from apps.extensions.models import LINK_TRANSITIONS, Connection, Extension, Link
from apps.extensions.queries import get_extension
from apps.gateway.ports import Json

from .connecting import Connected
from .guarded import check_may, check_reason, decide


def disconnect_extension(
    *, by: Principal, extension_id: UUID, reason: str, part: str = ""
) -> Connected:
    """Forget the tokens of a server, and have its authorization server end them.

    Writes: status, event; the secrets are deleted first, so that nothing is sent
    from then on; a second event says whether they were revoked there.
    Raises: RoleRequired below admin; Conflict when there is nothing to end.
    """
    check_may(by, Role.ADMIN)
    check_reason(reason)
    row = get_extension(extension_id)
    connection = row.connections.filter(part=part).select_related("extension").first()
    if connection is None:
        raise Conflict(f"{row.ext_id} is not connected.")
    LINK_TRANSITIONS.check(connection.status, Link.DISCONNECTED)
    return Connected(extension=row, problem=_decide_end(by, connection, reason))


def disconnect_all(*, by: Principal, row: Extension, reason: str) -> None:
    """End every connection of an extension that goes; the caller asked who may."""
    ended = LINK_TRANSITIONS.sources(Link.DISCONNECTED)
    for connection in row.connections.filter(status__in=ended):
        _decide_end(by, connection, reason)


def _decide_end(by: Principal, connection: Connection, reason: str) -> str:
    row, problems = connection.extension, list[str]()

    def end() -> Extension:
        problems.append(_end(connection, by, reason))
        return row

    arguments = {
        "extensionId": row.ext_id,
        "part": connection.part,
        "reason": reason,
    }
    decide(by, "disconnect", arguments, end, waits=True)
    return problems[0]


def _end(connection: Connection, by: Principal, reason: str) -> str:
    """Forget first, then tell; the tokens live on only in this block.
    Returns why they were not revoked, or ""."""
    with ExitStack() as held:
        tokens, peer = {}, None
        # A sealed vault must not keep anybody from forgetting.
        with suppress(PolarError):
            if not connection.authority:
                raise ToolMisconfigured("It never was connected.")
            peer = held.enter_context(connections.as_peer(connection, by.actor))
            for kind in ("refresh", "access"):
                with suppress(ToolMisconfigured):
                    lease = connections.leased(connection, kind, by.actor)
                    tokens[kind] = held.enter_context(lease)
        _forget(connection, by, reason)
        return _revoke(connection, by, peer, tokens)


@transaction.atomic
def _forget(connection: Connection, by: Principal, reason: str) -> None:
    held = Connection.objects.filter(
        id=connection.id, status=connection.status, version=connection.version
    )
    changes: Json = {
        "status": Link.DISCONNECTED,
        "problem": "",
        "client_id": "",
        "version": F("version") + 1,
        "has_refresh": False,
        "renewing_until": None,
        "expires_at": None,
    }
    if held.update(**changes) != 1:
        raise Conflict("It has just changed; try again.")
    connections.drop_secrets(connection, by.actor)
    connection.asks.all().delete()
    connections.record(connection, by.actor, "disconnected", reason=reason)


def _revoke(
    connection: Connection,
    by: Principal,
    peer: ports.Peer | None,
    tokens: dict[str, str],
) -> str:
    problem = ""
    if peer is None or not tokens:
        problem = "There was no token that could be opened and revoked."
    elif not peer.authority.revocation_endpoint:
        problem = f"{peer.authority.issuer} offers no revocation; its tokens end alone."
    else:
        for kind, token in tokens.items():
            try:
                connections.authorizer().revoke(peer, token, f"{kind}_token")
            except PolarError as error:
                problem = error.detail[:300]
    facts = {"revoked": not problem, "tokens": sorted(tokens)}
    with transaction.atomic():
        connections.record(
            connection, by.actor, "token_revoked", data=facts, reason=problem
        )
    return problem
