"""`audit verify | seal | checkpoint | export | push`: the log from a terminal."""

import dataclasses
import json
import os
import pwd
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.audit import services
from apps.common.actor import Actor
from apps.common.errors import PolarError


class Command(BaseCommand):
    help = "Verify, seal, sign or export the audit log."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verify = verbs.add_parser("verify", help="recompute everything; exit 1 if bad")
        verify.add_argument("--json", action="store_true")
        verbs.add_parser("seal", help="seal everything that waits")
        verbs.add_parser("checkpoint", help="seal, then sign the head")
        verbs.add_parser("push", help="send sealed events to the sinks")
        export = verbs.add_parser("export", help="write a bundle for polar-verify")
        export.add_argument("out", type=Path)
        export.add_argument("--from", dest="from_", type=int, default=0)
        export.add_argument("--to", type=int, default=None)

    def handle(self, *args: Any, **options: Any) -> None:
        verbs = {
            "verify": self._verify,
            "seal": self._seal,
            "checkpoint": self._checkpoint,
            "push": self._push,
            "export": self._export,
        }
        try:
            verbs[options["verb"]](options)
        except PolarError as error:
            raise CommandError(f"{error} ({error.code})") from error

    def _verify(self, options: dict[str, Any]) -> None:
        quiet = options["json"] or not self.stderr.isatty()
        verdict = services.verify(progress=None if quiet else self._progress)
        if options["json"]:
            self.stdout.write(json.dumps(dataclasses.asdict(verdict), sort_keys=True))
        elif verdict.ok:
            self.stdout.write(
                f"The log is whole: {verdict.size} events, root {verdict.root}, "
                f"{verdict.unsealed} not yet sealed"
            )
        else:
            place = (
                "" if verdict.first_bad is None else f" at event {verdict.first_bad}"
            )
            named = f" ({verdict.first_bad_id})" if verdict.first_bad_id else ""
            self.stderr.write(f"BROKEN{place}{named}: {verdict.problem}")
        if not verdict.ok:
            raise SystemExit(1)

    def _progress(self, done: int, size: int) -> None:
        self.stderr.write(f"\r{done} of {size} events", ending="")
        if done == size:
            self.stderr.write("")

    def _seal(self, options: dict[str, Any]) -> None:
        self.stdout.write(f"Sealed {services.seal_all()} events")

    def _checkpoint(self, options: dict[str, Any]) -> None:
        self.stdout.write(services.checkpoint().note, ending="")

    def _push(self, options: dict[str, Any]) -> None:
        self.stdout.write(f"Sent {services.push_sinks()} events")

    def _export(self, options: dict[str, Any]) -> None:
        out, first, end = options["out"], options["from_"], options["to"]
        services.export(out, by=_operator(), from_=first, to=end)
        self.stdout.write(f"Exported to {out}; check it with: ./polar-verify {out}")


def _operator() -> Actor:
    """Whoever runs a command on the host has the host; name the account."""
    name = pwd.getpwuid(os.getuid()).pw_name
    return Actor("human", f"os:{name}", f"{name} (command line)")
