"""Drills: asked for once, cancelled for good, graded by their journals."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from chaoslib.experiment import ensure_experiment_is_valid
from django.conf import settings as django_settings
from django.core.management import call_command
from django.urls import reverse

from apps.access import queries as access_queries
from apps.access import services as access
from apps.access.models import Principal, Role, User, Workspace
from apps.agents import services as agents
from apps.audit import services as audit
from apps.audit.models import Event
from apps.common import clock
from apps.common.errors import Conflict, InvalidTransition, NotFound
from apps.gateway.models import Setting
from apps.providers import services as providers
from apps.reliability import ports, services
from apps.reliability.engine import basis, cloning, evidence, shelf
from apps.reliability.engine.drilling import casting, looping
from apps.reliability.errors import DrillFailed, EvidenceBroken
from apps.reliability.models import DrillRun, DrillState
from apps.reliability.ports import Scenery
from apps.runs import services as runs
from apps.runs.models import Run, Schedule, State
from tests.providers import builders

ROOT = Path(__file__).resolve().parents[2]
PLACES = [f"127.0.0.1:{number}" for number in (1, 2, 3, 4)]
MET, MISSED = {"steady_state_met": True}, {"steady_state_met": False}
HELD = {
    "status": "completed",
    "deviated": False,
    "run": [{"status": "succeeded"}],
    "steady_states": {"before": MET, "after": MET},
    "experiment": {"method": [{}]},
}
DEVIATED = {
    **HELD,
    "deviated": True,
    "steady_states": {"before": MET, "after": MISSED},
}
#: How Chaos Toolkit calls an experiment whose steady state was not met at first.
NEVER_BEGAN = {
    **HELD,
    "run": [],
    "steady_states": {"before": MISSED, "after": None},
}


class FakeStage:
    """Plays a rehearsal at once: what it leaves is given."""

    def __init__(self, main: dict[str, Any], control: dict[str, Any]) -> None:
        self.journals = {"main": main, "control": control}
        self.started: list[tuple[str, ...]] = []
        self.ended = 0
        self.code: int | None = 0
        self.lacking = self.aborted = ""
        self.on_start: Callable[[], object] = lambda: None

    def isolation(self) -> str:
        return "a fake"

    def lacks(self, scenery: Scenery) -> str:
        return self.lacking if scenery.disk_bytes else ""

    def free_ports(self, count: int) -> list[int]:
        return list(range(1, count + 1))

    def start(self, folder: Path, scenery: Scenery, *arguments: str) -> "FakeStage":
        return self._played(folder, arguments)

    def start_live(self, folder: Path, *arguments: str) -> "FakeStage":
        return self._played(folder, arguments)

    def _played(self, folder: Path, arguments: tuple[str, ...]) -> "FakeStage":
        self.started.append(arguments)
        self.on_start()
        line = {"at_ms": 5, "tone": "ok", "text": "told", "data": {}}
        (folder / cloning.PROGRESS).write_text(json.dumps(line) + "\n")
        (folder / cloning.JOURNAL).write_text(json.dumps(self.journals[folder.name]))
        facts = {"observed": {}, "aborted": self.aborted}
        (folder / cloning.FACTS).write_text(json.dumps(facts))
        system = access.system_principal()
        audit.seal_all()
        audit.checkpoint()
        audit.export(folder / cloning.EXPORT, by=system.actor)
        return self

    def end(self) -> None:
        self.ended += 1

    def spawn(self, *arguments: str) -> "FakeStage":
        raise AssertionError("nothing is spawned outside a clone")

    def play(self, experiment: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("nothing is played outside a clone")

    serve = broker = double = order = status_of = abort = spawn  # type: ignore[assignment]


@pytest.fixture
def system(db: None, settings: Any, tmp_path: Path) -> Principal:
    settings.POLAR_WITNESS_DIR = tmp_path / "witness"
    settings.POLAR_DRILLS_DIR = tmp_path / "drills"
    access.ensure_default_workspace()
    return access.system_principal()


@pytest.fixture
def brokerless(settings: Any) -> None:
    """An install without Redis, whatever the suite runs on."""
    settings.REDIS_URL = ""


@pytest.fixture
def stage() -> Iterator[FakeStage]:
    before = ports.stage()
    fake = FakeStage(HELD, DEVIATED)
    ports.plug_stage(fake)
    yield fake
    ports.plug_stage(before)


def carried(system: Principal, slug: str = "blackout") -> DrillRun:
    row = services.start_drill(by=system, slug=slug)
    runs.execute(row.run_id)
    row.refresh_from_db()
    return row


def verifier(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(ROOT / "polar-verify"), "evidence", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


SLUGS = [drill.slug for drill in shelf.every()]
LIVE = [drill.slug for drill in shelf.every() if drill.live]


def test_shelf_holds_the_first_three_and_eight_more() -> None:
    assert SLUGS[:3] == ["blackout", "store-swap", "loop-panic"]
    assert len(SLUGS) == 11
    assert LIVE == ["blackout", "loop-panic"]
    assert set(casting.CASTS) == set(SLUGS)


@pytest.mark.parametrize("slug", SLUGS)
def test_shelf_holds_valid_experiments(slug: str) -> None:
    drill = shelf.get(slug)

    for experiment in filter(None, (drill.experiment, drill.live)):
        ensure_experiment_is_valid(experiment)
        names = [
            probe["name"] for probe in experiment["steady-state-hypothesis"]["probes"]
        ]
        assert names[-1] == "What was observed under the fault held"
    assert bool(drill.live) == bool(drill.touches) != bool(drill.not_live)
    assert drill.control.endswith("so the drill must deviate.")


@pytest.mark.parametrize("slug", SLUGS)
def test_shelf_names_code_that_exists_and_policies_that_are_read(slug: str) -> None:
    drill = shelf.get(slug)

    assert drill.code
    for path in drill.code:
        assert (basis.APPS / path).exists(), path
    assert set(drill.policy) <= set(basis.POLICIES)


def test_shelf_when_asked_for_another_then_names_what_there_is() -> None:
    with pytest.raises(NotFound, match="loop-panic"):
        shelf.get("flood")


@pytest.mark.parametrize(
    ("main", "control", "grade"),
    [
        (HELD, DEVIATED, "passed"),
        (DEVIATED, DEVIATED, "deviated"),
        (HELD, HELD, "deviated"),
        ({**HELD, "status": "failed"}, DEVIATED, "failed"),
        (HELD, {**DEVIATED, "status": "aborted"}, "failed"),
        ({**HELD, "run": [{"status": "failed"}]}, DEVIATED, "failed"),
        (HELD, {**DEVIATED, "run": [{"status": "failed"}]}, "failed"),
        (NEVER_BEGAN, DEVIATED, "failed"),
        (HELD, NEVER_BEGAN, "failed"),
        ({**HELD, "run": []}, DEVIATED, "failed"),
        ({**HELD, "steady_states": {"before": MET, "after": None}}, DEVIATED, "failed"),
    ],
)
def test_grade_follows_both_journals(main: Any, control: Any, grade: str) -> None:
    assert evidence.grade(main, control) == grade


def test_drill_when_carried_then_graded_told_and_signed(
    system: Principal, stage: FakeStage
) -> None:
    row = carried(system)

    assert row.state == DrillState.PASSED, row.problem
    assert stage.started == [("blackout",), ("blackout", "--control")]
    assert [step.part for step in row.steps.all()] == ["main", "control"]
    finished = Event.objects.get(type="drill.finished")
    assert row.evidence_sha256 in finished.body
    assert Run.objects.get(id=row.run_id).origin == "drill"
    assert list((django_settings.POLAR_DRILLS_DIR).iterdir()) == [
        django_settings.POLAR_DRILLS_DIR / "evidence"
    ]


def test_drill_when_control_holds_too_then_it_deviates(
    system: Principal, stage: FakeStage
) -> None:
    stage.journals["control"] = HELD

    assert carried(system).state == DrillState.DEVIATED


def test_drill_when_the_rehearsal_dies_then_failed_with_its_code(
    system: Principal, stage: FakeStage
) -> None:
    stage.code = 7

    row = carried(system)

    assert row.state == DrillState.FAILED
    assert "code 7" in row.problem
    assert stage.ended == 1


def test_drill_when_under_way_then_a_second_is_refused(system: Principal) -> None:
    services.start_drill(by=system, slug="blackout")

    with pytest.raises(Conflict, match="under way"):
        services.start_drill(by=system, slug="blackout")

    services.start_drill(by=system, slug="loop-panic")
    assert Run.objects.filter(kind=services.DRILL_KIND).count() == 2


def test_drill_when_cancelled_then_its_run_is_too_and_nothing_is_played(
    system: Principal, stage: FakeStage
) -> None:
    row = services.start_drill(by=system, slug="blackout")

    services.cancel_drill(by=system, drill_id=row.id)

    assert Run.objects.get(id=row.run_id).state == State.CANCELLED
    runs.execute(row.run_id)
    assert stage.started == []
    assert Event.objects.filter(type="drill.cancelled").count() == 1
    with pytest.raises(InvalidTransition):
        services.cancel_drill(by=system, drill_id=row.id)


def test_drill_when_its_run_ended_without_it_then_another_may_begin(
    system: Principal,
) -> None:
    row = services.start_drill(by=system, slug="blackout")
    runs.dead_letter(by=system.actor, run_id=row.run_id, reason="operator")

    services.start_drill(by=system, slug="blackout")

    row.refresh_from_db()
    assert row.state == DrillState.FAILED


def test_drill_when_asked_by_a_viewer_then_denied(system: Principal) -> None:
    workspace = access.ensure_default_workspace()
    new = access.NewUser("viewer", "a long enough password", Role.VIEWER, workspace)
    user = access.create_user(by=system, new=new)
    viewer = access.principal_for_user(user=user)

    with pytest.raises(Exception, match="operator"):
        services.start_drill(by=viewer, slug="blackout")

    assert not DrillRun.objects.exists()


def test_freshness_when_never_passed_changed_or_failed_then_says_why(
    system: Principal, stage: FakeStage
) -> None:
    def stale() -> str:
        found = services.shelf_of_drills()
        return next(each.stale for each in found if each.drill.slug == "blackout")

    assert stale() == "never passed"
    row = carried(system)
    assert stale() == ""
    stage.journals["control"] = HELD
    carried(system)
    assert stale() == "the last one deviated"
    basis_of = DrillRun.objects.get(id=row.id).basis
    for kind, words in basis.WORDS.items():
        DrillRun.objects.filter(id=row.id).update(basis={**basis_of, kind: "other"})
        assert stale() == words


def test_freshness_when_a_policy_changes_then_stale_until_it_is_as_it_was(
    system: Principal, stage: FakeStage
) -> None:
    def stale(slug: str) -> str:
        found = services.shelf_of_drills()
        return next(each.stale for each in found if each.drill.slug == slug)

    for slug in ("blackout", "loop-panic", "store-swap"):
        carried(system, slug)

    route = builders.route("worker")
    limits = Setting.load()
    Setting.objects.filter(pk=limits.pk).update(max_depth=limits.max_depth + 1)

    assert stale("blackout") == stale("loop-panic") == basis.WORDS["policy"]
    assert stale("store-swap") == "", "no policy touches it"
    providers.remove_provider(by=system, slug=route.model.provider.slug)
    Setting.objects.filter(pk=limits.pk).update(max_depth=limits.max_depth)
    assert stale("blackout") == stale("loop-panic") == ""


def test_freshness_when_code_changes_then_its_digest_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(basis, "APPS", tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("runs/claim.py", "runs/notes.txt", "other.py"):
        (tmp_path / name).write_text("1")

    def digest() -> str:
        basis._digest_of_code.cache_clear()
        return basis._digest_of_code(("runs",))

    before = digest()
    (tmp_path / "other.py").write_text("2")
    (tmp_path / "runs/notes.txt").write_text("2")
    assert digest() == before
    (tmp_path / "runs/claim.py").write_text("2")
    assert digest() != before
    basis._digest_of_code.cache_clear()


def test_drill_that_this_machine_cannot_play_is_refused_and_not_asked_for(
    system: Principal, stage: FakeStage, brokerless: None
) -> None:
    stage.lacking = "a small disk of its own needs bubblewrap"

    with pytest.raises(DrillFailed, match="needs bubblewrap"):
        services.start_drill(by=system, slug="disk-full")

    shelf_now = {each.drill.slug: each for each in services.shelf_of_drills()}
    assert shelf_now["disk-full"].lacks == stage.lacking
    assert not shelf_now["disk-full"].is_overdue
    assert shelf_now["broker-wipe"].unused == "this install has no broker"
    assert shelf_now["token-leak"].is_overdue


def test_evidence_when_whole_then_a_stranger_accepts_it(
    system: Principal, stage: FakeStage
) -> None:
    row = carried(system)

    done = verifier(str(services.evidence_path(row)), "--json")

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["grade"] == "passed"
    assert services.verify_evidence(drill_id=row.id)["public-key"] == audit.public_key()


def test_evidence_when_any_byte_changed_then_refused(
    system: Principal, stage: FakeStage, tmp_path: Path
) -> None:
    path = services.evidence_path(row := carried(system))
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 12)):
        changed = bytearray(whole)
        changed[at] ^= 1
        (tmp_path / "changed.json").write_bytes(changed)
        done = verifier(str(tmp_path / "changed.json"))
        assert done.returncode == 1, (at, done.stdout, done.stderr)

    path.write_bytes(whole + b" ")

    with pytest.raises(EvidenceBroken):
        services.verify_evidence(drill_id=row.id)


def test_clone_holds_definitions_but_no_secret_and_no_history(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    with closing(sqlite3.connect(store)) as db:
        db.execute("CREATE TABLE vault_secret (id, sealed)")
        db.execute("CREATE TABLE access_user (id, password, email)")
        db.execute("CREATE TABLE agents_agentprofile (id, pinned_model_id)")
        db.execute("INSERT INTO vault_secret VALUES (1, 'canary-7f3a')")
        db.execute("INSERT INTO access_user VALUES (1, 'canary-7f3a', 'canary-7f3a')")
        db.execute("INSERT INTO agents_agentprofile VALUES (1, 5)")
        db.commit()

    cloning.empty(store)

    with closing(sqlite3.connect(store)) as db:
        assert db.execute("SELECT count(*) FROM vault_secret").fetchone() == (0,)
        assert db.execute("SELECT * FROM access_user").fetchall() == [(1, "!", "")]
        assert db.execute("SELECT count(*) FROM agents_agentprofile").fetchone() == (1,)
    assert b"canary-7f3a" not in store.read_bytes()


def test_clone_environment_shares_nothing_with_the_install(tmp_path: Path) -> None:
    said = cloning.environment(tmp_path, PLACES, Scenery())

    for name in ("SECRET_KEY", "POLAR_AUDIT_KEY", "POLAR_VAULT_KEY"):
        assert said[name]
        assert said[name] != (getattr(django_settings, name, "") or "-")
    assert (said["REDIS_URL"], said["POLAR_SINK_HTTP_URL"]) == ("", "")


def test_clone_environment_names_its_own_broker_log_host_and_disk(
    tmp_path: Path,
) -> None:
    def made(**wanted: Any) -> dict[str, str]:
        return cloning.environment(tmp_path, PLACES, Scenery(**wanted))

    assert made(has_broker=True)["REDIS_URL"] == f"redis://{PLACES[0]}/0"
    assert made(has_log_host=True)["POLAR_SINK_LOCAL"] == PLACES[0]
    assert f"/{ports.DISK}/" in made(disk_bytes=1)["DATABASE_URL"]
    assert made()["POLAR_CLONE_REACHES"] == ",".join(PLACES)


# --- By schedule --------------------------------------------------------------


def look(system: Principal) -> dict[str, Any]:
    """Carry the nightly look as the schedule's run does."""
    run = runs.enqueue(
        kind=services.DRILLS_DUE_KIND,
        payload={},
        principal=system,
        workspace=access_queries.default_workspace(),
        trigger="schedule",
    )
    runs.execute(run.id)
    run.refresh_from_db()
    assert run.state == State.SUCCEEDED, run.error_detail
    assert run.result is not None
    return dict(run.result)


def rehearse(started: dict[str, Any]) -> DrillRun:
    row = services.get_drill(UUID(started["drill"]))
    runs.execute(row.run_id)
    row.refresh_from_db()
    return row


def test_schedule_is_planned_once_and_a_paused_one_stays_paused(
    system: Principal,
) -> None:
    workspace = access_queries.default_workspace()
    assert services.install_drill_schedule(workspace=workspace)
    Schedule.objects.update(state="paused")

    assert not services.install_drill_schedule(workspace=workspace)
    kept = services.drill_schedule(workspace=workspace)
    assert kept is not None
    assert (kept.run_kind, kept.state) == (services.DRILLS_DUE_KIND, "paused")


def test_schedule_rehearses_each_in_turn_then_none_until_it_is_due_again(
    system: Principal, stage: FakeStage, brokerless: None
) -> None:
    stage.lacking = "no small disk here"
    rows = [rehearse(look(system)) for _ in range(9)]

    # No broker here, and no small disk: neither is asked for.
    assert {row.slug for row in rows} == set(SLUGS) - {"broker-wipe", "disk-full"}
    assert {row.state for row in rows} == {DrillState.PASSED}
    assert "no drill is due" in look(system)["note"]
    soon = timedelta(days=shelf.FRESH_DAYS - 13)
    with clock.frozen(clock.now() + soon):
        assert look(system)["slug"] == rows[0].slug, "before its proof lapses"


def test_schedule_starts_none_beside_one_under_way_or_in_a_clone(
    system: Principal, stage: FakeStage, settings: Any
) -> None:
    services.start_drill(by=system, slug="store-swap")
    assert "one is under way" in look(system)["note"]
    DrillRun.objects.all().delete()

    settings.POLAR_CLONE = "1"
    assert "clone" in look(system)["note"]
    assert not DrillRun.objects.exists()


def test_drill_that_goes_on_deviating_keeps_no_other_from_its_turn(
    system: Principal, stage: FakeStage, brokerless: None
) -> None:
    stage.journals["control"] = HELD
    rows = [rehearse(look(system)) for _ in range(11)]

    assert {row.state for row in rows} == {DrillState.DEVIATED}
    assert len({row.slug for row in rows[:10]}) == 10
    assert rows[10].slug == rows[0].slug


def test_command_plans_and_the_page_says_so(
    system: Principal, client: Any, alice: Any
) -> None:
    client.force_login(alice)
    address = reverse("reliability:drills")
    assert b"./polar drill plan" in client.get(address).content

    out = StringIO()
    call_command("drill", "plan", "--json", stdout=out)
    assert json.loads(out.getvalue())["note"] == "planned"
    assert b"next look" in client.get(address).content
    Schedule.objects.update(state="paused")
    assert b"The nightly look is paused" in client.get(address).content


def test_command_shows_which_probe_held_and_which_did_not(
    system: Principal, stage: Any
) -> None:
    row = rehearse(look(system))
    out = StringIO()

    call_command("drill", "show", str(row.id), stdout=out)

    said = out.getvalue()
    assert f"{row.slug}: passed, rehearsal" in said
    assert "without its protection it deviated, as it must" in said
    assert f"./polar-verify evidence {services.evidence_path(row)}" in said
    for probe in row.verdict["main"]["observed"]:
        assert probe in said
    assert "{" not in said


def test_loop_that_came_nowhere_proves_nothing(
    alice: User, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents.install_default_profiles(by=access.system_principal(), workspace=workspace)
    talk = agents.start_conversation(
        workspace=workspace, principal=alice.principal, channel="web"
    )
    turn = agents.start_turn(
        conversation=talk, principal=alice.principal, text="round and round"
    )
    monkeypatch.setattr(looping, "LOOP_PATIENCE", 0.0)
    monkeypatch.setitem(looping.notebook.kept, "loop", turn)

    with pytest.raises(DrillFailed, match="too few to tell"):
        looping.loop_truncated()
