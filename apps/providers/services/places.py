"""Tells the vault where a provider's key is used, entered, and tried out."""

from uuid import UUID

from django.db.models import Q
from django.urls import reverse

from apps.access import services as access
from apps.common.errors import PolarError
from apps.providers.models import Provider
from apps.providers.services import questions
from apps.vault.ports import Place, Tested


def place_of_key(purpose: str, secret_id: UUID) -> Place | None:
    """Find the provider whose key this is. A key on trial is not tried out here."""
    if not purpose.startswith("provider:"):
        return None
    holds = Q(secret_id=secret_id) | Q(other_secret_id=secret_id)
    row = Provider.objects.filter(holds).first()
    if row is None:
        return None
    is_used = row.secret_id == secret_id
    return Place(
        used_by=f"provider {row.slug}"
        if is_used
        else f"provider {row.slug}, not in use",
        page=reverse("providers:provider", args=[row.slug]),
        test=(lambda: _tested(row.slug)) if is_used else None,
    )


def _tested(slug: str) -> Tested:
    try:
        report = questions.test_provider(
            by=access.system_principal(), provider=Provider.objects.get(slug=slug)
        )
    except PolarError as error:
        return Tested(ok=False, problem=error.detail)
    return Tested(report.ok, report.detail or report.error_class)
