"""What may a sender do here? `check_` raises."""

from apps.access.models import ROLE_ORDER
from apps.access.policies import role_of
from apps.channels.errors import SenderDenied
from apps.channels.models import TIER_ORDER, ChannelIdentity, IdentityState, Tier


def check_tier(identity: ChannelIdentity, needed: str) -> None:
    """Refuse a sender below a tier. Above `public` the person's role in the
    workspace counts as well, read now: a pairing never outlives a demotion.

    Raises: SenderDenied.
    """
    tier = Tier(needed)
    if identity.state != IdentityState.ACTIVE or not identity.principal.is_active:
        raise SenderDenied("You are no longer let in here.")
    if TIER_ORDER.index(Tier(identity.tier)) < TIER_ORDER.index(tier):
        raise SenderDenied(f"This needs the tier {tier}; yours is {identity.tier}.")
    if tier == Tier.PUBLIC:
        return
    role = role_of(identity.principal, identity.account.workspace)
    held = [str(each) for each in ROLE_ORDER]
    if role not in held or held.index(role) < held.index(str(tier)):
        raise SenderDenied(f"This needs the role {tier}; yours is {role or 'none'}.")


def can_tier(identity: ChannelIdentity, needed: str) -> bool:
    """Tell what `check_tier` would say."""
    try:
        check_tier(identity, needed)
    except SenderDenied:
        return False
    return True
