"""`restore SOURCE`: let a snapshot, or a store's own file, be the store."""

import json
import os
import pwd
from argparse import RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.access import services as access
from apps.common.actor import Actor
from apps.common.errors import PolarError
from apps.reliability import services

EXAMPLE = """\
A store that holds all that the witness knows simply comes back. An older one begins
a new epoch: the restore is announced and signed, so it is no alarm, and the runs it
concerns are set aside or held. The former SQLite file is kept beside the new one.

example:
  ./polar restore 20260301T060000000000-1204 --reason "disk of Sunday failed"
  ./polar restore /backup/polar-system.db --beside /tmp/look.db
"""


class Command(BaseCommand):
    help = "Restore the store, proved first and announced."

    def create_parser(self, *args: Any, **options: Any) -> CommandParser:
        options |= {"epilog": EXAMPLE, "formatter_class": RawDescriptionHelpFormatter}
        return super().create_parser(*args, **options)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("source", help="a snapshot's name, or an SQLite file")
        parser.add_argument("--reason", default="")
        parser.add_argument("--beside", type=Path, help="write a new file instead")
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            said = self._restore(options)
        except PolarError as error:
            raise CommandError(f"{error} ({error.code})") from error
        if options["json"]:
            self.stdout.write(json.dumps(said, sort_keys=True))
        else:
            for name, value in said.items():
                self.stdout.write(f"{name}: {value}")

    def _restore(self, options: dict[str, Any]) -> dict[str, Any]:
        source, beside = options["source"], options["beside"]
        if beside is not None:
            system = access.system_principal()
            services.restore_beside(by=system, source=source, target=beside)
            return {"written": str(beside)}
        rollback, kept = services.restore(
            by=_operator(), source=source, reason=options["reason"]
        )
        if rollback is None:
            return {"restored": source, "events_lost": 0, "former_store": kept}
        return {
            "restored": source,
            "events_lost": rollback.events_lost,
            "conflicted": rollback.conflicted,
            "lost_by_rollback": rollback.lost,
            "stale": rollback.stale,
            "effects_held": rollback.effects_held,
            "former_store": kept,
        }


def _operator() -> Actor:
    """Whoever runs a command on the host has the host; name the account."""
    name = pwd.getpwuid(os.getuid()).pw_name
    return Actor("human", f"os:{name}", f"{name} (command line)")
