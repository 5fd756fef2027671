"""The detectors: each looks at rows and says what is wrong, or nothing.

A detector owns its codes: what it no longer says is cleared. Each runs as its own
job of the clock, so that one that fails keeps no other from looking.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial

from django.db.models import Avg, Count, F, Q

from apps.agents.models import Handoff, HandoffState, Turn
from apps.audit import queries as audit_queries
from apps.audit import services as audit
from apps.common import clock
from apps.gateway.models import Budget
from apps.providers import queries as providers
from apps.providers.models import Lane, UsageRow
from apps.reliability.engine import slo, upkeep
from apps.reliability.engine.findings import MOST, Detector, Finding
from apps.reliability.models import (
    AlertCode,
    DrillMode,
    DrillRun,
    DrillState,
    Level,
)
from apps.runs.models import Run, State

#: The newest window that the rates are taken from.
WINDOW = timedelta(minutes=15)
#: So many failures of a lane in a row are a blackout, whatever the rates say.
IN_A_ROW = 5
BASELINE = timedelta(days=7)
#: Fewer calls than this say nothing about how long a lane takes.
FEWEST_NEW, FEWEST_OLD = 5, 20
LONG_LAG = timedelta(minutes=30)
RATES = {
    AlertCode.USAGE_FAILURE: (0.15, 0.35),
    AlertCode.USAGE_FALLBACK: (0.25, 0.50),
    AlertCode.HANDOFF_FAILURE: (0.05, 0.25),
    AlertCode.HANDOFF_ADJUSTED: (0.40, 0.70),
    AlertCode.USAGE_DURATION: (2.0, 4.0),
}
WORDS = {
    AlertCode.USAGE_FAILURE: "model calls failed",
    AlertCode.USAGE_FALLBACK: "answers came from a fallback",
    AlertCode.HANDOFF_FAILURE: "handoffs brought no valid result in time",
    AlertCode.HANDOFF_ADJUSTED: "handoffs were given less than they asked for",
}
NO_ROUTE = "no route above the local lane can be tried"


def judge_rate(code: AlertCode, tally: slo.Tally, key: str = "") -> Finding | None:
    """Compare the Wilson lower bound of a share with the code's two thresholds."""
    warning, critical = RATES[code]
    level = _level(tally.low, warning, critical)
    if not level:
        return None
    facts = {
        "bad": tally.bad,
        "total": tally.total,
        "lower_bound": f"{tally.low:.3f}",
        "threshold": str(critical if level == Level.CRITICAL else warning),
        "window_minutes": int(WINDOW.total_seconds() // 60),
    }
    summary = f"{tally.bad} of {tally.total} {WORDS[code]} in {_minutes(WINDOW)}"
    return Finding(code, level, summary, key, facts)


def _level(value: float, warning: float, critical: float) -> str:
    if value > critical:
        return Level.CRITICAL
    return Level.WARNING if value > warning else ""


def _minutes(length: timedelta) -> str:
    return f"{int(length.total_seconds() // 60)} min"


def usage_rates(now: datetime, origin: str = "real") -> list[Finding]:
    """How many calls fail, and how many a fallback answers."""
    rows = UsageRow.objects.filter(origin=origin, created_at__gte=now - WINDOW)
    found = rows.aggregate(
        total=Count("id"),
        failed=Count("id", filter=Q(ok=False)),
        served=Count("id", filter=Q(ok=True)),
        fallback=Count("id", filter=Q(ok=True, fallback_used=True)),
    )
    failures = slo.Tally(found["total"], found["failed"])
    fallbacks = slo.Tally(found["served"], found["fallback"])
    return _said(
        judge_rate(AlertCode.USAGE_FAILURE, failures),
        judge_rate(AlertCode.USAGE_FALLBACK, fallbacks),
    )


def durations(now: datetime) -> list[Finding]:
    """Compare how long each lane takes with how long it took in the last week."""
    new = Q(created_at__gte=now - WINDOW)
    rows = (
        UsageRow.objects.filter(origin="real", ok=True, created_at__gte=now - BASELINE)
        .values("served_lane")
        .annotate(
            new=Count("id", filter=new),
            old=Count("id", filter=~new),
            takes=Avg("duration_ms", filter=new),
            took=Avg("duration_ms", filter=~new),
        )
        .order_by("served_lane")
    )
    found = []
    for row in rows:
        if row["new"] < FEWEST_NEW or row["old"] < FEWEST_OLD or not row["took"]:
            continue
        times = row["takes"] / row["took"]
        if level := _level(times, *RATES[AlertCode.USAGE_DURATION]):
            words = f"the {row['served_lane']} lane takes {times:.1f} times as long"
            facts = {"ms": int(row["takes"]), "baseline_ms": int(row["took"])}
            found.append(
                Finding(
                    AlertCode.USAGE_DURATION, level, words, row["served_lane"], facts
                )
            )
    return found


def handoffs(now: datetime) -> list[Finding]:
    """How many handoffs fail, and how many get less than they asked for."""
    rows = Handoff.objects.filter(origin="real", created_at__gte=now - WINDOW)
    begun = Q(child__isnull=False)
    over = begun & (~Q(state=HandoffState.OPEN) | Q(deadline_at__lt=now))
    found = rows.aggregate(
        over=Count("id", filter=over),
        bad=Count("id", filter=over & ~Q(state=HandoffState.SUCCEEDED)),
        begun=Count("id", filter=begun),
        adjusted=Count("id", filter=begun & ~Q(adjustments=[])),
    )
    rates = _said(
        judge_rate(AlertCode.HANDOFF_FAILURE, slo.Tally(found["over"], found["bad"])),
        judge_rate(
            AlertCode.HANDOFF_ADJUSTED, slo.Tally(found["begun"], found["adjusted"])
        ),
    )
    return [*rates, *_burning("handoff", now)]


def escalations(now: datetime) -> list[Finding]:
    """Lanes above the asked one, against the budget of 2 %."""
    promise = _promise("escalation")
    standing = slo.standing_of(promise, promise.tallies(now))
    newest = standing.tallies["1h"]
    if not standing.level and newest.low <= promise.budget:
        return []
    words = f"{newest.bad} of {newest.total} answers in 1 h above the asked lane"
    facts = {"lower_bound": f"{newest.low:.3f}", "threshold": str(promise.budget)}
    level = standing.level or Level.WARNING
    return [Finding(AlertCode.ESCALATION, level, words, facts=facts)]


def sink(now: datetime) -> list[Finding]:
    """For how long the oldest event waits, and the budget of 1 %."""
    slo.judge_sink(now)
    waits, problem = audit_queries.sink_lag()
    found = _burning("sink", now)
    if waits > slo.ACK_WITHIN:
        level = Level.CRITICAL if waits > LONG_LAG else Level.WARNING
        words = f"the oldest event waits for {_minutes(waits)}. {problem}".strip()
        facts = {"waits_seconds": int(waits.total_seconds()), "problem": problem}
        found.append(Finding(AlertCode.SINK, level, words[:300], "lag", facts))
    return found


def blackout(now: datetime) -> list[Finding]:
    """No remote lane can be tried, or a lane fails time after time."""
    found = []
    if providers.all_remote_lanes_down() and not providers.lanes_are_held():
        found.append(Finding(AlertCode.BLACKOUT, Level.CRITICAL, NO_ROUTE))
    for lane in Lane.values:
        rows = UsageRow.objects.filter(
            origin="real", requested_lane=lane, created_at__gte=now - WINDOW
        ).order_by("-created_at", "-id")
        newest = list(rows.values_list("ok", "trace_id")[:IN_A_ROW])
        if len(newest) == IN_A_ROW and not any(ok for ok, _ in newest):
            words = f"the last {IN_A_ROW} calls of the {lane} lane failed"
            found.append(
                Finding(
                    AlertCode.BLACKOUT, Level.CRITICAL, words, lane, {}, newest[0][1]
                )
            )
    return found


def held_blackout(now: datetime) -> list[Finding]:
    """A live drill keeps every remote lane from being used."""
    if providers.all_remote_lanes_down() and providers.lanes_are_held():
        return [Finding(AlertCode.BLACKOUT, Level.CRITICAL, NO_ROUTE)]
    return []


def store(now: datetime) -> list[Finding]:
    """The witness contradicts the store, or the log's own guards are gone."""
    found = []
    standing = audit.standing_alarm()
    if standing is not None and standing.kind == "rolled_back":
        facts = {"store": standing.store_size, "witness": standing.witness_size}
        words = standing.problem[:300]
        found.append(Finding(AlertCode.ROLLBACK, Level.CRITICAL, words, "", facts))
        if standing.witness_size == standing.store_size and standing.store_size:
            words = f"the log contradicts itself: {standing.problem}"[:300]
            found.append(Finding(AlertCode.CHAIN, Level.CRITICAL, words))
    if missing := audit.triggers_missing():
        words = f"the guards of the log are gone: {', '.join(missing)}"[:300]
        found.append(Finding(AlertCode.CHAIN, Level.CRITICAL, words, "triggers"))
    return found


def budgets(now: datetime) -> list[Finding]:
    """Budgets that an overrun blocks, or of which 80 % are spent or set aside."""
    near = Budget.objects.filter(
        Q(window_started_at__isnull=True) | Q(window_started_at__lte=now),
        Q(blocked_at__lte=now) | Q(spent__gte=F("limit") * 4 / 5 - F("reserved")),
        is_active=True,
        limit__gt=0,
    )
    found = []
    for row in near.order_by("id")[:MOST]:
        used = row.spent + row.reserved
        share = used / row.limit
        if (share < 0.8 and not row.blocked_at) or _has_rolled(row, now):
            continue
        level = Level.CRITICAL if share >= 1 or row.blocked_at else Level.WARNING
        name = f"{row.scope} {row.scope_key}".strip()
        words = f"the budget {name} ({row.unit}, {row.window}) is at {share:.0%}"
        facts = {"used": used, "limit": row.limit, "overrun": row.overrun}
        found.append(Finding(AlertCode.BUDGET, level, words, str(row.id), facts))
    return found


def _has_rolled(row: Budget, now: datetime) -> bool:
    """A window that is over empties at its next use: what it says is of the past."""
    longest = {"hour": 1 / 24, "day": 1, "week": 7, "month": 31}.get(row.window)
    if longest is None or row.window_started_at is None:
        return False
    return now - row.window_started_at > timedelta(days=longest)


def loop_guard(now: datetime) -> list[Finding]:
    """Trees of work that were cut."""
    ended = Run.objects.filter(
        state=State.TRUNCATED, created_at__gte=now - timedelta(hours=1), origin="real"
    )
    cut = Turn.objects.filter(
        run_id__in=ended.values("id"),
        reason="loop_guard",
        finished_at__gte=now - WINDOW,
    )
    return [
        Finding(
            AlertCode.LOOP,
            Level.WARNING,
            "the loop guard cut a tree of work",
            str(run.root_id or run.id),
            {"run": str(run.id)},
            run.trace_id,
        )
        for run in Run.objects.filter(id__in=cut.values("run_id")).order_by("id")[:MOST]
    ]


def _promise(slug: str) -> slo.Slo:
    return next(each for each in slo.SLOS if each.slug == slug)


def _burning(slug: str, now: datetime) -> list[Finding]:
    """A promise whose error budget burns in a long and a short window at once."""
    promise = _promise(slug)
    standing = slo.standing_of(promise, promise.tallies(now))
    burns = [burn for burn in standing.burns if burn.is_burning]
    if not burns:
        return []
    worst = burns[0]
    words = (
        f"{promise.title}: the error budget burns {worst.long_rate:.1f} times too fast"
        f" over {worst.long}, {worst.short_rate:.1f} times over {worst.short}"
    )
    facts = {"windows": [worst.long, worst.short], "factor": str(worst.factor)}
    return [Finding(promise.code, standing.level, words, "burn", facts)]


def _said(*findings: Finding | None) -> list[Finding]:
    return [finding for finding in findings if finding is not None]


def now_found(detector: Detector) -> list[Finding]:
    """Look now; of one code and key the worst finding counts."""
    return _worst(detector.look(clock.now()))


def found_of_drills(detector: Detector) -> list[Finding]:
    """Look at the live drill that is under way, if one is."""
    if detector.of_drills is None or not _is_live_drill_on():
        return []
    return _worst(detector.of_drills(clock.now()))


def _is_live_drill_on() -> bool:
    live = DrillRun.objects.filter(mode=DrillMode.LIVE, state=DrillState.RUNNING)
    return live.exists()


def _worst(found: Iterable[Finding]) -> list[Finding]:
    worst: dict[tuple[str, str], Finding] = {}
    for finding in found:
        place = (finding.code, finding.key)
        before = worst.get(place)
        if before is None or before.level == Level.WARNING:
            worst[place] = finding
    return list(worst.values())


A = AlertCode
DETECTORS = (
    Detector(
        "usage",
        (A.USAGE_FAILURE, A.USAGE_FALLBACK),
        usage_rates,
        of_drills=partial(usage_rates, origin="drill"),
    ),
    Detector("durations", (A.USAGE_DURATION,), durations, 60.0),
    Detector("handoffs", (A.HANDOFF_FAILURE, A.HANDOFF_ADJUSTED), handoffs),
    Detector("escalations", (A.ESCALATION,), escalations, 30.0),
    Detector("sink", (A.SINK,), sink, 15.0),
    Detector("blackout", (A.BLACKOUT,), blackout, of_drills=held_blackout),
    Detector("store", (A.ROLLBACK, A.CHAIN), store, 10.0, in_doubt=True),
    Detector("budgets", (A.BUDGET,), budgets),
    Detector("loops", (A.LOOP,), loop_guard),
    Detector("schedules", (A.SCHEDULE,), upkeep.schedules, 30.0),
    Detector("channels", (A.CHANNEL,), upkeep.channels),
    Detector("snapshots", (A.SNAPSHOT,), upkeep.snapshots, 60.0),
    Detector("drills", (A.DRILL,), upkeep.drills, 60.0),
    Detector("vault", (A.VAULT,), upkeep.vault_sealed),
)
