from django.apps import AppConfig


class VaultConfig(AppConfig):
    """Keeps secrets."""

    name = "apps.vault"
    label = "vault"
