"""A group asks, everybody goes home and every process dies; a button decides later.

Telegram is asked by long polling, Slack calls us by signed HTTP; the vendors' own
libraries speak on our side, and web, worker and clock are processes of their own.
"""

import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest

from tests.fakes import slack_server as slack
from tests.fakes import telegram_server as telegram
from tests.journeys.processes import House, eventually, house
from tests.journeys.test_channel_storm import free_port, is_open

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(
        not os.environ.get("POLAR_CHANNEL_JOURNEYS"),
        reason="half a minute of six processes: make chaos",
    ),
]

HOURS = 5 * 3600.0
PERSON = 7
GROUP = {"id": -100, "type": "supergroup", "is_forum": True, "title": "Team"}
TOPIC = 55
ROOM, THREAD = "C0ROOM", "1699999990.000001"
PLAN = b"the plan is to sleep"


@pytest.fixture
def polar(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path, "seed_demo") as built:
        built.env["JOURNEY_MAIL"] = "1"
        yield built


@pytest.fixture
def bot() -> Iterator[telegram.FakeTelegram]:
    with telegram.telegram_server() as server:
        server.holds = 0.2
        yield server


@pytest.fixture
def space() -> Iterator[slack.FakeSlack]:
    with slack.slack_server() as server:
        yield server


class Team:
    """What people do in both messengers."""

    def __init__(
        self, polar: House, bot: telegram.FakeTelegram, space: slack.FakeSlack
    ) -> None:
        self.polar, self.bot, self.space = polar, bot, space
        self.port, self.number, self.ahead = free_port(), 0, 0.0
        secret = f"{slack.BOT_TOKEN} {slack.SIGNING_SECRET}"
        accounts = [
            {
                "kind": "telegram",
                "token": telegram.TOKEN,
                "settings": bot.settings,
                "senders": [str(PERSON)],
            },
            {
                "kind": "slack",
                "token": secret,
                "settings": {"api_url": space.api_url, "local": sorted(space.local)},
                "senders": [f"{slack.TEAM}:U0ALICE"],
            },
        ]
        for words in (["mail"], ["bots", json.dumps({"accounts": accounts})]):
            assert polar.do(*words) == 0, polar.output()
        sql = "SELECT id FROM channels_account WHERE kind = 'slack'"
        self.slack_id = UUID(str(polar.rows(sql)[0][0]))

    def come(self, ahead: float = 0.0) -> None:
        """Start web, worker and clock, so much later than now."""
        self.ahead = ahead
        shift = ["--later", str(ahead)]
        self.port = free_port()
        self.processes = [
            self.polar.start(*shift, "serve", str(self.port)),
            self.polar.start(*shift, "worker", "--concurrency", "8"),
            self.polar.start(*shift, "clock"),
        ]
        assert eventually(lambda: is_open(self.port)), self.polar.output()

    def die(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
            process.wait()

    # --- Telegram

    def write(self, text: str, **more: Any) -> None:
        self.number += 1
        place = {"chat": GROUP, "message_thread_id": TOPIC, "is_topic_message": True}
        found = telegram.message(self.number, text, user=PERSON, **{**place, **more})
        if not text:
            del found["message"]["text"]
        self.bot.updates.append(found)

    def press(self, message_id: str, value: str) -> None:
        self.number += 1
        pressed = telegram.press(self.number, PERSON, value, int(message_id))
        pressed["callback_query"]["message"]["chat"] = GROUP
        self.bot.updates.append(pressed)

    # --- Slack

    def post(self, body: dict[str, Any], *, as_form: bool = False) -> None:
        raw = json.dumps(body).encode()
        if as_form:
            raw = urlencode({"payload": raw.decode()}).encode()
        kind = "x-www-form-urlencoded" if as_form else "json"
        headers = slack.signed(raw, at=time.time() + self.ahead)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(
            "POST",
            f"/hooks/slack/{self.slack_id}/",
            raw,
            {"Content-Type": f"application/{kind}", **headers},
        )
        status = connection.getresponse().status
        connection.close()
        assert status == 200

    def mention(self, text: str, **more: Any) -> dict[str, Any]:
        self.number += 1
        said = slack.mention(text, number=self.number, thread_ts=THREAD, **more)
        self.post(said)
        return said

    # --- what became of it

    def answered(self) -> int:
        """How many messages have their answer queued."""
        rows = "channels_inboxmessage WHERE is_answered AND turn_id IS NOT NULL"
        return int(self.polar.rows(f"SELECT count(*) FROM {rows}")[0][0])

    def question(self, kind: str) -> tuple[str, str]:
        """The message and the approval of a question that was asked."""
        rows = self.polar.rows(
            "SELECT o.sent_id, o.approval_id FROM channels_outboxmessage o JOIN "
            "channels_account a ON a.id = o.account_id WHERE o.state = 'sent' AND "
            f"o.approval_id IS NOT NULL AND a.kind = '{kind}'"
        )
        if not rows:
            return "", ""
        return rows[0][0], str(UUID(str(rows[0][1])))


def files_of(team: Team) -> None:
    """A file, a question and its correction, in a topic and in a thread."""
    team.bot.files["plan.txt"] = PLAN
    document = {"file_id": "plan.txt", "file_unique_id": "1", "file_name": "plan.txt"}
    document |= {"mime_type": "text/plain", "file_size": len(PLAN)}
    team.write("", caption="@polar_test_bot read", document=document)
    team.write("@polar_test_bot what is 2 + 2?")
    first = team.bot.updates[-1]["message"]
    fixed = {"message_id": first["message_id"], "edit_date": 1_790_000_100}
    team.write("@polar_test_bot what is 3 + 3?", kind="edited_message", **fixed)

    team.space.files["/files/plan.txt"] = PLAN
    url = f"{team.space.root}/files/plan.txt"
    file = slack.file("plan.txt", url, len(PLAN), kind="app_mention")
    team.mention("read", files=[file])
    asked = team.mention("what is 2 + 2?")["event"]
    team.number += 1
    text = f"<@{slack.BOT_USER}> what is 3 + 3?"
    team.post(slack.changed(asked, text, number=team.number))


def test_group_is_answered_and_a_button_decides_hours_later_after_a_restart(
    polar: House, bot: telegram.FakeTelegram, space: slack.FakeSlack
) -> None:
    team = Team(polar, bot, space)
    team.come()
    team.write("@polar_test_bot send a mail to telegram")
    team.mention("send a mail to slack")
    both = ("telegram", "slack")
    assert eventually(lambda: all(team.question(kind)[0] for kind in both)), (
        polar.output()[-3000:]
    )
    team.die()
    assert polar.carried() == [], "nobody decided yet"

    team.come(HOURS)
    sent, asked = team.question("telegram")
    team.press(sent, f"approve:{asked}")
    sent, asked = team.question("slack")
    pressed = slack.press("polar.approve:0", f"approve:{asked}", message_ts=sent)
    pressed["container"] |= {"channel_id": ROOM, "thread_ts": THREAD}
    pressed["channel"] = {"id": ROOM, "name": "room"}
    team.post(pressed, as_form=True)
    files_of(team)

    assert eventually(lambda: team.answered() == 8, 90), polar.output()[-3000:]
    assert len(polar.carried()) == 2, "each mail went out once"
    done = "SELECT 1 FROM channels_outboxmessage WHERE state <> 'sent'"
    assert eventually(lambda: not polar.rows(done)), polar.rows(done)
    team.die()

    look_at_telegram(bot)
    look_at_slack(space)
    texts = [text for (text,) in polar.rows("SELECT message_text FROM agents_turn")]
    assert sum(PLAN.decode() in text for text in texts) == 2
    assert sum(text.startswith("(Corrected message)") for text in texts) == 2


def look_at_telegram(bot: telegram.FakeTelegram) -> None:
    said = bot.said()
    assert {form["message_thread_id"] for form in said} == {str(TOPIC)}
    assert {form["chat_id"] for form in said} == {str(GROUP["id"])}
    notes = [form["text"] for name, form in bot.calls if name == "answerCallbackQuery"]
    assert len(notes) == 1
    assert notes[0].startswith("Approved by")
    edits = [form for name, form in bot.calls if name == "editMessageText"]
    closed = [form for form in edits if "Approved by" in form["text"]]
    assert len(closed) == 1
    assert json.loads(closed[0].get("reply_markup", "{}")) == {}
    assert any(form["text"].rstrip().endswith("…") for form in edits + said), "no draft"


def look_at_slack(space: slack.FakeSlack) -> None:
    said = space.sent("chat.postMessage")
    assert {(each["channel"], each["thread_ts"]) for each in said} == {(ROOM, THREAD)}
    notes = space.sent("chat.postEphemeral")
    assert len(notes) == 1
    assert notes[0]["text"].startswith("Approved by")
    shown = space.shown(ROOM)
    assert sum("Approved by" in text for text in shown) == 1
    drafts = [*said, *space.sent("chat.update")]
    assert any(each["text"].rstrip().endswith("…") for each in drafts), "no draft"
    assert not any(text.rstrip().endswith("…") for text in shown), "a draft was left"
