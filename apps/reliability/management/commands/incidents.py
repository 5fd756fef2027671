"""`manage.py incidents`: open, work through and close incidents from a shell.

Exit codes: 0 done; 1 refused, with the reason; 3 a step that found trouble.
"""

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.access import services as access
from apps.common.errors import Invalid, NotFound, PolarError
from apps.common.units import whole_number
from apps.reliability import queries, services
from apps.reliability.engine import sops
from apps.reliability.models import Incident, Severity

COLUMNS = ("name", "severity", "state", "title", "owner", "version")
EXAMPLE = "Example: ./polar incidents step INC-1 halt_everything --confirm HALT"


class Command(BaseCommand):
    help = f"List, open, show, step, move, review and export incidents. {EXAMPLE}"

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        listing = verbs.add_parser("list")
        listing.add_argument("--state", default="", help="a state, or under_way")
        listing.add_argument("--limit", type=int, default=50)
        opening = verbs.add_parser("open")
        opening.add_argument("severity", choices=Severity.values)
        opening.add_argument("title")
        opening.add_argument("--because", default="")
        for verb in ("show", "step", "move", "review", "export"):
            verbs.add_parser(verb).add_argument("incident", help="INC-1, or its id")
        step = verbs.choices["step"]
        step.add_argument("step", choices=sorted(sops.STEPS))
        step.add_argument("--confirm", default="")
        move = verbs.choices["move"]
        move.add_argument("state")
        move.add_argument("--reason", default="")
        for name in ("impact", "cause", "learned", "follow-up"):
            needed = name != "follow-up"
            verbs.choices["review"].add_argument(f"--{name}", required=needed)
        verbs.choices["export"].add_argument("folder", type=Path)
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
        if options["verb"] == "step" and not found["ok"]:
            raise CommandError(found["summary"], returncode=3)

    def _print(self, found: Any) -> None:
        rows = found if isinstance(found, list) else [found]
        for row in rows:
            self.stdout.write("  ".join(str(value) for value in row.values()))

    def do_list(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        system = access.system_principal()
        rows = queries.incidents(principal=system, state=options["state"])
        return [_as_dict(row) for row in rows.order_by("-id")[: options["limit"]]]

    def do_open(self, options: dict[str, Any]) -> dict[str, Any]:
        new = services.NewIncident(
            options["title"], options["severity"], options["because"]
        )
        made = services.open_incident(by=access.system_principal(), new=new)
        return _as_dict(made)

    def do_show(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        row = _find(options["incident"])
        newest = {each.step: each for each in row.results.order_by("id")}
        steps: list[dict[str, Any]] = []
        for step in sops.of(row.severity):
            done = newest.get(step.slug)
            state = "not yet" if done is None else "done" if done.ok else "failed"
            words = done.summary if done else step.does
            steps.append({"step": step.slug, "state": state, "summary": words})
        return [_as_dict(row), *steps]

    def do_step(self, options: dict[str, Any]) -> dict[str, Any]:
        done = services.run_step(
            by=access.system_principal(),
            incident_id=_find(options["incident"]).id,
            step=options["step"],
            confirm=options["confirm"],
        )
        return {"step": done.step, "ok": done.ok, "summary": done.summary}

    def do_move(self, options: dict[str, Any]) -> dict[str, Any]:
        row = _find(options["incident"])
        moved = services.transition_incident(
            by=access.system_principal(),
            incident_id=row.id,
            state=options["state"],
            expected_version=row.version,
            reason=options["reason"],
        )
        return _as_dict(moved)

    def do_review(self, options: dict[str, Any]) -> dict[str, Any]:
        row = _find(options["incident"])
        names = ("impact", "cause", "learned", "follow_up")
        closed = services.review_incident(
            by=access.system_principal(),
            incident_id=row.id,
            expected_version=row.version,
            review={name: options[name] or "" for name in names},
        )
        return _as_dict(closed)

    def do_export(self, options: dict[str, Any]) -> dict[str, Any]:
        row = _find(options["incident"])
        bundle = services.evidence(by=access.system_principal(), incident_id=row.id)
        folder: Path = options["folder"]
        folder.mkdir(parents=True, exist_ok=True)
        for form, text in (
            ("json", json.dumps(bundle, indent=2)),
            ("md", services.as_markdown(bundle)),
        ):
            (folder / f"{row.name}.{form}").write_text(text)
        return {"folder": str(folder), "name": row.name}


def _find(ident: str) -> Incident:
    """Raises: NotFound, Invalid."""
    number = ident.upper().removeprefix("INC-")
    rows = queries.incidents(principal=access.system_principal())
    if (place := whole_number(number)) is not None:
        found: Incident | None = rows.filter(number=place).first()
    elif len(ident.replace("-", "")) == 32:
        found = rows.filter(id=ident).first()
    else:
        raise Invalid(f"{ident!r} is neither INC-1 nor an id.")
    if found is None:
        raise NotFound(f"There is no incident {ident}.")
    return found


def _as_dict(row: Incident) -> dict[str, Any]:
    return {"id": str(row.id), **{name: getattr(row, name) for name in COLUMNS}}
