"""Plugs in the file sink and puts the triggers back after every migration."""

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks as django_checks
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate

from apps.audit import checks, ports
from apps.audit.engine import opened, sinks, triggers


class AuditConfig(AppConfig):
    name = "apps.audit"
    label = "audit"
    verbose_name = "Audit"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        ports.plug_sink("file", sinks.FileSink(lambda: str(settings.POLAR_SINK_FILE)))
        django_checks.register(checks.check_triggers, django_checks.Tags.database)
        connection_created.connect(note_opened, dispatch_uid="audit.opened")
        post_migrate.connect(
            install_triggers, sender=self, dispatch_uid="audit.triggers"
        )


def install_triggers(sender: AppConfig, using: str, **kwargs: Any) -> None:
    """Install the triggers once the tables stand."""
    connection = connections[using]
    if triggers.EVENT in connection.introspection.table_names():
        triggers.install(connection)


def note_opened(connection: Any, **kwargs: Any) -> None:
    """Remember which file it has open."""
    opened.note_opened(connection)
