"""Letting a stranger in: a code that they tell an operator, who decides.

Invariants: a code lives an hour; an account has at most three open; nobody is let
in without a decision, not even the first to write; a tier needs the same role.
"""

import secrets
from datetime import timedelta
from uuid import UUID

from django.db import transaction

from apps.access import services as access
from apps.access.models import Principal, PrincipalKind, Role, Workspace
from apps.access.policies import check_role, role_of
from apps.audit import services as audit
from apps.channels.models import (
    PAIRING,
    TIER_ORDER,
    Account,
    ChannelIdentity,
    IdentityState,
    PairingRequest,
    PairingState,
    Tier,
)
from apps.common import clock
from apps.common.errors import Conflict, Denied, FieldProblem, Invalid, NotFound

#: Letters and digits that are not taken for each other.
ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
CODE_LENGTH = 8
LIVES = timedelta(hours=1)
MOST_OPEN = 3


def ask(account: Account, external_user: str, display: str) -> str:
    """Give a stranger a code, in the caller's transaction.

    Returns "" when they have one already or too many strangers wait.
    """
    now = clock.now()
    pending = PairingRequest.objects.filter(account=account, state=PairingState.PENDING)
    pending.filter(expires_at__lte=now).update(state=PairingState.EXPIRED)
    # One row lock per account, so that three stay three.
    Account.objects.select_for_update().get(id=account.id)
    if pending.filter(external_user=external_user).exists():
        return ""
    if pending.count() >= MOST_OPEN:
        return ""
    code = "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH))
    row = PairingRequest.objects.create(
        account=account,
        external_user=external_user,
        display=display[:120],
        code=code,
        expires_at=now + LIVES,
    )
    audit.record(
        type="channel.pairing_asked",
        actor=access.system_principal().actor,
        subject=("pairing", str(row.id)),
        workspace_id=account.workspace_id,
        data={"account": account.slug, "sender": external_user},
    )
    return code


@transaction.atomic
def decide(
    *, by: Principal, code: str, approve: bool, tier: str, who: Principal | None = None
) -> PairingRequest:
    """Let a stranger in as a person of this install, or turn them down.

    Writes: PairingRequest by one conditional UPDATE; ChannelIdentity.
    Raises: NotFound for a code that is unknown or over; Denied for agents;
    RoleRequired below operator, or below the tier that is given; Invalid.
    """
    if by.kind in (PrincipalKind.AGENT, PrincipalKind.AUTOMATION):
        raise Denied("An agent never decides who is let in.")
    row = (
        PairingRequest.objects.select_related("account__workspace")
        .filter(code=code.strip().upper(), state=PairingState.PENDING)
        .filter(expires_at__gt=clock.now())
        .first()
    )
    if row is None or not _sees(by, row.account):
        raise NotFound("There is no open pairing with this code.")
    account = row.account
    check_role(by, Role.OPERATOR, account.workspace)
    target = PairingState.APPROVED if approve else PairingState.REJECTED
    PAIRING.check(row.state, target)
    still = PairingRequest.objects.filter(id=row.id, state=PairingState.PENDING)
    if not still.update(state=target, decided_by=by, decided_at=clock.now()):
        raise Conflict("Somebody else decided this first.")
    row.refresh_from_db()
    if approve:
        _let_in(by, row, Tier(_checked(tier)), who)
    _record(by, row, tier if approve else "")
    return row


@transaction.atomic
def refuse(*, by: Principal, pairing_id: UUID) -> PairingRequest:
    """Turn a stranger down. That takes no code: it opens nothing.

    Raises: NotFound; RoleRequired below operator; Denied for agents; Conflict.
    """
    row = (
        PairingRequest.objects.select_related("account__workspace")
        .filter(id=pairing_id)
        .first()
    )
    if row is None or not _sees(by, row.account):
        raise NotFound("There is no such pairing.")
    PAIRING.check(row.state, PairingState.REJECTED)
    return decide(by=by, code=row.code, approve=False, tier="")


@transaction.atomic
def set_tier(*, by: Principal, identity_id: UUID, tier: str) -> ChannelIdentity:
    """Give a sender another tier, of those that their person's role bears.

    Raises: NotFound; Invalid; RoleRequired below operator, or below either tier;
    Denied for agents.
    """
    if by.kind in (PrincipalKind.AGENT, PrincipalKind.AUTOMATION):
        raise Denied("An agent never decides who may do what.")
    wanted = Tier(_checked(tier))
    row = (
        ChannelIdentity.objects.select_related("account__workspace", "principal")
        .filter(id=identity_id)
        .first()
    )
    if row is None or not _sees(by, row.account):
        raise NotFound("There is no such sender.")
    workspace = row.account.workspace
    check_role(by, Role.OPERATOR, workspace)
    for each in (wanted, Tier(row.tier)):
        if each != Tier.PUBLIC:
            check_role(by, Role(each), workspace)
    if wanted != Tier.PUBLIC:
        _bearer(row.principal, wanted, workspace)
    same = ChannelIdentity.objects.filter(id=row.id, tier=row.tier)
    if not same.update(tier=wanted):
        raise Conflict("Somebody else changed this sender first.")
    row.tier = wanted
    _record_sender(by, row, wanted)
    return row


def _bearer(who: Principal | None, tier: Tier, workspace: Workspace) -> Principal:
    """Return the person, if their role bears this tier.   Raises: Invalid."""
    ranks = [str(each) for each in TIER_ORDER]
    role = role_of(who, workspace) if who is not None else ""
    if who is None or role not in ranks or ranks.index(role) < ranks.index(tier):
        problem = FieldProblem("who", "not enough", f"a person with role {tier}")
        raise Invalid(
            f"The tier {tier} needs a person who has that role here.",
            fields=(problem,),
        )
    return who


def _sees(by: Principal, account: Account) -> bool:
    return bool(Account.objects.visible_to(by).filter(id=account.id).exists())


def _checked(tier: str) -> str:
    if tier not in Tier.values:
        problem = FieldProblem("tier", "unknown", ", ".join(Tier.values))
        raise Invalid("There is no such tier.", fields=(problem,))
    return tier


def _let_in(
    by: Principal, row: PairingRequest, tier: Tier, who: Principal | None
) -> None:
    """Bind the vendor's user id to a principal; public senders get their own."""
    workspace = row.account.workspace
    if tier == Tier.PUBLIC:
        who = access.principal_for_automation(
            key=f"sender:{row.account.slug}:{row.external_user}"[:120],
            label=row.display or row.external_user,
            workspace=workspace,
        )
    else:
        # Nobody gives more than they have.
        check_role(by, Role(tier), workspace)
        who = _bearer(who, tier, workspace)
    ChannelIdentity.objects.update_or_create(
        account=row.account,
        external_user=row.external_user,
        defaults={
            "display": row.display,
            "principal": who,
            "tier": tier,
            "state": IdentityState.ACTIVE,
        },
    )


@transaction.atomic
def block(*, by: Principal, identity_id: UUID, blocked: bool) -> ChannelIdentity:
    """Shut a sender out, or let them in again as before.

    Raises: NotFound; RoleRequired below operator, or below the sender's tier.
    """
    row = (
        ChannelIdentity.objects.select_related("account__workspace")
        .filter(id=identity_id)
        .first()
    )
    if row is None or not _sees(by, row.account):
        raise NotFound("There is no such sender.")
    tier = Role.OPERATOR if row.tier == Tier.PUBLIC or blocked else Role(row.tier)
    check_role(by, tier, row.account.workspace)
    state = IdentityState.BLOCKED if blocked else IdentityState.ACTIVE
    if not ChannelIdentity.objects.filter(id=row.id, state=row.state).update(
        state=state
    ):
        raise Conflict("Somebody else changed this sender first.")
    row.state = state
    _record_sender(by, row, state)
    return row


def _record_sender(by: Principal, row: ChannelIdentity, to: str) -> None:
    audit.record(
        type="channel.identity_changed",
        actor=by.actor,
        subject=("sender", str(row.id)),
        workspace_id=row.account.workspace_id,
        data={"account": row.account.slug, "sender": row.external_user, "to": to},
    )


def _record(by: Principal, row: PairingRequest, tier: str) -> None:
    audit.record(
        type="channel.pairing_decided",
        actor=by.actor,
        subject=("pairing", str(row.id)),
        workspace_id=row.account.workspace_id,
        decision=str(row.state),
        data={
            "account": row.account.slug,
            "sender": row.external_user,
            "tier": tier,
        },
    )
