"""Plugs the vendors into their socket."""

from django.apps import AppConfig


class ChannelsConfig(AppConfig):
    name = "apps.channels"
    label = "channels"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from apps.channels.adapters.slack import SlackTransport
        from apps.channels.ports import transports

        transports.register("slack", SlackTransport())
