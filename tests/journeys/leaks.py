"""Where a secret may have been left: every byte that a house keeps, sought through.

Hides: how the log, exports and snapshots are made first, and where a server keeps its
tables, its write-ahead log and its broker's data.
"""

import subprocess
from pathlib import Path

import psycopg
import redis

from tests.journeys.processes import ON_POSTGRES, House

PATIENCE = 600


def seek(polar: House, secrets: list[str], marker: str) -> int:
    """Look for secrets in every byte that was kept. Returns how many were read.

    `marker`: what was said openly, and must be found where no secret may be.
    """
    exports = polar.folder / "exports"
    exports.mkdir()
    for words in (
        ("audit", "seal"),
        ("audit", "push"),
        ("audit", "export", str(exports / "audit")),
        ("audit", "ocsf", str(exports / "ocsf.jsonl")),
        ("config", "export", "--file", str(exports / "config.json")),
        ("snapshot", "create"),
    ):
        process = polar.start(*words)
        assert process.wait(PATIENCE) == 0, f"{words} {polar.output()[-4000:]}"

    kept = {path: path.read_bytes() for path in files(polar.folder)}
    kept |= {Path(name): data for name, data in elsewhere(polar).items()}

    names = " ".join(map(str, kept))
    for what in ("witness", "snapshots", "sink.jsonl", "out1.txt", "exports/config"):
        assert what in names, what
    assert ON_POSTGRES or "polar.db-wal" in names
    assert any(marker.encode() in data for data in kept.values())
    found = [
        f"{secret} in {path}"
        for path, data in kept.items()
        for secret in secrets
        if secret.encode() in data
    ]
    assert found == []
    return sum(map(len, kept.values()))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def elsewhere(polar: House) -> dict[str, bytes]:
    """Shape: name → bytes of what a server keeps: tables, write-ahead log, broker."""
    if not ON_POSTGRES:
        return {}
    found: dict[str, bytes] = {}
    with psycopg.connect(polar.url, autocommit=True) as db:
        db.execute("CHECKPOINT")
        told = db.execute("SHOW data_directory").fetchone()
    assert told is not None
    for path in files(Path(str(told[0]))):
        if path.parts[-2] != "pg_stat_tmp":
            found[str(path)] = path.read_bytes()
    assert "pg_wal" in " ".join(found)
    for copy in polar.folder.glob("snapshots/*/store"):
        command = ["pg_restore", "--file=-", str(copy)]
        found[f"{copy} as text"] = subprocess.run(
            command, check=True, capture_output=True
        ).stdout
    if polar.env["REDIS_URL"]:
        found["redis"] = broker(polar.env["REDIS_URL"])
    return found


def broker(url: str) -> bytes:
    """What the broker would write to its disk, not compressed."""
    with redis.Redis.from_url(url) as client:
        client.config_set("rdbcompression", "no")
        client.save()
        where = client.config_get("dir")["dir"]
        return (
            Path(where) / client.config_get("dbfilename")["dbfilename"]
        ).read_bytes()
