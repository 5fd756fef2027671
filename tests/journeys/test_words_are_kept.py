"""A page refreshes itself while a person writes on it: nothing they wrote is lost."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import reverse

from apps.gateway.models import ApprovalRequest
from tests.desk import browser, lived_in

pytestmark = pytest.mark.journey

ASKS = (
    '<div id="asks" hx-get="/asks/" hx-trigger="every 1s" hx-swap="outerHTML">{}</div>'
)
FORM = '<form><input id="why" name="reason"></form><p id="round">{}</p>'
FOLD = '<details id="fold"><summary>More</summary><p>Here.</p></details>'


@pytest.fixture
def home(transactional_db: None, folders: None) -> lived_in.Home:
    return lived_in.furnish()


@pytest.fixture
def desk(
    home: lived_in.Home, live_server: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[browser.Desk]:
    pytest.importorskip("playwright.sync_api")
    if browser.CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    with browser.chromium() as opened:
        yield browser.sit_down(opened, live_server.url, home.ada)


def test_words_stay_while_the_page_refreshes_itself(desk: browser.Desk) -> None:
    half_a_reason_stays_until_it_is_given_up(desk)
    what_is_typed_while_a_message_is_sent_stays(desk)
    assert desk.said == []


def half_a_reason_stays_until_it_is_given_up(desk: browser.Desk) -> None:
    asked, page = ApprovalRequest.objects.get(), desk.page
    rounds = [0]

    def next_round(route: Any) -> None:
        rounds[0] += 1
        route.fulfill(body=ASKS.format(FORM.format(rounds[0]) + FOLD))

    page.route("**/asks/**", next_round)
    desk.go(reverse("gateway:approval", args=[asked.id]))
    page.evaluate(
        """html => {
          const main = document.querySelector("main");
          main.insertAdjacentHTML("beforeend", html);
          htmx.process(main);
        }""",
        ASKS.format(FORM.format(0) + FOLD),
    )
    page.wait_for_selector("#round:text-is('1')")
    page.click("#fold summary")
    page.fill("#why", "Ann exp")
    seen = page.inner_text("#round")
    page.wait_for_selector("#asks[data-held]")

    assert page.input_value("#why") == "Ann exp"
    assert page.inner_text("#round") == seen

    page.fill("#why", "")
    page.wait_for_function(
        "seen => document.querySelector('#round').innerText > seen", arg=seen
    )
    assert page.get_attribute("#fold", "open") is not None


def what_is_typed_while_a_message_is_sent_stays(desk: browser.Desk) -> None:
    page = desk.page
    desk.go(reverse("channels:list"))
    page.route("**/stream/", lambda route: route.fulfill(status=204))
    page.click(".threads a")
    page.wait_for_selector("form.composer #say")  # the list has a form of its own
    before, held = page.locator(".message--me").count(), list[Any]()
    page.route("**/send/", lambda route: held.append(route))
    page.fill("#say", "What time is it?")
    with page.expect_request("**/send/"):
        page.click(".composer button")
    page.locator("#say").press_sequentially(" And where?")
    held[0].continue_()
    page.wait_for_function(
        "before => document.querySelectorAll('.message--me').length > before",
        arg=before,
    )

    assert page.input_value("#say") == "And where?"
