"""Checks of what Polar reaches: providers and lanes, channels, extensions."""

from datetime import timedelta
from pathlib import Path

from django.conf import settings

from apps.channels import queries as channels
from apps.channels.models import Account, OutboxMessage, PairingRequest
from apps.common import clock
from apps.extensions.models import Extension, Lifecycle, Trust
from apps.providers import queries as providers
from apps.providers.models import KeyStage, KeyState, Kind, Lane, Provider
from apps.reliability.engine.doctor.check import (
    Found,
    check,
    fail,
    ok,
    unused,
    warn,
)


@check(
    "reach-providers",
    "A real model can be asked",
    mend="Put a key into .env, or add a provider: docs/how-to/add-a-provider.md",
)
def real_providers() -> Found:
    real = Provider.objects.filter(enabled=True).exclude(kind=Kind.SCRIPTED)
    names = list(real.order_by("slug").values_list("slug", flat=True))
    return ok(", ".join(names)[:200]) if names else warn("only the scripted model")


@check(
    "reach-lanes",
    "Every lane that has routes can answer",
    mend="Page Providers: close the breaker, or mend what its last error names.",
)
def lanes() -> Found:
    down = []
    for lane in providers.lanes_health():
        routes = [each for each in lane.routes if not each.is_aside]
        if routes and not any(each.state in ("ready", "half_open") for each in routes):
            down.append(str(lane.lane))
    return fail(f"{', '.join(down)} cannot") if down else ok("all can")


@check(
    "reach-local-lane",
    "When every vendor is away, something still answers",
    mend="Run Ollama, or set LOCAL_MODEL_URL: the local lane then has a route.",
)
def local_lane() -> Found:
    for lane in providers.lanes_health():
        if lane.lane == Lane.LOCAL and any(not each.is_aside for each in lane.routes):
            return ok(f"{len(lane.routes)} routes")
    return warn("the local lane has no route")


@check(
    "reach-breakers",
    "No route is set aside after failures",
    mend="Page Providers: its last error stands there; it is tried again by itself.",
)
def breakers() -> Found:
    aside = [
        f"{each.route.model} ({each.last_error_class})"
        for lane in providers.lanes_health()
        for each in lane.routes
        if each.state in ("open", "half_open")
    ]
    return warn(", ".join(aside)[:300]) if aside else ok("all closed")


@check(
    "reach-provider-keys",
    "No provider rejected its key",
    mend="Put in a new key: page Providers, or docs/runbooks/secret-rotation.md",
)
def provider_keys() -> Found:
    bad = Provider.objects.filter(enabled=True, state=KeyState.REJECTED)
    names = list(bad.values_list("slug", flat=True))
    return fail(", ".join(names)) if names else ok("none")


@check(
    "reach-key-rotation",
    "No provider's key is left half exchanged",
    mend="Page Providers: promote the new key, or take it back.",
)
def key_rotation() -> Found:
    open_ones = Provider.objects.exclude(key_stage=KeyStage.SETTLED)
    named = [f"{row.slug} ({row.key_stage})" for row in open_ones]
    return warn(", ".join(named)) if named else ok("all settled")


@check(
    "reach-prices",
    "What a model costs is known, so budgets hold",
    mend="Write the vendor's prices down: page Providers.",
)
def prices() -> Found:
    free = {
        str(route.model)
        for route in providers.plan_routes()
        if route.lane != Lane.LOCAL
        and route.model.provider.kind != Kind.SCRIPTED
        and not (route.model.input_micros or route.model.output_micros)
    }
    return warn(", ".join(sorted(free))[:300]) if free else ok("all priced")


@check(
    "reach-channels",
    "Every channel hears",
    mend="Page Channels: what is wrong stands there; see docs/how-to/connect-*.md",
)
def channel_accounts() -> Found:
    said = {row.slug: channels.receiving(row) for row in Account.objects.all()}
    deaf = [f"{slug} is {state}" for slug, state in said.items() if state == "down"]
    vendors = [slug for slug, state in said.items() if state != "none"]
    if deaf:
        return fail(", ".join(deaf))
    return ok(", ".join(vendors)) if vendors else unused("only the web chat")


@check(
    "reach-outbox",
    "What was to be said was said",
    mend="Page Channels: send it again, or settle it as said.",
)
def outbox() -> Found:
    stuck = OutboxMessage.objects.in_trouble().count()
    return warn(f"{stuck} messages did not go out") if stuck else ok("none is stuck")


@check(
    "reach-pairings",
    "No stranger waits for an answer over a day",
    mend="Page Channels: let them in or turn them away.",
)
def pairings() -> Found:
    since = clock.now() - timedelta(days=1)
    waiting = PairingRequest.objects.filter(state="pending", created_at__lt=since)
    return warn(f"{waiting.count()} wait") if waiting.exists() else ok("none")


@check(
    "reach-extensions",
    "No extension changed behind its review",
    mend="Page Extensions: look at the difference; review it again or remove it.",
)
def extensions() -> Found:
    changed = Extension.objects.filter(
        trust=Trust.BLOCKED, trust_reason__contains="definition_changed"
    )
    names = list(changed.values_list("ext_id", flat=True)[:5])
    return warn(f"blocked: {', '.join(names)}") if names else ok("none")


@check(
    "reach-packages",
    "The code of every enabled extension is there",
    mend="Install it again from its source: ./polar extensions --help",
)
def packages() -> Found:
    rows = Extension.objects.filter(lifecycle=Lifecycle.ENABLED).exclude(package="")
    root = Path(settings.POLAR_EXTENSIONS_DIR)
    lost = [row.ext_id for row in rows if not (root / row.package).is_dir()]
    if lost:
        return fail(", ".join(lost))
    return ok(f"{len(rows)} are there") if rows else unused("none has a package")


@check(
    "reach-unshut",
    "No extension may run where it cannot be shut in",
    mend="Page Extensions: take the leave back once bubblewrap works.",
)
def unshut() -> Found:
    names = Extension.objects.filter(accepts_degraded=True).values_list(
        "ext_id", flat=True
    )
    return warn(", ".join(names)) if names else ok("none")
