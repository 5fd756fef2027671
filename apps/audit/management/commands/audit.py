"""`audit verify | seal | checkpoint | export | ocsf | push | sinks`: the log, here."""

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
        sinks = verbs.add_parser("sinks", help="how far each is, and how it keeps")
        sinks.add_argument("--json", action="store_true")
        for verb, what in (
            ("export", "write a bundle for polar-verify"),
            ("ocsf", "write OCSF lines, as the sinks get them"),
        ):
            export = verbs.add_parser(verb, help=what)
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
            "ocsf": self._ocsf,
            "sinks": self._sinks,
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
        total = 0
        while sent := services.push_sinks():
            total += sent
        self.stdout.write(f"Sent {total} events")

    def _export(self, options: dict[str, Any]) -> None:
        out, first, end = options["out"], options["from_"], options["to"]
        services.export(out, by=_operator(), from_=first, to=end)
        self.stdout.write(f"Exported to {out}; check it with: ./polar-verify {out}")

    def _ocsf(self, options: dict[str, Any]) -> None:
        count = services.export_ocsf(
            options["out"], by=_operator(), from_=options["from_"], to=options["to"]
        )
        self.stdout.write(f"Wrote {count} events to {options['out']}")

    def _sinks(self, options: dict[str, Any]) -> None:
        told = [dataclasses.asdict(each) for each in services.sinks()]
        if options["json"]:
            self.stdout.write(json.dumps(told))
            return
        for each in told or [{"name": "no sink is set"}]:
            self.stdout.write("  ".join(str(value) for value in each.values()))


def _operator() -> Actor:
    """Whoever runs a command on the host has the host; name the account."""
    name = pwd.getpwuid(os.getuid()).pw_name
    return Actor("human", f"os:{name}", f"{name} (command line)")
