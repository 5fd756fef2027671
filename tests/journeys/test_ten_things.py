"""The ten things operators do most: by mouse, and by keyboard alone.

Each is a question or a task with one way there and a visible end. They share a store
that has been lived in, in the order in which a night shift might do them.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from apps.agents.models import AgentProfile, Turn
from apps.gateway.models import ApprovalRequest, Halt
from apps.providers.models import KeyStage, Provider
from apps.reliability.models import DrillRun, Incident, IncidentState
from apps.runs.models import Run, State
from tests.desk import browser, lived_in
from tests.desk.hands import Hand, Keyboard, Mouse
from tests.fakes.openai_server import FakeOpenAI, openai_server
from tests.providers import builders

pytestmark = pytest.mark.journey


@pytest.fixture
def home(transactional_db: None, folders: None) -> lived_in.Home:
    return lived_in.furnish()


@pytest.fixture
def vendor(home: lived_in.Home) -> Iterator[FakeOpenAI]:
    """A provider with a key, on loopback."""
    with openai_server() as server:
        builders.route("brain", slug="vendor", url=server.url)
        yield server


@pytest.fixture(params=[Mouse, Keyboard])
def hand(
    request: pytest.FixtureRequest,
    home: lived_in.Home,
    vendor: FakeOpenAI,
    live_server: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    pytest.importorskip("playwright.sync_api")
    if browser.CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    with browser.chromium() as opened:
        desk = browser.sit_down(opened, live_server.url, home.ada)
        desk.go("/")
        yield request.param(desk)
        assert desk.said == []


def test_an_operators_night(hand: Any) -> None:
    find_a_run_from_a_chat_message(hand)
    see_what_it_cost(hand)
    see_why_it_was_denied(hand)
    approve(hand)
    retry_a_dead_letter(hand)
    switch_the_lane(hand)
    rotate_a_key(hand)
    run_a_drill(hand)
    write_up_an_incident(hand)
    stop_everything(hand)


def sees(hand: Any, text: str) -> None:
    hand.page.wait_for_selector(f'main :text("{text}")')


def find_a_run_from_a_chat_message(hand: Hand) -> None:
    turn = Turn.objects.get(message_text="What time is it?")
    hand.find("What time is it")
    assert turn.trace_id in hand.page.url


def see_what_it_cost(hand: Hand) -> None:
    hand.open("Usage")
    sees(hand, "By day, provider, model, lane and agent")


def see_why_it_was_denied(hand: Hand) -> None:
    hand.open("Audit")
    hand.write("#audit-type", "call.denied")
    hand.press('form.filters button:has-text("Search")')
    hand.press('td[data-label="Trace"] a')
    hand.press('a:has-text("Explain")')
    sees(hand, "would have allowed")


def approve(hand: Hand) -> None:
    hand.open("Approvals")
    hand.write('input[name="reason"]', "Ann expects it.")
    hand.press('button:has-text("Approve once")')
    sees(hand, "Approved")
    assert ApprovalRequest.objects.get().state == "approved"


def retry_a_dead_letter(hand: Hand) -> None:
    hand.open("Dead letters")
    hand.write('input[name="reason"]', "The cause is mended.")
    hand.press('button:has-text("Retry now")')
    sees(hand, "No dead letters")
    assert not Run.objects.filter(state=State.DEAD_LETTER).exists()


def switch_the_lane(hand: Hand) -> None:
    hand.open("Agents")
    hand.press('th a:text-is("@researcher")')
    hand.press('button:has-text("Switch to local")')
    sees(hand, "local")
    assert AgentProfile.objects.get(slug="researcher").lane == "local"


def rotate_a_key(hand: Hand) -> None:
    hand.open("Providers")
    hand.press('a:text-is("vendor")')
    hand.write("#new-key", "sk-new-0123456789abcdef")
    hand.press('button:has-text("Stage it")')
    for step in ("test", "shadow", "promote", "revoke"):
        hand.press(f'button[name="action"][value="{step}"]')
    hand.page.wait_for_selector("#new-key")  # and may be given another
    assert Provider.objects.get(slug="vendor").key_stage == KeyStage.SETTLED


def run_a_drill(hand: Hand) -> None:
    hand.open("Drills")
    hand.press('button:has-text("Run state store corruption")')
    sees(hand, "Waiting for a worker")
    assert DrillRun.objects.filter(slug="store-swap").exists()


def write_up_an_incident(hand: Hand) -> None:
    incident = Incident.objects.get(title__startswith="The mail tool")
    hand.open("Incidents")
    hand.press(f'a:text-is("{incident.name}")')
    hand.press('button[name="state"][value="resolved"]')
    for name, text in (
        ("impact", "Ann had two letters."),
        ("cause", "No key for the repeat."),
        ("learned", "Keys for every letter."),
    ):
        hand.write(f'[name="{name}"]', text)
    hand.press('button[name="do"][value="review"]')
    sees(hand, "Keys for every letter.")
    incident.refresh_from_db()
    assert incident.state == IncidentState.REVIEWED


def stop_everything(hand: Hand) -> None:
    hand.press("a.halt")
    hand.write('form[action$="/halt/set/"] [name="reason"]', "Something is wrong.")
    hand.press('form[action$="/halt/set/"] button.button--stop')
    sees(hand, "Resume")
    assert Halt.objects.filter(scope="all", lifted_at=None).exists()
