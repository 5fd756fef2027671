"""Events come one to four times, out of order, while workers are killed."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from apps.channels.adapters.telegram_door import secret_of
from tests.fakes import slack_server as slack
from tests.fakes import telegram_server as telegram
from tests.journeys.processes import House, eventually, house

pytestmark = pytest.mark.journey

#: How many events of each vendor; `make chaos` sets a thousand.
EVENTS = int(os.environ.get("POLAR_STORM_EVENTS", "6"))
KILLS = 1 if EVENTS < 100 else 10
PATIENCE = 120.0 if EVENTS < 20 else 3000.0
PER_SENDER = 10
#: The number that an answer names says which event it answers.
BASE = 100_000


@pytest.fixture
def polar(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path, "seed_demo") as built:
        yield built


@pytest.fixture
def vendors() -> Iterator[tuple[telegram.FakeTelegram, slack.FakeSlack]]:
    with telegram.telegram_server() as one, slack.slack_server() as other:
        yield one, other


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def senders_of(first: int) -> list[str]:
    return [str(first + n) for n in range(EVENTS // PER_SENDER + 1)]


def open_accounts(polar: House, vendors: Any) -> dict[str, str]:
    """Return the ids of the accounts by their kind."""
    one, other = vendors
    accounts = [
        {
            "kind": "telegram",
            "token": telegram.TOKEN,
            "settings": {**one.settings, "public_url": "https://polar.example"},
            "senders": senders_of(1000),
            "fields": {"hears_by": "hook"},
        },
        {
            "kind": "slack",
            "token": f"{slack.BOT_TOKEN} {slack.SIGNING_SECRET}",
            "settings": {"api_url": other.api_url, "local": sorted(other.local)},
            "senders": [f"{slack.TEAM}:U{n}" for n in senders_of(1000)],
        },
    ]
    assert polar.do("bots", json.dumps({"accounts": accounts})) == 0, polar.output()
    rows = polar.rows("SELECT kind, id FROM channels_account")
    return {kind: str(uuid.UUID(str(found))) for kind, found in rows}


def event(kind: str, number: int) -> dict[str, Any]:
    """One question; its answer is BASE more than its number."""
    sender, text = 1000 + number // PER_SENDER, f"What is {BASE} + {number}?"
    if kind == "telegram":
        return telegram.message(number + 1, text, user=sender)
    said = {"user": f"U{sender}", "channel": f"D{sender}"}
    return slack.message(text, number=number + 1, **said)


def storm(port: int, accounts: dict[str, str]) -> list[float]:
    """Send every event one to four times, shuffled; return how long each took."""
    draw = random.Random(7)  # noqa: S311 (an order, not a secret)
    todo = [
        (kind, event(kind, number))
        for kind in ("telegram", "slack")
        for number in range(EVENTS)
        for _ in range(draw.randint(1, 4))
    ]
    draw.shuffle(todo)
    plan = {"port": port, "accounts": accounts, "deliveries": todo}
    command = [sys.executable, "-m", "tests.journeys.posting"]
    ended = subprocess.run(
        command, input=json.dumps(plan), text=True, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stdout[-500:] + ended.stderr[-2000:]
    took: list[float] = json.loads(ended.stdout)["took"]
    assert len(took) == len(todo)
    return took


def kill_workers(polar: House, killed: list[int]) -> None:
    """Kill the worker in the midst of its work, and start another."""
    draw = random.Random(11)  # noqa: S311 (moments, not secrets)
    for _ in range(KILLS):
        before = carried(polar)
        worker = polar.start("worker", "--concurrency", "8")
        enough = before + draw.randint(3, max(4, EVENTS // KILLS))
        if not eventually(lambda: carried(polar) >= enough, within=120):  # noqa: B023
            return
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        killed.append(carried(polar))
        polar.hurry()


def carried(polar: House) -> int:
    return polar.states().get("succeeded", 0)


def answers(texts: list[str]) -> Counter[int]:
    """How often each event was answered. A draft is no answer."""
    found = [re.search(r"\b(1\d{5})\b(?!.*…)", each) for each in texts]
    return Counter(int(each[1]) - BASE for each in found if each)


def unanswered(polar: House, kind: str) -> set[int]:
    """Which answers are reported as unknown."""
    rows = polar.rows(
        "SELECT o.text FROM channels_outboxmessage o JOIN channels_account a "
        f"ON a.id = o.account_id WHERE o.state = 'unknown' AND a.kind = '{kind}'"
    )
    return set(answers([text for (text,) in rows]))


def is_over(polar: House) -> bool:
    ended = ("succeeded", "failed", "truncated", "cancelled", "dead_letter")
    sql = "SELECT state FROM channels_outboxmessage GROUP BY state"
    states = {state for (state,) in polar.rows(sql)}
    return set(polar.states()) <= set(ended) and not states & {"pending", "sending"}


def test_storm_while_workers_are_killed_makes_each_turn_and_each_answer_once(
    polar: House, vendors: tuple[telegram.FakeTelegram, slack.FakeSlack]
) -> None:
    one, other = vendors
    accounts = open_accounts(polar, vendors)
    port = free_port()
    polar.start("serve", str(port))
    assert eventually(lambda: is_open(port)), polar.output()
    killed: list[int] = []
    killer = threading.Thread(target=kill_workers, args=(polar, killed))
    killer.start()

    took = storm(port, accounts)
    killer.join()
    last = polar.start("worker", "--concurrency", "16")
    over = eventually(lambda: is_over(polar), within=PATIENCE)
    last.send_signal(signal.SIGTERM)
    last.wait(30)

    assert len(killed) == KILLS, f"{killed} {polar.output()[-3000:]}"
    assert over, f"{polar.states()} {polar.output()[-3000:]}"
    turns = dict(polar.rows("SELECT state, count(*) FROM agents_turn GROUP BY state"))
    sys.stderr.write(f"\n{_figures(took)}; turns {turns}; killed after {killed}\n")
    assert sum(turns.values()) == 2 * EVENTS
    assert (
        polar.rows(
            "SELECT message_text FROM agents_turn "
            "GROUP BY message_text, conversation_id HAVING count(*) > 1"
        )
        == []
    )
    for kind, said in (
        ("telegram", [form["text"] for form in one.said()]),
        ("slack", [row["text"] for row in other.messages.values()]),
    ):
        sent, unknown = answers(said), unanswered(polar, kind)
        assert set(sent) | unknown == set(range(EVENTS)), kind
        assert max(sent.values()) == 1, kind


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _figures(took: list[float]) -> str:
    ordered = [round(each * 1000) for each in sorted(took)]
    half, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return f"{len(took)} deliveries, acknowledged p50 {half} ms, p99 {p99} ms"


def hostile(telegram_id: str, slack_id: str) -> Iterator[tuple[str, str, bytes, Any]]:
    """Shape: what is wrong, the address, the body and the headers."""
    raw, other = (json.dumps(event(kind, 0)).encode() for kind in ("slack", "telegram"))
    good = slack.signed(raw)
    token = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105 (a header's name)
    here, there = f"/hooks/slack/{slack_id}/", f"/hooks/telegram/{telegram_id}/"
    yield "unsigned", here, raw, {}
    yield "another's secret", here, raw, slack.signed(raw, secret="0" * 32)
    yield "one bit changed", here, raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:], good
    yield "replayed", here, raw, slack.signed(raw, at=time.time() - 301)
    yield "foreign origin", here, raw, {**good, "Origin": "https://evil.example"}
    yield "oversized", here, b" " * 3_000_000, slack.signed(b" " * 3_000_000)
    yield "no secret", there, other, {}
    yield "wrong secret", there, other, {token: secret_of("1:another")}
    yield "nested", there, b"[" * 5000 + b"]" * 5000, {token: secret_of(telegram.TOKEN)}


def test_forged_hooks_are_refused_by_a_real_process_and_start_nothing(
    polar: House, vendors: tuple[telegram.FakeTelegram, slack.FakeSlack]
) -> None:
    accounts = open_accounts(polar, vendors)
    port = free_port()
    polar.start("serve", str(port))
    assert eventually(lambda: is_open(port)), polar.output()

    for wrong, path, body, headers in hostile(accounts["telegram"], accounts["slack"]):
        answer = httpx.post(
            f"http://127.0.0.1:{port}{path}",
            content=body,
            headers={"Content-Type": "application/json", **headers},
        )
        assert 400 <= answer.status_code < 500, (wrong, answer.status_code)
        assert answer.json()["code"].startswith("POLAR_"), wrong

    assert polar.states() == {}
    assert polar.rows("SELECT 1 FROM channels_inboxmessage") == []
    refused = "SELECT count(*) FROM audit_event WHERE type = 'channel.refused'"
    assert polar.rows(refused)[0][0] >= 2, "one for each account"
