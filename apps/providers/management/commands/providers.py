"""`providers list|sync|test|key|price`: what answers, with which key, for how much."""

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.access import services as access
from apps.common import clock
from apps.common.errors import PolarError
from apps.common.units import format_usd
from apps.providers import queries, services
from apps.providers.forms import PriceForm
from apps.providers.models import Price

#: Exit codes: all well; a tested provider did not answer.
WELL, FAILED = 0, 1


class Command(BaseCommand):
    """Thin: asks, prints, sets the exit code."""

    help = (
        "List providers and lanes, look for new ones, test them, change a key, "
        "say a price. "
        "Example: ./polar providers key openai stage < new-key.txt"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        for verb, text in (
            ("list", "lanes, routes and their health"),
            ("sync", "look at the environment and for servers nearby"),
            ("test", "list models and ask one word of each provider"),
        ):
            sub = verbs.add_parser(verb, help=text)
            sub.add_argument("--json", action="store_true", help="for programs")
            if verb == "test":
                sub.add_argument("slug", nargs="?", help="one provider only")
        price = verbs.add_parser("price", help="what a model costs from a day on")
        price.add_argument("slug")
        price.add_argument("model", nargs="?", help="none lists the history")
        for name in ("input", "output", "cached"):
            text = "dollars per million tokens"
            price.add_argument(f"--{name}", default="0", help=text)
        price.add_argument("--from", dest="starts_on", help="YYYY-MM-DD, else today")
        price.add_argument("--note", default="", help="where it was read")
        price.add_argument("--json", action="store_true", help="for programs")
        key = verbs.add_parser("key", help="one step of a key change")
        key.add_argument("slug")
        key.add_argument(
            "action", choices=["stage", "test", "shadow", "promote", "revoke", "drop"]
        )
        key.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        verb = options["verb"]
        if verb == "test":
            self._test(options["slug"], as_json=options["json"])
            return
        if verb == "sync":
            found = services.sync_from_env()
            text = ", ".join(found) or "nothing new"
            self.stdout.write(json.dumps(found) if options["json"] else text)
            return
        if verb == "price":
            self._price(options)
            return
        if verb == "key":
            self._key(options["slug"], options["action"], as_json=options["json"])
            return
        rows = _rows()
        if options["json"]:
            self.stdout.write(json.dumps(rows, sort_keys=True))
            return
        for row in rows:
            self.stdout.write(
                "{lane:<7} {position:>2} {route:<40} {state:<9} {detail}".format(**row)
            )

    def _key(self, slug: str, action: str, *, as_json: bool) -> None:
        """A staged key is read from standard input: the process list shows none."""
        if action == "stage" and sys.stdin.isatty():
            self.stderr.write("Paste the new key, then press Ctrl-D.")
        try:
            report = services.change_key(
                by=access.system_principal(),
                slug=slug,
                action=action,
                key=sys.stdin.read() if action == "stage" else "",
            )
        except PolarError as error:
            raise CommandError(f"{error.detail} ({error.code})") from error
        row = queries.get_provider(slug)
        shown = {
            "provider": slug,
            "stage": row.key_stage,
            "detail": row.key_detail,
            "shadow_answers": row.shadow_answers,
            "tested_ok": report.ok if report else None,
        }
        text = f"{slug}: {row.get_key_stage_display()} {row.key_detail}".strip()
        self.stdout.write(json.dumps(shown, sort_keys=True) if as_json else text)
        if report is not None and not report.ok:
            sys.exit(FAILED)

    def _price(self, options: dict[str, Any]) -> None:
        slug = options["slug"]
        try:
            if options["model"]:
                given = {"starts_on": clock.now().date().isoformat()} | {
                    name: value for name, value in options.items() if value
                }
                services.add_price(
                    by=access.system_principal(),
                    model=queries.get_model(slug, options["model"]),
                    entry=PriceForm(given).as_entry(),
                )
            rows = list(queries.prices_of(queries.get_provider(slug))[:500])
        except PolarError as error:
            raise CommandError(f"{error.detail} ({error.code})") from error
        if options["json"]:
            shown = [_shown_price(row) for row in rows]
            self.stdout.write(json.dumps(shown, sort_keys=True))
            return
        for row in rows:
            prices = (row.input_micros, row.output_micros, row.cached_micros)
            said = " / ".join(map(format_usd, prices))
            self.stdout.write(f"{row.starts_on} {row.model.name:<40} {said}")

    def _test(self, slug: str | None, *, as_json: bool) -> None:
        chosen = [queries.get_provider(slug)] if slug else list(queries.providers())
        system = access.system_principal()
        reports = [services.test_provider(by=system, provider=each) for each in chosen]
        if as_json:
            self.stdout.write(json.dumps([asdict(r) for r in reports], sort_keys=True))
        else:
            for report in reports:
                word = "ok" if report.ok else report.error_class or "not tested"
                said = report.answer if report.ok else report.detail
                self.stdout.write(
                    f"{report.provider}: {word}, {report.duration_ms} ms, {said}"
                )
        if not all(report.ok for report in reports):
            sys.exit(FAILED)


def _shown_price(row: Price) -> dict[str, Any]:
    return {
        "model": row.model.name,
        "starts_on": row.starts_on.isoformat(),
        "input_micros": row.input_micros,
        "output_micros": row.output_micros,
        "cached_micros": row.cached_micros,
        "by": row.by_label,
    }


def _rows() -> list[dict[str, Any]]:
    return [
        {
            "lane": str(lane.lane),
            "position": health.route.position,
            "route": str(health.route.model),
            "state": str(health.state),
            "detail": health.detail or health.last_error_class,
        }
        for lane in queries.lanes_health()
        for health in lane.routes
    ]
