"""`manage.py approvals`: see what agents ask, and answer it from a shell.

An answer is a person's: `--as` names who answers, and their rights are checked.
"""

import json
import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.access import services as access
from apps.access.models import Principal, User
from apps.common.errors import NotFound, PolarError
from apps.gateway import queries, services
from apps.gateway.schemas import approval_out

COLUMNS = ("id", "state", "capability", "requester", "asks", "expires_at")
EXAMPLE = "Example: ./polar approvals approve 0197… --as bob --reason 'seen it'"


class Command(BaseCommand):
    help = f"List, show, approve or reject what agents ask. {EXAMPLE}"

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        listing = verbs.add_parser("list")
        listing.add_argument("--state", default="pending", help="or all")
        listing.add_argument("--limit", type=int, default=50)
        for verb in ("show", "approve", "reject"):
            one = verbs.add_parser(verb)
            one.add_argument("approval_id", type=uuid.UUID)
            if verb != "show":
                one.add_argument("--as", dest="username", required=True)
                one.add_argument("--reason", default="")
            if verb == "approve":
                one.add_argument("--grant-hours", type=int, default=0)
        for each in verbs.choices.values():
            each.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = getattr(self, f"do_{options['verb']}")(options)
        except PolarError as error:
            raise CommandError(f"{error} ({error.code})") from None
        if options["json"]:
            self.stdout.write(json.dumps(found, default=str))
        elif isinstance(found, dict):
            for name, value in found.items():
                self.stdout.write(f"{name}: {value}")
        else:
            for row in found:
                self.stdout.write("  ".join(str(row[name]) for name in COLUMNS))

    def do_list(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        found = queries.approvals(access.system_principal()).order_by("-id")
        if options["state"] != "all":
            found = found.filter(state=options["state"])
        return [_out(each) for each in found[: max(1, options["limit"])]]

    def do_show(self, options: dict[str, Any]) -> dict[str, Any]:
        system = access.system_principal()
        return _out(queries.get_approval(options["approval_id"], system))

    def do_approve(self, options: dict[str, Any]) -> dict[str, Any]:
        return self._decide(options, approve=True)

    def do_reject(self, options: dict[str, Any]) -> dict[str, Any]:
        return self._decide(options, approve=False)

    def _decide(self, options: dict[str, Any], *, approve: bool) -> dict[str, Any]:
        asked = services.decide_approval(
            by=_person(options["username"]),
            approval_id=options["approval_id"],
            approve=approve,
            reason=options["reason"],
            grant_hours=options.get("grant_hours") or 0,
        )
        return _out(asked)


def _person(username: str) -> Principal:
    user = User.objects.filter(username=username, is_active=True).first()
    if user is None:
        raise NotFound(f"There is no active user {username!r}.")
    return access.principal_for_user(user=user)


def _out(asked: Any) -> dict[str, Any]:
    shown = approval_out(asked)
    shown["plan"] = [
        f"{step.position}. {step.capability} {step.arguments}" for step in shown["plan"]
    ]
    return shown
