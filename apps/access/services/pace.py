"""How often somebody may come: one number each, in this process.

Source: ITU-T I.371, the generic cell rate algorithm.
"""

import threading
from collections.abc import Hashable

from apps.common import clock

#: Turns that were not taken are saved up for so long. Units: seconds.
SAVED_SECONDS = 10.0
#: More callers than this are not remembered at once; the quietest are forgotten.
REMEMBERED = 10_000


class Pace:
    """When the saved-up time of each caller is spent."""

    def __init__(self) -> None:
        self.due: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    def seconds_early(self, caller: Hashable, per_minute: int) -> int:
        """Take a turn; or tell after how many seconds there is one, 0 when now."""
        now, each = clock.monotonic(), 60.0 / per_minute
        with self._lock:
            due = max(self.due.get(caller, 0.0), now)
            # In this order a caller who is not early is so by exactly nothing.
            early = (due - now) - (max(SAVED_SECONDS, each) - each)
            if early > 0:
                return int(early) + 1
            self.due[caller] = due + each
            if len(self.due) > REMEMBERED:
                for key in [key for key, due in self.due.items() if due <= now]:
                    del self.due[key]
        return 0
