"""A witness and a sink of each test's own, and a process that remembers nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from apps.audit import ports, services
from apps.audit.engine import memory
from apps.audit.models import Event
from apps.common.actor import SYSTEM

ports.declare("drill.happened", "drill.refused")

Recorder = Callable[..., list[Event]]


@pytest.fixture(autouse=True)
def witness(tmp_path: Path, settings: Any) -> Iterator[Path]:
    settings.POLAR_WITNESS_DIR = tmp_path / "witness"
    settings.POLAR_SINK_FILE = str(tmp_path / "sink" / "audit.jsonl")
    memory.forget()
    yield tmp_path / "witness"
    memory.forget()


@pytest.fixture
def record(db: None) -> Recorder:
    """Record some events, each in a transaction."""

    def events(count: int = 1, **said: Any) -> list[Event]:
        with transaction.atomic():
            return [
                services.record(
                    **{"type": "drill.happened", "actor": SYSTEM, "data": {"n": n}}
                    | said
                )
                for n in range(count)
            ]

    return events
