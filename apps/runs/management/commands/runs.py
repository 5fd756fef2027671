"""`manage.py runs`: look at runs and steer them from a shell.

Exit codes: 0 done; 1 refused, with the reason; 3 a replay that diverged.
"""

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

EFFECT = ("id", "capability", "state", "effect_class", "started_at", "error_code")


class Command(BaseCommand):
    help = (
        "List, show, cancel, requeue, settle or replay runs, act on dead letters."
        " Example: ./polar runs act requeue --why poison --reason 'mail is back'"
    )

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
        for verb in ("replay", "effects"):
            verbs.add_parser(verb).add_argument("run_id", type=uuid.UUID)
        settle = verbs.add_parser("settle", help="say of an effect in doubt what is so")
        settle.add_argument("run_id", type=uuid.UUID)
        settle.add_argument("call_id", type=uuid.UUID)
        settle.add_argument("verdict", choices=services.VERDICTS)
        settle.add_argument("--reason", required=True)
        act = verbs.add_parser("act", help="act on every dead letter that matches")
        act.add_argument("action", choices=services.ACTIONS)
        act.add_argument("--why", default="", help="only those with this reason")
        act.add_argument("--kind", default="", help="only runs of this kind")
        act.add_argument("--reason", required=True)
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
        if options["verb"] == "replay" and found["divergence"]:
            raise CommandError("The replay diverged.", returncode=3)

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

    def do_effects(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        system = access.system_principal()
        run = queries.get_run(options["run_id"], principal=system)
        calls = queries.effects_of([run], system)[run.id]
        return [{name: getattr(call, name) for name in EFFECT} for call in calls]

    def do_settle(self, options: dict[str, Any]) -> dict[str, Any]:
        call = services.settle_effect(
            by=access.system_principal(),
            run_id=options["run_id"],
            call_id=options["call_id"],
            verdict=options["verdict"],
            reason=options["reason"],
        )
        return {name: getattr(call, name) for name in EFFECT}

    def do_act(self, options: dict[str, Any]) -> dict[str, Any]:
        """Go on in bounded steps until nothing more can be done."""
        done, refused = 0, []
        while True:
            step = services.act_on_matching(
                by=access.system_principal(),
                which=services.Filter(options["why"], options["kind"]),
                action=options["action"],
                reason=options["reason"],
            )
            done, refused = done + step.done, step.refused
            if not step.done or not step.left:
                return {"done": done, "left": step.left, "refused": refused}
            if not options["json"]:
                self.stderr.write(f"{done} done, {step.left} left")

    def do_replay(self, options: dict[str, Any]) -> dict[str, Any]:
        return services.replay(by=access.system_principal(), run_id=options["run_id"])

    def _print(self, found: list[dict[str, Any]] | dict[str, Any]) -> None:
        if isinstance(found, dict):
            for name, value in found.items():
                self.stdout.write(f"{name}: {value}")
            return
        for row in found:
            self.stdout.write("  ".join(str(value) for value in row.values()))


def _as_dict(run: Run, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(run, name) for name in names}
