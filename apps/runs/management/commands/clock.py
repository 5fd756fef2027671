"""`manage.py clock`: due slots, sweeps, seals. Any number may try."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from apps.runs.engine.clock import Clock


class Command(BaseCommand):
    help = "Do the periodic jobs while holding the clock's lease."

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        Clock().run(stop)
