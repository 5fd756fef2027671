"""`snapshot create | verify | rehearse | list | prune`: whole copies of the store."""

import json
from argparse import RawDescriptionHelpFormatter
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.access import services as access
from apps.common.errors import PolarError
from apps.reliability import services

EXAMPLE = """\
example:
  ./polar snapshot create
  ./polar snapshot verify 20260301T060000000000-1204
  ./polar snapshot rehearse --json
"""


class Command(BaseCommand):
    help = "Take, prove, list or prune snapshots of the store."

    def create_parser(self, *args: Any, **options: Any) -> CommandParser:
        options |= {"epilog": EXAMPLE, "formatter_class": RawDescriptionHelpFormatter}
        return super().create_parser(*args, **options)

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("create", help="copy the store while everything runs")
        verify = verbs.add_parser(
            "verify", help="open a copy, recompute; exit 1 if bad"
        )
        verify.add_argument("name", nargs="?", default="", help="default: the newest")
        rehearse = verbs.add_parser(
            "rehearse", help="restore it beside the store and measure; exit 1 if bad"
        )
        rehearse.add_argument("name", nargs="?", default="", help="default: the newest")
        verbs.add_parser("list", help="newest first")
        prune = verbs.add_parser("prune", help="remove all but the newest")
        prune.add_argument("--keep", type=int, default=28)
        for each in verbs.choices.values():
            each.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = getattr(self, f"do_{options['verb']}")(options)
        except PolarError as error:
            raise CommandError(f"{error} ({error.code})") from error
        if options["json"]:
            self.stdout.write(json.dumps(found, default=str, sort_keys=True))
        elif options["verb"] == "rehearse":
            for name, value in found.items():
                self.stdout.write(f"{name}: {value}")
        else:
            for row in found if isinstance(found, list) else [found]:
                self.stdout.write(row if isinstance(row, str) else _line(row))
        if options["verb"] == "rehearse" and not found["ok"]:
            raise SystemExit(1)

    def do_create(self, options: dict[str, Any]) -> dict[str, Any]:
        return asdict(services.create_snapshot(by=access.system_principal()))

    def do_verify(self, options: dict[str, Any]) -> dict[str, Any]:
        name = options["name"] or next((s.name for s in services.snapshots()), "")
        if not name:
            raise CommandError("There is no snapshot yet: ./polar snapshot create")
        proved = services.verify_snapshot(by=access.system_principal(), name=name)
        return asdict(proved)

    def do_rehearse(self, options: dict[str, Any]) -> dict[str, Any]:
        system = access.system_principal()
        return services.figures(
            services.rehearse_restore(by=system, name=options["name"])
        )

    def do_list(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        return [asdict(snapshot) for snapshot in services.snapshots()]

    def do_prune(self, options: dict[str, Any]) -> list[str]:
        system = access.system_principal()
        return services.prune_snapshots(by=system, keep=options["keep"])


def _line(row: dict[str, Any]) -> str:
    proved = f"verified {row['verified_at']}" if row["verified_at"] else "not verified"
    return f"{row['name']}  {row['events']} events  {row['bytes']} bytes  {proved}"
