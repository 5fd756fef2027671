"""The detectors of what has to be kept up: schedules, channels, snapshots, drills,
the vault.
"""

from datetime import datetime, timedelta

from django.db.models import Count

from apps.access.models import Workspace
from apps.channels import queries as channel_queries
from apps.reliability.engine import basis, freshness, shelf, snapshotting
from apps.reliability.engine.findings import MOST, Finding
from apps.reliability.models import AlertCode, DrillRun, Level
from apps.runs.models import Run, Schedule, Slot, State
from apps.vault import queries as vault

SNAPSHOT_OVERDUE = timedelta(hours=12)
#: What makes many drills stale at once.
CHANGES = frozenset(basis.WORDS.values())


def schedules(now: datetime) -> list[Finding]:
    """Moments of active schedules that passed unused in the last hour."""
    since = now - timedelta(hours=1)
    rows = (
        Slot.objects.filter(state__among=["missed"], created_at__gte=since)
        .values("schedule__slug", "schedule_id")
        .annotate(times=Count("id"))
        .order_by("schedule__slug")[:MOST]
    )
    return [
        Finding(
            AlertCode.SCHEDULE,
            Level.WARNING,
            f"{row['schedule__slug']} missed {row['times']} times in an hour",
            str(row["schedule_id"]),
            {"missed": row["times"]},
        )
        for row in rows
    ]


def channels(now: datetime) -> list[Finding]:
    """Channels that hear nothing or were refused; work of theirs that was given up."""
    down, count = channel_queries.down()
    level = Level.CRITICAL if down and len(down) == count else Level.WARNING
    found = [
        Finding(
            AlertCode.CHANNEL,
            level,
            f"{each.slug} is down: {each.trouble or 'nothing proves that it hears'}",
            str(each.id),
            {"down": len(down), "channels": count},
        )
        for each in down[:MOST]
    ]
    return found + _given_up(now)


def _given_up(now: datetime) -> list[Finding]:
    """Receiving or delivering that was given up in the last hour."""
    rows = (
        Run.objects.filter(
            kind__startswith="channels.",
            state=State.DEAD_LETTER,
            origin="real",
            created_at__gte=now - timedelta(days=1),
            finished_at__gte=now - timedelta(hours=1),
        )
        .values("kind")
        .annotate(times=Count("id"))
        .order_by("kind")
    )
    return [
        Finding(
            AlertCode.CHANNEL,
            Level.CRITICAL,
            f"{row['times']} runs of {row['kind']} were given up in the last hour",
            row["kind"],
            {"dead_letters": row["times"]},
        )
        for row in rows
    ]


def snapshots(now: datetime) -> list[Finding]:
    """Two intervals passed without a snapshot since the schedule began."""
    planned = Schedule.objects.filter(slug="snapshots", run_kind="reliability.snapshot")
    began = planned.order_by("id").values_list("created_at", flat=True).first()
    newest = next(iter(snapshotting.every()), None)
    since = newest.taken_at if newest else began
    if since is None or now - since <= SNAPSHOT_OVERDUE:
        return []
    hours = int((now - since).total_seconds() // 3600)
    words = f"the newest snapshot is {hours} h old" if newest else "no snapshot yet"
    return [Finding(AlertCode.SNAPSHOT, Level.WARNING, words, facts={"hours": hours})]


def drills(now: datetime) -> list[Finding]:
    """Drills that this install never passed, or whose proof is old or stale.

    A fresh install has a quarter to rehearse them first. A change that makes many
    stale at once, such as an upgrade, is one finding.
    """
    began = Workspace.objects.order_by("id").values_list("created_at", flat=True)
    since = began.first()
    if since is None or now - since <= timedelta(days=shelf.FRESH_DAYS):
        ran = set(DrillRun.objects.values_list("slug", flat=True))
    else:
        ran = {drill.slug for drill in shelf.every()}
    overdue = [
        each
        for each in freshness.shelf_of_drills()
        if each.is_overdue and each.drill.slug in ran and not _is_under_way(each)
    ]
    changed = [each for each in overdue if each.stale in CHANGES]
    found = [_overdue(each) for each in overdue if each not in changed]
    return found + [
        Finding(
            AlertCode.DRILL,
            Level.WARNING,
            f"{', '.join(names)}: {words}"[:300],
            kind,
            {"drills": names},
        )
        for kind, words in basis.WORDS.items()
        if (names := [each.drill.slug for each in changed if each.stale == words])
    ]


def _overdue(each: freshness.Shelved) -> Finding:
    slug = each.drill.slug
    facts = {"drill": slug, "passed_at": str(each.passed_at or "")}
    words = f"the drill {slug}: {each.stale}"
    return Finding(AlertCode.DRILL, Level.WARNING, words, slug, facts)


def _is_under_way(each: freshness.Shelved) -> bool:
    return each.newest is not None and not each.newest.is_over


def vault_sealed(now: datetime) -> list[Finding]:
    """No secret can be opened."""
    status = vault.status()
    if status.state == "open":
        return []
    words = f"the vault is {status.state}: {status.reason}"[:300]
    return [Finding(AlertCode.VAULT, Level.CRITICAL, words)]
