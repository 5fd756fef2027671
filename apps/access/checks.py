"""What `manage.py check` says of access. Warnings: passwords go on meanwhile."""

from collections.abc import Sequence
from typing import Any

from django.core import checks

from apps.access import ports, queries


def check_sign_on(
    *, app_configs: Sequence[Any] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Say why single sign-on is off although it is set up. Reads the settings only."""
    problems = queries.sign_on_problems(ports.written_sign_on())
    hint = "Single sign-on stays off. See docs/how-to/single-sign-on.md"
    return [checks.Warning(each, hint=hint, id="access.W001") for each in problems]
