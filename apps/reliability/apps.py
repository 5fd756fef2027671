from django.apps import AppConfig


class ReliabilityConfig(AppConfig):
    """Watches the install and rehearses its failures."""

    name = "apps.reliability"
    label = "reliability"

    def ready(self) -> None:
        from apps.reliability.engine import starter
        from apps.runs import ports as runs

        runs.handlers.register(starter.KIND, starter.start_scheduled_turn)
