"""Checks of what watches and of what is rehearsed: snapshots, alerts, drills."""

from datetime import timedelta

from apps.common import clock
from apps.reliability.engine import alerts as detecting
from apps.reliability.engine import freshness, slo, snapshotting
from apps.reliability.engine.doctor.check import (
    Found,
    check,
    fail,
    ok,
    unknown,
    warn,
)
from apps.reliability.engine.doctor.store import file_of_store
from apps.reliability.models import (
    UNDER_WAY,
    Alert,
    Incident,
    Notice,
    NoticeState,
    Recovery,
    Severity,
)
from apps.reliability.queries import newest_breach
from apps.runs.models import ClockLease, Schedule

#: Two intervals of the shipped schedule.
SNAPSHOT_HOURS = 12
PROVED_DAYS = 2
BREACH_DAYS = 8


def _planned(run_kind: str) -> Found:
    plan = Schedule.objects.filter(run_kind=run_kind).first()
    if plan is None:
        return fail("there is no schedule")
    return (ok if plan.state == "active" else fail)(f"{plan.slug} is {plan.state}")


@check(
    "watch-snapshots",
    "A snapshot is no older than two intervals",
    mend="Run: ./polar snapshot create, and see that the schedule `snapshots` is"
    " active.",
)
def snapshots() -> Found:
    newest = next(iter(snapshotting.every()), None)
    if newest is None:
        return warn("there is none yet")
    age = clock.now() - newest.taken_at
    said = f"{newest.name}, {age.total_seconds() / 3600:.1f} h old"
    return fail(said) if age > timedelta(hours=SNAPSHOT_HOURS) else ok(said)


@check(
    "watch-snapshots-proved",
    "The newest snapshot was restored beside the store and its log recomputed, in"
    " the last two days",
    mend="Page Store: rehearse a restore, or run: ./polar restore --help",
)
def snapshots_proved() -> Found:
    tried = Recovery.objects.order_by("-id").first()
    if tried is None:
        return warn("none was ever restored")
    if not tried.ok:
        return fail(f"{tried.source}: {tried.problem}")
    age = clock.now() - tried.created_at
    said = (
        f"{tried.source} {age.total_seconds() / 3600:.1f} h ago: stood after"
        f" {tried.recovery_seconds:.1f} s (RTO), {tried.events_lost} events and"
        f" {tried.lost_seconds} s of work given up (RPO)"
    )
    return warn(said) if age > timedelta(days=PROVED_DAYS) else ok(said)


@check(
    "watch-snapshots-apart",
    "The snapshots are not lost with the disk of the store",
    mend="Put POLAR_SNAPSHOT_DIR on another disk or machine.",
)
def snapshots_apart() -> Found:
    store, where = file_of_store(), snapshotting.folder()
    if store is None:
        return ok("the store is elsewhere")
    if not where.is_dir():
        return unknown("there is no snapshot yet")
    same = store.stat().st_dev == where.stat().st_dev
    return warn("both lie on one disk") if same else ok("on another disk")


@check(
    "watch-snapshots-planned",
    "Snapshots are taken by themselves",
    mend="Page Schedules: start `snapshots` again, or run: ./polar seed_demo",
)
def snapshots_planned() -> Found:
    return _planned("reliability.snapshot")


@check(
    "watch-alerts-arrive",
    "A made-up breach arrived wherever news goes, in the last eight days",
    mend="Run: ./polar alerts breach; then see on the page Alerts where it stuck.",
)
def alerts_arrive() -> Found:
    breach = newest_breach()
    if breach is None:
        return warn("none was ever tried")
    age = clock.now() - breach.created_at
    notices = list(breach.notices.all())
    lost = [row for row in notices if row.state == NoticeState.FAILED]
    waiting = [row for row in notices if row.state == NoticeState.PENDING]
    if lost:
        return fail(f"not by {lost[0].route}: {lost[0].problem}")
    if waiting and age > timedelta(minutes=15):
        return fail(f"not by {waiting[0].route} after {age.total_seconds():.0f} s")
    said = f"{age.days} days ago, by {len(notices)} ways"
    return warn(said) if age > timedelta(days=BREACH_DAYS) else ok(said)


@check(
    "watch-alerts-planned",
    "The made-up breach is tried every week",
    mend="Page Schedules: start `weekly-breach` again, or run: ./polar seed_demo",
)
def alerts_planned() -> Found:
    return _planned("reliability.synthetic_breach")


@check(
    "watch-slo-rules",
    "Handoffs, lane escalations and the sink are watched against their promises",
    mend="Start a clock: ./polar clock. The rules themselves are built in.",
)
def slo_rules() -> Found:
    watched = {code for each in detecting.DETECTORS for code in each.codes}
    lost = [each.title for each in slo.SLOS if each.code not in watched]
    if lost:
        return fail(f"nobody watches {', '.join(lost)}")
    lease = ClockLease.objects.first()
    if lease is None or lease.lease_until is None or lease.lease_until < clock.now():
        return fail("no clock evaluates them")
    budgets = ", ".join(f"{each.title} {each.budget:.0%}" for each in slo.SLOS)
    return ok(f"may be missed: {budgets}")


@check(
    "watch-slos",
    "The three promises are kept",
    mend="Page SLOs: which window burns, and the alert that it raised.",
)
def slos() -> Found:
    burning = [
        f"{each.slo.title} burns" for each in slo.standings(clock.now()) if each.level
    ]
    return warn(", ".join(burning)) if burning else ok("none burns")


@check(
    "watch-notices",
    "No news of an alert was lost today",
    mend="Page Alerts: correct the way that failed.",
)
def notices() -> Found:
    since = clock.now() - timedelta(days=1)
    lost = Notice.objects.filter(state=NoticeState.FAILED, created_at__gte=since)
    return warn(f"{lost.count()} in 24 h") if lost.exists() else ok("none in 24 h")


@check(
    "watch-alerts",
    "No critical alert stands",
    mend="Page Alerts: acknowledge it and open its incident.",
)
def alerts() -> Found:
    standing = Alert.objects.all().standing().real().filter(level="critical")
    codes = sorted(set(standing.values_list("code", flat=True)))
    return warn(", ".join(codes)) if codes else ok("none")


@check(
    "watch-incidents",
    "Every S1 and S2 incident has somebody",
    mend="Page Incidents: take it.",
)
def incidents() -> Found:
    alone = Incident.objects.filter(
        state__in=UNDER_WAY, severity__in=[Severity.S1, Severity.S2], owner=""
    )
    names = [row.name for row in alone.order_by("id")[:5]]
    return fail(", ".join(names)) if names else ok("none is alone")


@check(
    "watch-reviews",
    "What is over was looked back at within two weeks",
    mend="Page Incidents: write its review.",
)
def reviews() -> Found:
    since = clock.now() - timedelta(days=14)
    late = Incident.objects.filter(state="resolved", resolved_at__lt=since).count()
    return warn(f"{late} wait for a review") if late else ok("none is late")


@check(
    "watch-drills",
    "Every drill passed in the last quarter, as it is now",
    mend="Run it: page Drills, or ./polar drill run <name>",
)
def drills() -> Found:
    shelf = freshness.shelf_of_drills()
    stale = [f"{each.drill.slug}: {each.stale}" for each in shelf if each.is_overdue]
    if stale:
        return warn("; ".join(stale))
    aside = [
        f"{each.drill.slug} not: {each.unused or each.lacks}"
        for each in shelf
        if each.stale
    ]
    return ok("; ".join([f"{len(shelf) - len(aside)} fresh", *aside]))
