"""`manage.py alerts`: see, acknowledge and silence alerts from a shell.

Exit codes: 0 done; 1 refused, with the reason.
"""

import json
import sys
import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.access import services as access
from apps.common import clock
from apps.common.errors import PolarError
from apps.reliability import queries, services
from apps.reliability.engine import slo
from apps.reliability.models import Alert, AlertCode, Silence

COLUMNS = ("id", "level", "state", "code", "summary")
EXAMPLE = "Example: ./polar alerts silence VAULT_SEALED --hours 4 --reason 'moving'"


class Command(BaseCommand):
    help = f"List, acknowledge, silence, rehearse alerts; set a webhook. {EXAMPLE}"

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        listing = verbs.add_parser("list")
        listing.add_argument("--state", default="standing")
        listing.add_argument("--limit", type=int, default=50)
        ack = verbs.add_parser("acknowledge")
        ack.add_argument("alert_id", type=uuid.UUID)
        ack.add_argument("--reason", default="")
        silence = verbs.add_parser("silence")
        silence.add_argument("code", choices=AlertCode.values)
        silence.add_argument("--key", default="")
        silence.add_argument("--hours", type=int, default=4)
        silence.add_argument("--reason", required=True)
        verbs.add_parser("lift").add_argument("silence_id", type=uuid.UUID)
        verbs.add_parser("breach", help="send a made-up alert down the whole way")
        verbs.add_parser("slo", help="say how the three promises are kept")
        webhook = verbs.add_parser("webhook", help="the secret comes on stdin")
        webhook.add_argument("url")
        webhook.add_argument("--local", default="", help="host:port that may be inside")
        for each in verbs.choices.values():
            each.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = getattr(self, f"do_{options['verb']}")(options)
        except PolarError as error:
            raise CommandError(f"{error} ({error.code})") from None
        if options["json"]:
            self.stdout.write(json.dumps(found, default=str))
            return
        for row in found:
            self.stdout.write("  ".join(str(value) for value in row.values()))

    def do_list(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        rows = queries.alerts(state=options["state"])
        return [_alert(row) for row in rows[: options["limit"]]]

    def do_acknowledge(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        row = services.acknowledge_alert(
            by=access.system_principal(),
            alert_id=options["alert_id"],
            reason=options["reason"],
        )
        return [_alert(row)]

    def do_silence(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        names = ("code", "key", "hours", "reason")
        said = {name: options[name] for name in names}
        return [_silence(services.silence(by=access.system_principal(), **said))]

    def do_lift(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        row = services.lift_silence(
            by=access.system_principal(), silence_id=options["silence_id"]
        )
        return [_silence(row)]

    def do_breach(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        row = services.breach(by=access.system_principal())
        services.send_due()
        return [_alert(row)]

    def do_slo(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "slo": each.slo.slug,
                "state": each.state,
                "missed_3d": each.tallies["3d"].bad,
                "total_3d": each.tallies["3d"].total,
            }
            for each in slo.standings(clock.now())
        ]

    def do_webhook(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        row = services.save_webhook(
            by=access.system_principal(),
            url=options["url"],
            secret=sys.stdin.read().strip(),
            local=options["local"],
        )
        return [{"id": str(row.id), "url": row.url}]


def _alert(row: Alert) -> dict[str, Any]:
    return {name: str(getattr(row, name)) for name in COLUMNS}


def _silence(row: Silence) -> dict[str, Any]:
    return {"id": str(row.id), "code": row.code, "until": row.until.isoformat()}
