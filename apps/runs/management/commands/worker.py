"""`manage.py worker`: carry runs until told to leave."""

import socket
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.utils.module_loading import import_string


class Command(BaseCommand):
    help = "Carry runs: one process, many threads. SIGTERM leaves within 20 s."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--concurrency", type=int, default=64)
        parser.add_argument("--queues", default="default,listen")
        parser.add_argument("--name", default="worker")

    def handle(self, *args: Any, **options: Any) -> None:
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
