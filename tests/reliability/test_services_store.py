"""A store that went back: what it concerns is found, and a person decides."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import reverse

from apps.access import services as access
from apps.access.errors import RoleRequired
from apps.access.models import Principal, Role, User, Workspace
from apps.audit import services as audit
from apps.audit.engine import memory
from apps.audit.models import Event, RunHead
from apps.boards import services as boards
from apps.common.errors import Conflict
from apps.gateway import services as gateway
from apps.gateway.errors import OutcomeUnknown
from apps.gateway.models import Call
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    EffectClass,
    Lineage,
    Permit,
    Result,
    Risk,
)
from apps.reliability import services
from apps.reliability.models import RollbackState
from apps.runs import services as runs
from apps.runs.engine.claim import claim
from apps.runs.models import Reason, Run, State
from tests import people
from tests.audit.test_services import roll_back


@pytest.fixture(autouse=True)
def witness(tmp_path: Path, settings: Any) -> Iterator[Path]:
    settings.POLAR_WITNESS_DIR = tmp_path / "witness"
    settings.POLAR_SINK_FILE = ""
    settings.POLAR_SNAPSHOT_DIR = tmp_path / "snapshots"
    memory.forget()
    yield tmp_path / "witness"


@pytest.fixture
def admin(workspace: Workspace) -> User:
    return people.person("ada", Role.ADMIN, workspace)


@pytest.fixture
def start(workspace: Workspace) -> Callable[[], Run]:
    def run() -> Run:
        return runs.enqueue(
            kind="journey.note",
            payload={},
            principal=access.system_principal(),
            workspace=workspace,
        )

    return run


def note(run: Run, type: str = "run.parked", **data: Any) -> None:
    with transaction.atomic():
        audit.record(
            type=type,
            actor=access.system_principal().actor,
            subject=("run", str(run.id)),
            workspace_id=run.workspace_id,
            run_id=run.id,
            data={"kind": run.kind, **data},
        )


def task_of(run: Run, workspace: Workspace) -> Any:
    system = access.system_principal()
    board = boards.ensure_board(by=system, workspace=workspace, slug="b", title="B")
    draft = boards.TaskDraft(title=f"for {run.id}", run_id=run.id)
    return boards.upsert_task(by=system, board=board, draft=draft)


def go_back(to: int, *gone: Run) -> None:
    """Let the store be as it was at `to` events, without these runs."""
    for run in Run.objects.all():
        known = Event.objects.filter(run_id=run.id, gseq__lt=to).count()
        RunHead.objects.filter(run_id=run.id).delete()
        if known:
            RunHead.objects.create(run_id=run.id, last_seq=known)
    roll_back(to)
    Run.objects.filter(id__in=[run.id for run in gone]).delete()
    memory.forget()


@pytest.mark.django_db
def test_rollback_when_seen_then_exactly_its_runs_and_tasks_are_flagged(
    start: Callable[[], Run], workspace: Workspace
) -> None:
    ended, idle, busy, lost = start(), start(), start(), start()
    Run.objects.filter(id=ended.id).update(state=State.SUCCEEDED)
    tasks = {run.id: task_of(run, workspace) for run in (ended, idle, busy)}
    note(busy)
    audit.seal_all()
    size = Event.objects.filter(gseq__isnull=False).count()
    note(busy)
    note(lost)
    audit.seal_all()
    go_back(size, lost)

    assert audit.check_store() is not None
    rollback = services.look_after_alarm()

    assert rollback is not None
    assert rollback.state == RollbackState.CLASSIFIED
    found = {run.id: (run.state, run.reason) for run in Run.objects.all()}
    assert found == {
        ended.id: (State.SUCCEEDED, ""),
        idle.id: (State.WAITING_OPERATOR, "stale"),
        busy.id: (State.DEAD_LETTER, Reason.CONFLICTED_HISTORY),
        lost.id: (State.DEAD_LETTER, Reason.LOST_BY_ROLLBACK),
    }
    marks = {}
    for run_id, task in tasks.items():
        task.refresh_from_db()
        marks[run_id] = task.status
    assert marks == {ended.id: "todo", idle.id: "stale", busy.id: "conflicted"}
    detail = Run.objects.get(id=busy.id).error_detail
    assert "witness holds 2 events" in detail
    assert "the store holds 1" in detail
    assert (rollback.conflicted, rollback.lost, rollback.stale) == (1, 1, 1)
    assert Run.objects.get(id=lost.id).kind == "journey.note"


@pytest.mark.django_db
def test_rollback_when_it_stands_then_nothing_is_claimed_and_again_changes_nothing(
    start: Callable[[], Run],
) -> None:
    run = start()
    note(run)
    audit.seal_all()
    note(run)
    audit.seal_all()
    go_back(Event.objects.filter(gseq__isnull=False).count() - 1)
    audit.check_store()
    fresh = start()

    services.look_after_alarm()
    before = list(Run.objects.order_by("id").values())
    services.look_after_alarm()

    assert list(Run.objects.order_by("id").values()) == before
    assert claim(owner="w", queues=["default"]) == []
    fresh.refresh_from_db()
    assert fresh.state == State.QUEUED


def send(run: Run, performed: list[str]) -> CallRequest:
    def perform(permit: Permit) -> Result:
        permit.spend({"to": "a"}, waits=False)
        performed.append(permit.idempotency_key)
        return Result({"ok": True})

    return CallRequest(
        kind=CallKind.MESSAGE,
        capability="reply:test",
        principal=access.system_principal(),
        workspace_id=run.workspace_id,
        arguments={"to": "a"},
        perform=perform,
        effect_class=EffectClass.NON_REPEATABLE,
        risk=Risk("write", "internal"),
        lineage=Lineage(run_id=run.id, seq="1", fence=1),
    )


@pytest.mark.django_db
def test_effect_when_it_started_in_the_lost_future_then_not_done_again(
    start: Callable[[], Run], admin: User
) -> None:
    gateway.install_shipped_grants(by=access.system_principal())
    run, performed = start(), []  # type: ignore[var-annotated]
    note(run)
    audit.seal_all()
    size = Event.objects.filter(gseq__isnull=False).count()
    gateway.call(send(run, performed))
    audit.seal_all()
    Call.objects.all().delete()
    go_back(size)
    audit.check_store()

    rollback = services.look_after_alarm()
    services.accept_rollback(by=principal(admin), reason="known")

    assert rollback is not None
    assert rollback.effects_held == 1
    with pytest.raises(OutcomeUnknown):
        gateway.call(send(run, performed))
    assert len(performed) == 1


def principal(user: User) -> Principal:
    return access.principal_for_user(user=user)


@pytest.mark.django_db
def test_accept_when_an_admin_says_why_then_a_new_epoch_and_stale_runs_wait(
    start: Callable[[], Run], admin: User, alice: User, workspace: Workspace
) -> None:
    idle = start()
    task = task_of(idle, workspace)
    note(start())
    audit.seal_all()
    size = Event.objects.filter(gseq__isnull=False).count()
    note(start())
    audit.seal_all()
    go_back(size)
    before = audit.epoch()
    audit.check_store()
    rollback = services.look_after_alarm()
    assert rollback is not None
    with pytest.raises(RoleRequired):
        services.accept_rollback(by=principal(alice), reason="me too")
    with pytest.raises(Conflict):
        services.resume_stale(
            by=principal(admin), rollback_id=rollback.id, reason="early"
        )

    services.accept_rollback(by=principal(admin), reason="Sunday's copy")

    assert audit.epoch() != before
    assert audit.standing_alarm() is None
    audit.seal_all()
    assert audit.check_store() is None
    assert audit.verify().problem == ""
    idle.refresh_from_db()
    assert idle.state == State.WAITING_OPERATOR
    services.resume_stale(by=principal(admin), rollback_id=rollback.id, reason="seen")
    idle.refresh_from_db()
    task.refresh_from_db()
    assert (idle.state, task.status) == (State.QUEUED, "todo")
    assert [claimed.id for claimed in claim(owner="w", queues=["default"])] == [idle.id]


@pytest.mark.django_db
def test_accept_when_nothing_stands_then_conflict(admin: User) -> None:
    with pytest.raises(Conflict):
        services.accept_rollback(by=principal(admin), reason="just so")


@pytest.mark.django_db
def test_pages_when_an_alarm_stands_then_each_says_so_and_the_store_page_acts(
    start: Callable[[], Run], admin: User, client: Client
) -> None:
    note(start())
    audit.seal_all()
    note(start())
    audit.seal_all()
    go_back(Event.objects.filter(gseq__isnull=False).count() - 1)
    audit.check_store()
    services.look_after_alarm()
    client.force_login(admin)

    home = client.get("/").content.decode()
    page = client.get(reverse("reliability:store")).content.decode()

    assert "STORE IN DOUBT:" in home
    assert "Accept, begin a new epoch" in page
    answer = client.post(reverse("reliability:accept_rollback"), {"reason": "known"})
    assert answer.status_code == 302
    assert audit.standing_alarm() is None
    assert "STORE IN DOUBT:" not in client.get("/").content.decode()
    seen = json.loads(client.get("/api/v1/store").content)
    assert (seen["inDoubt"], seen["rollback"]["state"]) == (False, "accepted")
