"""The first `.env`: made once, private, and never over a database's only key."""

import contextlib
import sqlite3
import stat

import pytest

from polar_site import bootstrap


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


def test_env_when_a_key_ring_is_given_asks_for_no_single_key(clone, monkeypatch):
    monkeypatch.setenv("POLAR_VAULT_KEYS", "k1:AAAA")

    bootstrap.write_env()

    assert "POLAR_VAULT_KEY" not in bootstrap.read_env()


def test_every_process_of_the_procfile_is_supervised():
    assert [name for name, _ in bootstrap.programs()] == ["web", "worker", "clock"]
