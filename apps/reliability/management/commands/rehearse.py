"""`rehearse DRILL [--control]`: play one drill inside a clone. Started by a drill."""

from argparse import RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.common.errors import PolarError
from apps.reliability.engine.drilling import rehearsing

EXAMPLE = """\
example (started by `./polar drill run blackout`, which makes the clone):
  POLAR_CLONE=/path/of/a/clone ./polar rehearse blackout
"""


class Command(BaseCommand):
    help = "Play a drill in this clone. Refuses outside of one."
    requires_system_checks: list[str] = []

    def create_parser(self, *args: Any, **options: Any) -> CommandParser:
        options |= {"epilog": EXAMPLE, "formatter_class": RawDescriptionHelpFormatter}
        return super().create_parser(*args, **options)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("drill")
        parser.add_argument("--control", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            rehearsing.rehearse(options["drill"], control=options["control"])
        except PolarError as error:
            raise CommandError(f"{error} ({error.code})") from error
