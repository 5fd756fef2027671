from django.apps import AppConfig


class ReliabilityConfig(AppConfig):
    """Watches the install and rehearses its failures."""

    name = "apps.reliability"
    label = "reliability"
