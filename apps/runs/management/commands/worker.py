"""`manage.py worker`: carry runs until told to leave."""

import os
import socket
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.db import connection
from django.utils.module_loading import import_string

#: Where a worker and the web want the same core, the web goes first: people and
#: vendors wait for its answer, and a vendor that waits too long sends again.
#: Source: docs/decisions/0041-the-web-goes-first.md
NICENESS = 5


class Command(BaseCommand):
    help = "Carry runs: one process, many threads. SIGTERM leaves within 20 s."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--concurrency", type=int, default=64)
        parser.add_argument("--queues", default="default,listen")
        parser.add_argument("--name", default="worker")

    def handle(self, *args: Any, **options: Any) -> None:
        if connection.vendor != "sqlite":  # there the web waits for the worker's turn
            os.nice(NICENESS)
        host = socket.gethostname()
        app = import_string(settings.CELERY_APP)
        app.worker_main(
            [
                "--quiet",
                "worker",
                "--pool=threads",
                f"--concurrency={options['concurrency']}",
                f"--queues={options['queues']}",
                f"--hostname={options['name']}@{host}",
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
                "--loglevel=WARNING",
            ]
        )
