"""What an administrator changes: providers, models, routes, breakers.

Invariant: every change is audited in its transaction and grows the provider's
revision, so that cached clients are rebuilt. A key is written, never shown.
"""

from dataclasses import dataclass, field
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from django.db import transaction
from django.db.models import F, Max

from apps.access.models import Principal
from apps.audit import services as audit
from apps.common import clock
from apps.common.errors import Conflict, FieldProblem, Invalid
from apps.providers import ports, queries
from apps.providers.engine import breakers
from apps.providers.errors import ProviderUnknown
from apps.providers.models import (
    KeyStage,
    KeyState,
    Lane,
    Model,
    Provider,
    Route,
    Source,
)
from apps.providers.policies import check_manage
from apps.providers.services import keys, prices
from apps.runs import services as runs
from apps.runs.models import State
from apps.vault import services as vault
from apps.vault.models import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderEntry:
    """A provider as somebody wants it. An empty key keeps the stored one."""

    slug: str
    kind: str
    base_url: str = ""
    enabled: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    key: str = field(default="", repr=False)
    source: str = Source.DESK


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A model with its prices. Units: tokens; micro-USD per million tokens."""

    name: str
    context_window_tokens: int = 32_768
    max_output_tokens: int = 4096
    input_micros: int = 0
    output_micros: int = 0
    cached_micros: int = 0
    supports_tools: bool = True
    dated: date | None = None

    @property
    def tariff(self) -> ports.Tariff:
        return ports.Tariff(self.input_micros, self.output_micros, self.cached_micros)


#: What of a model changes without a date.
LIMITS = ("context_window_tokens", "max_output_tokens", "supports_tools")


@transaction.atomic
def save_provider(
    *, by: Principal, entry: ProviderEntry, expected_revision: int | None = None
) -> Provider:
    """Add a provider or change it.

    Raises: RoleRequired; Invalid naming the field; Conflict when it changed
    meanwhile; VaultSealed when a key cannot be stored.
    """
    check_manage(by)
    _check_entry(entry)
    row = Provider.objects.filter(slug=entry.slug).first() or Provider(slug=entry.slug)
    is_new = row._state.adding
    if expected_revision is not None and row.revision != expected_revision:
        raise Conflict(f"{entry.slug} changed meanwhile: read it again.")
    before = row.secret.fingerprint if row.secret is not None else ""
    if entry.key:
        row.secret = store_key(by=by, row=row, key=entry.key)
    key_is_new = row.secret is not None and row.secret.fingerprint != before
    row.kind, row.base_url = entry.kind, entry.base_url.rstrip("/")
    row.enabled, row.settings, row.source = entry.enabled, entry.settings, entry.source
    if key_is_new and row.key_stage != KeyStage.SETTLED:
        raise Conflict(f"The key of {entry.slug} is being changed: end that first.")
    if key_is_new:
        row.state, row.state_detail, row.quiet_until = KeyState.OK, "", None
    row.revision = 1 if is_new else row.revision + 1
    row.updated_at = clock.now()
    row.save()
    audit.record(
        type="provider.saved",
        actor=by.actor,
        subject=("provider", str(row.pk)),
        data={
            "provider": row.slug,
            "kind": row.kind,
            "base_url": row.base_url,
            "enabled": row.enabled,
            "key_changed": key_is_new,
            "is_new": is_new,
        },
    )
    return row


@transaction.atomic
def add_provider(
    *, by: Principal, entry: ProviderEntry, model: str, lane: str
) -> Provider:
    """Add a provider with its first model in a lane, or nothing at all.

    Raises: as `save_provider`; Conflict when the name is taken.
    """
    if Provider.objects.filter(slug=entry.slug).exists():
        raise Conflict(f"There is a provider {entry.slug} already.")
    row = save_provider(by=by, entry=entry)
    if model:
        made = save_model(by=by, provider=row, entry=ModelEntry(name=model))
        save_route(by=by, lane=lane, model=made)
    return row


def store_key(*, by: Principal, row: Provider, key: str) -> Secret:
    """Seal a provider's key under its name. Again: the same key changes nothing."""
    return vault.put(
        by=by.actor,
        name=row.secret.name if row.secret is not None else keys.name_of(row.slug),
        purpose=keys.purpose_of(row),
        value=key,
    )


def _check_entry(entry: ProviderEntry) -> None:
    problems = []
    if entry.kind not in ports.kinds():
        expected = ", ".join(ports.kinds())
        problems.append(FieldProblem("kind", f"unknown: {entry.kind!r}", expected))
    if not entry.slug.replace("-", "").replace("_", "").isalnum():
        problems.append(FieldProblem("slug", "not a slug", "letters, digits, - and _"))
    parts = urlsplit(entry.base_url)
    if entry.base_url and (parts.scheme not in ("http", "https") or not parts.hostname):
        problems.append(FieldProblem("base_url", "not a URL", "https://host/v1"))
    if parts.username or parts.password:
        problems.append(
            FieldProblem("base_url", "carries a password", "put the key into its field")
        )
    if entry.kind == "openai_compatible" and not entry.base_url:
        problems.append(FieldProblem("base_url", "missing", "http://127.0.0.1:8080/v1"))
    if problems:
        raise Invalid("This provider is not complete.", fields=tuple(problems))


@transaction.atomic
def remove_provider(*, by: Principal, slug: str) -> None:
    """Remove a provider with its models and routes; its history stays."""
    check_manage(by)
    row = queries.get_provider(slug)
    secrets = [row.secret_id, row.other_secret_id]
    audit.record(
        type="provider.removed",
        actor=by.actor,
        subject=("provider", str(row.pk)),
        data={"provider": row.slug},
    )
    row.delete()
    for secret_id in filter(None, secrets):
        vault.delete(by=by.actor, secret_id=secret_id, reason=f"{slug} was removed")


@transaction.atomic
def set_enabled(*, by: Principal, slug: str, enabled: bool) -> None:
    """Switch a provider on or off. Again: does nothing."""
    check_manage(by)
    row = queries.get_provider(slug)
    changed = Provider.objects.filter(pk=row.pk).exclude(enabled=enabled)
    if changed.update(enabled=enabled, revision=F("revision") + 1):
        audit.record(
            type="provider.saved",
            actor=by.actor,
            subject=("provider", str(row.pk)),
            data={"provider": slug, "enabled": enabled},
        )


@transaction.atomic
def save_model(*, by: Principal, provider: Provider, entry: ModelEntry) -> Model:
    """Add a model or change its prices and limits."""
    check_manage(by)
    facts = {name: getattr(entry, name) for name in ModelEntry.__slots__}
    limits = {name: facts[name] for name in LIMITS}
    row, is_new = Model.objects.update_or_create(
        provider=provider,
        name=facts.pop("name"),
        defaults=limits,
        create_defaults=facts,
    )
    _save_price(by, row, entry, is_new=is_new)
    audit.record(
        type="provider.saved",
        actor=by.actor,
        subject=("model", str(row.pk)),
        data={
            "model": str(row),
            "input": row.input_micros,
            "output": row.output_micros,
        },
    )
    return row


def _save_price(by: Principal, row: Model, entry: ModelEntry, *, is_new: bool) -> None:
    """Begin a model's history of prices, or go on with it from today."""
    today = clock.now().date()
    if not is_new and row.tariff(today) == entry.tariff:
        return
    starts_on = entry.dated or today if is_new else today
    told = prices.PriceEntry(starts_on=starts_on, tariff=entry.tariff)
    prices.write_price(by=by, model=row, entry=told)
    row.refresh_from_db()


@transaction.atomic
def save_route(
    *, by: Principal, lane: str, model: Model, enabled: bool = True, first: bool = False
) -> Route:
    """Put a model into a lane, at its end or first. Again: changes that route."""
    check_manage(by)
    if lane not in Lane.values:
        raise Invalid(f"There is no lane {lane!r}; there are {', '.join(Lane.values)}.")
    row = Route.objects.filter(lane=lane, model=model).first()
    if row is None:
        last = Route.objects.filter(lane=lane).aggregate(last=Max("position"))["last"]
        row = Route(lane=lane, model=model, position=1 if last is None else last + 1)
    row.enabled = enabled
    row.save()
    if first:
        _put_first(row)
    audit.record(
        type="route.saved",
        actor=by.actor,
        subject=("route", str(row.pk)),
        data={"lane": lane, "model": str(model), "enabled": enabled, "first": first},
    )
    return row


def _put_first(row: Route) -> None:
    """Renumber the lane. Positions are unique, so they move through the far end."""
    others = list(
        Route.objects.filter(lane=row.lane).exclude(pk=row.pk).order_by("position")
    )
    far = 10_000
    for place, route in enumerate([row, *others]):
        Route.objects.filter(pk=route.pk).update(position=far + place)
    for place, route in enumerate([row, *others], start=1):
        Route.objects.filter(pk=route.pk).update(position=place)
    row.position = 1


@transaction.atomic
def remove_route(*, by: Principal, route: Route) -> None:
    """Take a model out of a lane."""
    check_manage(by)
    audit.record(
        type="route.removed",
        actor=by.actor,
        subject=("route", str(route.pk)),
        data={"route": str(route)},
    )
    route.delete()


@transaction.atomic
def close_breaker(*, by: Principal, route: Route) -> None:
    """Try a resting route again at once; who waits for a provider goes on."""
    check_manage(by)
    breakers.reset(route)
    runs.wake(state=State.WAITING_PROVIDER, reason="breaker closed")
    audit.record(
        type="breaker.closed",
        actor=by.actor,
        subject=("route", str(route.pk)),
        data={"route": str(route), "by_hand": True},
    )


@transaction.atomic
def trust_key(*, by: Principal, slug: str) -> None:
    """Use a rejected key again, after it was put right at the vendor's."""
    check_manage(by)
    row = queries.get_provider(slug)
    if row.secret_id is None:
        raise ProviderUnknown(f"{slug} has no key.")
    rejected = Provider.objects.filter(pk=row.pk, state=KeyState.REJECTED)
    if rejected.update(state=KeyState.OK, state_detail=""):
        audit.record(
            type="provider.key_restored",
            actor=by.actor,
            subject=("provider", str(row.pk)),
            data={"provider": slug},
        )
