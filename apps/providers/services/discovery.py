"""Providers that appear by themselves: from keys in the environment, or nearby.

Hides: which models of a vendor are worth a route, and what they cost.
Invariants: what an operator changed stays changed; nothing is removed because a
variable vanished; the scripted model is there from the first start.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from django.conf import settings

from apps.access import services as access
from apps.access.models import Principal
from apps.access.queries import default_workspace
from apps.common.errors import PolarError
from apps.gateway import services as gateway
from apps.gateway.ports import CallKind, CallRequest, Lineage, Permit, Result
from apps.providers import ports
from apps.providers.models import Kind, Lane, Model, Provider, Route, Source
from apps.providers.services import desk, keys
from apps.providers.services.desk import ModelEntry, ProviderEntry
from apps.providers.services.generation import once, risk_of
from apps.vault.errors import VaultSealed

logger = logging.getLogger(__name__)

#: The day on which the prices below were read.
DATED: Final = date(2026, 11, 22)
SCRIPTED: Final = "scripted"
#: Routes made of a local server's models; an operator may add more.
MOST_LOCAL_ROUTES: Final = 3


@dataclass(frozen=True, slots=True)
class Known:
    """A vendor's model and its lanes. Prices: micro-USD per million tokens."""

    name: str
    lanes: tuple[Lane, ...]
    prices: tuple[int, int, int]  # input, output, cached input
    context: int = 1_000_000

    @property
    def entry(self) -> ModelEntry:
        return ModelEntry(
            name=self.name,
            context_window_tokens=self.context,
            max_output_tokens=32_000,
            input_micros=self.prices[0],
            output_micros=self.prices[1],
            cached_micros=self.prices[2],
            dated=DATED,
        )


#: Source: the vendors' price pages as collected by genai-prices 0.2.3.
CATALOG: Final[dict[str, tuple[Known, ...]]] = {
    "anthropic": (
        Known("claude-opus-5-5", (Lane.BRAIN,), (4_000_000, 20_000_000, 200_000)),
        Known("claude-sonnet-5-5", (Lane.WORKER,), (2_000_000, 10_000_000, 100_000)),
        Known("claude-haiku-5-5", (Lane.WORKER,), (100_000, 500_000, 10_000)),
    ),
    "openai": (
        Known("gpt-6.1-sol", (Lane.BRAIN,), (2_000_000, 10_000_000, 100_000)),
        Known("gpt-6.1-terra", (Lane.WORKER,), (1_000_000, 5_000_000, 50_000)),
        Known("gpt-6-luna", (Lane.WORKER,), (100_000, 500_000, 10_000)),
    ),
    "gemini": (
        Known("gemini-4-argon", (Lane.BRAIN,), (2_000_000, 10_000_000, 100_000)),
        Known("gemini-3.8-flash", (Lane.WORKER,), (750_000, 3_750_000, 75_000)),
        Known("gemini-3.5-flash-lite", (Lane.WORKER,), (300_000, 2_500_000, 30_000)),
    ),
}


def sync_from_env() -> list[str]:
    """Make the providers that settings name and that stand nearby.

    Writes: Provider, Model, Route, and the keys into the vault.
    Returns: the slugs it made or gave a new key.   Again: adds what is missing.
    """
    system = access.system_principal()
    _scripted(system)
    found = []
    for slug, kind, key in _keys():
        if _from_key(system, slug, kind, key):
            found.append(slug)
    for entry, models in _nearby(system):
        if _from_server(system, entry, models):
            found.append(entry.slug)
    return found


def _keys() -> Iterator[tuple[str, Kind, str]]:
    for slug, kind, key in (
        ("anthropic", Kind.ANTHROPIC, settings.ANTHROPIC_API_KEY),
        ("openai", Kind.OPENAI, settings.OPENAI_API_KEY),
        ("gemini", Kind.GEMINI, settings.GEMINI_API_KEY),
    ):
        if key.strip():
            yield slug, kind, key.strip()


def _from_key(by: Principal, slug: str, kind: Kind, key: str) -> bool:
    """Add a vendor, or give it the new key; leave the operator's choices alone."""
    row = Provider.objects.select_related("secret").filter(slug=slug).first()
    if row is not None and row.source != Source.ENV:
        return False
    try:
        if row is None:
            return _add_vendor(by, slug, kind, key)
        return _renew_key(by, row, key)
    except VaultSealed:
        logger.warning(
            "the vault is sealed: a provider's key waits in the environment",
            extra={"event": "provider.found", "provider": slug},
        )
        return False


def _add_vendor(by: Principal, slug: str, kind: Kind, key: str) -> bool:
    entry = ProviderEntry(slug=slug, kind=kind, key=key, source=Source.ENV)
    row = desk.save_provider(by=by, entry=entry)
    for known in CATALOG[slug]:
        model = desk.save_model(by=by, provider=row, entry=known.entry)
        for lane in known.lanes:
            desk.save_route(by=by, lane=lane, model=model)
    return True


def _renew_key(by: Principal, row: Provider, key: str) -> bool:
    """Store the key; only another value than before changes the provider."""
    before = row.secret.fingerprint if row.secret is not None else ""
    if desk.store_key(by=by, row=row, key=key).fingerprint == before:
        return False
    entry = ProviderEntry(
        slug=row.slug,
        kind=row.kind,
        key=key,
        source=Source.ENV,
        base_url=row.base_url,
        enabled=row.enabled,
        settings=row.settings,
    )
    keys.restore(desk.save_provider(by=by, entry=entry))
    return True


def _nearby(by: Principal) -> Iterator[tuple[ProviderEntry, list[str]]]:
    places: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("local", settings.LOCAL_MODEL_URL, {}),
        ("ollama", settings.OLLAMA_HOST, {"ollama": True}),
    )
    for slug, address, options in places:
        if not address:
            continue
        entry = ProviderEntry(
            slug=slug,
            kind=Kind.OPENAI_COMPATIBLE,
            base_url=_as_v1(address),
            settings=options,
            source=Source.ENV,
        )
        target = ports.Target("", slug, entry.kind, entry.base_url, 1, options)
        if models := _models_at(by, target):
            yield entry, models


def _models_at(by: Principal, target: ports.Target) -> list[str] | None:
    """Ask a place that an operator's setting names which models stand there."""

    def perform(permit: Permit) -> Result:
        return Result(ports.catalog_for(target.kind).probe(permit, target))

    request = CallRequest(
        kind=CallKind.MODEL,
        capability=f"provider:{target.slug}/models",
        principal=by,
        workspace_id=default_workspace().pk,
        arguments=ports.list_arguments(target),
        perform=perform,
        risk=risk_of(target.kind),
        provider=target.slug,
        idempotency_key=once(Lineage()),
    )
    try:
        found: list[str] | None = gateway.call(request).output
    except PolarError as refusal:
        logger.warning(
            "a server nearby was not asked",
            extra={"event": "provider.found", "provider": target.slug}
            | {"code": refusal.code},
        )
        return None
    return found


def _as_v1(address: str) -> str:
    """Ollama's variable may be a bare host:port, and both may lack the /v1."""
    url = address if "://" in address else f"http://{address}"
    url = url.rstrip("/").replace("://0.0.0.0", "://127.0.0.1")
    return url if url.endswith("/v1") else f"{url}/v1"


def _from_server(by: Principal, entry: ProviderEntry, models: list[str]) -> bool:
    row = Provider.objects.filter(slug=entry.slug).first()
    if row is not None and row.source != Source.ENV:
        return False
    is_new = row is None
    if row is None or row.base_url != entry.base_url:
        row = desk.save_provider(by=by, entry=entry)
    have = set(Model.objects.filter(provider=row).values_list("name", flat=True))
    room = MOST_LOCAL_ROUTES - len(have)
    for name in [name for name in models if name not in have][: max(room, 0)]:
        model = desk.save_model(by=by, provider=row, entry=ModelEntry(name=name))
        desk.save_route(by=by, lane=Lane.LOCAL, model=model)
    return is_new


def _scripted(by: Principal) -> None:
    """Make the built-in model, in every lane: it stands in for all of them."""
    if Route.objects.filter(model__provider__slug=SCRIPTED).exists():
        return
    provider = desk.save_provider(
        by=by,
        entry=ProviderEntry(slug=SCRIPTED, kind=Kind.SCRIPTED, source=Source.ENV),
    )
    entry = ModelEntry(name=SCRIPTED, context_window_tokens=1_000_000)
    model = desk.save_model(by=by, provider=provider, entry=entry)
    for lane in (Lane.LOCAL, Lane.WORKER, Lane.BRAIN):
        desk.save_route(by=by, lane=lane, model=model)
