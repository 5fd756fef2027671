"""Ring workers through the broker: a message of one run id, nothing else.

Invariants: a broken broker costs at most one short try every few seconds and no
work; the worker's own look at the table finds the run.
"""

import logging
import uuid

from django.conf import settings
from django.utils.module_loading import import_string
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from apps.common import clock
from apps.runs.ports import BrokerFacts

logger = logging.getLogger(__name__)

#: After a failure the bell is left alone for so long.
REST_SECONDS = 5.0
_quiet_until = 0.0


def ring(run_id: uuid.UUID, queue: str) -> None:
    """Publish one hint. Again: harmless; a claim decides."""
    global _quiet_until
    if clock.monotonic() < _quiet_until:
        return
    try:
        import_string(settings.CELERY_APP).send_task(
            "runs.execute",
            kwargs={"run_id": str(run_id)},
            queue=queue,
            retry=False,
            ignore_result=True,
        )
    except (OperationalError, OSError):
        _quiet_until = clock.monotonic() + REST_SECONDS
        logger.warning("broker unreachable", extra={"event": "broker.down"})


def ask() -> BrokerFacts:
    """Ask the broker for its version and for what it does when its memory is full.

    Again: harmless. A hosted one may keep the policy to itself; then it is "".
    """
    broker: Redis = Redis.from_url(
        settings.REDIS_URL, socket_timeout=1.0, socket_connect_timeout=1.0
    )
    try:
        memory = broker.info("memory")
        server = broker.info("server")
    except (RedisError, OSError) as error:
        return BrokerFacts(problem=f"unreachable: {error}"[:200])
    finally:
        broker.close()
    return BrokerFacts(str(server["redis_version"]), str(memory["maxmemory_policy"]))
