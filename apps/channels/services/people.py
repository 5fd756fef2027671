"""People: who is let in, as whom, and who is shut out."""

from uuid import UUID

from django.db import transaction

from apps.access.models import Principal
from apps.channels import queries
from apps.channels.engine import pairing
from apps.channels.models import ChannelIdentity, PairingRequest, Tier
from apps.common.errors import FieldProblem, Invalid


def decide_pairing(
    *, by: Principal, code: str, approve: bool, tier: str = "", username: str = ""
) -> PairingRequest:
    """Let a stranger in as a person of this install, or turn them down.

    Raises: NotFound, Conflict, Denied, RoleRequired, Invalid.
    """
    who = queries.find_person(username) if username else None
    if username and who is None:
        problem = FieldProblem("username", "unknown", "a person of this workspace")
        raise Invalid("There is no such person.", fields=(problem,))
    return pairing.decide(
        by=by, code=code, approve=approve, tier=tier or Tier.PUBLIC, who=who
    )


def block_sender(*, by: Principal, identity_id: UUID, blocked: bool) -> ChannelIdentity:
    """Shut a sender out, or let them in again.   Raises: NotFound, RoleRequired."""
    return pairing.block(by=by, identity_id=identity_id, blocked=blocked)


def refuse_pairing(*, by: Principal, pairing_id: UUID) -> PairingRequest:
    """Turn a stranger down; that needs no code.   Raises: NotFound, RoleRequired."""
    return pairing.refuse(by=by, pairing_id=pairing_id)


@transaction.atomic
def change_sender(
    *,
    by: Principal,
    identity_id: UUID,
    tier: str | None = None,
    blocked: bool | None = None,
) -> None:
    """Give a sender another tier, shut them out or let them in: all or nothing.

    Raises: NotFound, Invalid, RoleRequired.
    """
    if tier is not None:
        pairing.set_tier(by=by, identity_id=identity_id, tier=tier)
    if blocked is not None:
        pairing.block(by=by, identity_id=identity_id, blocked=blocked)


def set_tier(*, by: Principal, identity_id: UUID, tier: str) -> ChannelIdentity:
    """Give a sender another tier.   Raises: NotFound, Invalid, RoleRequired."""
    return pairing.set_tier(by=by, identity_id=identity_id, tier=tier)
