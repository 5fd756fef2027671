"""`vault`: does it open, new keys, the way back from a lost one.

No key, share or secret is ever an argument: the process list shows none. They come
from standard input, and a recovery kit goes to a file that only its owner reads.
"""

import json
import os
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandError

from apps.common.actor import Actor
from apps.common.errors import Conflict, Invalid, PolarError
from apps.vault import ports, queries, services
from apps.vault.models import Secret
from apps.vault.queries import Status
from apps.vault.services import Entry, Progress

#: Exit codes: open and whole; refused; sealed; open, but some secrets do not open.
OPEN, REFUSED, SEALED, DAMAGED = 0, 1, 3, 4
OPERATOR = Actor("system", "system", "command line")
#: A batch that met a change is simply taken again, so often.
TRIES = 20

VERBS = (
    ("status", "state, keys, unreadable secrets"),
    ("rotate", "wrap every data key for the first key of the ring"),
    ("reencrypt", "new data keys after a suspected leak; lists what to change"),
    ("finish", "retire the older keys; refuses while any row has one"),
    ("recover", "bring secrets back after a lost key"),
    ("verify-backup", "compare a backed-up key, code or kit, read from stdin"),
    ("seal", "close the vault in every process"),
    ("unseal", "lift the seal"),
    ("export-recovery", "make or drop a recovery kit"),
    ("checklist", "every secret to enter again, and where"),
    ("put", "store what an extension is given, from stdin"),
    ("forget", "remove a secret that nothing needs"),
)


class Command(BaseCommand):
    """Thin: asks, prints, sets the exit code."""

    help = (
        "Show, rotate, seal and recover the vault. Exit code 0 well, 1 refused, "
        "3 sealed, 4 some secrets do not open. Example: ./polar vault rotate "
        "--dry-run; ./polar vault recover < offline-key.txt"
    )
    requires_system_checks: list[str] = []  # noqa: RUF012 (Django's own shape)

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        made = {}
        for verb, text in VERBS:
            made[verb] = verbs.add_parser(verb, help=text, description=text)
            made[verb].add_argument("--json", action="store_true", help="for programs")
        for verb in ("rotate", "reencrypt", "recover", "seal", "unseal"):
            made[verb].add_argument("--reason", default="", help="for the record")
        made["export-recovery"].add_argument("--reason", default="dropped by hand")
        made["rotate"].add_argument("--dry-run", action="store_true")
        made["checklist"].add_argument(
            "--all", action="store_true", help="every secret: after a leak"
        )
        made["checklist"].add_argument(
            "--try", action="store_true", help="try out what was entered elsewhere"
        )
        made["put"].add_argument("name", help="as the extension's grants say it")
        made["forget"].add_argument("name")
        made["forget"].add_argument("--reason", required=True)
        rescue = made["recover"]
        rescue.add_argument(
            "--nothing",
            action="store_true",
            help="there is no key and no kit: open for entering everything again",
        )
        rescue.add_argument("--enter", metavar="NAME", help="store one, from stdin")
        kit = made["export-recovery"]
        kit.add_argument("--form", choices=["offline", "shares"], default="offline")
        kit.add_argument("--out", metavar="FILE", help="made anew, mode 0600")
        kit.add_argument("--drop", metavar="RECIPIENT", help="stop wrapping for it")

    def handle(self, *args: Any, **options: Any) -> None:
        act = getattr(self, f"_{options['verb'].replace('-', '_')}")
        try:
            code = act(options)
        except PolarError as error:
            fields = "".join(f" {f.path}: {f.expected}." for f in error.fields)
            message = f"{error.detail}{fields} ({error.code})"
            raise CommandError(message, returncode=REFUSED) from error
        if code:
            sys.exit(code)

    def _say(self, options: dict[str, Any], told: Any, text: str) -> None:
        as_json = json.dumps(told, sort_keys=True, default=str)
        self.stdout.write(as_json if options["json"] else text)

    def _status(self, options: dict[str, Any]) -> int:
        status = queries.status()
        self._say(options, asdict(status), "\n".join(_lines(status)))
        return _exit_code(status)

    def _rotate(self, options: dict[str, Any]) -> int:
        if options["dry_run"]:
            would = services.preview(by=OPERATOR)
            failing = ", ".join(would.unreadable) or "none"
            text = (
                f"would wrap {would.rows} secrets for {would.to_kid} in "
                f"{would.batches} batches; would not open: {failing}. "
                "Nothing was written."
            )
            self._say(options, asdict(would), text)
            return DAMAGED if would.unreadable else OPEN
        services.rotate(by=OPERATOR, reason=options["reason"])
        told = self._run_out(options)
        self._say(options, asdict(told), _progress_text(told))
        return DAMAGED if told.unreadable else OPEN

    def _reencrypt(self, options: dict[str, Any]) -> int:
        services.reencrypt(by=OPERATOR, reason=options["reason"])
        told = self._run_out(options)
        self._say(options, asdict(told), _progress_text(told))
        if not options["json"]:
            self.stdout.write("A leaked key means leaked secrets. Change each of:")
            self._list(services.checklist(everything=True))
        return DAMAGED if told.unreadable else OPEN

    def _run_out(self, options: dict[str, Any]) -> Progress:
        """Take batches to the end. Interrupted, the next call or the clock goes on."""
        told, tries = services.progress(), TRIES
        while told.state == "running":
            try:
                told = services.advance(by=OPERATOR)
            except Conflict:
                tries -= 1
                if not tries:
                    raise
            if not options["json"]:
                self.stdout.write(f"{told.done} of {told.total}")
        return told

    def _finish(self, options: dict[str, Any]) -> int:
        kids = services.finish(by=OPERATOR)
        text = f"retired: {', '.join(kids) or 'none'}. They may leave POLAR_VAULT_KEYS."
        self._say(options, {"retired": kids}, text)
        return OPEN

    def _recover(self, options: dict[str, Any]) -> int:
        if options["enter"]:
            return self._enter(options)
        if options["nothing"]:
            count = services.accept_loss(by=OPERATOR, reason=options["reason"])
            text = f"{count} secrets to enter again: ./polar vault checklist"
            self._say(options, {"lost": count}, text)
            return OPEN
        kept = self._read("Paste the offline key, or three shares, one to a line")
        told = services.recover(by=OPERATOR, kept=kept)
        text = f"{told.total} secrets are back; {told.unreadable} did not open."
        self._say(options, asdict(told), text)
        return DAMAGED if told.unreadable else OPEN

    def _put(self, options: dict[str, Any]) -> int:
        value = self._read(f"Paste the value of {options['name']}").strip()
        told = services.store_secret(by=OPERATOR, name=options["name"], value=value)
        self._say(options, asdict(told), f"{told.name}: stored, for {told.used_by}")
        return OPEN

    def _forget(self, options: dict[str, Any]) -> int:
        row = _named(options["name"])
        services.forget(by=OPERATOR, secret_id=row.pk, reason=options["reason"])
        self._say(options, {"forgotten": row.name}, f"{row.name}: removed for good")
        return OPEN

    def _enter(self, options: dict[str, Any]) -> int:
        row = _named(options["enter"])
        value = self._read(f"Paste the value of {row.name}").strip()
        told = services.reenter(by=OPERATOR, secret_id=row.pk, value=value)
        text = f"{told.name}: {told.state} {told.problem}".strip()
        self._say(options, asdict(told), text)
        return OPEN if told.state == "ok" else REFUSED

    def _verify_backup(self, options: dict[str, Any]) -> int:
        text = self._read("Paste the key, its check code, or the kit")
        proved = services.verify_backup(by=OPERATOR, text=text)
        code = _check_code(proved)
        beside = f" Write the check code beside the backup: {code}." if code else ""
        text = f"proved: {proved}. The date is noted.{beside}"
        self._say(options, {"proved": proved, "check_code": code}, text)
        return OPEN

    def _seal(self, options: dict[str, Any]) -> int:
        services.seal(by=OPERATOR, reason=options["reason"])
        return self._status_after(options)

    def _unseal(self, options: dict[str, Any]) -> int:
        services.unseal(by=OPERATOR, reason=options["reason"])
        return self._status_after(options)

    def _status_after(self, options: dict[str, Any]) -> int:
        status = queries.status()
        self._say(options, asdict(status), "\n".join(_lines(status)))
        return OPEN

    def _export_recovery(self, options: dict[str, Any]) -> int:
        if options["drop"]:
            kit = queries.get_kit(options["drop"])
            services.drop_kit(by=OPERATOR, recovery_id=kit.pk, reason=options["reason"])
            self._say(options, {"dropped": kit.recipient}, f"dropped: {kit.recipient}")
            return OPEN
        if not options["out"] and not self.stdout.isatty():
            raise Invalid("Name a new file with --out, or run this at a terminal.")
        file = self._new_file(options["out"]) if options["out"] else None
        made = services.make_kit(by=OPERATOR, form=options["form"])
        lines = "\n".join(made.lines) + "\n"
        if file is None:
            self.stdout.write(lines)
        else:
            with file:
                file.write(lines)
        self._run_out(options)
        where = options["out"] or "above, shown this once"
        text = f"{made.recovery.recipient}: {where}. Take it off this machine."
        self._say(options, {"recipient": made.recovery.recipient}, text)
        return OPEN

    def _new_file(self, path: str) -> IO[str]:
        """Open a new file that only its owner reads, before a kit is made for it."""
        try:
            new = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise Invalid(f"{path}: {error.strerror}. Name a new file.") from error
        return os.fdopen(new, "w")

    def _checklist(self, options: dict[str, Any]) -> int:
        if options["try"]:
            services.retest_entered(by=OPERATOR)
        entries = services.checklist(everything=options["all"])
        if options["json"]:
            told = [asdict(entry) for entry in entries]
            self.stdout.write(json.dumps(told, sort_keys=True, default=str))
        else:
            self._list(entries)
        missing = [entry for entry in entries if entry.state != "ok"]
        return DAMAGED if missing and not options["all"] else OPEN

    def _list(self, entries: list[Entry]) -> None:
        for entry in entries:
            self.stdout.write(f"[{entry.state}] {entry.name} ({entry.used_by})")
            if entry.problem:
                self.stdout.write(f"    {entry.problem}")
            page = f" or on {entry.page}" if entry.page else ""
            way = entry.instead or "Enter it:"
            self.stdout.write(f"    {way} {entry.command}{page}")
        if not entries:
            self.stdout.write("Nothing is lost and nothing is unreadable.")

    def _read(self, prompt: str) -> str:
        """Read from standard input, never from the arguments."""
        if sys.stdin.isatty():
            self.stderr.write(f"{prompt}, then press Ctrl-D.")
        return sys.stdin.read()


def _named(name: str) -> Secret:
    row = queries.find_secret(name)
    if row is None:
        raise Invalid(f"There is no secret named {name}.")
    return row


def _check_code(proved: str) -> str:
    """Tell the code of the key that was just proved; a kit has none."""
    keys = ports.configured_ring().keys
    return next((key.check_code for key in keys if key.recipient == proved), "")


def _exit_code(status: Status) -> int:
    if status.state != "open":
        return SEALED
    return DAMAGED if status.unreadable else OPEN


def _progress_text(told: Progress) -> str:
    done = f"{told.kind}: {told.state}, {told.done} of {told.total}"
    return f"{done}; unreadable: {told.unreadable}"


def _lines(status: Status) -> list[str]:
    head = f"vault: {status.state}"
    lines = [f"{head} ({status.reason})" if status.reason else head]
    if status.detail:
        lines.append(status.detail)
    for key in status.keys:
        place = "first" if key.first else "in the ring" if key.in_ring else "NOT HELD"
        worn = "; worn, rotate it" if key.worn else ""
        gone = "; retired" if key.is_retired else ""
        lines.append(
            f"key {key.kid}: {place}, {key.encryptions} encryptions{gone}{worn}"
        )
    lines.append(f"secrets: {status.secrets}, unreadable: {status.unreadable}")
    return lines
