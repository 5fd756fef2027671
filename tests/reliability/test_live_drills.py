"""Live drills: asked for with care, capped, guarded, and always taken back."""

import json
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from apps.access import services as access
from apps.access.errors import RoleRequired
from apps.access.models import Principal, Role, Workspace
from apps.agents.models import AgentProfile
from apps.audit.models import Event
from apps.boards.models import Task
from apps.common import clock
from apps.common.errors import Conflict, Invalid
from apps.providers import queries as providers_queries
from apps.providers import services as providers
from apps.providers.models import Provider, UsageRow
from apps.reliability import ports, services
from apps.reliability.engine import livefaults
from apps.reliability.engine.drilling import guarding, live
from apps.reliability.engine.drilling.notebook import notebook
from apps.reliability.models import Alert, DrillRun, DrillState, Incident
from apps.runs import services as runs
from apps.runs.models import Run, State
from tests import people
from tests.providers import builders
from tests.reliability.test_services_alerts import NAMED
from tests.reliability.test_services_drills import (
    DEVIATED,
    HELD,
    NEVER_BEGAN,
    FakeStage,
    verifier,
)

CONFIRM = "LIVE blackout"


@pytest.fixture
def admin(db: None, workspace: Workspace, settings: Any, tmp_path: Path) -> Principal:
    settings.POLAR_WITNESS_DIR = tmp_path / "witness"
    settings.POLAR_DRILLS_DIR = tmp_path / "drills"
    ada = people.person("ada", Role.ADMIN, workspace)
    for lane in ("brain", "worker", "local"):
        builders.route(lane, slug=f"of-{lane}", model=lane)
    return access.principal_for_user(user=ada)


@pytest.fixture
def stage() -> Iterator[FakeStage]:
    before, fake = ports.stage(), FakeStage(HELD, DEVIATED)
    ports.plug_stage(fake)
    yield fake
    ports.plug_stage(before)


def asked(admin: Principal, slug: str = "blackout", **cap: int) -> DrillRun:
    return services.start_live_drill(
        by=admin, slug=slug, confirm=f"LIVE {slug}", cap=services.Cap(**cap)
    )


def carried(row: DrillRun) -> DrillRun:
    runs.execute(row.run_id)
    row.refresh_from_db()
    return row


def hold(seconds: float = 60) -> None:
    providers.hold_lanes(
        by=access.system_principal(),
        lanes=["brain", "worker"],
        until=clock.now() + timedelta(seconds=seconds),
        reason="a test",
    )


def is_held() -> bool:
    return providers_queries.lanes_are_held()


# --- Asking for one ----------------------------------------------------------


def test_live_drill_is_an_administrators_word(
    admin: Principal, workspace: Workspace
) -> None:
    operator = people.person("otto", Role.OPERATOR, workspace)
    by = access.principal_for_user(user=operator)

    with pytest.raises(RoleRequired):
        services.start_live_drill(by=by, slug="blackout", confirm=CONFIRM)

    assert not DrillRun.objects.exists()


@pytest.mark.parametrize(
    ("confirm", "cap", "field"),
    [
        ("live blackout", {}, "confirm"),
        ("", {}, "confirm"),
        (CONFIRM, {"turns": 0}, "turns"),
        (CONFIRM, {"seconds": 301}, "seconds"),
        (CONFIRM, {"hurt": -1}, "hurt"),
    ],
)
def test_live_drill_without_the_words_or_beyond_its_cap_is_refused(
    admin: Principal, confirm: str, cap: dict[str, int], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        services.start_live_drill(
            by=admin, slug="blackout", confirm=confirm, cap=services.Cap(**cap)
        )

    assert [problem.path for problem in refused.value.fields] == [field]
    assert not DrillRun.objects.exists()


def test_drill_that_would_lose_real_work_is_only_rehearsed(admin: Principal) -> None:
    with pytest.raises(Invalid, match="only rehearsed: whatever the install took in"):
        asked(admin, "store-swap")


def test_of_live_drills_one_is_under_way(admin: Principal) -> None:
    asked(admin)

    with pytest.raises(Conflict, match="a live one is"):
        asked(admin, "loop-panic")
    assert services.start_drill(by=admin, slug="loop-panic").mode == "rehearsal"


# --- Carrying it -------------------------------------------------------------


def test_live_drill_is_played_once_graded_and_signed(
    admin: Principal, stage: FakeStage
) -> None:
    row = carried(asked(admin, turns=7))

    assert row.state == DrillState.PASSED, row.problem
    assert stage.started == [("blackout", "--live", str(row.id))]
    assert row.cap == {"turns": 7, "seconds": 90, "hurt": 0}
    done = verifier(str(services.evidence_path(row)), "--json")
    assert done.returncode == 0, done.stdout
    said = json.loads(done.stdout)
    assert (said["grade"], said["mode"]) == ("passed", "live")
    types = Event.objects.about("drill", str(row.id)).values_list("type", flat=True)
    assert list(types.order_by("id")) == [
        "drill.started",
        "drill.fault_made",
        "drill.fault_mended",
        "drill.finished",
    ]


@pytest.mark.parametrize(
    ("journal", "state"), [(DEVIATED, "deviated"), (NEVER_BEGAN, "failed")]
)
def test_live_drill_that_did_not_hold_or_never_began_says_so(
    admin: Principal, stage: FakeStage, journal: dict[str, Any], state: str
) -> None:
    stage.journals["main"] = journal

    row = carried(asked(admin))

    assert row.state == state
    assert verifier(str(services.evidence_path(row))).returncode == 0


def test_live_drill_that_hurt_somebody_is_aborted_and_the_evidence_says_why(
    admin: Principal, stage: FakeStage
) -> None:
    stage.journals["main"] = {**HELD, "status": "interrupted"}
    stage.aborted = "a run that is no drill's was hurt"

    row = carried(asked(admin))

    assert (row.state, row.problem) == (DrillState.ABORTED, stage.aborted)
    done = verifier(str(services.evidence_path(row)), "--json")
    assert json.loads(done.stdout)["grade"] == "aborted", done.stdout


def test_live_drill_proves_nothing_fresh(admin: Principal, stage: FakeStage) -> None:
    carried(asked(admin))

    shelf = {each.drill.slug: each for each in services.shelf_of_drills()}
    assert shelf["blackout"].stale == "never passed"
    assert shelf["blackout"].newest is None


def test_whatever_the_drill_left_is_taken_back(
    admin: Principal, stage: FakeStage
) -> None:
    stage.on_start = hold
    stage.code = 9

    row = carried(asked(admin))

    assert row.state == DrillState.FAILED
    assert not is_held()


def test_live_drill_whose_worker_was_lost_is_not_begun_again(
    admin: Principal, stage: FakeStage
) -> None:
    row = asked(admin)
    DrillRun.objects.filter(id=row.id).update(state=DrillState.RUNNING)
    hold()

    carried(row)

    assert row.state == DrillState.FAILED
    assert "worker was lost" in row.problem
    assert stage.started == []
    assert not is_held()


def test_clock_takes_back_what_nobody_carries_and_leaves_what_somebody_does(
    admin: Principal,
) -> None:
    row = asked(admin)
    DrillRun.objects.filter(id=row.id).update(state=DrillState.RUNNING)
    hold()
    assert services.take_back_faults() == 0
    assert is_held()

    runs.dead_letter(by=admin.actor, run_id=row.run_id, reason="operator")

    assert services.take_back_faults() == 1
    assert not is_held()
    assert services.take_back_faults() == 0
    assert Event.objects.filter(type="drill.fault_mended").count() == 1


def test_hold_ends_by_itself_though_nobody_lives(admin: Principal) -> None:
    hold(seconds=30)
    assert providers_queries.all_remote_lanes_down()

    with clock.frozen(clock.now() + timedelta(seconds=31)):
        assert not is_held()
        answer = providers.generate(
            request=builders.request(Workspace.objects.get(slug="default"))
        )
        assert answer.lane == "brain"


def test_lanes_that_come_back_wake_who_waited(admin: Principal) -> None:
    hold()
    run = runs.enqueue(
        kind="reliability.drill",
        payload={},
        principal=admin,
        workspace=Workspace.objects.get(slug="default"),
    )
    Run.objects.filter(id=run.id).update(state=State.WAITING_PROVIDER)

    assert providers.release_lanes(by=access.system_principal(), reason="over") == 2

    run.refresh_from_db()
    assert run.state == State.QUEUED


def test_loopers_are_taken_in_and_wholly_taken_back(
    admin: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "tell", lambda *_, **__: None)
    live.take_in_loopers()
    assert Provider.objects.filter(slug__startswith="drill-loop").count() == 2
    assert livefaults.standing() == ["scripted models of a loop"]

    livefaults.take_back("a test")

    looping = AgentProfile.objects.filter(slug__startswith="drill-", is_active=True)
    assert not looping.exists()
    assert livefaults.standing() == []


# --- The guard ---------------------------------------------------------------


def call(**said: Any) -> None:
    row = {"requested_lane": "brain", "served_lane": "brain", "duration_ms": 1}
    UsageRow.objects.create(**{**row, **said})


def ended(admin: Principal, state: str, **said: Any) -> None:
    run = runs.enqueue(
        kind="reliability.drill",
        payload={},
        principal=admin,
        workspace=Workspace.objects.get(slug="default"),
        origin=said.pop("origin", "real"),
    )
    over = None if state in ("queued", "waiting_provider") else clock.now()
    Run.objects.filter(id=run.id).update(state=state, finished_at=over, **said)


def test_guard_counts_what_is_no_drills_and_nothing_else(admin: Principal) -> None:
    since = clock.now()
    call(ok=True, degraded=False)
    call(ok=False, origin="drill")
    call(ok=True, degraded=True, origin="drill")
    ended(admin, "dead_letter", origin="drill")
    ended(admin, "succeeded")
    assert guarding.hurt(since) == []

    call(ok=True, degraded=True)
    call(ok=False)
    ended(admin, "failed")
    ended(admin, "waiting_provider")
    ended(admin, "queued", due_at=since)
    with clock.frozen(since + timedelta(seconds=20)):
        found = guarding.hurt(since)
    services.open_incident(by=admin, new=services.NewIncident("It hurts", "S2"))

    assert sorted(words.split(" ", 1)[1] for words in found) == [
        "model calls failed or fell back",
        "model calls failed or fell back",
        "runs ended badly",
        "runs wait for a provider",
        "runs wait for a worker",
    ]
    assert "S1 or S2 incidents were opened" in guarding.hurt(since)[-1]


def test_guard_takes_back_before_it_ends_the_experiment(
    admin: Principal, stage: FakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(
        stage, "abort", lambda: order.append(f"held: {is_held()}"), raising=False
    )
    monkeypatch.setattr(notebook, "tell", lambda *_, **__: order.append("told"))
    hold()

    guarding.abort("somebody was hurt")

    assert order == ["told", "held: False"]
    assert notebook.kept.pop("aborted") == "somebody was hurt"


@pytest.mark.parametrize(
    ("turns", "seconds", "words"),
    [(1, 100, "came to 2 turns"), (5, 10, "more than 10 s"), (5, 100, "")],
)
def test_guard_ends_a_drill_that_grows_past_its_cap(
    admin: Principal,
    monkeypatch: pytest.MonkeyPatch,
    turns: int,
    seconds: int,
    words: str,
) -> None:
    kept = {
        "cap": {"turns": turns, "seconds": seconds, "hurt": 0},
        "began_at": clock.now(),
        "fault_at": clock.monotonic() - 50,
    }
    monkeypatch.setattr(notebook, "kept", kept)
    for _ in range(2):
        ended(admin, "succeeded", origin="drill", kind="agents.turn")

    said = guarding.beyond_cap()

    assert words in said
    assert bool(said) == bool(words)


# --- What is told of it ------------------------------------------------------


def test_blackout_of_a_live_drill_is_told_as_a_drills(admin: Principal) -> None:
    row = asked(admin)
    DrillRun.objects.filter(id=row.id).update(state=DrillState.RUNNING)
    hold()

    services.watch(NAMED["blackout"])

    alert = Alert.objects.get(code="PROVIDER_BLACKOUT")
    assert alert.origin == "drill"
    assert Incident.objects.get().origin == "drill"
    services.send_due()
    assert Task.objects.get().title.startswith("Drill: PROVIDER_BLACKOUT")
    providers.release_lanes(by=access.system_principal(), reason="over")
    with clock.frozen(clock.now() + timedelta(seconds=90)):
        services.watch(NAMED["blackout"])
    alert.refresh_from_db()
    assert alert.state == "cleared"


def test_blackout_is_real_while_no_drill_holds_the_lanes(admin: Principal) -> None:
    for row in Provider.objects.exclude(slug="of-local"):
        providers.set_enabled(by=admin, slug=row.slug, enabled=False)

    services.watch(NAMED["blackout"])

    assert Alert.objects.get(code="PROVIDER_BLACKOUT").origin == "real"


# --- The doors ---------------------------------------------------------------


def test_page_names_what_it_touches_and_begins_only_with_the_words(
    admin: Principal, client: Client
) -> None:
    client.force_login(admin.user)
    address = "/drills/on-install/blackout/"
    assert "Play it live…" in client.get("/drills/").content.decode()
    page = client.get(address).content.decode()
    assert "No call leaves to the servers" in page
    assert "Type LIVE blackout" in page

    wrong = client.post(address, {"confirm": "yes", "turns": "many"}).content.decode()
    assert "confirm: not typed, LIVE blackout" in wrong
    assert "turns: out of range" in wrong
    assert not DrillRun.objects.exists()

    right = client.post(address, {"confirm": CONFIRM, "turns": "3", "hurt": "1"})
    row = DrillRun.objects.get()
    assert right["Location"] == f"/drills/{row.id}/"
    assert row.cap == {"turns": 3, "seconds": 90, "hurt": 1}
    shown = client.get(f"/drills/{row.id}/").content.decode()
    assert "3 turns, 90 s of the fault, 1 of others hurt" in shown


def test_page_of_an_operator_offers_no_live_drill(
    admin: Principal, client: Client, workspace: Workspace
) -> None:
    client.force_login(people.person("otto", Role.OPERATOR, workspace))

    assert "Play it live" not in client.get("/drills/").content.decode()
    assert client.get("/drills/on-install/blackout/").status_code == 403


def test_api_begins_a_live_drill_with_its_words(
    admin: Principal, client: Client
) -> None:
    client.force_login(admin.user)
    body = {"drill": "loop-panic", "live": True, "cap": {"turns": 60, "seconds": 30}}

    refused = client.post("/api/v1/drills", body, "application/json")
    body["confirm"] = "LIVE loop-panic"
    taken = client.post("/api/v1/drills", body, "application/json")

    assert refused.status_code == 422
    assert refused.json()["fields"][0]["path"] == "confirm"
    assert (taken.status_code, taken.json()["mode"]) == (201, "live")


def test_command_begins_a_live_drill_with_its_words(
    admin: Principal, stage: FakeStage
) -> None:
    with pytest.raises(CommandError, match="LIVE blackout"):
        call_command("drill", "run", "blackout", "--live")

    out = StringIO()
    call_command(
        *("drill", "run", "blackout", "--live", "--confirm", CONFIRM),
        *("--seconds", "20", "--json"),
        stdout=out,
    )

    assert json.loads(out.getvalue())["cap"]["seconds"] == 20
    assert DrillRun.objects.get().state == "passed"
