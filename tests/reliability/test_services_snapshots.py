"""Snapshots are taken, kept, proved and measured. The copies are made by a stand-in;
the real programs make them in `tests/journeys/test_snapshots.py`."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from apps.access import services as access
from apps.access.errors import RoleRequired
from apps.access.models import Principal, Role, User, Workspace
from apps.audit import queries as audit_queries
from apps.audit import services as audit
from apps.audit.models import Event
from apps.common import clock
from apps.common.errors import NotFound
from apps.reliability import ports, queries, services
from apps.reliability.engine import snapshotting
from apps.reliability.errors import SnapshotBroken, SnapshotFailed
from apps.reliability.models import RecoveryKind
from apps.runs import services as runs
from apps.runs.models import Run, Schedule
from apps.runs.queries import find_run
from tests import people

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class StandIn:
    """Answers as pg_dump, pg_restore and a verification would."""

    def __init__(self) -> None:
        self.verdict: dict[str, Any] = {"ok": True}
        self.verified = 0

    def dump(self, store: dict[str, Any], into: Path) -> None:
        into.write_text("a copy")

    def load(self, store: dict[str, Any], path: Path) -> None:
        raise AssertionError("nothing is loaded here")

    def verify(self, store: dict[str, Any], path: Path) -> dict[str, Any]:
        self.verified += 1
        newest = services.snapshots()[0]
        return {"size": newest.events, "root": newest.root, **self.verdict}


@pytest.fixture
def tools(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StandIn]:
    settings.POLAR_WITNESS_DIR = tmp_path / "witness"
    settings.POLAR_SNAPSHOT_DIR = tmp_path / "snapshots"
    settings.POLAR_SINK_FILE = ""
    monkeypatch.setattr(
        snapshotting, "_copy_store", lambda into: into.write_text("a copy")
    )
    monkeypatch.setattr(snapshotting, "_head_of", lambda _: audit_queries.head())
    before, stand_in = ports.tools(), StandIn()
    ports.plug(stand_in)
    yield stand_in
    ports.plug(before)


@pytest.fixture
def system(workspace: Workspace) -> Principal:
    return access.system_principal()


def names() -> list[str]:
    return [each.name for each in services.snapshots()]


def test_prune_when_more_than_28_then_the_oldest_go_and_the_log_names_them(
    tools: StandIn, system: Principal
) -> None:
    made = []
    for number in range(30):
        with clock.frozen(NOON + timedelta(hours=6 * number)):
            made.append(services.create_snapshot(by=system).name)

    gone = services.prune_snapshots(by=system)

    assert sorted(gone) == sorted(made[:2])
    assert names() == made[:1:-1]
    event = Event.objects.get(type="snapshot.pruned")
    assert made[0] in event.body
    assert services.prune_snapshots(by=system) == []


def test_prune_when_told_to_keep_none_then_the_newest_stays(
    tools: StandIn, system: Principal
) -> None:
    newest = services.create_snapshot(by=system)

    assert services.prune_snapshots(by=system, keep=0) == []
    assert names() == [newest.name]


def test_schedule_when_seeded_then_every_six_hours_and_only_once(
    system: Principal, workspace: Workspace
) -> None:
    services.install_schedule(workspace=workspace)
    services.install_schedule(workspace=workspace)

    schedule = Schedule.objects.get(slug="snapshots")
    assert (schedule.run_kind, schedule.state) == (services.SNAPSHOT_KIND, "active")
    assert schedule.next_at is not None
    with clock.frozen(schedule.next_at):
        runs.tick()
    started = Run.objects.filter(kind=services.SNAPSHOT_KIND)
    assert [run.trigger for run in started] == ["schedule"]


def test_schedule_when_it_runs_for_two_days_then_one_proof_a_day(
    tools: StandIn, system: Principal
) -> None:
    for slot in range(9):
        with clock.frozen(NOON + timedelta(hours=6 * slot)):
            services.keep_snapshots()

    assert tools.verified == 3
    proofs = queries.recoveries(kind=RecoveryKind.REHEARSED)
    assert [proof.ok for proof in proofs] == [True] * 3
    assert [snapshot.verified_at is not None for snapshot in services.snapshots()] == [
        True,
        False,
        False,
        False,
        True,
        False,
        False,
        False,
        True,
    ]


def test_schedule_when_the_newest_proves_nothing_then_its_run_fails_by_name(
    tools: StandIn, system: Principal
) -> None:
    tools.verdict = {"ok": False, "problem": "event 3: the event is missing"}

    with pytest.raises(SnapshotBroken, match="event 3"):
        services.keep_snapshots()

    proof = queries.recoveries().get()
    assert (proof.ok, "event 3" in proof.problem) == (False, True)
    assert queries.newest_proof() is None


def test_rehearsal_when_it_succeeds_then_its_time_age_and_loss_are_figures(
    tools: StandIn, system: Principal
) -> None:
    with clock.frozen(NOON):
        made = services.create_snapshot(by=system)
    audit.seal_all()
    with clock.frozen(NOON + timedelta(hours=2)):
        row = services.rehearse_restore(by=system)

    assert (row.ok, row.source, row.kind) == (True, made.name, "rehearsed")
    assert row.age_seconds == row.lost_seconds == 2 * 3600
    assert row.events_lost >= 1
    assert row.recovery_seconds >= 0
    event = Event.objects.get(type="store.rehearsed")
    assert (event.subject_id, event.decision) == (made.name, "ok")
    assert queries.newest_proof() == row


def test_rehearsal_when_the_copy_was_altered_then_a_row_says_so(
    tools: StandIn, system: Principal, tmp_path: Path
) -> None:
    made = services.create_snapshot(by=system)
    (tmp_path / "snapshots" / made.name / "store").write_text("another")

    row = services.rehearse_restore(by=system)

    assert not row.ok
    assert "not the one its manifest names" in row.problem
    assert tools.verified == 0


def test_rehearsal_when_there_is_nothing_or_no_right_then_refused(
    tools: StandIn, system: Principal, charlie: User
) -> None:
    with pytest.raises(NotFound):
        services.rehearse_restore(by=system)
    outsider = access.principal_for_user(user=charlie)
    with pytest.raises(RoleRequired):
        services.rehearse_restore(by=outsider)


def test_rehearsal_when_asked_for_then_a_run_carries_it(
    tools: StandIn, system: Principal
) -> None:
    services.create_snapshot(by=system)

    run = services.start_restore_rehearsal(by=system)
    runs.execute(run.id)

    carried = find_run(run.id)
    assert carried is not None
    assert (carried.state, carried.result["ok"]) == ("succeeded", True)


def test_snapshot_when_the_folder_is_not_set_then_refused_in_words(
    system: Principal, settings: Any
) -> None:
    settings.POLAR_SNAPSHOT_DIR = ""

    with pytest.raises(SnapshotFailed, match="POLAR_SNAPSHOT_DIR"):
        services.create_snapshot(by=system)


@pytest.mark.parametrize("name", ["", "..", "../x", ".draft-1", "nothing"])
def test_snapshot_when_named_oddly_then_not_found(
    tools: StandIn, system: Principal, name: str
) -> None:
    with pytest.raises(NotFound):
        services.verify_snapshot(by=system, name=name)


def test_manifest_when_altered_then_it_is_no_snapshot_of_ours(
    tools: StandIn, system: Principal, tmp_path: Path
) -> None:
    made = services.create_snapshot(by=system)
    manifest = tmp_path / "snapshots" / made.name / "manifest.json"
    manifest.write_text(manifest.read_text().replace(made.sha256, "0" * 64))

    with pytest.raises(SnapshotBroken, match="no signature"):
        services.verify_snapshot(by=system, name=made.name)
    assert names() == []


def test_snapshot_when_under_an_alarm_then_refused(
    tools: StandIn, system: Principal, tmp_path: Path
) -> None:
    audit.seal_all()
    audit.announce_restore(by=system.actor, source="x", reason="try")

    with pytest.raises(Exception, match="restores x"):
        services.create_snapshot(by=system)


def test_doors_when_a_rehearsal_is_asked_for_then_a_run_starts_and_rows_are_shown(
    tools: StandIn, system: Principal, workspace: Workspace, client: Client
) -> None:
    services.create_snapshot(by=system)
    services.rehearse_restore(by=system)
    client.force_login(people.person("ada", Role.ADMIN, workspace))

    asked = client.post(reverse("reliability:rehearse_restore"))
    started = client.post("/api/v1/snapshots/rehearse")
    taken = client.post("/api/v1/snapshots")
    listed = json.loads(client.get("/api/v1/recoveries").content)
    page = client.get(reverse("reliability:store")).content.decode()

    assert (asked.status_code, started.status_code) == (302, 202)
    assert taken.status_code == 201
    assert Run.objects.filter(kind=services.REHEARSAL_KIND).count() == 2
    assert [row["ok"] for row in listed] == [True]
    assert "Restores, real and rehearsed" in page


def test_command_when_a_rehearsal_fails_then_exit_1(
    tools: StandIn, system: Principal, capsys: pytest.CaptureFixture[str]
) -> None:
    services.create_snapshot(by=system)

    call_command("snapshot", "rehearse", "--json")
    said = json.loads(capsys.readouterr().out)
    tools.verdict = {"ok": False, "problem": "broken"}
    with pytest.raises(SystemExit):
        call_command("snapshot", "rehearse")

    assert said["ok"]
    assert said["took_ms"] >= 0
