"""`drill list | run | plan | show | verify | cancel`: rehearse failures in a clone."""

import json
from argparse import RawDescriptionHelpFormatter
from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.forms.models import model_to_dict

from apps.access import queries as access_queries
from apps.access import services as access
from apps.common import clock
from apps.common.errors import NotFound, PolarError
from apps.reliability import services
from apps.reliability.models import DrillRun, DrillState
from apps.runs import queries as runs_queries
from apps.runs import services as runs

EXAMPLE = """\
example:
  ./polar drill run blackout
  ./polar drill plan
  ./polar drill run loop-panic --live --confirm "LIVE loop-panic" --seconds 60
  ./polar drill verify 01a205d4-41b4-7b26-bfdc-7dc45d89192d
  ./polar-verify evidence var/drills/evidence/01a205d4-....json

exit codes of `run`: 0 passed, 1 deviated, 2 failed, cancelled or aborted
"""
CAP = {
    "turns": "of a live one: turns of its own, at most",
    "seconds": "of a live one: seconds of its fault, at most",
    "hurt": "of a live one: runs of others that may be hurt",
}
EXIT = {DrillState.PASSED: 0, DrillState.DEVIATED: 1}


class Command(BaseCommand):
    help = "Rehearse failures in a clone of this install, with signed evidence."

    def create_parser(self, *args: Any, **options: Any) -> CommandParser:
        options |= {"epilog": EXAMPLE, "formatter_class": RawDescriptionHelpFormatter}
        return super().create_parser(*args, **options)

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", help="the shelf; exit 1 when one is overdue")
        run = verbs.add_parser("run", help="rehearse one, or play it live")
        run.add_argument("drill")
        run.add_argument("--live", action="store_true", help="on this install itself")
        run.add_argument("--confirm", default="", help='of a live one: "LIVE <drill>"')
        for name, default in asdict(services.Cap()).items():
            run.add_argument(f"--{name}", type=int, default=default, help=CAP[name])
        verbs.add_parser("plan", help="rehearse by schedule what falls due")
        for verb in ("show", "verify", "cancel"):
            one = verbs.add_parser(verb)
            one.add_argument("id", help="of a drill run, or a drill's name: its newest")
        for each in verbs.choices.values():
            each.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            said, code = getattr(self, f"do_{options['verb']}")(options)
        except PolarError as error:
            fields = "".join(
                f" {f.path}: {f.problem}, {f.expected}." for f in error.fields
            )
            raise CommandError(
                f"{error.detail}{fields} ({error.code})", returncode=2
            ) from error
        if options["json"]:
            self.stdout.write(json.dumps(said, default=str, sort_keys=True))
        else:
            for line in _lines(said):
                self.stdout.write(line)
        if code:
            raise SystemExit(code)

    def do_list(self, options: dict[str, Any]) -> tuple[Any, int]:
        shelf = services.shelf_of_drills()
        said = [
            {
                "drill": each.drill.slug,
                "title": each.drill.title,
                "passed_at": each.passed_at,
                "stale": each.stale,
                "alert": "DRILL_OVERDUE" if each.is_overdue else "",
                "aside": each.unused or each.lacks,
            }
            for each in shelf
        ]
        return said, int(any(each.is_overdue for each in shelf))

    def do_run(self, options: dict[str, Any]) -> tuple[Any, int]:
        row = self._start(options)
        if not runs_queries.live_workers():
            runs.execute(row.run_id)
        told = 0
        while True:
            row = services.get_drill(row.id)
            for step in row.steps.all()[told:]:
                told += 1
                if not options["json"]:
                    self.stdout.write(
                        f"  {step.part:8}{step.at_ms / 1000:6.1f}  {step.text}"
                    )
            if row.is_over:
                break
            services.close_orphans()
            clock.sleep(0.5)
        return _facts(row), EXIT.get(DrillState(row.state), 2)

    def _start(self, options: dict[str, Any]) -> DrillRun:
        by = access.system_principal()
        if not options["live"]:
            return services.start_drill(by=by, slug=options["drill"])
        cap = services.Cap(**{name: options[name] for name in asdict(services.Cap())})
        return services.start_live_drill(
            by=by, slug=options["drill"], confirm=options["confirm"], cap=cap
        )

    def do_plan(self, options: dict[str, Any]) -> tuple[Any, int]:
        workspace = access_queries.default_workspace()
        made = services.install_drill_schedule(workspace=workspace)
        row = services.drill_schedule(workspace=workspace)
        if row is None:
            raise NotFound("The schedule was removed meanwhile; plan it again.")
        said = {"schedule": row.slug, "state": row.state, "next_at": row.next_at}
        return {**said, "note": "planned" if made else "was planned before"}, 0

    def do_show(self, options: dict[str, Any]) -> tuple[Any, int]:
        row = _find(options["id"])
        steps = [f"{s.part} {s.at_ms / 1000:.1f} {s.text}" for s in row.steps.all()]
        return {**_facts(row), "steps": steps}, 0

    def do_verify(self, options: dict[str, Any]) -> tuple[Any, int]:
        row = _find(options["id"])
        try:
            services.verify_evidence(drill_id=row.id)
        except NotFound:
            raise
        except PolarError as error:
            return {"ok": False, "problem": error.detail}, 1
        return {"ok": True, "evidence": row.evidence_sha256, "grade": row.state}, 0

    def do_cancel(self, options: dict[str, Any]) -> tuple[Any, int]:
        row = _find(options["id"])
        by = access.system_principal()
        return _facts(services.cancel_drill(by=by, drill_id=row.id)), 0


def _find(name: str) -> DrillRun:
    try:
        return services.get_drill(UUID(name))
    except ValueError:
        row = DrillRun.objects.filter(slug=name).order_by("-id").first()
    if row is None:
        raise NotFound(f"No drill {name!r} was run here yet.")
    return row


def _facts(row: DrillRun) -> dict[str, Any]:
    said = {"id": str(row.id), **model_to_dict(row)}
    if row.evidence_sha256:
        said["evidence"] = str(services.evidence_path(row))
    return said


def _standing(each: dict[str, Any]) -> str:
    if not each["stale"]:
        return "fresh"
    return f"not asked for: {each['aside']}" if each["aside"] else str(each["stale"])


def _lines(said: Any) -> list[str]:
    if isinstance(said, list):
        return [
            f"{each['drill']:16} {each['title']:36} {_standing(each)}" for each in said
        ]
    if "verdict" in said:
        return [*_report(said), *said.get("steps", [])]
    return [
        f"{name}: {value}" for name, value in said.items() if value not in ("", None)
    ]


def _report(said: dict[str, Any]) -> list[str]:
    """What a person asks of a drill; all of the rest is in --json."""
    lines = ["", f"{said['slug']}: {said['state']}, {said['mode']} {said['id']}"]
    parts = said["verdict"] or {}
    if "main" in parts:
        lines.append(f"  {'probe':30} {'rehearsal':10} control")
    control = parts.get("control", {}).get("observed", {})
    for probe, seen in parts.get("main", {}).get("observed", {}).items():
        lines.append(f"  {probe:30} {_word(seen):10} {_word(control.get(probe))}")
    if "control" in parts:
        fell = parts["control"]["deviated"]
        told = "deviated, as it must" if fell else "held: this proves nothing"
        lines.append(f"  without its protection it {told}")
    if said.get("problem"):
        lines.append(f"  {said['problem']}")
    if said.get("evidence"):
        lines += ["", f"Check it anywhere:  ./polar-verify evidence {said['evidence']}"]
    return lines


def _word(seen: dict[str, Any] | None) -> str:
    if seen is None:
        return "-"
    return "held" if seen["held"] else "deviated"
