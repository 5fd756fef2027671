"""`polar-verify` and the `audit` command agree with the database, and refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from apps.audit import services
from apps.audit.models import Event
from apps.common.actor import SYSTEM
from apps.common.errors import Invalid
from tests.audit.conftest import Recorder

PROGRAM = Path(settings.BASE_DIR) / "polar-verify"


def polar_verify(*args: Any) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--json", *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    return done.returncode, json.loads(done.stdout or "{}") | {"err": done.stderr}


@pytest.fixture
def bundle(record: Recorder, tmp_path: Path) -> Path:
    record(150)
    services.seal_all()
    record(150)
    services.seal_all()
    return services.export(tmp_path / "bundle", by=SYSTEM)


def test_export_when_whole_then_verified(bundle: Path, witness: Path) -> None:
    code, found = polar_verify(bundle, "--witness", witness)

    assert (code, found["to"]) == (0, 300)
    assert Event.objects.filter(type="audit.exported").count() == 1


@pytest.mark.parametrize("first, end", [(0, 1), (37, 211), (256, 300), (300, 300)])
def test_export_when_a_range_then_verified(
    bundle: Path, tmp_path: Path, first: int, end: int
) -> None:
    services.export(tmp_path / "part", by=SYSTEM, from_=first, to=end)

    code, found = polar_verify(tmp_path / "part")

    assert (code, found.get("from"), found.get("to")) == (0, first, end)


def test_export_when_the_range_or_folder_is_wrong_then_invalid(
    bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(Invalid, match="is not in it"):
        services.export(tmp_path / "x", by=SYSTEM, to=301)
    with pytest.raises(Invalid, match="is not empty"):
        services.export(bundle, by=SYSTEM)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "name", ["events.jsonl", "checkpoints.jsonl", "public-key", "tree.json", "manifest"]
)
@pytest.mark.parametrize("part", [0.0, 0.4, 0.9999])
def test_export_when_a_byte_is_changed_then_refused(
    bundle: Path, name: str, part: float
) -> None:
    path = bundle / name
    flip(path, int(path.stat().st_size * part))

    code, _ = polar_verify(bundle)

    assert code in (1, 2)


def test_export_when_an_event_is_changed_then_named(bundle: Path) -> None:
    path = bundle / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[41] = lines[41].replace("drill.happened", "drill.happenes")
    path.write_text("".join(lines))

    code, found = polar_verify(bundle)

    event = Event.objects.get(gseq=41)
    assert (code, found["first_bad"], found["first_bad_id"]) == (1, 41, event.id.hex)


def test_export_when_an_event_is_left_out_then_named(bundle: Path) -> None:
    path = bundle / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:41] + lines[42:]))

    assert polar_verify(bundle)[1]["first_bad"] == 41


def test_export_when_the_witness_saw_another_event_then_named(
    bundle: Path, witness: Path
) -> None:
    (journal,) = witness.glob("journal-*")
    digest = Event.objects.get(gseq=7).digest
    journal.write_text(journal.read_text().replace(digest, "0" * 64))

    assert polar_verify(bundle, "--witness", witness)[1]["first_bad"] == 7


def test_export_when_the_key_is_not_the_trusted_one_then_refused(
    bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("another+00000000+AQ==\n")

    code, found = polar_verify(bundle, "--key", tmp_path / "key")

    assert (code, "not signed by the key" in found["problem"]) == (1, True)


def test_export_when_a_file_is_missing_then_unreadable(bundle: Path) -> None:
    (bundle / "tree.json").unlink()

    assert polar_verify(bundle)[0] == 2


# --- the command ----------------------------------------------------------------


def test_command_when_whole_then_says_so(record: Recorder, capsys: Any) -> None:
    record(3)
    call_command("audit", "seal")
    call_command("audit", "checkpoint")
    call_command("audit", "push")
    call_command("audit", "verify")

    out = capsys.readouterr().out
    assert "Sealed 3 events" in out
    assert "The log is whole: 3 events" in out


def test_command_when_broken_then_exit_code_and_json(
    record: Recorder, capsys: Any
) -> None:
    from tests.audit.test_engine_verifying import sql

    record(3)
    services.seal()
    sql("UPDATE audit_event SET reason = 'x' WHERE gseq = 1")

    with pytest.raises(SystemExit) as left:
        call_command("audit", "verify", "--json")
    with pytest.raises(SystemExit):
        call_command("audit", "verify")

    shown = capsys.readouterr()
    assert (left.value.code, json.loads(shown.out)["first_bad"]) == (1, 1)
    assert "BROKEN at event 1" in shown.err


def test_command_when_exporting_then_verified(
    record: Recorder, tmp_path: Path, capsys: Any
) -> None:
    record(3)
    services.seal()

    call_command("audit", "export", str(tmp_path / "out"), "--to", "2")

    assert polar_verify(tmp_path / "out")[1]["to"] == 2
    assert "polar-verify" in capsys.readouterr().out


def test_command_when_refused_then_an_error(record: Recorder, settings: Any) -> None:
    settings.POLAR_WITNESS_DIR = Path()

    with pytest.raises(CommandError, match="POLAR_AUDIT_NO_WITNESS"):
        call_command("audit", "seal")
