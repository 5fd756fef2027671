from django.apps import AppConfig


class GatewayConfig(AppConfig):
    """Decides in code and meters what models propose."""

    name = "apps.gateway"
    label = "gateway"
