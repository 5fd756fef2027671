"""`manage.py seed_demo`: the first rows of a fresh install."""

from typing import Any

from django.core.management.base import BaseCommand

from apps.access import queries as access
from apps.reliability import services
from apps.reliability.engine import seeding


class Command(BaseCommand):
    help = "Make what a fresh install needs; prints a new operator's password once."

    def handle(self, *_args: Any, **_options: Any) -> None:
        seeded = seeding.seed()
        services.install_schedule(workspace=access.default_workspace())
        services.install_weekly_breach(workspace=access.default_workspace())
        services.install_drill_schedule(workspace=access.default_workspace())
        if seeded.password:
            self.stdout.write(
                f"Sign in as:      {seeded.username}\n"
                f"Password:        {seeded.password}   (shown this once)"
            )
