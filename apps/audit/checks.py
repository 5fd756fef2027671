"""System checks: the triggers that keep the log stand."""

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error
from django.db import connections

from apps.audit.engine import triggers


def check_triggers(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Name each missing trigger. Runs with `check --database default`."""
    found: list[CheckMessage] = []
    for alias in databases or ():
        connection = connections[alias]
        if triggers.EVENT not in connection.introspection.table_names():
            continue
        found += [
            Error(
                f"The audit trigger {name} is missing",
                hint="Run: ./polar migrate (it reinstalls the triggers)",
                id="audit.E001",
            )
            for name in triggers.missing(connection)
        ]
    return found
