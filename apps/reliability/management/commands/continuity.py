"""`continuity check`: prove each line of the continuity checklist now."""

import json
from argparse import RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from apps.reliability.engine.doctor import continuity
from apps.reliability.schemas import ContinuityBoxOut

EXAMPLE = """\
example:
  ./polar continuity check
  ./polar continuity check --json | jq '.[] | select(.isProved | not)'

exit codes: 0 every line is proved, 1 one is not
"""


class Command(BaseCommand):
    help = "Prove the continuity checklist; nobody ticks it."

    def create_parser(self, *args: Any, **options: Any) -> CommandParser:
        options |= {"epilog": EXAMPLE, "formatter_class": RawDescriptionHelpFormatter}
        return super().create_parser(*args, **options)

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        check = verbs.add_parser("check", help="look now")
        check.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        boxes = continuity.boxes()
        if options["json"]:
            said = [ContinuityBoxOut.of(box).model_dump(by_alias=True) for box in boxes]
            self.stdout.write(json.dumps(said))
        else:
            for box in boxes:
                self.stdout.write(f"[{'x' if box.is_proved else ' '}] {box.item.title}")
                for each in box.results:
                    self.stdout.write(f"      {each.state:8} {each.detail}")
                for line in box.mend:
                    self.stdout.write(f"      {line}")
        if not all(box.is_proved for box in boxes):
            raise SystemExit(1)
