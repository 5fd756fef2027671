"""The continuity checklist: five boxes, each the sum of checks of the doctor.

A box is proved or it is not; nobody ticks it. What is unknown is not proved.
Source: the first user's page on incidents, section 4.
"""

from dataclasses import dataclass

from apps.reliability.engine.doctor import examining
from apps.reliability.engine.doctor.check import OK, UNUSED, Result


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the checklist, and the checks that prove it."""

    slug: str
    title: str
    checks: tuple[str, ...]
    #: Where it is mended.
    page: str


ITEMS = (
    Item(
        "key-backup",
        "The vault's key is backed up outside the runtime environment",
        ("key-vault-open", "key-vault-backup"),
        "vault:status",
    ),
    Item(
        "snapshots",
        "Snapshots of the store are taken, and the newest restores",
        ("watch-snapshots-planned", "watch-snapshots", "watch-snapshots-proved"),
        "reliability:store",
    ),
    Item(
        "sink",
        "The audit log is offloaded to an immutable sink",
        ("log-sink", "log-sink-lag", "log-sink-immutable"),
        "audit:list",
    ),
    Item(
        "alerts",
        "SLO alerts are configured, and their news arrives",
        ("watch-slo-rules", "watch-alerts-planned", "watch-alerts-arrive"),
        "reliability:alerts",
    ),
    Item(
        "drills",
        "Every drill was rehearsed in the last quarter, and passed",
        ("watch-drills",),
        "reliability:drills",
    ),
)


@dataclass(frozen=True, slots=True)
class Box:
    """A line of the checklist as it stands now."""

    item: Item
    results: tuple[Result, ...]

    @property
    def is_proved(self) -> bool:
        return all(each.state in (OK, UNUSED) for each in self.results)

    @property
    def mend(self) -> list[str]:
        return [each.mend for each in self.results if each.mend]


def boxes() -> list[Box]:
    """Prove each line now. Reads only."""
    return [box_of(each) for each in ITEMS]


def box_of(item: Item) -> Box:
    found = {each.check.name: each for each in examining.examine(item.checks)}
    return Box(item, tuple(found[name] for name in item.checks))
