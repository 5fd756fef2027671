"""Channels on the desk: accounts and their health, people, what goes out."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_POST

from apps.access import policies
from apps.access import queries as access_queries
from apps.access.models import ROLE_ORDER, Principal, Role, Workspace
from apps.boards import queries as boards_queries
from apps.channels import forms, queries, services
from apps.channels.engine import outbox as line
from apps.channels.models import AccountState, HearsBy, OutboxState, Tier
from apps.channels.ports import transports
from apps.channels.views.chat import principal_of
from apps.common import pages
from apps.common.errors import NotFound, PolarError

OUTBOX_STATES = ("", "trouble", *OutboxState.values)


@require_GET
def account_list(request: HttpRequest) -> HttpResponse:
    """Accounts with their health, and strangers who wait."""
    principal = principal_of(request)
    rows = list(queries.accounts(visible_to=principal)[: queries.MOST_LISTED])
    trouble = queries.outbox(visible_to=principal, state="trouble")
    waiting = queries.pairings(visible_to=principal).order_by("id")
    context = {
        "accounts": [queries.health(row) for row in rows],
        "pairings": list(waiting[: queries.MOST_LISTED]),
        "trouble": trouble.count(),
        "kinds": transports.kinds(),
        "tiers": Tier.choices,
        **_rights(principal),
    }
    return render(request, "channels/accounts.html", context)


@require_GET
def account_page(request: HttpRequest, account_id: UUID) -> HttpResponse:
    """One account: proof of hearing, who is heard, which chats are told."""
    principal = principal_of(request)
    account = queries.get_account(account_id, visible_to=principal)
    context = {
        "health": queries.health(account),
        "account": account,
        "hook_url": line.hook_url(account),
        "heard": queries.newest_heard(account),
        "ways": HearsBy.choices,
        **_rights(principal, account.workspace),
    }
    return render(request, "channels/account.html", context)


@require_GET
def people(request: HttpRequest) -> HttpResponse:
    """Who was let in, as whom, with which tier."""
    principal = principal_of(request)
    page = pages.keyset(queries.identities(visible_to=principal), request.GET)
    context = {"page": page, "tiers": Tier.choices, **_rights(principal)}
    return render(request, "channels/people.html", context)


@require_GET
def outbox(request: HttpRequest) -> HttpResponse:
    """What went out, what waits, and what a person has to look at."""
    principal = principal_of(request)
    state = request.GET.get("state", "")
    state = state if state in OUTBOX_STATES else ""
    rows = queries.outbox(visible_to=principal, state=state)
    context = {
        "page": pages.keyset(rows, request.GET),
        "state": state,
        "states": OUTBOX_STATES,
        **_rights(principal),
    }
    return render(request, "channels/outbox.html", context)


@sensitive_post_parameters("token", "app_token", "signing")
@require_POST
def act(request: HttpRequest, action: str) -> HttpResponse:
    """Take one action by its name; the page that asked says what came of it."""
    by, take = principal_of(request), ACTIONS.get(action)
    try:
        if take is None:
            raise NotFound(f"There is no action {action}.")
        said, back = take(by, request)
        messages.success(request, said)
    except PolarError as error:
        fields = "".join(f" {f.path}: {f.expected}." for f in error.fields)
        messages.error(request, f"Not done: {error.detail}{fields} ({error.code})")
        back = _back(request)
    return HttpResponseRedirect(back)


def _back(request: HttpRequest) -> str:
    """Where the form stood: a page of ours, by its name alone."""
    name = request.POST.get("back", "")
    if name in ("people", "outbox"):
        return reverse(f"channels:{name}")
    account = request.POST.get("account", "")
    try:
        return reverse("channels:account", args=[UUID(account)])
    except ValueError:
        return reverse("channels:accounts")


def _add(by: Principal, request: HttpRequest) -> tuple[str, str]:
    saved = services.save_bot(
        by=by,
        workspace=_workspace_of(by),
        kind=request.POST.get("kind", ""),
        slug=request.POST.get("slug", "").strip(),
        token=forms.read_token(request.POST),
    )
    said = f"{saved.slug} is saved; its token is in the vault. It is heard in a moment."
    return said, reverse("channels:account", args=[saved.id])


def _change(by: Principal, request: HttpRequest) -> tuple[str, str]:
    account_id = forms.read_id(request.POST, "account")
    account = queries.get_account(account_id, visible_to=by)
    changes = forms.read_changes(request.POST)
    saved = services.change_account(by=by, account=account, changes=changes)
    return f"{saved.slug} is changed.", _back(request)


def _pause(by: Principal, request: HttpRequest) -> tuple[str, str]:
    return _move(by, request, AccountState.PAUSED), _back(request)


def _resume(by: Principal, request: HttpRequest) -> tuple[str, str]:
    return _move(by, request, AccountState.ACTIVE), _back(request)


def _move(by: Principal, request: HttpRequest, state: str) -> str:
    account_id = forms.read_id(request.POST, "account")
    account = queries.get_account(account_id, visible_to=by)
    services.set_account_state(by=by, account=account, state=state)
    return f"{account.slug} is {state}."


def _let_in(by: Principal, request: HttpRequest) -> tuple[str, str]:
    row = services.decide_pairing(
        by=by,
        code=request.POST.get("code", ""),
        approve=True,
        tier=request.POST.get("tier", ""),
        username=request.POST.get("username", "").strip(),
    )
    name = row.display or row.external_user
    return f"{name} is let in.", reverse("channels:people")


def _refuse(by: Principal, request: HttpRequest) -> tuple[str, str]:
    pairing_id = forms.read_id(request.POST, "pairing")
    row = services.refuse_pairing(by=by, pairing_id=pairing_id)
    return f"{row.display or row.external_user} is turned down.", _back(request)


def _tier(by: Principal, request: HttpRequest) -> tuple[str, str]:
    row = services.set_tier(
        by=by,
        identity_id=forms.read_id(request.POST, "identity"),
        tier=request.POST.get("tier", ""),
    )
    return f"{row.display or row.external_user} is {row.tier} now.", _back(request)


def _block(by: Principal, request: HttpRequest) -> tuple[str, str]:
    row = services.block_sender(
        by=by,
        identity_id=forms.read_id(request.POST, "identity"),
        blocked=request.POST.get("blocked") == "yes",
    )
    return f"{row.display or row.external_user} is {row.state}.", _back(request)


def _resend(by: Principal, request: HttpRequest) -> tuple[str, str]:
    message_id = forms.read_id(request.POST, "message")
    services.resend(by=by, message_id=message_id)
    return "It goes out again, as a new message.", _back(request)


ACTIONS: dict[str, Callable[[Principal, HttpRequest], tuple[str, str]]] = {
    "add": _add,
    "change": _change,
    "pause": _pause,
    "resume": _resume,
    "let-in": _let_in,
    "refuse": _refuse,
    "tier": _tier,
    "block": _block,
    "resend": _resend,
}


def _workspace_of(principal: Principal) -> Workspace:
    workspace = access_queries.workspaces_of(principal).first()
    if workspace is None:
        raise NotFound("You belong to no workspace yet; an administrator adds you.")
    return workspace


def _rights(principal: Principal, workspace: Workspace | None = None) -> dict[str, Any]:
    """What the reader may press, and whom they may name."""
    workspace = workspace or access_queries.workspaces_of(principal).first()
    if workspace is None:
        return {"may_operate": False, "may_admin": False, "members": []}
    held = policies.role_of(principal, workspace)
    rank = ROLE_ORDER.index(Role(held)) if held else -1
    may_operate = rank >= ROLE_ORDER.index(Role.OPERATOR)
    return {
        "may_operate": may_operate,
        "may_admin": rank >= ROLE_ORDER.index(Role.ADMIN),
        "members": list(boards_queries.people(workspace)) if may_operate else [],
    }
