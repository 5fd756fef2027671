"""Each process's own look at the store: at its start, then every ten seconds.

Invariants: nothing is claimed and nothing swept while the store is in doubt; the
process stays up and looks again, because an operator may put the store right.
"""

import logging
import threading

from django.db import connection

from apps.audit import services as audit
from apps.audit.errors import StoreExchanged, StoreInDoubt, StoreRolledBack
from apps.common.loops import run_forever

logger = logging.getLogger(__name__)

LOOK_SECONDS = 10.0


def start(stop: threading.Event) -> threading.Thread:
    """Look now, before the first claim, and then again and again."""
    thread = threading.Thread(
        target=run_forever,
        args=("store", look),
        kwargs={"interval": LOOK_SECONDS, "stop": stop},
        name="store",
        daemon=True,
    )
    thread.start()
    return thread


def look() -> None:
    """Compare the store with its witness, ringing or ending the alarm."""
    try:
        audit.check_store()
    finally:
        if not connection.in_atomic_block:
            connection.close()


def may_go_on() -> bool:
    """Tell whether work may be claimed or swept now; ask closer where it may not."""
    try:
        audit.check_claim()
    except (StoreExchanged, StoreRolledBack) as doubt:
        logger.warning(doubt.detail, extra={"event": "store.in_doubt"})
        look()
        return False
    except StoreInDoubt:
        return False
    return True
