"""`manage.py channels`: accounts, strangers who wait, and messages in trouble."""

import json
import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.access import services as access
from apps.channels import queries, services
from apps.channels.models import Tier
from apps.common.errors import PolarError


class Command(BaseCommand):
    help = (
        "Look after channels. Example: ./polar channels pair 7KQ2MX9C "
        "--tier operator --user alice"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        listed = verbs.add_parser("list", help="Show accounts and what waits.")
        listed.add_argument("--json", action="store_true")
        pair = verbs.add_parser("pair", help="Let a stranger in by their code.")
        pair.add_argument("code")
        pair.add_argument("--tier", choices=Tier.values, default=Tier.PUBLIC)
        pair.add_argument("--user", default="", help="whom they are here")
        pair.add_argument("--reject", action="store_true")
        again = verbs.add_parser("resend", help="Send what failed or is unknown.")
        again.add_argument("message", type=uuid.UUID)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['verb']}")(options)
        except PolarError as error:
            raise CommandError(f"{error} ({error.code})") from None

    def _list(self, options: dict[str, Any]) -> None:
        found = queries.overview(visible_to=access.system_principal())
        if options["json"]:
            self.stdout.write(json.dumps(found))
            return
        for account in found["accounts"]:
            self.stdout.write(
                f"{account['slug']} {account['kind']} {account['state']}: "
                f"receiving {account['receiving']}, last sent "
                f"{account['sentAt'] or 'never'} {account['trouble']}".rstrip()
            )
        for each in found["pairings"]:
            self.stdout.write(f"waits: {each['display']} ({each['sender']})")
        for each in found["trouble"]:
            self.stdout.write(f"{each['state']}: {each['id']} {each['error']}")

    def _pair(self, options: dict[str, Any]) -> None:
        row = services.decide_pairing(
            by=access.system_principal(),
            code=options["code"],
            approve=not options["reject"],
            tier=options["tier"],
            username=options["user"],
        )
        self.stdout.write(f"{row.display or row.external_user}: {row.state}")

    def _resend(self, options: dict[str, Any]) -> None:
        row = services.resend(
            by=access.system_principal(), message_id=options["message"]
        )
        self.stdout.write(f"{row.id}: {row.state}")
