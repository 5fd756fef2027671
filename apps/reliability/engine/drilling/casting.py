"""What each drill wants of its clone, and how its control loses the protection.

Protection is removed by data of the clone, never by a switch.
"""

from collections.abc import Callable
from dataclasses import dataclass

from apps.common.errors import NotFound
from apps.reliability.engine.drilling import (
    blackout,
    broker,
    channelling,
    filling,
    keyless,
    leaking,
    looping,
    massacre,
    pulling,
    sinking,
    swapping,
)

Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Cast:
    """Called in the clone before its processes start, and once all is over."""

    remove_protection: Step
    prepare: Step | None = None
    tidy: Step | None = None


CASTS = {
    "blackout": Cast(blackout.remove_protection, blackout.prepare),
    "store-swap": Cast(swapping.remove_protection),
    "loop-panic": Cast(looping.remove_protection),
    "broker-wipe": Cast(broker.remove_protection, broker.prepare),
    "vault-key-lost": Cast(keyless.remove_protection, keyless.prepare),
    "rug-pull": Cast(pulling.remove_protection, pulling.prepare),
    "sink-outage": Cast(sinking.remove_protection, sinking.prepare),
    "disk-full": Cast(filling.remove_protection, tidy=filling.tidy),
    "token-leak": Cast(leaking.remove_protection, leaking.prepare),
    "channel-outage": Cast(channelling.remove_protection, channelling.prepare),
    "worker-massacre": Cast(massacre.remove_protection),
}


def of(slug: str) -> Cast:
    """Raises: NotFound."""
    if slug not in CASTS:
        raise NotFound(f"The drill {slug!r} has no cast.")
    return CASTS[slug]
