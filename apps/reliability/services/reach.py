"""Grants and channels as configuration: what is allowed by standing, who is heard.

A grant for a while is operation, not configuration, and is left out. A bot needs its
token first: until it is entered, its entry waits and changes nothing.
"""

from django.db.models import Q
from pydantic import Field

from apps.access import services as access
from apps.access.models import Principal, PrincipalKind, Workspace
from apps.access.queries import default_workspace, find_user
from apps.channels import services as channels
from apps.channels.models import Account, AccountKind, AccountState
from apps.common import canonical
from apps.common.errors import FieldProblem, Invalid
from apps.common.schemas import In
from apps.gateway import services as gateway
from apps.gateway.models import Grant
from apps.gateway.ports import CallKind, Json


class GrantEntry(In):
    """Its key says what it allows, so a grant never changes: it is there or not."""

    kind: CallKind
    capabilities: list[str] = Field(min_length=1, max_length=500)
    constraints: Json = Field(default_factory=dict)
    reason: str = Field(min_length=1, max_length=300)
    #: "" is everybody; "agent:SLUG"; "user:NAME".
    principal: str = Field("", max_length=200)
    everywhere: bool = False
    active: bool = True


class ChannelEntry(In):
    """`token` is written and never read back."""

    kind: AccountKind
    state: AccountState = AccountState.ACTIVE
    token: str = Field(default="", max_length=10_000, repr=False, exclude=True)


def read_grants() -> dict[str, In]:
    """A shipped grant is named also when it was ended: that is a setting too."""
    mine = Q(workspace=_home()) | Q(workspace=None)
    rows = Grant.objects.filter(mine, expires_at__isnull=True).select_related(
        "principal__user"
    )
    found: dict[str, In] = {}
    for row in rows.filter(Q(revoked_at__isnull=True) | Q(is_shipped=True)):
        entry = GrantEntry(
            kind=CallKind(row.kind),
            capabilities=row.capabilities,
            constraints=row.constraints,
            reason=row.reason,
            principal=_name_of(row.principal),
            everywhere=row.workspace_id is None,
            active=row.revoked_at is None,
        )
        key = _key_of(entry)
        known = found.get(key)
        # Of two alike, the one that still allows counts.
        if not (isinstance(known, GrantEntry) and known.active):
            found[key] = entry
    return found


def write_grant(by: Principal, key: str, entry: GrantEntry) -> None:
    if key != _key_of(entry):
        problem = FieldProblem("key", "not this grant's", _key_of(entry))
        raise Invalid(
            "A grant is not changed: end it, make another.", fields=(problem,)
        )
    there = [row for row in _live() if _matches(row, entry)]
    if entry.active and not there:
        gateway.make_grant(
            by=by,
            new=gateway.NewGrant(
                kind=entry.kind,
                capabilities=tuple(entry.capabilities),
                constraints=entry.constraints,
                reason=entry.reason,
                principal=_principal(entry.principal),
                workspace=None if entry.everywhere else _home(),
            ),
        )
    if not entry.active:
        for row in there:
            gateway.revoke_grant(by=by, grant_id=row.id, reason="set as configuration")


def read_channels() -> dict[str, In]:
    rows = Account.objects.filter(workspace=_home()).order_by("slug")
    return {
        row.slug: ChannelEntry(
            kind=AccountKind(row.kind), state=AccountState(row.state)
        )
        for row in rows
    }


def channel_waits(entry: In) -> bool:
    """Tell whether a channel that is not here yet lacks the token to open it."""
    return (
        isinstance(entry, ChannelEntry)
        and entry.kind != AccountKind.WEB
        and not entry.token
    )


def write_channel(by: Principal, slug: str, entry: ChannelEntry) -> None:
    home = _home()
    if entry.token:
        channels.save_bot(
            by=by, workspace=home, kind=entry.kind, slug=slug, token=entry.token
        )
    elif entry.kind == AccountKind.WEB:
        channels.open_web_account(by=by, workspace=home)
    account = Account.objects.filter(workspace=home, slug=slug).first()
    if account is None or account.kind != entry.kind:
        problem = FieldProblem("token", "missing", "the bot's token")
        raise Invalid(f"There is no {entry.kind} account {slug}.", fields=(problem,))
    if account.state != entry.state:
        channels.set_account_state(by=by, account=account, state=entry.state)


def secrets_of_channels() -> list[str]:
    """Name the tokens that this install holds."""
    rows = Account.objects.filter(workspace=_home(), secret__isnull=False)
    return [f"channels.{slug}.token" for slug in rows.values_list("slug", flat=True)]


def _live() -> list[Grant]:
    mine = Q(workspace=_home()) | Q(workspace=None)
    rows = Grant.objects.filter(
        mine, expires_at__isnull=True, revoked_at__isnull=True
    ).select_related("principal__user")
    return list(rows.order_by("id"))


def _matches(row: Grant, entry: GrantEntry) -> bool:
    return (
        row.kind == entry.kind
        and list(row.capabilities) == entry.capabilities
        and row.constraints == entry.constraints
        and row.reason == entry.reason
        and _name_of(row.principal) == entry.principal
        and (row.workspace_id is None) == entry.everywhere
    )


def _key_of(entry: GrantEntry) -> str:
    facts = entry.model_dump(mode="json", exclude={"active"})
    return f"{entry.kind}-{canonical.digest(facts)[:12]}"


def _name_of(principal: Principal | None) -> str:
    """Name somebody so that another install knows them: no ids."""
    if principal is None:
        return ""
    if principal.user is not None:
        return f"user:{principal.user.username}"
    if principal.kind == PrincipalKind.AGENT:
        return f"agent:{principal.key.rsplit(':', 1)[-1]}"
    return principal.key


def _principal(name: str) -> Principal | None:
    kind, _, rest = name.partition(":")
    found: Principal | None = None
    if not name:
        return None
    if kind == "user":
        user = find_user(rest, _home())
        found = access.principal_for_user(user=user) if user else None
    elif kind == "agent" and rest:
        found = access.principal_for_agent(slug=rest, workspace=_home())
    else:
        found = Principal.objects.filter(key=name).first()
    if found is None:
        problem = FieldProblem("principal", f"unknown: {name!r}", "somebody here")
        raise Invalid(f"There is nobody called {name!r} here.", fields=(problem,))
    return found


def _home() -> Workspace:
    return default_workspace()
