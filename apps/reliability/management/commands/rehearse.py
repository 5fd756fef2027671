"""`rehearse DRILL [--control | --live ID]`: play one drill. Started by a drill."""

from argparse import RawDescriptionHelpFormatter
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.common.errors import PolarError
from apps.reliability.engine.drilling import playing, rehearsing

EXAMPLE = """\
example (started by `./polar drill run blackout`, which makes the clone):
  POLAR_CLONE=/path/of/a/clone ./polar rehearse blackout
"""


class Command(BaseCommand):
    help = "Play a drill in this clone, or a live one that was asked for."
    requires_system_checks: list[str] = []

    def create_parser(self, *args: Any, **options: Any) -> CommandParser:
        options |= {"epilog": EXAMPLE, "formatter_class": RawDescriptionHelpFormatter}
        return super().create_parser(*args, **options)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("drill")
        parser.add_argument("--control", action="store_true")
        parser.add_argument("--live", metavar="ID", help="of the live drill to play")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["live"]:
                playing.play_live(options["drill"], UUID(options["live"]))
            else:
                rehearsing.rehearse(options["drill"], control=options["control"])
        except PolarError as error:
            raise CommandError(f"{error} ({error.code})") from error
