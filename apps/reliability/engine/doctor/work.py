"""Checks of what carries the work: workers, clock, broker, queue, schedules."""

from datetime import timedelta

from django.conf import settings
from django.db.models import Q

from apps.common import clock
from apps.gateway import queries as gateway
from apps.gateway.models import Setting, Strictness
from apps.reliability.engine.doctor.check import (
    Found,
    check,
    fail,
    ok,
    unused,
    warn,
)
from apps.runs import ports as runs_ports
from apps.runs import queries as runs
from apps.runs.models import ClockLease, Run, Schedule, Slot, State

#: A run that is due waits no longer than this while a worker lives.
TAKEN_WITHIN = timedelta(minutes=5)


@check(
    "work-workers",
    "Somebody carries runs",
    mend="Start one: ./polar worker",
)
def workers() -> Found:
    live = runs.live_workers()
    said = f"{len(live)} heard of in {runs.BEAT_SECONDS} s"
    return ok(said) if live else fail(said)


@check(
    "work-clock",
    "Somebody fires schedules, seals and watches",
    mend="Start one: ./polar clock",
)
def clock_process() -> Found:
    lease = ClockLease.objects.first()
    if lease is None or lease.lease_until is None or not lease.owner:
        return fail("no clock holds the lease")
    late = (clock.now() - lease.lease_until).total_seconds()
    said = f"{lease.owner.rpartition(':')[0]}"
    return fail(f"{said}, silent for {late:.0f} s") if late > 0 else ok(said)


@check(
    "work-versions",
    "Workers run the version whose tables these are",
    mend="Restart the workers that are named.",
)
def versions() -> Found:
    now = runs.schema_version()
    other = [
        worker.process
        for worker in runs.live_workers()
        if worker.schema_version not in ("", now)
    ]
    return fail(", ".join(other)) if other else ok("all alike")


@check(
    "work-broker",
    "The broker answers",
    mend="Start Redis, or empty REDIS_URL: workers then watch the database.",
)
def broker() -> Found:
    if not settings.REDIS_URL:
        return unused("none is set; workers watch the database")
    found = runs_ports.broker.ask()
    if found.problem:
        return warn(found.problem)
    return ok(f"Redis {found.version}")


@check(
    "work-broker-policy",
    "The broker forgets no message when its memory is full",
    mend="Set in Redis: maxmemory-policy noeviction",
)
def broker_policy() -> Found:
    if not settings.REDIS_URL:
        return unused("none is set")
    found = runs_ports.broker.ask()
    if found.problem:
        return warn(found.problem)
    return (ok if found.policy == "noeviction" else warn)(found.policy or "not told")


@check(
    "work-queue",
    "The queue is not full",
    mend="Start more workers, or cancel what need not run: page Runs.",
)
def queue() -> Found:
    limit = settings.POLAR_QUEUE_LIMIT
    depth = Run.objects.due(clock.now()).order_by()[:limit].count()
    said = f"{depth} of {limit} wait"
    if depth >= limit:
        return fail(said)
    return warn(said) if depth >= limit * 0.8 else ok(said)


@check(
    "work-taken",
    "What is due is begun",
    mend="Look at the workers' logs and at the page Halts.",
)
def taken() -> Found:
    late = Run.objects.filter(
        state=State.QUEUED, due_at__lt=clock.now() - TAKEN_WITHIN
    ).count()
    return fail(f"{late} wait over 5 min") if late else ok("nothing waits long")


@check(
    "work-dead-letters",
    "Somebody looks at what was given up",
    mend="Page Dead letters: retry, requeue or dismiss each.",
)
def dead_letters() -> Found:
    old = Run.objects.filter(
        state=State.DEAD_LETTER, finished_at__lt=clock.now() - timedelta(days=1)
    ).count()
    return warn(f"{old} lie for over a day") if old else ok("none is old")


@check(
    "work-schedules",
    "Every active schedule knows when it is next",
    mend="Page Schedules: correct the one that is named, or pause it.",
)
def schedules() -> Found:
    active = Schedule.objects.filter(state="active")
    lost = active.filter(Q(next_at=None) & ~Q(kind="once"))
    if names := list(lost.values_list("slug", flat=True)[:5]):
        return fail(", ".join(names))
    return ok(f"{active.count()} active")


@check(
    "work-slots",
    "No moment of a schedule passed unused today",
    mend="See that the clock runs, and what the page Schedules says of the gaps.",
)
def slots() -> Found:
    since = clock.now() - timedelta(days=1)
    missed = Slot.objects.filter(state__among=["missed"], created_at__gte=since).count()
    return warn(f"{missed} in 24 h") if missed else ok("none in 24 h")


@check(
    "work-automations",
    "No automation gave up",
    mend="Page Schedules: its reason stands there; enable it again.",
)
def automations() -> Found:
    given_up = Schedule.objects.filter(state="disabled").exclude(state_reason="")
    names = list(given_up.values_list("slug", flat=True)[:5])
    return warn(", ".join(names)) if names else ok("none")


@check(
    "work-halts",
    "Nothing is stopped by hand",
    mend="Page Halts: resume what may go on.",
)
def halts() -> Found:
    active = list(gateway.halts()[:5])
    if not active:
        return ok("none")
    return warn("; ".join(f"{halt.scope} by {halt.set_by}" for halt in active))


@check(
    "work-strictness",
    "The pipeline refuses what it does not know",
    mend="Run: ./polar policy --help (strictness hardened)",
)
def strictness() -> Found:
    row = Setting.objects.first()
    now = row.strictness if row else Strictness.HARDENED
    return (ok if now == Strictness.HARDENED else warn)(str(now))


@check(
    "work-approvals",
    "No question waits for an answer over a day",
    mend="Page Approvals: decide it.",
)
def approvals() -> Found:
    since = clock.now() - timedelta(days=1)
    old = gateway.open_approvals().filter(created_at__lt=since).count()
    return warn(f"{old} wait") if old else ok("none is old")
