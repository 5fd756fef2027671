"""The first `.env`: made once, private, and never over a database's only key."""

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys

import pytest

from polar_site import bootstrap, keys


@pytest.fixture
def clone(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "ENV_FILE", tmp_path / ".env")
    for name in [*bootstrap.SECRETS, "POLAR_VAULT_KEYS"]:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_env_when_absent_is_written_for_its_owner_only(clone):
    bootstrap.write_env()

    assert set(bootstrap.read_env()) == set(bootstrap.SECRETS)
    assert stat.S_IMODE((clone / ".env").stat().st_mode) == 0o600


def test_env_when_complete_is_left_alone(clone):
    bootstrap.write_env()
    before = (clone / ".env").read_text()

    bootstrap.write_env()

    assert (clone / ".env").read_text() == before


def test_env_when_a_user_began_one_keeps_its_lines_and_fills_the_gaps(clone):
    (clone / ".env").write_text("OPENAI_API_KEY=abc\nSECRET_KEY=\n")

    bootstrap.write_env()

    known = bootstrap.read_env()
    assert known["OPENAI_API_KEY"] == "abc"
    assert all(known[name] for name in bootstrap.SECRETS)


def test_env_when_the_key_is_lost_but_data_exists_makes_no_new_key(clone):
    (clone / "polar-system.db").write_bytes(b"SQLite format 3")

    with pytest.raises(SystemExit, match="Restore it"):
        bootstrap.write_env()

    assert not (clone / ".env").exists()


def test_env_when_the_store_has_no_table_yet_makes_new_keys(clone):
    with contextlib.closing(sqlite3.connect(clone / "polar-system.db")) as store:
        store.execute("PRAGMA journal_mode=WAL")

    bootstrap.write_env()

    assert (clone / ".env").exists()


def test_env_when_the_key_is_lost_but_tables_exist_makes_no_new_key(clone):
    with contextlib.closing(sqlite3.connect(clone / "polar-system.db")) as store:
        store.execute("CREATE TABLE kept (id INTEGER)")

    with pytest.raises(SystemExit, match="Restore it"):
        bootstrap.write_env()


def test_script_when_run_by_its_path_can_look_at_the_store(tmp_path):
    """As `make run` starts it, its own folder stands before Python's modules."""
    there = tmp_path / "polar_site"
    shutil.copytree(bootstrap.ROOT / "polar_site", there)
    with contextlib.closing(sqlite3.connect(tmp_path / "polar-system.db")) as store:
        store.execute("CREATE TABLE kept (id INTEGER)")
    words = (
        f"import runpy, sys; sys.path.insert(0, {str(there)!r});"
        f"made = runpy.run_path({str(there / 'bootstrap.py')!r});"
        "print(made['data_exists']())"
    )

    done = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == "True", done.stderr


def test_env_when_a_key_ring_is_given_asks_for_no_single_key(clone, monkeypatch):
    monkeypatch.setenv("POLAR_VAULT_KEYS", "k1:AAAA")

    bootstrap.write_env()

    assert "POLAR_VAULT_KEY" not in bootstrap.read_env()


def test_old_install_is_closed_to_strangers_and_so_is_what_comes(clone, monkeypatch):
    monkeypatch.setattr(bootstrap, "VAR", clone / "var")
    (clone / "var").mkdir(mode=0o755)
    (clone / ".env").write_text("")
    (clone / ".env").chmod(0o644)
    before = os.umask(0o022)
    try:
        bootstrap.keep_private()
        (clone / "new").touch()
    finally:
        os.umask(before)

    modes = {path.name: path.stat().st_mode & 0o777 for path in clone.iterdir()}
    assert modes == {"var": 0o750, ".env": 0o640, "new": 0o600}


def test_every_process_of_the_procfile_is_supervised():
    assert [name for name, _ in bootstrap.programs()] == ["web", "worker", "clock"]


def test_renew_when_ui_secret_then_replaced_and_the_rest_kept(clone):
    (clone / ".env").write_text("OPENAI_API_KEY=abc\nPOLAR_UI_API_SECRET=old\n")

    keys.renew("POLAR_UI_API_SECRET")

    known = bootstrap.read_env()
    assert known["OPENAI_API_KEY"] == "abc"
    assert len(known["POLAR_UI_API_SECRET"]) >= 26


def test_renew_when_vault_key_then_the_old_ones_stay_behind_it(clone):
    (clone / ".env").write_text("POLAR_VAULT_KEY=one\nPOLAR_VAULT_KEYS=k2:two\n")

    keys.renew("POLAR_VAULT_KEY")

    known = bootstrap.read_env()
    first, second = known["POLAR_VAULT_KEYS"].split(",")
    assert (second, known["POLAR_VAULT_KEY"]) == ("k2:two", "one")
    assert first.startswith("k")


def test_renew_when_another_name_then_refused(clone):
    with pytest.raises(SystemExit, match="renew POLAR_UI_API_SECRET or"):
        keys.renew("SECRET_KEY")


def test_retire_leaves_the_first_key_and_refuses_to_leave_none(clone):
    (clone / ".env").write_text("POLAR_VAULT_KEY=one\n")
    with pytest.raises(SystemExit, match="once POLAR_VAULT_KEYS"):
        keys.retire()
    keys.renew("POLAR_VAULT_KEY")
    ring = bootstrap.read_env()["POLAR_VAULT_KEYS"]

    keys.retire()

    known = bootstrap.read_env()
    assert (known["POLAR_VAULT_KEYS"], known["POLAR_VAULT_KEY"]) == (ring, "")
