"""`doctor`: look at everything that Polar needs, and say how to mend what is not so."""

import json
from argparse import RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.common.errors import PolarError
from apps.reliability.engine.doctor import examining
from apps.reliability.engine.doctor.check import FAILING, OK, UNUSED, WARNING, Result

EXAMPLE = """\
examples:
  ./polar doctor                     look at everything
  ./polar doctor store-trusted       look at one thing
  ./polar doctor --quick --json      what pages and monitors ask
  ./polar doctor --list              what is looked at, and what it proves

exit codes: 0 nothing fails, 1 something fails (with --strict: or warns),
            2 the doctor itself could not work
"""
MARKS = {OK: "ok  ", WARNING: "warn", FAILING: "FAIL", UNUSED: " -  "}


class Command(BaseCommand):
    help = "Look at everything that Polar needs; changes nothing."
    requires_system_checks: list[str] = []

    def create_parser(self, *args: Any, **options: Any) -> CommandParser:
        options |= {"epilog": EXAMPLE, "formatter_class": RawDescriptionHelpFormatter}
        return super().create_parser(*args, **options)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("checks", nargs="*", help="names; all when left out")
        parser.add_argument("--json", action="store_true")
        parser.add_argument("--list", action="store_true", help="name them only")
        parser.add_argument(
            "--quick", action="store_true", help="leave out what reads the whole store"
        )
        parser.add_argument("--strict", action="store_true", help="a warning fails")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["list"]:
            for each in examining.every():
                self.stdout.write(f"{each.name:26} {each.proves}")
            return
        try:
            results = examining.examine(options["checks"], slow=not options["quick"])
        except PolarError as error:
            raise CommandError(f"{error} ({error.code})", returncode=2) from error
        if options["json"]:
            self.stdout.write(json.dumps([as_data(each) for each in results]))
        else:
            self._tell(results)
        bad = {FAILING, WARNING} if options["strict"] else {FAILING}
        if any(each.state in bad for each in results):
            raise SystemExit(1)

    def _tell(self, results: list[Result]) -> None:
        area = ""
        for each in results:
            if each.check.area != area:
                area = each.check.area
                self.stdout.write(f"\n{examining.title_of(area)}")
            mark = MARKS.get(each.state, "?   ")
            self.stdout.write(f"  {mark}  {each.check.name:26} {each.detail}".rstrip())
            if each.mend and each.state != OK:
                self.stdout.write(f"        {each.check.proves}: no.")
                self.stdout.write(f"        {each.mend}")
        counts = dict.fromkeys((OK, WARNING, FAILING, "unknown", UNUSED), 0)
        for each in results:
            counts[each.state] += 1
        said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        self.stdout.write(f"\n{len(results)} checks: {said}")


def as_data(result: Result) -> dict[str, str]:
    return {
        "name": result.check.name,
        "area": result.check.area,
        "proves": result.check.proves,
        "state": result.state,
        "detail": result.detail,
        "mend": result.mend,
    }
