"""Incidents: opened, moved, worked through step by step, reviewed, exported."""

import base64
import json

import pytest

from apps.access import services as access
from apps.access.errors import RoleRequired
from apps.audit import services as audit
from apps.audit.models import Event
from apps.boards.models import Task
from apps.common.errors import Conflict, Invalid, InvalidTransition, NotFound
from apps.gateway import queries as gateway
from apps.reliability import services
from apps.reliability.engine import incidents as reading
from apps.reliability.engine import sops
from apps.reliability.models import (
    INCIDENT,
    AlertCode,
    Incident,
    IncidentState,
    StepResult,
)
from apps.reliability.services import sops as actions

REVIEW = {"impact": "an hour", "cause": "a cut line", "learned": "two lines"}


@pytest.fixture
def by(alice):
    return access.principal_for_user(user=alice)


@pytest.fixture
def incident(by):
    return opened(by, "S1")


def opened(by, severity):
    new = services.NewIncident("The store is odd", severity, "seen by hand")
    return services.open_incident(by=by, new=new)


def move(by, incident, state):
    incident.refresh_from_db()
    return services.transition_incident(
        by=by,
        incident_id=incident.id,
        state=state,
        expected_version=incident.version,
        reason="looked",
    )


@pytest.mark.parametrize(
    ("code", "level", "wanted"),
    [
        ("STORE_ROLLBACK_DETECTED", "critical", "S1"),
        ("AUDIT_CHAIN_BROKEN", "warning", "S1"),
        ("VAULT_SEALED", "critical", "S2"),
        ("CHANNEL_DOWN", "critical", "S2"),
        ("BUDGET_NEAR_LIMIT", "warning", "S3"),
        ("SNAPSHOT_OVERDUE", "warning", "S3"),
        ("SCHEDULE_MISSED", "warning", "S4"),
        ("NOBODY_KNOWS", "warning", "S1"),
    ],
)
def test_class_of_an_alert_and_the_higher_when_in_doubt(code, level, wanted):
    assert reading.classify(code, level).severity == wanted


def test_every_alert_has_a_class_and_every_step_an_action():
    assert set(reading.CLASSES) == set(AlertCode.values)
    assert set(sops.STEPS) == set(actions.ACTIONS)


@pytest.mark.parametrize("source", IncidentState.values)
@pytest.mark.parametrize("target", IncidentState.values)
def test_incident_moves_as_its_table_says(by, incident, source, target):
    Incident.objects.filter(id=incident.id).update(state=source)
    allowed = INCIDENT.allows(source, target) and target != "reviewed"

    if allowed:
        assert move(by, incident, target).state == target
    else:
        with pytest.raises(InvalidTransition):
            move(by, incident, target)


def test_move_of_another_version_is_refused(by, incident):
    move(by, incident, "mitigating")

    with pytest.raises(Conflict):
        services.transition_incident(
            by=by, incident_id=incident.id, state="monitoring", expected_version=1
        )


def test_outsider_sees_no_incident(charlie, incident):
    with pytest.raises((NotFound, RoleRequired)):
        services.run_step(
            by=access.principal_for_user(user=charlie),
            incident_id=incident.id,
            step="verify_audit",
        )


def test_halt_step_wants_its_word_and_stops_everything(by, incident):
    with pytest.raises(Invalid):
        services.run_step(by=by, incident_id=incident.id, step="halt_everything")
    assert not gateway.halts()

    result = services.run_step(
        by=by, incident_id=incident.id, step="halt_everything", confirm="HALT"
    )

    assert result.ok
    assert gateway.halts()[0].scope == "all"


def test_rollback_step_is_for_administrators(by, incident):
    with pytest.raises(RoleRequired):
        services.run_step(
            by=by, incident_id=incident.id, step="restore_snapshot", confirm="RESTORE"
        )


@pytest.mark.parametrize("step", ["check_workers", "test_providers", "check_config"])
def test_steps_of_s2_say_what_they_find(by, incident, step):
    result = services.run_step(by=by, incident_id=incident.id, step=step)

    assert result.summary
    types = Event.objects.filter(subject_id=str(incident.id)).values_list("type")
    assert {("incident.step_done",), ("incident.step_failed",)} & set(types)


@pytest.mark.parametrize("step", ["review_usage", "check_lanes", "check_timeouts"])
def test_steps_of_s3_say_what_they_find(by, incident, step):
    assert services.run_step(by=by, incident_id=incident.id, step=step).summary


def test_step_that_refuses_is_kept_as_failed(workspace, incident):
    result = services.run_step(
        by=access.system_principal(),
        incident_id=incident.id,
        step="restore_snapshot",
        confirm="RESTORE",
    )

    assert not result.ok
    assert "POLAR_" in result.summary
    assert StepResult.objects.count() == 1


def test_s4_becomes_one_card_however_often(by):
    incident = opened(by, "S4")
    for _ in range(2):
        services.run_step(by=by, incident_id=incident.id, step="make_task")

    assert Task.objects.get().incident_id == incident.id
    assert incident.results.count() == 2


def test_review_wants_cause_and_lesson_and_closes(by, incident):
    move(by, incident, "resolved")
    seen = {"by": by, "incident_id": incident.id, "expected_version": 2}
    with pytest.raises(Invalid):
        services.review_incident(**seen, review={"impact": "x"})

    closed = services.review_incident(**seen, review=REVIEW)

    assert closed.state == "reviewed"
    with pytest.raises(Conflict):
        services.run_step(by=by, incident_id=incident.id, step="make_task")


def test_timeline_is_read_from_the_log(by, incident):
    services.note_on_incident(by=by, incident_id=incident.id, text="odd head")
    services.run_step(
        by=by, incident_id=incident.id, step="halt_everything", confirm="HALT"
    )

    types = [entry.type for entry in reading.timeline(incident, [])]

    assert types[0] == "incident.opened"
    assert {"incident.noted", "halt.set", "incident.step_done"} <= set(types)


def test_evidence_is_signed_and_a_changed_byte_is_seen(by, incident):
    bundle = services.evidence(by=by, incident_id=incident.id)
    signature = base64.b64decode(bundle["signature"])
    text = bundle["signed"]

    assert json.loads(text) == bundle["incident"]
    assert audit.is_signed(text.encode(), signature)
    assert not audit.is_signed(text.replace("S1", "S4").encode(), signature)
    assert incident.name in services.as_markdown(bundle)


def test_incident_is_carried_over_when_the_store_goes_back(by, incident, monkeypatch):
    """The store that comes back lacks the incident; it is put into it again."""
    system = access.system_principal()
    services.run_step(by=by, incident_id=incident.id, step="check_workers")

    def goes_back(by, incident):
        StepResult.objects.all()._raw_delete("default")
        Incident.objects.filter(id=incident.id)._raw_delete("default")
        return True, "restored", {}

    monkeypatch.setitem(actions.ACTIONS, "restore_snapshot", goes_back)
    services.run_step(
        by=system, incident_id=incident.id, step="restore_snapshot", confirm="RESTORE"
    )

    steps = list(StepResult.objects.order_by("id").values_list("step", flat=True))
    assert steps == ["check_workers", "restore_snapshot"]
    assert Incident.objects.get().number == incident.number
