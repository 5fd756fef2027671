"""`manage.py policy`: grants, and what a change of policy would have done."""

import json
import uuid
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.access import services as access
from apps.access.queries import default_workspace
from apps.common import clock
from apps.common.errors import PolarError
from apps.gateway import queries, services
from apps.gateway.models import Grant
from apps.gateway.ports import CallKind
from apps.gateway.schemas import GrantOut, WhatIfIn, what_if_out

CHANGES = ("grant", "revoke", "strictness", "risk", "budget")
WORDS = {
    "--kind": "of the grant: tool, model, message …",
    "--capabilities": "of the grant, separated by commas",
    "--agents": "the grant reaches only these",
    "--targets": "the grant reaches only these",
    "--grant-removed": "id of the grant to do without",
    "--strictness": "observe, enforce or hardened",
    "--risk-of": "capability whose risk changes",
    "--riskLevel": "read, write or destructive",
    "--sideEffects": "none, internal or external",
    "--dataEgress": "none or network",
    "--budget-id": "budget whose limit changes",
    "--limit": "the other limit, in the budget's unit",
    "--hours": "how far back, 168 unless told",
}


class Command(BaseCommand):
    help = (
        "List, make and revoke grants; try a change before saving it. "
        "Example: ./polar policy what-if grant --capabilities 'mail/*'"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("grants").add_argument("--revoked", action="store_true")
        make = verbs.add_parser("grant")
        make.add_argument("capabilities", nargs="+")
        make.add_argument("--kind", default="tool", choices=CallKind.values)
        make.add_argument("--agents", nargs="*", default=[])
        make.add_argument("--targets", nargs="*", default=[])
        make.add_argument("--hours", type=int, required=True)
        make.add_argument("--reason", required=True)
        end = verbs.add_parser("revoke")
        end.add_argument("grant_id", type=uuid.UUID)
        end.add_argument("--reason", required=True)
        trying = verbs.add_parser("what-if")
        trying.add_argument("change", choices=CHANGES)
        for word, said in WORDS.items():
            trying.add_argument(word, default="", help=said)
        for each in verbs.choices.values():
            each.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        verb = options["verb"].replace("-", "_")
        try:
            found = getattr(self, f"do_{verb}")(options)
        except PolarError as error:
            raise CommandError(f"{error} ({error.code})") from None
        if options["json"]:
            self.stdout.write(json.dumps(found, default=str))
            return
        for row in found if isinstance(found, list) else [found]:
            for name, value in row.items():
                self.stdout.write(f"{name}: {value}")
            self.stdout.write("")

    def do_grants(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        found = queries.grants(access.system_principal())
        if not options["revoked"]:
            found = found.filter(revoked_at__isnull=True)
        return [_shown(each) for each in found[:500]]

    def do_grant(self, options: dict[str, Any]) -> dict[str, Any]:
        if options["hours"] < 1:
            raise CommandError("A grant holds for at least one hour.")
        narrowed = {name: options[name] for name in ("agents", "targets")}
        made = services.make_grant(
            by=access.system_principal(),
            new=services.NewGrant(
                kind=CallKind(options["kind"]),
                capabilities=tuple(options["capabilities"]),
                reason=options["reason"],
                workspace=default_workspace(),
                expires_at=clock.now() + timedelta(hours=options["hours"]),
                constraints={name: each for name, each in narrowed.items() if each},
            ),
        )
        return _shown(made)

    def do_revoke(self, options: dict[str, Any]) -> dict[str, Any]:
        services.revoke_grant(
            by=access.system_principal(),
            grant_id=options["grant_id"],
            reason=options["reason"],
        )
        return _shown(Grant.objects.get(id=options["grant_id"]))

    def do_what_if(self, options: dict[str, Any]) -> dict[str, Any]:
        words = {name: str(value) for name, value in options.items() if value}
        wanted = WhatIfIn.from_words(words).as_wanted()
        report = services.what_if(by=access.system_principal(), wanted=wanted)
        return what_if_out(report)


def _shown(grant: Grant) -> dict[str, Any]:
    return GrantOut.model_validate(grant).model_dump()
