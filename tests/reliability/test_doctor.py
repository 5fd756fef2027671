"""The doctor: each check is seen red, and green again once its subject is mended."""

import json
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from apps.access import services as access
from apps.access.models import Role
from apps.audit import services as audit
from apps.audit.engine import memory, triggers
from apps.channels.models import Account, OutboxMessage
from apps.common import clock
from apps.extensions import ports as extension_ports
from apps.extensions.models import Extension
from apps.gateway import services as gateway
from apps.gateway.models import Setting
from apps.providers import services as providers
from apps.providers.models import Breaker, Model, Provider, Route
from apps.reliability import ports, services
from apps.reliability.engine.basis import Bases
from apps.reliability.engine.doctor import examining, host
from apps.reliability.engine.doctor import store as store_checks
from apps.reliability.engine.doctor.check import CHECKS, look_at
from apps.reliability.models import DrillRun, Incident, Notice
from apps.runs import ports as runs_ports
from apps.runs import queries as runs_queries
from apps.runs import services as runs
from apps.runs.models import ClockLease, Run, Schedule, Slot, WorkerBeat
from apps.vault import services as vault
from apps.vault.models import Key, Secret
from tests import people

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
GOOD = ("ok", "unused")


def state(name: str) -> str:
    return look_at(CHECKS[name]).state


@pytest.fixture(autouse=True)
def install(workspace: Any, settings: Any, tmp_path: Path) -> Iterator[Path]:
    settings.POLAR_WITNESS_DIR = tmp_path / "witness"
    settings.POLAR_SNAPSHOT_DIR = tmp_path / "snapshots"
    settings.POLAR_DRILLS_DIR = tmp_path / "drills"
    settings.POLAR_EXTENSIONS_DIR = tmp_path / "extensions"
    settings.POLAR_SINK_FILE = str(tmp_path / "sink" / "audit.jsonl")
    settings.BASE_DIR = tmp_path
    yield tmp_path


@pytest.fixture
def system() -> Any:
    return access.system_principal()


def test_registry_names_what_each_check_proves_and_how_to_mend_it():
    checks = examining.every()

    assert len(checks) >= 40
    assert {each.area for each in checks} == set(examining.AREAS)
    assert all(each.proves and each.mend for each in checks)


def test_check_that_cannot_look_is_unknown_never_fine(monkeypatch):
    def broken() -> Any:
        raise OSError("no such device")

    monkeypatch.setattr(store_checks.audit, "triggers_missing", broken)

    found = look_at(CHECKS["store-guards"])

    assert (found.state, found.detail) == ("unknown", "OSError: no such device")
    assert found.mend


# --- The machine ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "setting", "bad", "good"),
    [
        ("host-bind", "POLAR_BIND", "192.0.2.7", "127.0.0.1"),
        ("host-names", "ALLOWED_HOSTS", ["*"], ["polar.example.org"]),
        ("host-debug", "DEBUG", True, False),
        ("key-django", "SECRET_KEY", "changeme", "k" * 5 + "J3vXq" * 12 + "w9Zp!"),
        ("key-api-secret", "POLAR_UI_API_SECRET", "letmein", ""),
        ("key-vault-ring", "POLAR_VAULT_KEY", "not base64", None),
        ("log-sink", "POLAR_SINK_FILE", "", None),
    ],
)
def test_setting_turns_its_check_red_and_green(settings, name, setting, bad, good):
    before = getattr(settings, setting)
    setattr(settings, setting, bad)
    assert state(name) == "failing"

    setattr(settings, setting, before if good is None else good)
    assert state(name) in GOOD


def test_open_files_that_others_may_read_are_named(install):
    env = install / ".env"
    env.write_text("SECRET_KEY=…")
    (install / "witness").mkdir()
    for path, name in ((env, "host-env-file"), (install / "witness", "host-folders")):
        path.chmod(0o755)
        assert state(name) == "failing"
        path.chmod(0o700)
        assert state(name) == "ok"


@pytest.mark.parametrize(
    ("free", "expected"), [(2**20, "failing"), (2**29, "warning"), (2**34, "ok")]
)
def test_space_is_judged_before_it_is_gone(monkeypatch, tmp_path, free, expected):
    usage = SimpleNamespace(free=free, total=2**36)
    monkeypatch.setattr(host.shutil, "disk_usage", lambda path: usage)

    assert host.judge_space(tmp_path / "not" / "made" / "yet").state == expected


def test_machine_is_judged_by_user_limits_python_and_clock(monkeypatch, system):
    gateway.halt(by=system, scope="all", reason="an event")
    assert state("host-python") == "ok"
    monkeypatch.setattr(host.sys, "version_info", (3, 10, 1))
    assert state("host-python") == "failing"
    for uid, expected in ((0, "warning"), (1000, "ok")):
        monkeypatch.setattr(host.os, "geteuid", lambda uid=uid: uid)
        assert state("host-user") == expected
    for limit, expected in ((256, "warning"), (4096, "ok")):
        both = (limit, limit)
        monkeypatch.setattr(host.resource, "getrlimit", lambda _, both=both: both)
        assert state("host-open-files") == expected
    with clock.frozen(NOON.replace(year=2020)):
        assert state("host-clock") == "failing"
    assert state("host-clock") == "ok"


def test_sandbox_and_stage_say_what_shuts_code_in(monkeypatch):
    class Loose:
        def isolation(self) -> str:
            return "a process group"

    for there, expected in ((False, "warning"), (True, "ok")):
        found = extension_ports.Isolation(is_available=there, detail="bubblewrap")
        monkeypatch.setattr(extension_ports, "isolation", lambda found=found: found)
        assert state("host-sandbox") == expected
    monkeypatch.setattr(ports, "stage", Loose)
    assert state("host-drill-stage") == "warning"


def test_static_files_are_looked_for(settings, tmp_path):
    settings.STATIC_ROOT = tmp_path / "static"
    assert state("host-static") == "failing"
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "staticfiles.json").write_text("{}")
    assert state("host-static") == "ok"


# --- The store and the log --------------------------------------------------


def test_store_checks_are_green_on_a_sound_store():
    names = [name for name in CHECKS if name.startswith("store-")]

    red = {name for name in names if state(name) not in GOOD}

    # A server of tests may trade its durability for speed, and is told so.
    assert red <= {"store-postgres-checksums", "store-postgres-durable"}


def test_missing_trigger_turns_the_guards_red():
    triggers.remove(connection)
    assert state("store-guards") == "failing"
    triggers.install(connection)
    assert state("store-guards") == "ok"


def test_settings_of_the_database_are_read_not_assumed(monkeypatch):
    real = store_checks.ask
    lies = {"PRAGMA synchronous": 0, "SHOW fsync": "off", "SHOW lock_timeout": "0"}
    lies |= {"SHOW server_version_num": "90600", "SHOW data_checksums": "off"}
    monkeypatch.setattr(store_checks, "ask", lambda said: lies.get(said) or real(said))
    monkeypatch.setitem(lies, "PRAGMA synchronous", 1)
    monkeypatch.setattr(store_checks.clock, "offset_seconds", lambda: 7.0)

    if connection.vendor == "sqlite":
        assert state("store-sqlite-settings") == "failing"
        return
    assert state("store-postgres-durable") == "failing"
    assert state("store-postgres-version") == "failing"
    assert state("store-postgres-timeouts") == "warning"
    assert state("store-postgres-checksums") == "warning"
    assert state("store-postgres-clock") == "warning"


def test_remote_disks_are_told_from_mounts():
    mounts = "/dev/sda1 / ext4 rw 0 0\nnas:/v /srv/my\\040data nfs4 rw 0 0\n"

    assert store_checks.file_system_of(Path("/srv/my data/p.db"), mounts) == "nfs4"
    assert store_checks.file_system_of(Path("/srv/other/p.db"), mounts) == "ext4"


def test_unapplied_migration_is_named(monkeypatch):
    waiting = [(SimpleNamespace(app_label="runs", name="0099_more"), False)]
    monkeypatch.setattr(
        store_checks.MigrationExecutor, "migration_plan", lambda *_: waiting
    )

    assert look_at(CHECKS["store-migrations"]).detail == "1 wait: runs.0099_more"


def test_log_checks_follow_the_seal_the_signature_and_the_sink(system):
    gateway.halt(by=system, scope="all", reason="an event")
    with clock.frozen(clock.now() + timedelta(minutes=6)):
        assert (state("log-sealed"), state("log-sink-lag")) == ("failing", "failing")
        assert state("work-halts") == "warning"
        audit.seal_all()
        assert state("log-checkpoint") in ("warning", "ok")
        audit.checkpoint()
        audit.push_sinks()
        names = ("log-sealed", "log-checkpoint", "log-sink-lag", "log-whole")
        assert [state(name) for name in names] == ["ok"] * 4
    assert state("log-sink-immutable") == "warning"


def test_witness_that_knows_more_or_another_key_is_red(system, install, settings):
    gateway.halt(by=system, scope="all", reason="an event")
    audit.seal_all()
    assert (state("store-trusted"), state("key-audit")) == ("ok", "ok")
    key = install / "witness" / "public-key"
    mine = key.read_text()
    key.chmod(0o600)
    key.write_text("polar-audit-00000000+00000000+AAAA\n")
    memory.forget()
    assert state("key-audit") == "failing"
    assert state("log-witness") == "failing"
    key.write_text(mine)
    assert state("key-audit") == "ok"


# --- Keys -------------------------------------------------------------------


def test_vault_checks_follow_seal_backup_kit_and_wear(system):
    vault.put(name="a", value="s3cret", purpose="test", by=system.actor)
    assert [state(f"key-vault-{name}") for name in ("open", "readable", "wear")] == [
        "ok"
    ] * 3
    assert (state("key-vault-backup"), state("key-vault-kit")) == ("warning",) * 2

    Key.objects.update(backup_proved_at=clock.now() - timedelta(days=91))
    assert state("key-vault-backup") == "warning"
    Key.objects.update(backup_proved_at=clock.now(), encryptions=2**31)
    assert state("key-vault-backup") == "ok"
    assert state("key-vault-wear") == "warning"
    Secret.objects.update(unreadable_since=clock.now())
    assert state("key-vault-readable") == "failing"
    vault.seal(by=system.actor, reason="a test")
    assert state("key-vault-open") == "failing"
    vault.unseal(by=system.actor)
    assert state("key-vault-open") == "ok"


def test_rotation_left_half_way_is_named(system, settings):
    vault.put(name="a", value="s3cret", purpose="test", by=system.actor)
    newer = b64encode(b"tests-only-vault-key-32-bytes-01").decode()
    settings.POLAR_VAULT_KEYS = f"k2:{newer}"
    assert state("key-vault-rotation") == "warning"

    settings.POLAR_VAULT_KEYS = ""
    assert state("key-vault-rotation") == "ok"


def test_people_checks_count_administrators_and_second_factors(workspace):
    assert state("key-people") == "failing"
    people.person("ada", Role.ADMIN, workspace)
    assert (state("key-people"), state("key-second-factor")) == ("warning",) * 2
    people.person("ben", Role.ADMIN, workspace)
    assert state("key-people") == "ok"


# --- Work -------------------------------------------------------------------


def test_workers_and_clock_are_heard_or_missed():
    assert (state("work-workers"), state("work-clock")) == ("failing", "failing")
    WorkerBeat.objects.create(
        process="w", host="h", pid=1, schema_version=runs_queries.schema_version()
    )
    lease = ClockLease.load()
    lease.owner, lease.lease_until = "h:1:a", clock.now() + timedelta(seconds=9)
    lease.save()
    assert (state("work-workers"), state("work-clock")) == ("ok", "ok")
    assert state("work-versions") == "ok"
    WorkerBeat.objects.update(schema_version="older")
    assert state("work-versions") == "failing"


def test_broker_is_asked_for_what_it_forgets(settings, monkeypatch):
    assert state("work-broker") in GOOD
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    facts = runs_ports.BrokerFacts
    for found, expected in (
        (facts(problem="unreachable"), ("warning", "warning")),
        (facts("7.2", "allkeys-lru"), ("ok", "warning")),
        (facts("7.2", "noeviction"), ("ok", "ok")),
    ):
        monkeypatch.setattr(runs_ports.broker, "ask", lambda found=found: found)
        assert (state("work-broker"), state("work-broker-policy")) == expected


@pytest.mark.redis
def test_real_broker_says_its_version_and_policy():
    found = runs_ports.broker.ask()

    assert found.problem == ""
    assert (found.version.count("."), bool(found.policy)) == (2, True)


def test_queue_letters_and_late_runs_are_counted(system, workspace, settings):
    def enqueue() -> Any:
        return runs.enqueue(
            kind="reliability.drill", payload={}, principal=system, workspace=workspace
        )

    first = enqueue()
    settings.POLAR_QUEUE_LIMIT = 1
    assert (state("work-queue"), state("work-taken")) == ("failing", "ok")
    settings.POLAR_QUEUE_LIMIT = 20_000
    past = clock.now() - timedelta(days=2)
    Run.objects.filter(id=first.id).update(due_at=past)
    assert (state("work-queue"), state("work-taken")) == ("ok", "failing")
    Run.objects.filter(id=first.id).update(
        state="dead_letter", reason="poison", finished_at=past
    )
    assert (state("work-taken"), state("work-dead-letters")) == ("ok", "warning")
    runs.act_on_dead_letter(by=system, run_id=first.id, action="dismiss", reason="seen")
    assert state("work-dead-letters") == "ok"


def test_schedules_that_gave_up_or_missed_are_named(workspace):
    services.install_schedule(workspace=workspace)
    plan = Schedule.objects.get(slug="snapshots")
    names = ("work-schedules", "work-slots", "work-automations")
    assert [state(name) for name in names] == ["ok"] * 3
    Slot.objects.create(schedule=plan, slot_at=clock.now(), state="missed")
    Schedule.objects.update(next_at=None)
    assert [state(name) for name in names] == ["failing", "warning", "ok"]
    Schedule.objects.update(state="disabled", state_reason="5 failures in a row")
    assert state("work-automations") == "warning"
    assert state("watch-snapshots-planned") == "failing"


def test_strictness_below_hardened_is_a_warning():
    Setting.load()
    Setting.objects.update(strictness="observe")
    assert state("work-strictness") == "warning"
    Setting.objects.update(strictness="hardened")
    assert state("work-strictness") == "ok"


# --- What Polar reaches -----------------------------------------------------


def test_provider_checks_follow_keys_breakers_lanes_and_prices(system):
    assert (state("reach-providers"), state("reach-local-lane")) == ("warning",) * 2
    row = Provider.objects.create(slug="acme", kind="openai")
    model = Model.objects.create(provider=row, name="m1")
    route = Route.objects.create(lane="worker", position=1, model=model)
    assert (state("reach-providers"), state("reach-lanes")) == ("ok", "ok")
    assert state("reach-prices") == "warning"
    Model.objects.update(input_micros=3_000_000)
    assert state("reach-prices") == "ok"
    Breaker.objects.create(route=route, state="open", probe_at=clock.now())
    assert (state("reach-breakers"), state("reach-lanes")) == ("warning", "failing")
    providers.close_breaker(by=system, route=route)
    assert (state("reach-breakers"), state("reach-lanes")) == ("ok", "ok")
    Provider.objects.update(state="rejected", key_stage="shadow")
    assert state("reach-provider-keys") == "failing"
    assert state("reach-key-rotation") == "warning"


def test_channel_checks_follow_hearing_and_the_outbox(workspace, system):
    secret = vault.put(name="t", value="tok", purpose="test", by=system.actor)
    account = Account.objects.create(
        workspace=workspace, kind="telegram", slug="bot", secret=secret
    )
    Account.objects.update(refused_at=clock.now())
    assert state("reach-channels") == "failing"
    Account.objects.update(refused_at=None, heard_at=clock.now())
    assert state("reach-channels") == "ok"
    OutboxMessage.objects.create(
        account=account, chat="1", text="hi", state="failed", dedupe_key="k"
    )
    assert state("reach-outbox") == "warning"
    OutboxMessage.objects.update(state="sent")
    assert state("reach-outbox") == "ok"


def test_extension_checks_name_what_changed_or_is_gone(install):
    row = Extension.objects.create(
        ext_id="ext", type="skill", lifecycle="enabled", package="ab" * 32
    )
    assert (state("reach-packages"), state("reach-extensions")) == ("failing", "ok")
    (install / "extensions" / row.package).mkdir(parents=True)
    Extension.objects.update(
        trust="blocked",
        trust_reason="definition_changed: a tool",
        accepts_degraded=True,
        degraded_reason="a test",
    )
    assert (state("reach-packages"), state("reach-extensions")) == ("ok", "warning")
    assert state("reach-unshut") == "warning"


# --- What watches -----------------------------------------------------------


def test_breach_must_arrive_and_be_recent(system, workspace):
    assert state("watch-alerts-arrive") == "warning"
    services.breach(by=system)
    Notice.objects.update(state="sent", sent_at=clock.now())
    assert state("watch-alerts-arrive") == "ok"
    Notice.objects.update(state="failed", problem="nobody there")
    assert state("watch-alerts-arrive") == "failing"
    assert state("watch-notices") == "warning"
    assert state("watch-alerts-planned") == "failing"
    services.install_weekly_breach(workspace=workspace)
    assert state("watch-alerts-planned") == "ok"


def test_incident_without_owner_or_review_is_named(system, workspace):
    row = Incident.objects.create(
        workspace=workspace, number=1, title="t", severity="S1", opened_by="x"
    )
    assert state("watch-incidents") == "failing"
    Incident.objects.update(owner="alice")
    assert state("watch-incidents") == "ok"
    Incident.objects.filter(id=row.id).update(
        state="resolved", resolved_at=clock.now() - timedelta(days=20)
    )
    assert state("watch-reviews") == "warning"


def test_drills_are_fresh_only_when_each_passed_as_it_is(monkeypatch):
    assert state("watch-drills") == "warning"
    for each in services.shelf_of_drills():
        DrillRun.objects.create(
            slug=each.drill.slug,
            state="passed",
            run_id=clock_id(),
            asked_by="x",
            definition=each.drill.digest,
            basis=Bases().of(each.drill),
            finished_at=clock.now(),
        )
    assert state("watch-drills") == "ok"
    with clock.frozen(clock.now() + timedelta(days=93)):
        assert state("watch-drills") == "warning"


def clock_id() -> Any:
    return Incident().id


# --- The command ------------------------------------------------------------


def doctor(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("doctor", *arguments, stdout=out)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def test_command_fails_with_what_mends_and_passes_once_mended(settings):
    settings.DEBUG = True
    code, said = doctor("host-debug")
    assert (code, "Set DEBUG=false and restart." in said) == (1, True)

    settings.DEBUG = False
    assert doctor("host-debug")[0] == 0


def test_command_says_json_and_counts_warnings_when_strict():
    code, said = doctor("reach-providers", "--json")
    assert (code, json.loads(said)[0]["state"]) == (0, "warning")
    assert doctor("reach-providers", "--strict")[0] == 1


def test_command_refuses_an_unknown_name_and_leaves_slow_ones_out():
    with pytest.raises(CommandError) as caught:
        doctor("no-such-check")
    assert caught.value.returncode == 2
    said = doctor("--quick", "--json")[1]
    assert "log-whole" not in {each["name"] for each in json.loads(said)}


def test_round_changes_nothing_in_the_store():
    before = audit.verify().unsealed
    examining.examine()
    assert audit.verify().unsealed == before


def test_breach_over_the_api_is_made_up_and_over(client, alice):
    client.force_login(alice)

    answer = client.post("/api/v1/alerts/breach")

    assert answer.status_code == 200
    assert answer.json()["origin"] == "synthetic"
