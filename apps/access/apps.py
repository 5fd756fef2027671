from typing import Any

from django.apps import AppConfig, apps
from django.core import checks
from django.db.models.signals import post_migrate


class AccessConfig(AppConfig):
    """Knows who is who."""

    name = "apps.access"
    label = "access"

    def ready(self) -> None:
        from apps.access import ports
        from apps.access.adapters.oidc import OpenIdConnect
        from apps.access.checks import check_sign_on
        from apps.access.services import factors
        from apps.vault import ports as vault

        ports.plug_issuer(OpenIdConnect())
        vault.plug_places(factors.place_of_factor)
        checks.register(check_sign_on, checks.Tags.security)
        # The admin's own migration signal comes after those of all our apps, so
        # every permission exists by then.
        last = apps.get_app_config("admin")
        post_migrate.connect(_give_permissions, sender=last, dispatch_uid="roles")


def _give_permissions(**kwargs: Any) -> None:
    # Models exist only after start-up.
    from apps.access.services import groups

    groups.sync_groups()
