"""Seconds of a trace as per cent of a figure, with long pauses cut short.

Hides: which stretches are too long to draw, and where an axis has room for a label.
"""

from collections.abc import Iterable

#: Shorter quiet stretches are never cut. Units: seconds.
SHORTEST_PAUSE = 3.0
#: A quiet stretch longer than this share of the whole is cut out …
LONG_SHARE = 0.3
#: … and drawn this wide. Units: per cent.
PAUSE_WIDTH = 14.0
#: A label of the axis needs so much. Units: per cent.
TICK_ROOM = 6.0
TICK_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)


def quiet(
    work: Iterable[tuple[float, float]], total: float
) -> list[tuple[float, float]]:
    """Find the stretches without work that are too long to draw to scale."""
    work = list(work)
    if not work:
        return []
    shortest = max(SHORTEST_PAUSE, total * LONG_SHARE)
    quiet, reached = [], 0.0
    for begin, until in [*work, (total, total)]:
        if begin - reached > shortest:
            quiet.append((reached, begin))
        reached = max(reached, until)
    return quiet


class Scale:
    """Maps seconds since the start to per cent, with pauses of a fixed width."""

    def __init__(self, total: float, pauses: list[tuple[float, float]]) -> None:
        self.total = total
        self.pauses = pauses
        quiet = sum(until - begin for begin, until in pauses)
        self._true = max(total - quiet, 0.001)
        self._room = 100.0 - PAUSE_WIDTH * len(pauses)

    def at(self, seconds: float) -> float:
        done, x = 0.0, 0.0
        for begin, until in self.pauses:
            if seconds <= begin:
                break
            x += (begin - done) / self._true * self._room
            share = min(1.0, (seconds - begin) / (until - begin))
            x += PAUSE_WIDTH * share
            done = until
        rest = max(0.0, seconds - done) if seconds > done else 0.0
        return round(min(100.0, x + rest / self._true * self._room), 3)

    def ticks(self) -> list[tuple[float, str]]:
        step = next((s for s in TICK_STEPS if self._true / s <= 6), TICK_STEPS[-1])
        marks: list[tuple[float, str]] = []
        n = 0
        while n * step < self.total * 0.97 and n < 400:
            seconds = n * step
            x = self.at(seconds)
            if x < 93 and not self._is_crowded(x, marks):
                marks.append((x, f"{seconds:g} s"))
            n += 1
        return marks if len(marks) <= 9 else marks[:: len(marks) // 8 + 1]

    def _is_crowded(self, x: float, marks: list[tuple[float, str]]) -> bool:
        """Whether a label there would run into a pause's own or the last one."""
        pauses = [self.at(begin) for begin, _ in self.pauses]
        in_pause = any(p - TICK_ROOM < x < p + PAUSE_WIDTH for p in pauses)
        return in_pause or bool(marks and x - marks[-1][0] < TICK_ROOM)
