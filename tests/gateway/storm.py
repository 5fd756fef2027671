"""Many turns that ask at once for one budget of $1.00; also runs by itself, on a
SQLite file: `python -m tests.gateway.storm FOLDER TURNS`."""

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

LIMIT, WORST, TAKES, THREADS = 1_000_000, 100_000, 90_000, 8


def run(principal: Any, workspace: Any, turns: int) -> dict[str, int]:
    """Ask, and say how many were served and what the budget says afterwards."""
    from django.db import connection

    from apps.common import ids
    from apps.common.errors import BudgetExceeded
    from apps.gateway import services
    from apps.gateway.models import Budget
    from apps.gateway.ports import (
        CallKind,
        CallRequest,
        Estimate,
        Lineage,
        Permit,
        Result,
        Risk,
        Usage,
    )

    one = Budget.objects.create(
        workspace=workspace, scope="workspace", unit="micros", window="day", limit=LIMIT
    )
    start = threading.Barrier(min(THREADS, turns), timeout=60)

    def perform(permit: Permit) -> Result:
        permit.spend({"n": 1})
        return Result({"text": "hi"}, Usage(TAKES, 3, 4))

    def ask(number: int) -> str:
        run_id = ids.new_id()
        request = CallRequest(
            kind=CallKind.MODEL,
            capability="provider:x/y",
            principal=principal,
            workspace_id=workspace.id,
            arguments={"n": 1},
            perform=perform,
            risk=Risk("read"),
            lineage=Lineage(run_id=run_id, turn_id=run_id, agent="rob", seq="1"),
            estimate=Estimate(WORST, 100),
        )
        if number < THREADS:
            start.wait()
        try:
            services.call(request)
        except BudgetExceeded:
            return "refused"
        finally:
            connection.close()
        return "served"

    with ThreadPoolExecutor(THREADS) as pool:
        said = list(pool.map(ask, range(turns)))
    one.refresh_from_db()
    return {
        "served": said.count("served"),
        "refused": said.count("refused"),
        "spent": one.spent,
        "reserved": one.reserved,
    }


def main(folder: str, turns: int) -> None:
    """Make a store in a folder, and run there."""
    os.environ["DATABASE_URL"] = f"sqlite:///{folder}/storm.db"
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    from tests import people

    settings.POLAR_WITNESS_DIR = Path(folder) / "witness"
    settings.POLAR_WITNESS_DIR.mkdir(exist_ok=True)
    call_command("migrate", verbosity=0)
    from apps.access import services as access

    here = access.ensure_default_workspace()
    said = run(people.agent("rob", here), here, turns)
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
