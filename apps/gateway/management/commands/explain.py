"""`manage.py explain TRACE`: which stage stopped a call, by which rule, and what
would have allowed it. Exits 3 when the trace has no call, 0 otherwise."""

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from apps.access import services as access
from apps.gateway.engine import desk
from apps.gateway.engine.explaining import Explanation
from apps.gateway.schemas import explanation_out

NOTHING = 3


class Command(BaseCommand):
    help = (
        "Explain the decisions of a trace. "
        "Example: ./polar explain 4bf92f3577b34da6a3ce929d0e0e4736"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("trace_id", help="32 hex digits")
        parser.add_argument("--stopped", action="store_true", help="refusals only")
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        trace_id = options["trace_id"].strip().lower()
        found = desk.explanations(trace_id, access.system_principal())
        if options["stopped"]:
            found = [each for each in found if each.rule]
        if options["json"]:
            shown = [explanation_out(each) for each in found]
            self.stdout.write(json.dumps(shown, default=str))
        else:
            for each in found:
                self._print(each)
        if not found:
            self.stderr.write(f"No call was recorded under {trace_id}.")
            sys.exit(NOTHING)

    def _print(self, said: Explanation) -> None:
        call = said.call
        self.stdout.write(f"{call.kind} {call.capability}: {call.state}")
        if said.rule:
            self.stdout.write(f"  stopped at    {call.stage} ({call.reason_code})")
            self.stdout.write(f"  rule          {said.rule}")
            self.stdout.write(f"  would allow   {said.would_allow}")
        for each in said.stages:
            self.stdout.write(f"  {each.stage:<13} {each.outcome}: {each.verdict}")
