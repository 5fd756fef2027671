"""Plugs in the sinks and puts the triggers back after every migration."""

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks as django_checks
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate

from apps.audit import checks, ports
from apps.audit.adapters.http_sink import HttpSink, LogHost
from apps.audit.adapters.s3_sink import Bucket, S3Sink
from apps.audit.adapters.syslog_sink import SyslogHost, SyslogSink
from apps.audit.engine import opened, sinks, triggers


class AuditConfig(AppConfig):
    name = "apps.audit"
    label = "audit"
    verbose_name = "Audit"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        plug_sinks()
        django_checks.register(checks.check_triggers, django_checks.Tags.database)
        connection_created.connect(note_opened, dispatch_uid="audit.opened")
        post_migrate.connect(
            install_triggers, sender=self, dispatch_uid="audit.triggers"
        )


def plug_sinks() -> None:
    """Plug in every kind of sink; those without an address are off."""
    ports.plug_sink("file", sinks.FileSink(lambda: str(settings.POLAR_SINK_FILE)))
    ports.plug_sink("http", HttpSink(log_host))
    ports.plug_sink("s3", S3Sink(bucket))
    ports.plug_sink("syslog", SyslogSink(syslog_host, sent_by_syslog))


def sent_by_syslog() -> int:
    # Tables exist only once every app is ready.
    from apps.audit import queries

    return queries.sent_to("syslog")


def inside() -> tuple[str, ...]:
    return tuple(settings.POLAR_SINK_LOCAL)


def log_host() -> LogHost:
    return LogHost(
        settings.POLAR_SINK_HTTP_URL, settings.POLAR_SINK_HTTP_TOKEN, inside()
    )


def syslog_host() -> SyslogHost:
    return SyslogHost(settings.POLAR_SINK_SYSLOG, inside())


def bucket() -> Bucket:
    return Bucket(
        url=settings.POLAR_SINK_S3_URL,
        region=settings.POLAR_SINK_S3_REGION,
        key_id=settings.POLAR_SINK_S3_KEY_ID,
        secret=settings.POLAR_SINK_S3_SECRET,
        days=settings.POLAR_SINK_S3_DAYS,
        local=inside(),
    )


def install_triggers(sender: AppConfig, using: str, **kwargs: Any) -> None:
    """Install the triggers once the tables stand."""
    connection = connections[using]
    if triggers.EVENT in connection.introspection.table_names():
        triggers.install(connection)


def note_opened(connection: Any, **kwargs: Any) -> None:
    """Remember which file it has open."""
    opened.note_opened(connection)
