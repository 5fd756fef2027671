"""The one event loop of a process on which children and sessions live.

A child of bubblewrap dies with the thread that started it, and a session belongs
to the loop that opened it; so both live on this thread, which lasts as long as
the process. Threads that wait for an answer are elsewhere.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as LateError
from typing import Any, TypeVar

from apps.extensions.errors import ToolTransientError

T = TypeVar("T")

#: Work that ends itself may be this late before its caller gives up.
GRACE_SECONDS = 5.0


class Portal:
    """Starts the loop when first needed, and again after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def run(self, work: Coroutine[Any, Any, T], *, seconds: float) -> T:
        """Wait for work on the loop. Raises: what it raises; ToolTransientError
        when the loop did not answer in time."""
        future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            return future.result(seconds + GRACE_SECONDS)
        except (LateError, CancelledError) as error:
            future.cancel()
            raise ToolTransientError("It did not end in time.") from error

    @property
    def is_forked(self) -> bool:
        """Tell whether what lived on the loop was left behind by a fork."""
        return self._pid not in (0, os.getpid())

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                threading.Thread(
                    target=self._loop.run_forever, name="extensions", daemon=True
                ).start()
            return self._loop


portal = Portal()
