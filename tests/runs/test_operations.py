"""Back-pressure, halts, a store that is gone, and the figures for Prometheus."""

from datetime import timedelta

import pytest
from django.db import InterfaceError, OperationalError
from django.test import Client
from django.urls import reverse

from apps.access import services as access
from apps.common import clock
from apps.common.errors import Halted
from apps.gateway import services as gateway
from apps.gateway.errors import RunHalted
from apps.runs import queries, services
from apps.runs.engine import pressure
from apps.runs.errors import QueueFull
from apps.runs.models import Run, State
from apps.runs.ports import Finish


@pytest.fixture
def full(settings, monkeypatch, enqueue):
    """A queue at its limit, measured anew."""
    for _ in range(2):
        enqueue()
    settings.POLAR_QUEUE_LIMIT = 2
    monkeypatch.setattr(pressure, "_measured", pressure._Measured())


@pytest.mark.parametrize("trigger", ["api", "schedule", "heartbeat", "event"])
def test_full_queue_refuses_work_that_can_wait(full, enqueue, trigger):
    with pytest.raises(QueueFull):
        enqueue(trigger=trigger)
    assert Run.objects.count() == 2


@pytest.mark.parametrize("trigger", ["message", "handoff", "manual"])
def test_full_queue_takes_what_cannot_wait(full, enqueue, trigger):
    enqueue(trigger=trigger)

    assert Run.objects.count() == 3


def test_full_queue_takes_children_of_accepted_work(full, enqueue):
    enqueue(trigger="api", parent=Run.objects.first())

    assert Run.objects.count() == 3


def test_full_queue_leaves_a_due_slot_due(full, system, workspace):
    schedule = services.create_schedule(
        by=system,
        workspace=workspace,
        slug="s",
        when=("interval", "60"),
        run_kind="test.work",
    )
    with clock.frozen(clock.now() + timedelta(seconds=61)):
        assert services.fire_due_slots() == 0

    before = schedule.next_at
    schedule.refresh_from_db()
    assert schedule.next_at == before
    assert schedule.state == "active"


# --- halts


def test_halted_run_waits_and_goes_on_when_resumed(enqueue, handle, carry_one, system):
    halt = gateway.halt(by=system, scope="all", reason="storm")

    def stopped(ctx):
        raise Halted("stopped", reason_code="halted", waiting_on=f"halt:{halt.id}")

    handle(stopped)
    enqueue()
    assert carry_one().state == State.WAITING_OPERATOR
    services.tick()
    assert Run.objects.get().state == State.WAITING_OPERATOR

    gateway.resume(by=system, halt_id=halt.id)
    services.tick()
    handle(lambda ctx: Finish())

    assert carry_one().state == State.SUCCEEDED


def test_halt_of_exactly_this_run_ends_it(enqueue, handle, carry_one):
    def stopped(ctx):
        raise RunHalted("stopped", reason_code="halted")

    handle(stopped)
    enqueue()

    assert carry_one().state == State.FAILED


# --- a store that is gone


@pytest.fixture
def patient(alice) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(alice)
    return client


ERRORS = [
    (OperationalError("server closed the connection unexpectedly"), 503),
    (InterfaceError("connection already closed"), 503),
    (OperationalError("database or disk is full"), 507),
]


@pytest.mark.parametrize(("error", "status"), ERRORS)
@pytest.mark.parametrize("path", ["/runs/", "/api/v1/runs"])
def test_failing_store_is_said_plainly(patient, monkeypatch, error, status, path):
    def broken(*args, **kwargs):
        raise error

    monkeypatch.setattr("apps.runs.models.Run.objects.visible_to", broken)

    response = patient.get(path)

    assert response.status_code == status
    assert int(response["Retry-After"]) > 0
    assert "Traceback" not in response.content.decode()


@pytest.mark.parametrize(("error", "status"), ERRORS)
@pytest.mark.parametrize("path", ["/runs/", "/api/v1/runs"])
def test_store_that_fails_before_any_view_is_said_plainly(
    patient, monkeypatch, error, status, path
):
    def broken(*args, **kwargs):
        raise error

    monkeypatch.setattr("django.contrib.sessions.backends.db.SessionStore.load", broken)

    response = patient.get(path)

    assert response.status_code == status
    assert int(response["Retry-After"]) > 0


def test_fault_of_ours_stays_a_500(patient, monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(queries, "count_by_state", broken)

    assert patient.get(reverse("runs:panel")).status_code == 500


# --- figures


def test_figures_tell_depth_and_oldest_age(client, enqueue):
    enqueue()
    Run.objects.update(due_at=clock.now() - timedelta(seconds=90))

    text = client.get("/metrics").content.decode()

    assert 'polar_queue_depth{queue="default"} 1' in text
    age = text.split('polar_queue_oldest_seconds{queue="default"} ')[1].split()[0]
    assert 90 <= float(age) < 200
    assert 'polar_runs{state="dead_letter"} 0' in text


@pytest.mark.parametrize(
    "request_of",
    [{"REMOTE_ADDR": "203.0.113.9"}, {"headers": {"X-Forwarded-For": "203.0.113.9"}}],
)
def test_figures_are_not_for_strangers(client, db, request_of):
    assert client.get("/metrics", **request_of).status_code == 401


def test_figures_are_for_a_token_that_covers_them(client, system):
    _, raw = access.issue_token(
        by=system,
        principal=system,
        name="prometheus",
        scopes=["runs:read"],
        held=frozenset({"*"}),
    )

    response = client.get(
        "/metrics",
        headers={"Authorization": f"Bearer {raw}"},
        REMOTE_ADDR="203.0.113.9",
    )

    assert response.status_code == 200
