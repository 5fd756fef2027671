"""The two Celery tasks. A message carries a run id and nothing else."""

import uuid
from typing import Any

from celery import shared_task

from apps.runs import services


@shared_task(name="runs.execute")
def execute(run_id: str, **_: Any) -> None:
    """Claim the run and carry it. Again: a claim decides, so a repeat does nothing."""
    services.execute(uuid.UUID(run_id))


@shared_task(name="runs.tick")
def tick(**_: Any) -> None:
    """Fire due slots and sweep, for whoever wants it sooner than the clock."""
    services.tick()
