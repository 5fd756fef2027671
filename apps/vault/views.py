"""The vault for its keepers: what is stored, under which key, and the way back.

Values come in by password fields and never go out; a new recovery kit is shown on
the answer to the click that made it, and nowhere else.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from apps.common import pages
from apps.common.actor import Actor
from apps.common.errors import NotFound, PolarError
from apps.vault import policies, ports, queries, services
from apps.vault.models import RecoveryForm

#: How many lines of the checklist a page carries; the command lists all.
ENTRIES_SHOWN = 100


def keeper_of(request: HttpRequest) -> Actor:
    """Return who asks, if they keep the vault.   Raises: NotVaultKeeper."""
    user: Any = request.user
    policies.check_keeper(user)
    principal = getattr(user, "principal", None)
    if principal is not None:
        actor: Actor = principal.actor
        return actor
    return Actor("human", str(user.pk), user.get_username())


@require_GET
def status(request: HttpRequest) -> HttpResponse:
    keeper_of(request)
    return render(request, "vault/status.html", _context(request))


@require_GET
def panel(request: HttpRequest) -> HttpResponse:
    """How far the work over every secret is."""
    keeper_of(request)
    context = {"progress": services.progress(), "status": services.status()}
    return pages.panel(request, "vault/_rotation.html", context)


@require_POST
def act(request: HttpRequest, action: str) -> HttpResponse:
    """Take one action by its name; the page says what came of it."""
    by, take = keeper_of(request), ACTIONS.get(action)
    try:
        if take is None:
            raise NotFound(f"There is no action {action}.")
        messages.success(request, take(by, request))
    except PolarError as error:
        fields = "".join(f" {f.path}: {f.expected}." for f in error.fields)
        messages.error(request, f"Not done: {error.detail}{fields} ({error.code})")
    return HttpResponseRedirect(reverse("vault:status"))


@require_POST
@never_cache
def make_kit(request: HttpRequest) -> HttpResponse:
    """Make a kit and show its private part, this once."""
    by = keeper_of(request)
    try:
        made = services.make_kit(by=by, form=request.POST.get("form", ""))
    except PolarError as error:
        messages.error(request, f"Not made: {error.detail} ({error.code})")
        return HttpResponseRedirect(reverse("vault:status"))
    return render(request, "vault/kit.html", {"kit": made})


def _seal(by: Actor, request: HttpRequest) -> str:
    services.seal(by=by, reason=_reason(request))
    return "Sealed in every process. Work that needs secrets waits."


def _unseal(by: Actor, request: HttpRequest) -> str:
    services.unseal(by=by, reason=_reason(request))
    return "Unsealed. What waited goes on."


def _rotate(by: Actor, request: HttpRequest) -> str:
    told = services.rotate(by=by, reason=_reason(request))
    return f"Begun: {told.total} secrets. You may leave; the clock goes on with it."


def _try_rotation(by: Actor, request: HttpRequest) -> str:
    told = services.preview(by=by)
    failing = ", ".join(told.unreadable[:20]) or "none"
    return (
        f"A rotation would wrap {told.rows} secrets for {told.to_kid} in "
        f"{told.batches} batches; would not open: {failing}. Nothing was written."
    )


def _finish(by: Actor, request: HttpRequest) -> str:
    kids = ", ".join(services.finish(by=by)) or "none"
    return f"Retired: {kids}. They may leave POLAR_VAULT_KEYS."


def _reencrypt(by: Actor, request: HttpRequest) -> str:
    told = services.reencrypt(by=by, reason=_reason(request))
    return (
        f"Begun: {told.total} secrets get new data keys. Each must also be changed "
        "where it was issued: see every secret below."
    )


def _drop_kit(by: Actor, request: HttpRequest) -> str:
    kit = queries.get_kit(request.POST.get("recipient", ""))
    services.drop_kit(by=by, recovery_id=kit.pk, reason=_reason(request))
    return f"{kit.recipient} opens nothing any more."


def _verify(by: Actor, request: HttpRequest) -> str:
    proved = services.verify_backup(by=by, text=request.POST.get("kept", ""))
    return f"Proved: this is {proved}. The date is noted."


def _recover(by: Actor, request: HttpRequest) -> str:
    told = services.recover(by=by, kept=request.POST.get("kept", ""))
    return f"{told.total} secrets are back; {told.unreadable} did not open."


def _accept_loss(by: Actor, request: HttpRequest) -> str:
    count = services.accept_loss(by=by, reason=_reason(request))
    return f"{count} secrets are to be entered again, below."


def _reenter(by: Actor, request: HttpRequest) -> str:
    value = request.POST.get("value", "").strip()
    told = services.reenter(by=by, secret_id=_id(request), value=value)
    said = f": {told.problem}" if told.problem else ""
    return f"{told.name} is stored; it is {told.state}{said}"


def _retest(by: Actor, request: HttpRequest) -> str:
    entries = services.retest_entered(by=by)
    green = sum(entry.state == "ok" for entry in entries)
    return f"Tried out: {green} of {len(entries)} are good."


def _store(by: Actor, request: HttpRequest) -> str:
    told = services.store_secret(
        by=by,
        name=request.POST.get("name", "").strip(),
        value=request.POST.get("value", "").strip(),
    )
    return f"{told.name} is stored; used by {told.used_by}."


def _forget(by: Actor, request: HttpRequest) -> str:
    services.forget(by=by, secret_id=_id(request), reason=_reason(request))
    return "Removed for good."


ACTIONS: dict[str, Callable[[Actor, HttpRequest], str]] = {
    "seal": _seal,
    "unseal": _unseal,
    "rotate": _rotate,
    "try": _try_rotation,
    "finish": _finish,
    "reencrypt": _reencrypt,
    "drop-kit": _drop_kit,
    "verify": _verify,
    "recover": _recover,
    "accept-loss": _accept_loss,
    "reenter": _reenter,
    "store": _store,
    "retest": _retest,
    "forget": _forget,
}


def _context(request: HttpRequest) -> dict[str, Any]:
    told = services.status()
    counts = queries.wraps_by_recipient()
    page = pages.keyset(queries.secrets().prefetch_related("wraps"), request.GET)
    entries = services.checklist()
    return {
        "status": told,
        "keys": [(key, counts.get(f"key:{key.kid}", 0)) for key in told.keys],
        "kits": [(kit, counts.get(kit.recipient, 0)) for kit in queries.kits()],
        "progress": services.progress(),
        "entries": entries[:ENTRIES_SHOWN],
        "entry_count": len(entries),
        "has_entered": any(each.state in ("entered", "refused") for each in entries),
        "green": sum(entry.state == "ok" for entry in entries),
        "forms": RecoveryForm.choices,
        "page": page,
        "is_by_operator": told.reason == "sealed_by_operator",
        "is_missing": told.reason == "missing_key",
        "for_extensions": ports.FOR_EXTENSIONS,
    }


def _reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "").strip()[:300]


def _id(request: HttpRequest) -> UUID:
    try:
        return UUID(request.POST.get("secret", ""))
    except ValueError:
        return UUID(int=0)
