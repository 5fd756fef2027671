"""Accounts: opened from the environment or the desk, changed, paused, resumed."""

import logging
import re
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from django.db import transaction

from apps.access import policies
from apps.access import queries as access_queries
from apps.access import services as access
from apps.access.models import Principal, Role, Workspace
from apps.channels import queries
from apps.channels.engine import notes
from apps.channels.models import (
    ACCOUNT,
    Account,
    AccountKind,
    AccountSource,
    AccountState,
    HearsBy,
)
from apps.channels.ports import hooks, transports
from apps.common import clock
from apps.common.errors import Conflict, FieldProblem, Invalid, NotFound
from apps.vault import services as vault
from apps.vault.errors import VaultSealed
from apps.vault.models import Secret

logger = logging.getLogger(__name__)

#: How the purpose of a bot's secret begins.
PURPOSE = "the token of the"
MOST_ALLOWED = 200
LONGEST_ID = 80
MOST_PER_MINUTE = 600
#: What is begun with another token, chat or pause: nobody waits for a word.
NO_CANARY: dict[str, Any] = {
    "canary_token": "",
    "canary_tried_at": None,
    "canary_waits_since": None,
    "canary_trouble": "",
}
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,38}[a-z0-9]|[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Changes:
    """What may be changed of an account; None leaves it as it is."""

    allowed_senders: list[str] | None = None
    allowed_chats: list[str] | None = None
    per_minute: int | None = None
    alerts_to: str | None = None
    approvals_to: str | None = None
    canary_chat: str | None = None
    hears_by: str | None = None
    #: Where the vendor reaches us: the site's own https address.
    public_url: str | None = None


@transaction.atomic
def set_account_state(*, by: Principal, account: Account, state: str) -> None:
    """Pause or resume an account.   Raises: InvalidTransition, Conflict."""
    policies.check_role(by, Role.OPERATOR, account.workspace)
    ACCOUNT.check(account.state, state)
    moved = Account.objects.filter(id=account.id, state=account.state)
    if moved.update(state=state, awaited_since=clock.now(), **NO_CANARY) != 1:
        raise Conflict("Somebody else changed this account first.")
    account.state = state
    paused = state == AccountState.PAUSED
    notes.record("channel.paused" if paused else "channel.resumed", account, by)


@transaction.atomic
def save_bot(
    *,
    by: Principal,
    workspace: Workspace,
    kind: str,
    slug: str,
    token: str,
    source: str = AccountSource.DESK,
) -> Account:
    """Open a bot's account, or give it another token, which goes to the vault.

    Raises: RoleRequired below admin; Invalid; VaultSealed; Conflict for a token that
    is another account's: two who listen for one bot take each other's messages.
    Again: the same token changes nothing.
    """
    policies.check_role(by, Role.ADMIN, workspace)
    _check_bot(kind, slug, token)
    before = Account.objects.filter(workspace=workspace, slug=slug).first()
    if before is not None and before.kind != kind:
        raise Conflict(f"{slug} is an account of {before.kind}.")
    was = before.secret.fingerprint if before and before.secret else ""
    secret = vault.put(
        by=by.actor,
        name=f"channel/{workspace.slug}/{slug}/token",
        purpose=f"{PURPOSE} {kind} account {slug}",
        value=token.strip(),
        workspace_id=workspace.id,
    )
    _check_only(secret, but=before)
    account, is_new = Account.objects.get_or_create(
        workspace=workspace,
        slug=slug,
        defaults={
            "kind": kind,
            "secret": secret,
            "source": source,
            "hears_by": _way(kind, token, HearsBy.LISTEN),
        },
    )
    if not is_new and was != secret.fingerprint:
        Account.objects.filter(id=account.id).update(
            secret=secret,
            hears_by=_way(kind, token, account.hears_by),
            awaited_since=clock.now(),
            refused_at=None,
            trouble="",
            **NO_CANARY,
        )
        account.refresh_from_db()
        notes.record("channel.changed", account, by, changed=["token"])
    elif account.hears_by != (way := _way(kind, token, account.hears_by)):
        Account.objects.filter(id=account.id).update(hears_by=way)
        account.hears_by = way
    if is_new:
        notes.record("channel.opened", account, by)
    return account


def _check_only(secret: Secret, but: Account | None) -> None:
    """Raises: Conflict."""
    same = Account.objects.filter(secret__fingerprint=secret.fingerprint)
    other = same.exclude(id=but.id if but else None).first()
    if other is not None:
        raise Conflict(f"This token is the account {other.slug}'s already.")


def _check_bot(kind: str, slug: str, token: str) -> None:
    if kind not in transports.kinds():
        expected = ", ".join(transports.kinds())
        problem = FieldProblem("kind", "unknown", expected)
        raise Invalid(f"Nothing here speaks to {kind[:40]}.", fields=(problem,))
    if not _SLUG.fullmatch(slug) or slug == queries.WEB_SLUG:
        problem = FieldProblem("slug", "not a name", "a-z, 0-9 and -; at most 40")
        raise Invalid("The name cannot be used.", fields=(problem,))
    expected = _expected(kind, token.split())
    if expected:
        problem = FieldProblem("token", "not of this vendor", expected)
        raise Invalid("The token has not the vendor's shape.", fields=(problem,))


def _expected(kind: str, parts: list[str]) -> str:
    """Say what a token should look like, or "" when it does."""
    if kind == AccountKind.SLACK:
        is_bot = any(part.startswith("xoxb-") for part in parts)
        hears = len(parts) > 1 and len(parts) <= 3
        return (
            ""
            if is_bot and hears
            else (
                "the bot token (xoxb-…), and the app token (xapp-…)"
                " or the signing secret"
            )
        )
    if len(parts) != 1 or not re.fullmatch(r"\d{5,20}:[\w-]{20,80}", parts[0]):
        return "what BotFather gave you, such as 123456:ABC…"
    return ""


def _way(kind: str, token: str, before: str) -> str:
    """Slack without an app token calls us; with one it is listened to."""
    if kind != AccountKind.SLACK:
        return before
    return HearsBy.LISTEN if re.search(r"\bxapp-", token) else HearsBy.HOOK


@transaction.atomic
def change_account(*, by: Principal, account: Account, changes: Changes) -> Account:
    """Change who is heard, how, and which chats are told of what.

    Raises: RoleRequired below admin; Invalid.   Again: nothing.
    """
    policies.check_role(by, Role.ADMIN, account.workspace)
    wanted = _checked(account, changes)
    row = Account.objects.select_for_update().get(id=account.id)
    changed = sorted(name for name, new in wanted.items() if getattr(row, name) != new)
    if changed:
        if "hears_by" in changed or "settings" in changed:
            wanted["awaited_since"] = clock.now()
        if "canary_chat" in changed:
            wanted |= NO_CANARY
        Account.objects.filter(id=row.id).update(**wanted)
        row.refresh_from_db()
        shown = {name: wanted[name] for name in changed if name != "settings"}
        notes.record("channel.changed", row, by, changed=changed, to=shown)
    return row


def _checked(account: Account, changes: Changes) -> dict[str, Any]:
    given = {name: said for name, said in asdict(changes).items() if said is not None}
    for name in ("allowed_senders", "allowed_chats"):
        if name in given:
            given[name] = _ids(name, given[name])
    if given.get("canary_chat") and account.kind != AccountKind.SLACK:
        raise _wrong("canary_chat", "an account of Slack: others tell no bot its words")
    for name in ("alerts_to", "approvals_to", "canary_chat"):
        if name in given:
            given[name] = _chat(account, name, given[name])
    if not 1 <= given.get("per_minute", 1) <= MOST_PER_MINUTE:
        raise _wrong("per_minute", f"1 to {MOST_PER_MINUTE}")
    url = given.pop("public_url", None)
    if url is not None:
        given["settings"] = {**account.settings, "public_url": _public(url)}
    if "hears_by" in given:
        said = given.get("settings", account.settings)
        _check_way(account, given["hears_by"], str(said.get("public_url", "")))
    return given


def _ids(name: str, said: list[str]) -> list[str]:
    found = sorted({each.strip() for each in said if each.strip()})
    if len(found) > MOST_ALLOWED or any(len(each) > LONGEST_ID for each in found):
        raise _wrong(name, f"at most {MOST_ALLOWED} ids of at most {LONGEST_ID}")
    return found


def _chat(account: Account, name: str, said: str) -> str:
    chat = said.strip()
    shapes = {AccountKind.TELEGRAM: r"-?\d{1,20}", AccountKind.SLACK: r"[CDG]\w{2,20}"}
    shape = shapes.get(AccountKind(account.kind), "")
    if chat and not re.fullmatch(shape, chat):
        raise _wrong(name, "the vendor's id of a chat, such as -1001234 or C0123ABC")
    return chat


def _public(url: str) -> str:
    url = url.strip().rstrip("/")
    parts = urlsplit(url)
    fits = parts.scheme == "https" and parts.hostname and not parts.query
    if url and (not fits or parts.username or len(url) > 200):
        raise _wrong("public_url", "https://… of this site, as the vendor reaches it")
    return url


def _check_way(account: Account, way: str, url: str) -> None:
    if way not in HearsBy.values:
        raise _wrong("hears_by", ", ".join(HearsBy.values))
    if way == HearsBy.HOOK and hooks.find(account.kind) is None:
        raise _wrong("hears_by", "a vendor that can call us")
    if way == HearsBy.HOOK and account.kind == AccountKind.TELEGRAM and not url:
        raise _wrong("public_url", "where Telegram reaches this site, by https")


def _wrong(name: str, expected: str) -> Invalid:
    problem = FieldProblem(name, "not possible", expected)
    return Invalid(f"{name} is not possible: expected {expected}.", fields=(problem,))


def discover() -> list[str]:
    """Open the accounts whose tokens stand in the environment.

    Again: the same token changes nothing; a paused account stays paused.
    """
    found = []
    for kind, token in queries.tokens_of_the_environment():
        if not token.strip() or kind not in transports.kinds():
            continue
        try:
            save_bot(
                by=access.system_principal(),
                workspace=access_queries.default_workspace(),
                kind=kind,
                slug=kind,
                token=token,
                source=AccountSource.ENV,
            )
        except (VaultSealed, NotFound, Invalid, Conflict) as error:
            logger.warning(
                "a bot's token in the environment was not taken",
                extra={"event": "channel.found", "code": error.code},
            )
            continue
        found.append(str(kind))
    return found
