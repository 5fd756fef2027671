"""`manage.py agents`: who called whom, how deep, from a shell."""

import json
import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.access import services as access
from apps.agents.engine import recursion
from apps.common.errors import PolarError


class Command(BaseCommand):
    help = "Look at agents. Example: ./polar agents recursion --hours 24 --json"

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        heat = verbs.add_parser(
            "recursion", help="Count turns by agent and depth, handoffs by edge."
        )
        heat.add_argument("--root", type=uuid.UUID, help="the root run of one tree")
        heat.add_argument("--hours", type=int, default=24)
        heat.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        by = access.system_principal()
        try:
            if options["root"]:
                drawn = recursion.of_root(root_id=options["root"], principal=by)
            else:
                drawn = recursion.of_window(hours=options["hours"], principal=by)
        except PolarError as error:
            raise CommandError(f"{error} ({error.code})") from None
        if options["json"]:
            self.stdout.write(json.dumps(drawn.as_dict()))
            return
        self.stdout.write(f"{drawn.turns} turns, {drawn.handoffs} handoffs")
        for row in drawn.as_dict()["by_depth"]:
            self.stdout.write(f"@{row['agent']} depth {row['depth']}: {row['turns']}")
        for row in drawn.as_dict()["by_edge"]:
            cut = f", {row['cut']} cut" if row["cut"] else ""
            line = f"@{row['source']} → @{row['target']}: {row['handoffs']}{cut}"
            self.stdout.write(line)
