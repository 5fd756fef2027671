from django.apps import AppConfig


class AccessConfig(AppConfig):
    """Knows who is who."""

    name = "apps.access"
    label = "access"
