"""Each box of continuity: red when its subject is broken, green once it is mended."""

import json
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.access import services as access
from apps.access.models import Role
from apps.audit import services as audit
from apps.common import clock
from apps.reliability import services
from apps.reliability.engine.basis import Bases
from apps.reliability.engine.doctor import continuity, examining
from apps.reliability.engine.doctor.check import Result
from apps.reliability.models import Alert, AlertCode, DrillRun, Notice, Recovery
from apps.runs.models import ClockLease, Schedule
from apps.vault import services as vault
from apps.vault.models import Key
from tests import people
from tests.audit.test_sinks import bucket as bucket  # a fixture
from tests.reliability.test_services_alerts import NAMED

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def install(workspace: Any, settings: Any, tmp_path: Path) -> Iterator[None]:
    settings.POLAR_WITNESS_DIR = tmp_path / "witness"
    settings.POLAR_SNAPSHOT_DIR = tmp_path / "snapshots"
    settings.POLAR_DRILLS_DIR = tmp_path / "drills"
    settings.POLAR_SINK_FILE = ""
    yield


@pytest.fixture
def system() -> Any:
    return access.system_principal()


def box(slug: str) -> continuity.Box:
    item = next(each for each in continuity.ITEMS if each.slug == slug)
    return continuity.box_of(item)


def is_proved(slug: str) -> bool:
    return box(slug).is_proved


def test_fresh_install_has_proved_nothing() -> None:
    boxes = continuity.boxes()

    assert [each.is_proved for each in boxes] == [False] * 5
    assert all(each.mend for each in boxes)


def test_key_backup_is_proved_by_its_check_code_and_fades(
    system: Any, settings: Any
) -> None:
    vault.put(name="a", value="s3cret", purpose="test", by=system.actor)
    assert not is_proved("key-backup")

    vault.verify_backup(by=system.actor, text=settings.POLAR_VAULT_KEY)
    assert is_proved("key-backup")

    Key.objects.update(backup_proved_at=clock.now() - timedelta(days=91))
    assert not is_proved("key-backup")
    vault.verify_backup(by=system.actor, text=settings.POLAR_VAULT_KEY)
    assert is_proved("key-backup")


def test_snapshots_are_proved_by_a_restore_and_lost_with_the_copy(
    system: Any, workspace: Any, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    services.install_schedule(workspace=workspace)
    made = snapshot(settings)
    monkeypatch.setattr(
        "apps.reliability.engine.snapshotting.every", lambda: [made] if made else []
    )
    assert not is_proved("snapshots"), "a copy that was never restored proves nothing"
    restored(ok=True)
    found = box("snapshots")
    assert found.is_proved
    assert "2.5 s (RTO), 7 events and 60 s of work given up (RPO)" in str(found)

    restored(ok=False, problem="the copy's hash is another")
    assert not is_proved("snapshots")
    restored(ok=True)
    Schedule.objects.update(state="paused")
    assert not is_proved("snapshots")
    Schedule.objects.update(state="active")
    assert is_proved("snapshots")
    with clock.frozen(clock.now() + timedelta(hours=13)):
        assert not is_proved("snapshots")


def snapshot(settings: Any) -> services.Snapshot:
    return services.Snapshot(
        name="20260304T120000000000-7",
        vendor="sqlite",
        taken_at=clock.now(),
        events=7,
        root="",
        epoch="",
        schema="",
        bytes=1,
        sha256="",
    )


def restored(*, ok: bool, problem: str = "") -> None:
    Recovery.objects.create(
        kind="rehearsed",
        source="20260304T120000000000-7",
        vendor="sqlite",
        ok=ok,
        problem=problem,
        took_ms=2500,
        age_seconds=60,
        events_lost=7,
        by="polar",
    )


def test_sink_is_proved_by_its_lock_and_its_count(
    system: Any, bucket: Any, settings: Any
) -> None:
    assert not is_proved("sink")
    services.silence(by=system, code="VAULT_SEALED", reason="an event", hours=1)
    audit.seal_all()
    soon = clock.now() + timedelta(seconds=61)
    with clock.frozen(soon):
        audit.push_sinks()
        assert is_proved("sink")

        bucket.locks = dict.fromkeys(bucket.locks, ("", ""))
        assert not is_proved("sink"), "nobody locks what it has"
        bucket.locks = dict.fromkeys(bucket.locks, ("COMPLIANCE", "2999-01-01T0"))
        assert is_proved("sink")

        bucket.is_down = True
        services.silence(by=system, code="VAULT_SEALED", reason="more", hours=1)
        audit.seal_all()
    with clock.frozen(soon + timedelta(minutes=6)):
        audit.push_sinks()
        assert not is_proved("sink"), "events wait for over five minutes"
        services.watch(NAMED["sink"])
        assert standing() == {AlertCode.SINK}
        bucket.is_down = False
    with clock.frozen(soon + timedelta(minutes=8)):
        audit.seal_all()
        audit.push_sinks()
        assert is_proved("sink")
        services.watch(NAMED["sink"])
        waits = Alert.objects.standing().filter(key="lag")
        assert not waits.exists(), "what burned of the budget shows a while longer"
    for day in (4, 5):
        with clock.frozen(soon + timedelta(days=day)):
            audit.seal_all()
            audit.push_sinks()
            services.watch(NAMED["sink"])
    assert standing() == set()


def standing() -> set[str]:
    return set(Alert.objects.standing().values_list("code", flat=True))


def test_alerts_are_proved_by_a_breach_that_arrived(
    system: Any, workspace: Any
) -> None:
    services.install_weekly_breach(workspace=workspace)
    clock_beats()
    assert not is_proved("alerts")
    services.breach(by=system)
    Notice.objects.update(state="sent", sent_at=clock.now())
    assert is_proved("alerts")

    Notice.objects.update(state="failed", problem="nobody there")
    assert not is_proved("alerts")
    Notice.objects.update(state="sent", problem="")
    ClockLease.objects.update(lease_until=clock.now() - timedelta(minutes=1))
    assert not is_proved("alerts"), "nobody evaluates the rules"
    clock_beats()
    assert is_proved("alerts")
    with clock.frozen(clock.now() + timedelta(days=9)):
        assert not is_proved("alerts")


def clock_beats() -> None:
    lease = ClockLease.load()
    lease.owner, lease.lease_until = "h:1:a", clock.now() + timedelta(days=30)
    lease.save()


def test_drills_are_proved_by_passes_of_what_they_are_now() -> None:
    rows = [passed(each.drill) for each in services.shelf_of_drills()]
    assert is_proved("drills")

    DrillRun.objects.filter(id=rows[0].id).update(basis={})
    assert not is_proved("drills")
    passed(services.shelf_of_drills()[0].drill)
    assert is_proved("drills")
    with clock.frozen(clock.now() + timedelta(days=93)):
        assert not is_proved("drills")


def passed(drill: Any) -> DrillRun:
    return DrillRun.objects.create(
        slug=drill.slug,
        state="passed",
        run_id=uuid4(),
        asked_by="x",
        definition=drill.digest,
        basis=Bases().of(drill),
        finished_at=clock.now(),
    )


def test_overdue_drill_is_an_alert_until_it_passes_again(workspace: Any) -> None:
    def look() -> list[str]:
        services.watch(NAMED["drills"])
        return sorted(standing())  # one alert per drill, one code

    assert look() == [], "a fresh install has a quarter to rehearse"
    drills = [each.drill for each in services.shelf_of_drills()]
    for drill in drills:
        passed(drill)
    assert look() == []
    with clock.frozen(clock.now() + timedelta(days=93)):
        assert look() == [AlertCode.DRILL]
        for drill in drills:
            passed(drill)
    with clock.frozen(clock.now() + timedelta(days=93, minutes=2)):
        assert look() == []


@pytest.mark.parametrize("kind", ["experiment", "code", "policy"])
def test_change_that_makes_many_drills_stale_is_one_alert(
    kind: str, settings: Any
) -> None:
    settings.REDIS_URL = ""
    for each in services.shelf_of_drills():
        row = passed(each.drill)
        row.basis |= {kind: "another"}
        row.save()

    services.watch(NAMED["drills"])

    alert = Alert.objects.standing().get()
    assert (alert.code, alert.key) == (AlertCode.DRILL, kind)
    assert alert.summary.startswith("blackout, store-swap, loop-panic, vault-key-lost")
    assert "broker-wipe" not in alert.summary, "this install has no broker"


# --- Doors --------------------------------------------------------------------


def test_command_says_what_is_not_proved_and_how_to_mend_it() -> None:
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("continuity", "check", "--json", stdout=out)

    said = json.loads(out.getvalue())
    assert ended.value.code == 1
    assert [each["isProved"] for each in said] == [False] * 5
    assert said[4]["checks"][0]["mend"].startswith("Run it: page Drills")


def test_command_is_content_when_all_is_proved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = [continuity.Box(item, ()) for item in continuity.ITEMS]
    monkeypatch.setattr(continuity, "boxes", lambda: good)
    out = StringIO()

    call_command("continuity", "check", stdout=out)

    assert out.getvalue().count("[x]") == 5


def test_page_shows_boxes_and_the_doctors_round(client: Any, workspace: Any) -> None:
    client.force_login(people.person("vera", Role.VIEWER, workspace))

    page = client.get(reverse("reliability:continuity"))
    boxes = client.get(reverse("reliability:continuity_boxes")).content.decode()

    assert page.status_code == 200
    assert b"unknown yet" in page.content
    assert boxes.count("not proved") == 5
    told = ""
    for area in examining.AREAS:
        address = reverse("reliability:doctor", args=[area])
        assert address in page.content.decode()
        told += client.get(address).content.decode()
    assert "host-bind" in told
    assert "log-whole" not in told  # it reads the whole store


def test_each_part_of_the_round_asks_few_statements(
    client: Any, workspace: Any
) -> None:
    client.force_login(people.person("vera", Role.VIEWER, workspace))
    for area in examining.AREAS:
        with CaptureQueriesContext(connection) as asked:
            client.get(reverse("reliability:doctor", args=[area]))
        assert len(asked) <= 30, area


def test_round_has_no_other_part(client: Any, workspace: Any) -> None:
    client.force_login(people.person("vera", Role.VIEWER, workspace))
    assert client.get(reverse("reliability:doctor", args=["moon"])).status_code == 404


def test_page_is_closed_to_outsiders(client: Any, charlie: Any) -> None:
    client.force_login(charlie)
    for name in ("continuity", "continuity_boxes"):
        assert client.get(reverse(f"reliability:{name}")).status_code == 403
    assert client.get(reverse("reliability:doctor", args=["host"])).status_code == 403


def test_breach_is_sent_from_the_page_by_operators_alone(
    client: Any, workspace: Any, alice: Any
) -> None:
    client.force_login(people.person("vera", Role.VIEWER, workspace))
    client.post(reverse("reliability:make_breach"))
    assert not Notice.objects.exists()

    client.force_login(alice)
    client.post(reverse("reliability:make_breach"))
    assert Notice.objects.exists()


def test_result_that_is_well_needs_no_mending() -> None:
    every = box("drills").results
    assert all(isinstance(each, Result) and each.mend for each in every)
