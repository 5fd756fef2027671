from django.apps import AppConfig
from django.core import checks


class VaultConfig(AppConfig):
    """Keeps secrets."""

    name = "apps.vault"
    label = "vault"

    def ready(self) -> None:
        from apps.vault.checks import check_ring, check_store

        checks.register(check_ring, checks.Tags.security)
        checks.register(check_store, checks.Tags.database)
