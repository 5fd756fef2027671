"""An operator follows the runbooks of keys, word for word, on a running system.

Minutes of real processes: `make chaos` runs them (POLAR_RUNBOOKS=1). The ordinary
suite runs the same commands in one process (tests/reliability/test_runbooks.py).
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.openai_server import FakeOpenAI, openai_server
from tests.journeys.install import Install, blocks, install
from tests.journeys.processes import ON_POSTGRES, eventually

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(
        ON_POSTGRES or not os.environ.get("POLAR_RUNBOOKS"),
        reason="full size, on an install with a file of its own",
    ),
]

OLD, NEW = "sk-canary-old-000001", "sk-canary-new-000002"
CALLS_OF_OTHERS = (
    "SELECT count(*) FROM runs_run WHERE state IN ('failed','dead_letter')"
)


@pytest.fixture
def vendor() -> Iterator[FakeOpenAI]:
    with openai_server() as server:
        server.accepted_keys = {OLD}
        yield server


@pytest.fixture
def polar(tmp_path: Path, vendor: FakeOpenAI) -> Iterator[Install]:
    """A running install whose agents are answered by the vendor."""
    with install(tmp_path) as built:
        (tmp_path / "document.json").write_text(json.dumps(configuration(vendor.url)))
        built.sh("./polar config import --file document.json")
        built.sh(".venv/bin/python -m polar_site.keys renew POLAR_UI_API_SECRET")
        built.start()
        yield built


def configuration(url: str) -> dict[str, Any]:
    route = {"provider": "openai", "model": "fake-1"}
    provider = {
        "kind": "openai_compatible",
        "baseUrl": url,
        "models": [{"name": "fake-1"}],
        "key": OLD,
    }
    lanes = {lane: {"routes": [route]} for lane in ("brain", "worker")}
    sections = {"providers": {"openai": provider}, "lanes": lanes}
    return {"format": "polar-config/1", "sections": sections}


def rows(polar: Install, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(polar.folder / "polar-system.db", timeout=20)) as db:
        return db.execute(sql).fetchall()


def ask(polar: Install) -> str:
    """Somebody writes to an agent; returns the run that answers."""
    secret = dict(
        line.split("=", 1)
        for line in (polar.folder / ".env").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )["POLAR_UI_API_SECRET"]
    said = polar.sh(
        "curl -fsS -H 'Content-Type: application/json' -d '{\"text\": \"Hello?\"}' "
        f"-H 'Authorization: Bearer {secret}' {polar.address}/api/v1/orchestrate"
    )
    return json.loads(said)["runId"].replace("-", "")


def state(polar: Install, run: str) -> str:
    return rows(polar, f"SELECT state FROM runs_run WHERE id = '{run}'")[0][0]


def answered(polar: Install) -> bool:
    run = ask(polar)
    return eventually(lambda: state(polar, run) == "succeeded", 60)


def kit(polar: Install, form: str) -> None:
    polar.sh(f"./polar vault export-recovery --form {form} --out kit.txt")


def lose_the_key(polar: Install) -> None:
    """The key is gone: what stands in .env is another one."""
    lines = (polar.folder / ".env").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("POLAR_VAULT_KEY")]
    other = "POLAR_VAULT_KEY=AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
    (polar.folder / ".env").write_text("\n".join([*kept, other]) + "\n")
    polar.sh(".venv/bin/python -m polar_site.keys restart")


def sealed_bytes(polar: Install) -> str:
    told = rows(polar, "SELECT id, ciphertext FROM vault_secret ORDER BY id")
    told += rows(polar, "SELECT id, wrapped_dek FROM vault_wrap ORDER BY id")
    return hashlib.sha256(repr(told).encode()).hexdigest()


def test_rotation_when_followed_word_for_word_then_nothing_fails(
    polar: Install, vendor: FakeOpenAI
) -> None:
    assert answered(polar)
    vendor.accepted_keys = {OLD, NEW}
    (polar.folder / "new-key.txt").write_text(NEW + "\n")

    choose, *steps = blocks("secret-rotation")
    for number, block in enumerate(steps):
        polar.follow(choose, block)
        if number == 0:
            vendor.accepted_keys = {NEW}
        assert answered(polar)

    assert polar.sh("./polar vault status").startswith("vault: open")
    kids = rows(polar, "SELECT DISTINCT recipient FROM vault_wrap")
    assert len(kids) == 1
    assert rows(polar, CALLS_OF_OTHERS) == [(0,)]


def test_wrong_key_is_named_at_boot_and_what_needs_it_waits(polar: Install) -> None:
    assert answered(polar)
    right = (polar.folder / ".env").read_text()
    before = sealed_bytes(polar)

    lose_the_key(polar)

    run = ask(polar)
    assert eventually(lambda: state(polar, run) == "waiting_vault"), state(polar, run)
    said = polar.sh("./polar vault status || test $? -eq 3")
    assert "vault: sealed" in said
    assert polar.asks("/healthz") == 200
    assert sealed_bytes(polar) == before
    (polar.folder / ".env").write_text(right)
    polar.sh(".venv/bin/python -m polar_site.keys restart")
    assert eventually(lambda: state(polar, run) == "succeeded", 120)


@pytest.mark.parametrize("form", ["offline", "shares"])
def test_lost_key_with_a_kit_brings_everything_back(polar: Install, form: str) -> None:
    kit(polar, form)
    if form == "shares":
        lines = (polar.folder / "kit.txt").read_text().splitlines()
        (polar.folder / "kit.txt").write_text("\n".join(lines[1:4]) + "\n")
    lose_the_key(polar)
    run = ask(polar)
    assert eventually(lambda: state(polar, run) == "waiting_vault"), state(polar, run)

    polar.follow(*blocks("lost-vault-key", "The same as lines to type"))
    way = "With the offline key, or with three of five shares"
    polar.follow(*blocks("lost-vault-key", way))

    assert eventually(lambda: state(polar, run) == "succeeded", 120)
    assert answered(polar)


def test_lost_key_with_nothing_is_entered_again_until_all_is_green(
    polar: Install,
) -> None:
    lose_the_key(polar)
    run = ask(polar)
    (polar.folder / "key.txt").write_text(OLD + "\n")

    polar.follow(*blocks("lost-vault-key", "The same as lines to type"))
    said = polar.follow(*blocks("lost-vault-key", "With nothing"))

    assert "[missing] provider.openai.key" in said
    assert "[ok] provider.openai.key" in said or "Nothing is lost" in said
    assert eventually(lambda: state(polar, run) == "succeeded", 120)


def test_vault_recovery_when_followed_with_config_set_then_all_is_green(
    polar: Install,
) -> None:
    """The seed's 2.2: a new key, everything upserted again by `polar config set`."""
    lose_the_key(polar)
    run = ask(polar)
    (polar.folder / "key.txt").write_text(OLD + "\n")

    said = [polar.follow(block) for block in blocks("vault-recovery")]

    assert "[missing] provider.openai.key" in said[1]
    assert "[ok] provider.openai.key" in said[2]
    assert eventually(lambda: state(polar, run) == "succeeded", 120)


LINES = "The same as lines to type"
SERVED_BY = "SELECT served_by FROM agents_turn ORDER BY created_at DESC"
#: What step 4 of the runbook of a refused request sends.
TOOL = """
send extensions/execute good.json
"""


def test_provider_failover_when_followed_then_the_agent_answers_again(
    polar: Install, vendor: FakeOpenAI
) -> None:
    choose, switch, back = blocks("provider-failover", LINES)
    with openai_server() as nearby:
        staff_the_local_lane(polar, nearby.url)
        assert answered(polar)
        vendor.mode = "500"

        said = polar.follow(choose, switch)

        assert "openai" in said
        assert answered(polar)
        assert served_by(polar) == "nearby/fake-1"
        vendor.mode = "ok"
        polar.follow(choose, back)
        assert eventually(
            lambda: answered(polar) and served_by(polar) == "openai/fake-1", 180
        )


def staff_the_local_lane(polar: Install, url: str) -> None:
    document = configuration(url)
    sections = document["sections"]
    sections["providers"] = {"nearby": sections["providers"]["openai"]}
    route = {"provider": "nearby", "model": "fake-1"}
    sections["lanes"] = {"local": {"routes": [route]}}
    (polar.folder / "nearby.json").write_text(json.dumps(document))
    polar.sh("./polar config import --file nearby.json")


def served_by(polar: Install) -> str:
    return rows(polar, SERVED_BY)[0][0]


def test_kill_switch_when_followed_then_the_tool_is_refused(polar: Install) -> None:
    before, request = blocks("invalid-execute-request", LINES)
    request = request.replace("shred", ": keep")
    choose, stop, again = blocks("extension-kill-switch", LINES)
    polar.follow(before, request)

    polar.follow(choose, stop)
    refused = polar.follow(before, request.split("echo")[0], TOOL)
    polar.follow(choose, again)
    served = polar.follow(before, request.split("echo")[0], TOOL)

    assert "POLAR_EXTENSION_NOT_ENABLED" in refused
    assert '"status": "completed"' in served


def test_invalid_execute_request_when_followed_then_it_completes(
    polar: Install,
) -> None:
    polar.follow(*blocks("invalid-execute-request", LINES))

    events = json.loads((polar.folder / "events.json").read_text())
    assert {event["traceId"] for event in events["items"]} == {trace_of(polar)}


def trace_of(polar: Install) -> str:
    return json.loads((polar.folder / "answer.json").read_text())["traceId"]
