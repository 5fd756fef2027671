"""Each rule on a replayed series: quiet, fires, clears. What fires is told."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from apps.access import services as access
from apps.access.errors import RoleRequired
from apps.agents import services as agents
from apps.agents.models import Handoff, Turn
from apps.audit import queries as audit_queries
from apps.audit import services as audit_services
from apps.audit.engine import memory, triggers
from apps.audit.models import Event
from apps.boards.models import Task, TaskComment
from apps.common import clock
from apps.common.errors import Invalid, InvalidTransition
from apps.gateway.models import Budget
from apps.providers.models import UsageRow
from apps.reliability import ports, services
from apps.reliability.engine import alerts as detecting
from apps.reliability.engine import slo
from apps.reliability.models import Alert, AlertCode, Incident, Level, Notice
from apps.runs import services as runs
from apps.runs.models import Run, Schedule, Slot
from tests.audit.test_services import roll_back

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
NAMED = {detector.name: detector for detector in detecting.DETECTORS}


@pytest.fixture(autouse=True)
def noon(workspace):
    with clock.frozen(NOON):
        yield


@pytest.fixture
def by(alice):
    return access.principal_for_user(user=alice)


def call(**said):
    row = {"requested_lane": "worker", "served_lane": "worker", "duration_ms": 100}
    return UsageRow.objects.create(**{**row, "created_at": clock.now(), **said})


def calls(number, **said):
    return [call(**said) for _ in range(number)]


def look(name):
    services.watch(NAMED[name])
    return list(
        Alert.objects.standing().order_by("id").values_list("code", "level", "key")
    )


@pytest.mark.parametrize(
    ("bad", "total", "bound"),
    [(1, 1, 0.207), (3, 3, 0.438), (5, 5, 0.566), (3, 20, 0.052), (2, 20, 0.028)],
)
def test_wilson_bound_is_as_the_design_page_says(bad, total, bound):
    assert slo.wilson_low(bad, total) == pytest.approx(bound, abs=0.001)


def series(name):
    """Each series: what is normal, and what makes the rule fire."""
    return {
        "failure": ("usage", lambda: calls(20), lambda: calls(30, ok=False)),
        "fallback": ("usage", lambda: calls(20), lambda: calls(40, fallback_used=True)),
        "blackout": ("blackout", lambda: calls(5), lambda: calls(5, ok=False)),
        "escalation": (
            "escalations",
            lambda: calls(100, served_lane="brain", lane_change="operator_pin"),
            lambda: calls(20, served_lane="brain", lane_change="fallback"),
        ),
    }[name]


@pytest.mark.parametrize(
    ("name", "code", "level"),
    [
        ("failure", "USAGE_FAILURE_RATE_HIGH", "critical"),
        ("fallback", "USAGE_FALLBACK_RATE_HIGH", "critical"),
        ("blackout", "PROVIDER_BLACKOUT", "critical"),
        ("escalation", "LANE_ESCALATION_UNEXPECTED", "warning"),
    ],
)
def test_usage_rule_on_its_series_is_quiet_then_fires_then_clears(name, code, level):
    detector, normal, broken = series(name)
    normal()
    assert look(detector) == []

    broken()
    assert [found[:2] for found in look(detector)] == [(code, level)]

    with clock.frozen(NOON + timedelta(days=4)):
        normal()
        assert look(detector) == []
    types = list(Event.objects.filter(subject_kind="alert").values_list("type"))
    assert types == [("alert.raised",), ("alert.cleared",)]


def test_duration_is_compared_with_the_lanes_own_week():
    with clock.frozen(NOON - timedelta(days=1)):
        calls(20, duration_ms=100)
    calls(5, duration_ms=150)
    assert look("durations") == []

    calls(20, duration_ms=900)

    assert look("durations") == [("USAGE_AVERAGE_DURATION_HIGH", "critical", "worker")]


def test_two_failures_of_three_say_nothing_of_the_blackout():
    calls(1)
    calls(2, ok=False)

    assert look("blackout") == []


@pytest.mark.parametrize("origin", ["demo", "drill", "synthetic"])
def test_what_is_not_real_is_not_counted(origin):
    calls(50, ok=False, origin=origin)

    assert look("usage") == []
    assert look("blackout") == []


@pytest.mark.parametrize(
    ("state", "adjusted", "wanted"),
    [
        ("succeeded", [], []),
        ("late", [], [("HANDOFF_FAILURE_RATE_HIGH", "critical")]),
        (
            "succeeded",
            [{"field": "budget"}],
            [("HANDOFF_ROUTE_ADJUSTED_RATE_HIGH", "critical")],
        ),
    ],
)
def test_handoffs_fail_or_are_cut_down(monkeypatch, state, adjusted, wanted):
    made = [
        {"bad": state != "succeeded", "adjusted": bool(adjusted)} for _ in range(20)
    ]
    tallies = slo.Tally(20, sum(each["bad"] for each in made))
    cut = slo.Tally(20, sum(each["adjusted"] for each in made))

    found = [
        finding
        for finding in (
            detecting.judge_rate(AlertCode.HANDOFF_FAILURE, tallies),
            detecting.judge_rate(AlertCode.HANDOFF_ADJUSTED, cut),
        )
        if finding
    ]

    assert [(each.code, each.level) for each in found] == wanted
    assert look("handoffs") == []
    assert not Handoff.objects.exists()


def test_budget_fires_at_four_fifths_and_is_critical_when_spent(workspace):
    budget = Budget.objects.create(
        workspace=workspace,
        scope="workspace",
        unit="usd",
        window="total",
        on_exceed="block",
        limit=1000,
        spent=799,
    )
    assert look("budgets") == []

    Budget.objects.filter(id=budget.id).update(reserved=1)
    assert look("budgets") == [("BUDGET_NEAR_LIMIT", "warning", str(budget.id))]

    Budget.objects.filter(id=budget.id).update(spent=1000)
    assert look("budgets") == [("BUDGET_NEAR_LIMIT", "critical", str(budget.id))]
    assert Event.objects.filter(type="alert.escalated").count() == 1


def test_missed_slot_fires_and_is_forgotten_after_an_hour(workspace):
    schedule = Schedule.objects.create(
        workspace=workspace,
        principal=access.system_principal(),
        slug="note",
        kind="cron",
        expression="0 8 * * *",
        run_kind="x",
        timezone="UTC",
    )
    Slot.objects.create(schedule=schedule, slot_at=NOON, state="fired")
    assert look("schedules") == []

    Slot.objects.create(
        schedule=schedule, slot_at=NOON - timedelta(hours=1), state="missed"
    )
    assert look("schedules")[0][0] == "SCHEDULE_MISSED"

    with clock.frozen(NOON + timedelta(hours=2)):
        assert look("schedules") == []


def test_channel_run_that_was_given_up_is_a_channel_down(workspace):
    run = runs.enqueue(
        kind="channels.listen",
        payload={},
        principal=access.system_principal(),
        workspace=workspace,
    )
    assert look("channels") == []

    runs.dead_letter(by=access.system_principal().actor, run_id=run.id, reason="poison")

    assert look("channels") == [("CHANNEL_DOWN", "critical", "channels.listen")]
    assert Incident.objects.get().severity == "S2"


def test_snapshot_is_overdue_after_two_intervals(workspace):
    services.install_schedule(workspace=workspace)
    assert look("snapshots") == []

    with clock.frozen(NOON + timedelta(hours=13)):
        found = look("snapshots")

    assert found == [("SNAPSHOT_OVERDUE", "warning", "")]


def test_missing_guard_of_the_log_is_a_broken_chain(monkeypatch):
    assert look("store") == []

    monkeypatch.setattr(detecting.audit, "triggers_missing", lambda: ["event_update"])

    assert look("store") == [("AUDIT_CHAIN_BROKEN", "critical", "triggers")]
    assert Incident.objects.get().severity == "S1"


def test_sealed_vault_fires_and_clears(by):
    from apps.vault import services as vault

    assert look("vault") == []
    vault.seal(by=by.actor, reason="drill")
    assert look("vault") == [("VAULT_SEALED", "critical", "")]

    vault.unseal(by=by.actor)
    with clock.frozen(NOON + timedelta(minutes=2)):
        assert look("vault") == []


def test_sink_that_lags_fires_is_judged_once_and_clears(by, settings, tmp_path):
    settings.POLAR_WITNESS_DIR = tmp_path / "witness"
    settings.POLAR_SINK_FILE = str(tmp_path / "sink" / "audit.jsonl")
    assert audit_queries.acknowledged() == -1  # the file sink, which has nothing yet
    # Ids only grow within a process: this series lies after every other.
    later = NOON.replace(year=2090)
    with clock.frozen(later):
        assert slo.judge_sink(later) == 0
        services.silence(by=by, code="VAULT_SEALED", reason="one event", hours=1)

    with clock.frozen(later + timedelta(minutes=7)):
        assert ("AUDIT_SINK_INGESTION_FAILING", "critical", "lag") in look("sink")
        judged = slo.SLOS[2].tallies(clock.now())["1h"]
        assert judged.bad == judged.total > 0
        assert slo.judge_sink(clock.now()) == 0

    audit_services.seal_all()
    audit_services.push_sinks()
    with clock.frozen(later + timedelta(days=4)):
        assert look("sink") == []


def test_burn_needs_both_windows():
    quiet = {name: slo.Tally(1000, 0) for name in slo.WINDOWS}
    long_only = {**quiet, "1h": slo.Tally(1000, 900)}
    both = {**long_only, "5m": slo.Tally(100, 90)}

    levels = [slo.standing_of(slo.SLOS[0], each).level for each in (quiet, long_only)]

    assert levels == ["", ""]
    assert slo.standing_of(slo.SLOS[0], both).level == "critical"


def test_same_finding_twice_is_one_alert_one_incident_one_news():
    calls(20, ok=False)

    look("usage")
    look("usage")

    assert Alert.objects.count() == 1
    assert Incident.objects.count() == 1
    assert Notice.objects.filter(event="raised").count() == 1


def test_alerts_of_one_area_share_an_incident_of_the_higher_class():
    calls(40, fallback_used=True)
    look("usage")
    assert Incident.objects.get().severity == "S3"

    calls(5, ok=False)
    look("blackout")

    assert Incident.objects.get().severity == "S2"
    assert Event.objects.filter(type="incident.raised").exists()


def finding(level=Level.CRITICAL):
    return detecting.Finding(AlertCode.SCHEDULE, level, "it was missed", "k")


def test_acknowledged_once_by_the_first(by, bob):
    alert = services.alerts.note(finding())
    services.acknowledge_alert(by=by, alert_id=alert.id)

    again = services.acknowledge_alert(
        by=access.principal_for_user(user=bob), alert_id=alert.id
    )

    assert again.acknowledged_by == "alice"


def test_cleared_alert_is_not_acknowledged(by):
    alert = services.alerts.note(finding())
    services.alerts.clear(alert)

    with pytest.raises(InvalidTransition):
        services.acknowledge_alert(by=by, alert_id=alert.id)


def test_outsider_may_not_acknowledge(charlie):
    alert = services.alerts.note(finding())

    with pytest.raises(RoleRequired):
        services.acknowledge_alert(
            by=access.principal_for_user(user=charlie), alert_id=alert.id
        )


def test_silence_keeps_news_back_until_it_ends(by):
    services.silence(by=by, code=AlertCode.SCHEDULE, reason="known", hours=1)
    alert = services.alerts.note(finding())
    assert Notice.objects.count() == 0

    with clock.frozen(NOON + timedelta(hours=2)):
        services.alerts.clear(alert)

    assert Notice.objects.filter(event="cleared").count() == 1


@pytest.mark.parametrize(
    ("code", "hours", "reason"),
    [("NONE", 1, "x"), ("VAULT_SEALED", 0, "x"), ("VAULT_SEALED", 9999, "x")],
)
def test_silence_without_end_or_reason_is_refused(by, code, hours, reason):
    with pytest.raises(Invalid):
        services.silence(by=by, code=code, reason=reason, hours=hours)


def test_news_goes_to_the_board_once_and_clearing_is_a_comment():
    alert = services.alerts.note(finding())
    services.send_due()
    services.alerts.clear(alert)

    services.send_due()
    services.send_due()

    task = Task.objects.get()
    assert "SCHEDULE_MISSED" in task.title
    assert TaskComment.objects.filter(task_id=task.id).count() == 1
    assert set(Notice.objects.values_list("state", flat=True)) == {"sent"}


def test_news_goes_to_a_channel_that_can_tell(monkeypatch):
    heard = []
    monkeypatch.setattr(ports, "_messengers", [])
    ports.plug_messenger(lambda words, key: heard.append((words, key)))
    services.alerts.note(finding())

    services.send_due()

    assert "SCHEDULE_MISSED" in heard[0][0]


def test_weekly_breach_arrives_is_cleared_and_is_counted_nowhere(workspace):
    alert = services.breach(by=access.system_principal())
    services.send_due()

    assert alert.state == "cleared"
    assert alert.origin == "synthetic"
    assert Task.objects.get().status == "done"
    assert (Incident.objects.count(), UsageRow.objects.count()) == (0, 0)
    assert Run.objects.count() == 0


def test_store_that_went_back_is_an_alert_until_it_is_accepted(
    by, settings, tmp_path, workspace
):
    settings.POLAR_WITNESS_DIR = tmp_path / "witness"
    system = access.system_principal()
    for _ in range(4):
        services.silence(by=by, code="VAULT_SEALED", reason="one event", hours=1)
    audit_services.checkpoint()
    assert look("store") == []

    roll_back(2)
    memory.forget()
    audit_services.check_store()
    assert ("STORE_ROLLBACK_DETECTED", "critical", "") in look("store")
    assert Incident.objects.get(area="store").severity == "S1"

    audit_services.begin_epoch(by=system.actor, reason="restored on purpose")
    with clock.frozen(NOON + timedelta(minutes=2)):
        assert look("store") == []


def test_missing_guard_of_the_log_is_an_alert_until_it_stands_again():
    triggers.remove(connection)
    try:
        assert look("store") == [("AUDIT_CHAIN_BROKEN", "critical", "triggers")]
    finally:
        triggers.install(connection)
    with clock.frozen(NOON + timedelta(minutes=2)):
        assert look("store") == []


def test_tree_that_the_loop_guard_cut_is_an_alert_for_a_while(by, workspace):
    agents.install_default_profiles(by=access.system_principal(), workspace=workspace)
    talk = agents.start_conversation(
        workspace=workspace, principal=by, channel="web", title="loop"
    )
    turn = agents.start_turn(conversation=talk, principal=by, text="round")
    assert look("loops") == []

    Turn.objects.filter(id=turn.id).update(
        state="truncated", reason="loop_guard", finished_at=clock.now()
    )
    Run.objects.filter(id=turn.run_id).update(
        state="truncated", reason="loop_guard", finished_at=clock.now()
    )
    root = str(turn.run.root_id or turn.run_id)
    assert look("loops") == [("LOOP_GUARD_TRIPPED", "warning", root)]
    assert Alert.objects.get(key=root).trace_id == turn.trace_id

    with clock.frozen(NOON + timedelta(minutes=16)):
        assert look("loops") == []
