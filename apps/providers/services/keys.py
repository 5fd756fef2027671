"""Keys of providers: leased for one call, and distrusted when refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import SYSTEM
from apps.common.redaction import SecretStr
from apps.providers.errors import ModelCallFailed
from apps.providers.models import ErrorClass, KeyState, Provider
from apps.vault import services as vault

#: No server may silence its provider for longer. Units: seconds.
LONGEST_PAUSE: Final = 300.0
#: Jitter without randomness: hosts differ by their clocks' microseconds.
JITTER_SECONDS: Final = 2.0


def purpose_of(provider: Provider) -> str:
    """Name what a provider's key is for; a lease must name the same."""
    return f"provider:{provider.slug}"


@contextmanager
def key_of(
    provider: Provider, *, run_id: UUID | None = None
) -> Iterator[SecretStr | None]:
    """Lease the provider's key for one call; None where it needs none.

    Raises: VaultSealed, SecretUnreadable.
    """
    if provider.secret_id is None:
        yield None
        return
    with vault.lease(
        provider.secret_id, purpose=purpose_of(provider), by=SYSTEM, run_id=run_id
    ) as key:
        yield key


def react(provider: Provider, error: ModelCallFailed) -> None:
    """Take what a failure says about the whole provider to all processes."""
    if error.error_class == ErrorClass.AUTH:
        _reject(provider, error)
    elif error.retry_after is not None:
        _pause(provider, error.retry_after)


@transaction.atomic
def _reject(provider: Provider, error: ModelCallFailed) -> None:
    """Stop using a refused key, unless it was replaced meanwhile."""
    mine = Provider.objects.filter(pk=provider.pk, revision=provider.revision)
    provider.state = KeyState.REJECTED
    if mine.filter(state=KeyState.OK).update(
        state=KeyState.REJECTED, state_detail=error.detail[:300]
    ):
        audit.record(
            type="provider.key_rejected",
            actor=SYSTEM,
            subject=("provider", str(provider.pk)),
            data={"provider": provider.slug, "detail": error.detail[:300]},
        )


def _pause(provider: Provider, seconds: float) -> None:
    """Honour Retry-After; a pause is only ever made longer."""
    now = clock.now()
    jitter = JITTER_SECONDS * (now.microsecond / 1_000_000)
    until = now + timedelta(seconds=min(seconds, LONGEST_PAUSE) + jitter)
    provider.quiet_until = until
    Provider.objects.filter(
        Q(quiet_until__isnull=True) | Q(quiet_until__lt=until), pk=provider.pk
    ).update(quiet_until=until)


@transaction.atomic
def restore(provider: Provider) -> None:
    """Trust a key again that just worked. Again: does nothing."""
    rejected = Provider.objects.filter(pk=provider.pk, state=KeyState.REJECTED)
    if rejected.update(state=KeyState.OK, state_detail=""):
        audit.record(
            type="provider.key_restored",
            actor=SYSTEM,
            subject=("provider", str(provider.pk)),
            data={"provider": provider.slug},
        )
