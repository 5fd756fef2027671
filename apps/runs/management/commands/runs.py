"""`manage.py runs`: look at runs and steer them from a shell."""

import json
import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.access import services as access
from apps.common.errors import PolarError
from apps.runs import queries, services
from apps.runs.models import Run

COLUMNS = ("id", "kind", "state", "reason", "attempt", "created_at")
DETAILS = (
    *COLUMNS,
    "queue",
    "trigger",
    "origin",
    "serial_key",
    "due_at",
    "wake_at",
    "deadline_at",
    "lease_owner",
    "lease_until",
    "fence",
    "parent_id",
    "root_id",
    "trace_id",
    "started_at",
    "finished_at",
    "error_code",
    "error_detail",
    "waiting_on",
    "payload",
    "result",
)


class Command(BaseCommand):
    help = "List, show, cancel or requeue runs."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        listing = verbs.add_parser("list")
        listing.add_argument("--state", action="append", default=[])
        listing.add_argument("--limit", type=int, default=50)
        for verb in ("show", "cancel", "requeue"):
            one = verbs.add_parser(verb)
            one.add_argument("run_id", type=uuid.UUID)
            if verb != "show":
                one.add_argument("--reason", required=True)
        for each in verbs.choices.values():
            each.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = getattr(self, f"do_{options['verb']}")(options)
        except PolarError as error:
            raise CommandError(f"{error} ({error.code})") from None
        if options["json"]:
            self.stdout.write(json.dumps(found, default=str))
        else:
            self._print(found)

    def do_list(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        runs = queries.newest(
            principal=access.system_principal(),
            states=options["state"],
            limit=options["limit"],
        )
        return [_as_dict(run, COLUMNS) for run in runs]

    def do_show(self, options: dict[str, Any]) -> dict[str, Any]:
        run = queries.get_run(options["run_id"], principal=access.system_principal())
        return _as_dict(run, DETAILS)

    def do_cancel(self, options: dict[str, Any]) -> dict[str, Any]:
        run = services.cancel(
            by=access.system_principal(),
            run_id=options["run_id"],
            reason=options["reason"],
        )
        return _as_dict(run, COLUMNS)

    def do_requeue(self, options: dict[str, Any]) -> dict[str, Any]:
        run = services.act_on_dead_letter(
            by=access.system_principal(),
            run_id=options["run_id"],
            action="retry_now",
            reason=options["reason"],
        )
        return _as_dict(run, COLUMNS)

    def _print(self, found: list[dict[str, Any]] | dict[str, Any]) -> None:
        if isinstance(found, dict):
            for name, value in found.items():
                self.stdout.write(f"{name}: {value}")
            return
        for row in found:
            self.stdout.write("  ".join(str(value) for value in row.values()))


def _as_dict(run: Run, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(run, name) for name in names}
