"""Addresses that are told of every alert: set, listed, taken away."""

from uuid import UUID

from django.db import transaction
from django.urls import reverse

from apps.access import queries as access
from apps.access import services as access_services
from apps.access.models import Principal, Role
from apps.access.policies import check_role
from apps.audit import services as audit
from apps.common import egress, ids
from apps.common.errors import Conflict, FieldProblem, Invalid, NotFound
from apps.gateway import services as gateway
from apps.gateway.models import Grant
from apps.gateway.ports import CallKind
from apps.reliability.models import Webhook
from apps.reliability.services.notices import CAPABILITY, PURPOSE
from apps.vault import services as vault
from apps.vault.ports import Place

SHORTEST_SECRET, LONGEST_URL = 16, 300


def save_webhook(*, by: Principal, url: str, secret: str, local: str = "") -> Webhook:
    """Tell an address of every alert from now on, signed with its secret.

    Writes: Webhook, Secret, and the grant that lets alerts go there.
    Raises: RoleRequired (admin); Invalid; EgressRefused for an inside address that
    is not written down in `local`.   Again: the same URL gets the new secret.
    """
    workspace = access.default_workspace()
    check_role(by, Role.ADMIN, workspace)
    _check(url, secret)
    egress.check_url(url, local=[local] if local else [])
    with transaction.atomic():
        name = f"alert.webhook.{ids.new_id().hex}"
        before = Webhook.objects.select_related("secret").filter(url=url).first()
        kept = vault.put(
            by=by.actor,
            name=before.secret.name if before else name,
            purpose=PURPOSE,
            value=secret,
        )
        hook, is_new = Webhook.objects.update_or_create(
            url=url, defaults={"secret": kept, "local": local, "set_by": by.label}
        )
        if is_new:
            _grant(by, url)
        audit.record(
            type="alert.webhook_saved",
            actor=by.actor,
            subject=("webhook", str(hook.id)),
            data={"url": url, "local": local},
        )
    return hook


@transaction.atomic
def remove_webhook(*, by: Principal, webhook_id: UUID) -> None:
    """Tell it no more; its secret and its grant end with it.

    Raises: RoleRequired (admin); NotFound; Conflict when it changed meanwhile.
    """
    check_role(by, Role.ADMIN, access.default_workspace())
    hook = Webhook.objects.filter(id=webhook_id).first()
    if hook is None:
        raise NotFound("There is no such webhook.")
    if not Webhook.objects.filter(id=hook.id).delete()[0]:
        raise Conflict("Somebody else has just removed it.")
    reason = f"no more alerts to {hook.url}"[:300]
    vault.delete(by=by.actor, secret_id=hook.secret_id, reason=reason)
    for grant_id in _grants_for(hook.url):
        gateway.revoke_grant(by=by, grant_id=grant_id, reason=reason)
    audit.record(
        type="alert.webhook_removed",
        actor=by.actor,
        subject=("webhook", str(webhook_id)),
        data={"url": hook.url},
    )


def place_of_webhook(purpose: str, secret_id: UUID) -> Place | None:
    """Tell the vault where the secret of a webhook is used."""
    if purpose != PURPOSE:
        return None
    hook = Webhook.objects.filter(secret_id=secret_id).first()
    if hook is None:
        return None
    return Place(
        used_by=f"alerts to {hook.url}",
        page=reverse("reliability:alerts"),
        command=f"./polar alerts webhook {hook.url}",
    )


def _check(url: str, secret: str) -> None:
    problems = []
    if not 0 < len(url) <= LONGEST_URL or not url.isprintable():
        expected = f"an address of at most {LONGEST_URL} characters"
        problems.append(FieldProblem("url", "cannot be an address", expected))
    if len(secret) < SHORTEST_SECRET:
        expected = f"at least {SHORTEST_SECRET} characters"
        problems.append(FieldProblem("secret", "too short", expected))
    if problems:
        raise Invalid("This webhook cannot be set.", fields=tuple(problems))


def _grant(by: Principal, url: str) -> None:
    gateway.make_grant(
        by=by,
        new=gateway.NewGrant(
            kind=CallKind.MESSAGE,
            capabilities=(CAPABILITY,),
            reason=f"alerts to {url}"[:300],
            principal=access_services.system_principal(),
            constraints=_only(url),
        ),
    )


def _grants_for(url: str) -> list[UUID]:
    live = Grant.objects.filter(kind=CallKind.MESSAGE, revoked_at__isnull=True)
    return [
        grant.id
        for grant in live.order_by("id")
        if grant.capabilities == [CAPABILITY] and grant.constraints == _only(url)
    ]


def _only(url: str) -> dict[str, list[str]]:
    return {"targets": [url]}
