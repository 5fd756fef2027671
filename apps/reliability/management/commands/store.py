"""`store status | check | verify | accept | resume`: is it the store the witness
knows, and does it agree with itself?"""

import json
from argparse import RawDescriptionHelpFormatter
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.forms.models import model_to_dict

from apps.access import services as access
from apps.audit import services as audit
from apps.common.errors import PolarError
from apps.reliability import queries, services
from apps.reliability.engine import consistency

EXAMPLE = """\
example:
  ./polar store check
  ./polar store verify --json
  ./polar store accept --reason "Monday's copy is what we go on with"
  ./polar store resume --reason "looked at every one"
"""


class Command(BaseCommand):
    help = "Compare the store with the witness; decide about one that went back."

    def create_parser(self, *args: Any, **options: Any) -> CommandParser:
        options |= {"epilog": EXAMPLE, "formatter_class": RawDescriptionHelpFormatter}
        return super().create_parser(*args, **options)

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("status", help="what stands; exit 1 under an alarm")
        verbs.add_parser("check", help="compare now; exit 1 under an alarm")
        verbs.add_parser(
            "verify", help="read all of it; exit 1 if it contradicts itself"
        )
        for verb in ("accept", "resume"):
            verbs.add_parser(verb).add_argument("--reason", required=True)
        for each in verbs.choices.values():
            each.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            said = getattr(self, f"do_{options['verb']}")(options)
        except PolarError as error:
            raise CommandError(f"{error} ({error.code})") from error
        if options["json"]:
            self.stdout.write(json.dumps(said, default=str, sort_keys=True))
        else:
            for name, value in said.items():
                self.stdout.write(f"{name}: {value}")
        if said.get("in_doubt") or said.get("contradictions"):
            raise SystemExit(1)

    def do_status(self, options: dict[str, Any]) -> dict[str, Any]:
        standing = audit.standing_alarm()
        if standing is None:
            return {"in_doubt": False}
        found = queries.rollbacks().filter(alarm_id=standing.id).first()
        said = {"in_doubt": True, "problem": standing.problem}
        return said | (model_to_dict(found) if found else {})

    def do_check(self, options: dict[str, Any]) -> dict[str, Any]:
        audit.check_store()
        services.look_after_alarm()
        return self.do_status(options)

    def do_verify(self, options: dict[str, Any]) -> dict[str, Any]:
        found = consistency.contradictions()
        said: dict[str, Any] = {"rules": len(consistency.names())}
        if options["json"]:
            return said | {"contradictions": [asdict(each) for each in found]}
        said["contradictions"] = len(found)
        for each in found:
            said[f"not so: {each.says}"] = "; ".join(each.where)
        return said

    def do_accept(self, options: dict[str, Any]) -> dict[str, Any]:
        services.look_after_alarm()
        accepted = services.accept_rollback(
            by=access.system_principal(), reason=options["reason"]
        )
        return model_to_dict(accepted)

    def do_resume(self, options: dict[str, Any]) -> dict[str, Any]:
        newest = queries.rollbacks().first()
        if newest is None:
            raise CommandError("No store ever went back here.")
        resumed = services.resume_stale(
            by=access.system_principal(),
            rollback_id=newest.id,
            reason=options["reason"],
        )
        return {"resumed": len(resumed)}
