"""Celery is the alarm clock: it wakes workers and houses their threads.

Invariants: messages are hints, acknowledged on receipt; no results are kept; with
no REDIS_URL the broker lives in the worker's memory and the worker's own watch
finds every run.
"""

import logging
import os
from concurrent.futures import Future
from typing import Any

from celery import Celery, bootsteps, signals
from kombu import Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "polar_site.settings")

from django.conf import settings

logger = logging.getLogger(__name__)

#: Redis gives an unacknowledged hint back after so long. Units: seconds.
VISIBILITY_SECONDS = 60

# Without Celery's Django fixup: `manage.py worker` sets Django up, the executor
# closes connections, and a worker has no use for the URLs that it would load.
app = Celery("polar", fixups=[])
app.conf.update(
    broker_url=settings.REDIS_URL or "memory://",
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_connection_timeout=2.0,
    broker_transport_options=(
        {
            "visibility_timeout": VISIBILITY_SECONDS,
            "unacked_restore_interval": 1,
            "socket_timeout": 5.0,
            "socket_connect_timeout": 1.0,
        }
        if settings.REDIS_URL
        else {"polling_interval": 0.1}
    ),
    result_backend_transport_options={"visibility_timeout": VISIBILITY_SECONDS},
    visibility_timeout=VISIBILITY_SECONDS,
    task_ignore_result=True,
    task_acks_late=False,
    task_serializer="json",
    accept_content=["json"],
    task_default_queue="default",
    task_queues=[Queue("default"), Queue("listen")],
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    imports=["apps.runs.tasks"],
    timezone="UTC",
    enable_utc=True,
)


@signals.setup_logging.connect
def keep_logging(**_: Any) -> None:
    """Django configured the logs; Celery leaves them alone."""


class Carry(bootsteps.StartStopStep):
    """Start the carrier with the worker's thread pool, and leave before it."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        # Celery imports this module before Django's apps are ready.
        from apps.runs.engine.carrier import Carrier

        queues = tuple(worker.app.amqp.queues.consume_from)
        self.carrier = Carrier(queues=queues, concurrency=worker.concurrency)

        def submit(carry: Any, *args: Any) -> None:
            result = worker.pool.apply_async(carry, args, callback=lambda _: None)
            result.f.add_done_callback(report)

        signals.worker_shutting_down.connect(self.stop_claiming)
        self.carrier.start(submit)

    def stop_claiming(self, **_: Any) -> None:
        self.carrier.keeper.leaving.set()

    def stop(self, worker: Any) -> None:
        self.carrier.leave_for_good()


def report(done: "Future[Any]") -> None:
    """A run that could not even be settled is swept later; say why."""
    error = None if done.cancelled() else done.exception()
    if error is not None:
        logger.error(
            "run not settled", exc_info=error, extra={"event": "run.unsettled"}
        )


app.steps["worker"].add(Carry)
