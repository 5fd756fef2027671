"""Reads of accounts. Never writes."""

from django.db.models import QuerySet

from apps.access.models import Principal, Workspace
from apps.channels.models import Account, AccountKind

WEB_SLUG = "web"


def accounts(*, visible_to: Principal) -> QuerySet[Account]:
    return Account.objects.visible_to(visible_to).order_by("slug", "id")


def find_web_account(*, workspace: Workspace) -> Account | None:
    found = Account.objects.filter(workspace=workspace, kind=AccountKind.WEB)
    return found.order_by("id").first()


def find_person(username: str) -> Principal | None:
    """Return a person by the name they sign in with."""
    found: Principal | None = Principal.objects.filter(user__username=username).first()
    return found
