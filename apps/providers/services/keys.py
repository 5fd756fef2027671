"""Keys of providers: leased for one call, and distrusted when refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q

from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import SYSTEM
from apps.common.redaction import SecretStr
from apps.providers.errors import ModelCallFailed
from apps.providers.models import ErrorClass, KeyStage, KeyState, Provider, Route
from apps.vault import services as vault

#: No server may silence its provider for longer. Units: seconds.
LONGEST_PAUSE: Final = 300.0
#: Jitter without randomness: hosts differ by their clocks' microseconds.
JITTER_SECONDS: Final = 2.0


def purpose_of(provider: Provider) -> str:
    """Name what a provider's key is for; a lease must name the same."""
    return f"provider:{provider.slug}"


def name_of(slug: str) -> str:
    """Name a provider's key in the vault."""
    return f"provider.{slug}.key"


@contextmanager
def key_of(
    provider: Provider, *, run_id: UUID | None = None, coming: bool = False
) -> Iterator[SecretStr | None]:
    """Lease the provider's key for one call; None where it needs none.

    While a new key is on trial, it is the one; `coming` asks for it earlier.
    Raises: VaultSealed, SecretUnreadable.
    """
    on_trial = coming or provider.key_stage == KeyStage.SHADOW
    secret_id = provider.other_secret_id if on_trial else provider.secret_id
    if secret_id is None:
        yield None
        return
    with vault.lease(
        secret_id, purpose=purpose_of(provider), by=SYSTEM, run_id=run_id
    ) as key:
        yield key


def react(provider: Provider, error: ModelCallFailed) -> None:
    """Take what a failure says about the whole provider to all processes."""
    if error.error_class == ErrorClass.AUTH:
        if provider.key_stage == KeyStage.SHADOW:
            refuse_coming(provider, error.detail)
        else:
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


@transaction.atomic
def refuse_coming(provider: Provider, detail: str) -> None:
    """End the trial of a new key; the one in use goes on.   Again: does nothing."""
    mine = Provider.objects.filter(
        pk=provider.pk,
        other_secret_id=provider.other_secret_id,
        key_stage=provider.key_stage,
    )
    provider.key_stage, provider.key_detail = KeyStage.REFUSED, detail[:300]
    if mine.update(key_stage=KeyStage.REFUSED, key_detail=detail[:300]):
        audit.record(
            type="provider.key_refused",
            actor=SYSTEM,
            subject=("provider", str(provider.pk)),
            data={"provider": provider.slug, "detail": detail[:300]},
        )


def is_on_trial(route: Route | None) -> bool:
    """Tell whether a route's provider is asked with a new key just now."""
    return route is not None and route.model.provider.key_stage == KeyStage.SHADOW


def answered(provider: Provider) -> None:
    """Count an answer for the key on trial."""
    if provider.key_stage == KeyStage.SHADOW:
        Provider.objects.filter(pk=provider.pk, key_stage=KeyStage.SHADOW).update(
            shadow_answers=F("shadow_answers") + 1
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
