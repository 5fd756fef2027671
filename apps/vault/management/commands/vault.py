"""`vault status`: does the vault open, and if not, why."""

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from apps.vault import queries
from apps.vault.queries import Status

#: Exit codes: open and whole; sealed; open, but some secrets do not open.
OPEN, SEALED, DAMAGED = 0, 3, 4


class Command(BaseCommand):
    """Thin: asks, prints, sets the exit code."""

    help = "Show whether the vault opens. Exit code 0 open, 3 sealed, 4 damaged."
    requires_system_checks: list[str] = []  # noqa: RUF012 (Django's own shape)

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        show = verbs.add_parser("status", help="state, keys, unreadable secrets")
        show.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        status = queries.status()
        if options["json"]:
            self.stdout.write(json.dumps(asdict(status), sort_keys=True))
        else:
            self.stdout.write("\n".join(_lines(status)))
        code = _exit_code(status)
        if code:
            sys.exit(code)


def _exit_code(status: Status) -> int:
    if status.state != "open":
        return SEALED
    return DAMAGED if status.unreadable else OPEN


def _lines(status: Status) -> list[str]:
    head = f"vault: {status.state}"
    lines = [f"{head} ({status.reason})" if status.reason else head]
    if status.detail:
        lines.append(status.detail)
    for key in status.keys:
        place = "first" if key.first else "in the ring" if key.in_ring else "NOT HELD"
        worn = "; worn, rotate it" if key.worn else ""
        lines.append(f"key {key.kid}: {place}, {key.encryptions} encryptions{worn}")
    lines.append(f"secrets: {status.secrets}, unreadable: {status.unreadable}")
    return lines
