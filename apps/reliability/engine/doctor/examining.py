"""The doctor's round: every check of every module, carried out one after another."""

from collections.abc import Iterable

from apps.common.errors import NotFound
from apps.reliability.engine.doctor import (
    host,
    keys,
    log,
    reach,
    store,
    watch,
    work,
)
from apps.reliability.engine.doctor.check import (
    CHECKS,
    Check,
    Result,
    look_at,
    one_round,
)

#: In this order they are shown. Naming the modules here is what fills the list.
AREAS = {
    "host": ("This machine", host),
    "store": ("Store", store),
    "log": ("Audit log, witness and sinks", log),
    "key": ("Keys and secrets", keys),
    "work": ("Workers, clock and queue", work),
    "reach": ("Providers, channels and extensions", reach),
    "watch": ("Snapshots, alerts and drills", watch),
}


def every() -> list[Check]:
    places = list(AREAS)
    return sorted(CHECKS.values(), key=lambda each: places.index(each.area))


def examine(names: Iterable[str] = (), *, slow: bool = True) -> list[Result]:
    """Carry out the named checks, or all of them. Reads only.

    Raises: NotFound for a name that no check has.
    """
    wanted = set(names)
    if missing := wanted - set(CHECKS):
        raise NotFound(f"There is no check {min(missing)!r}: ./polar doctor --list")
    chosen = [each for each in every() if each.name in wanted or not wanted]
    with one_round():
        return [look_at(each) for each in chosen if slow or not each.is_slow]


def examine_area(area: str) -> list[Result]:
    """Carry out one area's checks, but for what reads the whole store.

    Raises: NotFound.
    """
    if area not in AREAS:
        raise NotFound(f"There is no area {area!r}, only {', '.join(AREAS)}")
    return examine([each.name for each in every() if each.area == area], slow=False)


def title_of(area: str) -> str:
    return AREAS[area][0]
