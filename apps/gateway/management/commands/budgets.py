"""`manage.py budgets`: what may be spent, what is, and changing it."""

import json
import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.access import services as access
from apps.common.errors import PolarError
from apps.gateway import queries, services
from apps.gateway.engine import purse
from apps.gateway.forms import limit_of
from apps.gateway.models import Budget, BudgetScope, BudgetUnit, BudgetWindow, OnExceed
from apps.gateway.schemas import budget_out


class Command(BaseCommand):
    help = (
        "List, set, archive and unblock budgets. Exits 1 when refused. Example: "
        "./polar budgets set --scope profile --key @writer --limit 2.50 --window day"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list").add_argument("--archived", action="store_true")
        put = verbs.add_parser("set", help="make one, or change --id at --version")
        put.add_argument("--scope", choices=BudgetScope.values, default="workspace")
        put.add_argument("--key", default="", help="whose: @writer, a user, a provider")
        put.add_argument("--limit", required=True, help="dollars, or a count")
        put.add_argument("--unit", choices=BudgetUnit.values, default="micros")
        put.add_argument("--window", choices=BudgetWindow.values, default="day")
        put.add_argument("--rolling", action="store_true")
        put.add_argument("--timezone", default="UTC")
        put.add_argument("--on-exceed", choices=OnExceed.values, default="block")
        put.add_argument("--id", type=uuid.UUID)
        put.add_argument("--version", type=int, default=0)
        end = verbs.add_parser("archive")
        end.add_argument("id", type=uuid.UUID)
        end.add_argument("--version", type=int, required=True)
        free = verbs.add_parser("unblock", help="let one serve after an overrun")
        free.add_argument("id", type=uuid.UUID)
        free.add_argument("--reason", required=True)
        for each in verbs.choices.values():
            each.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            rows = getattr(self, f"do_{options['verb']}")(options)
        except PolarError as error:
            raise CommandError(f"{error} ({error.code})") from None
        found = purse.purses(rows)
        if options["json"]:
            said = json.dumps([budget_out(each) for each in found], default=str)
            self.stdout.write(said)
            return
        for each in found:
            row, amounts = each.row, each.amounts
            self.stdout.write(
                f"{row.id} v{row.version} {row.scope} {each.whose}: "
                f"{amounts['spent']} of {amounts['limit']} {each.window} "
                f"({each.percent} %, {amounts['reserved']} set aside), {each.state}"
            )

    def do_list(self, options: dict[str, Any]) -> list[Budget]:
        found = queries.budgets(access.system_principal())
        if not options["archived"]:
            found = found.filter(is_active=True)
        return list(found[:500])

    def do_set(self, options: dict[str, Any]) -> list[Budget]:
        wanted = services.BudgetWanted(
            scope=options["scope"],
            key=options["key"],
            unit=options["unit"],
            limit=limit_of(options["limit"], options["unit"]),
            window=options["window"],
            is_rolling=options["rolling"],
            timezone=options["timezone"],
            on_exceed=options["on_exceed"],
        )
        saved = services.save_budget(
            by=access.system_principal(),
            wanted=wanted,
            budget_id=options["id"],
            expected_version=options["version"],
        )
        return [saved]

    def do_archive(self, options: dict[str, Any]) -> list[Budget]:
        ended = services.archive_budget(
            by=access.system_principal(),
            budget_id=options["id"],
            expected_version=options["version"],
        )
        return [ended]

    def do_unblock(self, options: dict[str, Any]) -> list[Budget]:
        freed = services.unblock_budget(
            by=access.system_principal(),
            budget_id=options["id"],
            reason=options["reason"],
        )
        return [freed]
