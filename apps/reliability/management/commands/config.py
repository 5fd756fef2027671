"""`config get|set|list|diff|export|import`: every setting from a shell."""

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.access import services as access
from apps.common.errors import PolarError
from apps.reliability import services

#: Exit code of `diff` when something differs, as diff(1) has it.
DIFFERS = 1


class Command(BaseCommand):
    """Thin: asks, prints, sets the exit code. Values never stand in arguments."""

    help = (
        "Read and change settings: providers, lanes, profiles, budgets, grants, "
        "channels, gateway, boards, schedules. Values are JSON from standard input "
        "or --file, so that the process list shows none. "
        "Example: echo '{\"enabled\": false}' | ./polar config set providers.openai"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        for verb, text in (
            ("list", "every setting with its version"),
            ("get", "one setting, such as providers.openai"),
            ("set", "change what the value names, or one field of it"),
            ("diff", "what an import would change; exit code 1 if anything"),
            ("export", "all settings, without secrets"),
            ("import", "make the settings say what a document says"),
        ):
            sub = verbs.add_parser(verb, help=text)
            sub.add_argument("--json", action="store_true", help="for programs")
            if verb in ("get", "set"):
                sub.add_argument("name", help="section.key, or section.key#field")
            if verb == "set":
                sub.add_argument("--expected-version", default=None)
            if verb == "list":
                sub.add_argument("section", nargs="?", default="")
            if verb in ("set", "diff", "import", "export"):
                sub.add_argument("--file", type=Path, help="instead of stdin or stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            code = getattr(self, f"_{options['verb']}")(options)
        except PolarError as error:
            named = "".join(f"\n  {f.path}: {f.problem}" for f in error.fields)
            raise CommandError(f"{error.detail} ({error.code}){named}") from error
        except OSError as error:
            raise CommandError(f"The file cannot be used: {error}") from error
        if code:
            sys.exit(code)

    def _list(self, options: dict[str, Any]) -> None:
        found = services.list_configs(by=_system(), section=options["section"])
        if options["json"]:
            self._print([asdict(entry) for entry in found])
            return
        for entry in found:
            self.stdout.write(f"{entry.section}.{entry.key}  {entry.version}")

    def _get(self, options: dict[str, Any]) -> None:
        section, key, field = _split(options["name"])
        entry = services.get_config(by=_system(), section=section, key=key)
        if field and field not in entry.value:
            raise CommandError(f"{section}.{key} has no field {field}.")
        value = entry.value[field] if field else entry.value
        self._print(asdict(entry) if options["json"] else value)

    def _set(self, options: dict[str, Any]) -> None:
        section, key, field = _split(options["name"])
        text = _input(options["file"])
        value = {field: _loose(text)} if field else services.parse_document(text)
        entry = services.upsert_config(
            by=_system(),
            section=section,
            key=key,
            value=value,
            expected_version=options["expected_version"],
        )
        self._print(asdict(entry) if options["json"] else entry.value)

    def _diff(self, options: dict[str, Any]) -> int:
        document = services.parse_document(_input(options["file"]))
        found = services.diff_config(by=_system(), document=document)
        self._changes(found, document, as_json=options["json"])
        return DIFFERS if found else 0

    def _export(self, options: dict[str, Any]) -> None:
        text = services.as_text(services.export_config(by=_system()))
        if options["file"]:
            options["file"].write_text(text)
        else:
            self.stdout.write(text, ending="")

    def _import(self, options: dict[str, Any]) -> None:
        document = services.parse_document(_input(options["file"]))
        found = services.import_config(by=_system(), document=document)
        self._changes(found, document, as_json=options["json"])

    def _changes(self, found: list[Any], document: Any, *, as_json: bool) -> None:
        missing = services.secrets_to_enter(document)
        reviews = services.extensions_to_review(document)
        if as_json:
            changes = [asdict(change) for change in found]
            self._print(
                {
                    "changes": changes,
                    "secretsToEnter": missing,
                    "extensionsToReview": reviews,
                }
            )
            return
        for change in found:
            named = ", ".join(change.fields)
            self.stdout.write(f"{change.kind} {change.section}.{change.key}: {named}")
        if not found:
            self.stdout.write("Nothing differs.")
        for name in missing:
            self.stdout.write(f"secret to enter: {name}")
        for name in reviews:
            self.stdout.write(f"extension to install and review: {name}")

    def _print(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, indent=2, sort_keys=True))


def _system() -> Any:
    return access.system_principal()


def _split(name: str) -> tuple[str, str, str]:
    """Shape: section.key or section.key#field; a key may hold dots."""
    section, _, rest = name.partition(".")
    key, _, field = rest.partition("#")
    return section, key, field


def _input(file: Path | None) -> str:
    return file.read_text() if file else sys.stdin.read()


def _loose(text: str) -> Any:
    """A field's value is JSON, or else plain text, such as a key."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.rstrip("\r\n")
