"""A vendor goes dark; an operator takes the incident from its alert to its review.

The blackout comes from outside: the vendor's server fails, nothing of Polar is told.
`make chaos` runs it: POLAR_SCREENS names the folder in which each step leaves its
picture.
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from apps.access import services as access
from apps.access.models import Role
from apps.common import clock
from apps.common.errors import PolarError
from apps.providers import services as providers
from apps.reliability import services
from apps.reliability.models import Alert, Incident
from tests import people
from tests.fakes.openai_server import FakeOpenAI, openai_server
from tests.journeys.test_board_in_chromium import WIDE
from tests.journeys.test_board_in_chromium import browser as browser  # a fixture
from tests.providers import builders
from tests.reliability.test_services_alerts import NAMED

SCREENS = os.environ.get("POLAR_SCREENS", "")
pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(not SCREENS, reason="`make chaos` goes this way"),
]


class Operator:
    """Somebody at the desk, with a camera."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url, self.number = page, url, 0

    def open(self, path: str) -> None:
        self.page.goto(f"{self.url}{path}")

    def click(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).first.click()
        self.page.wait_for_load_state()

    def picture(self, name: str) -> None:
        self.number += 1
        path = Path(SCREENS) / f"incident-{self.number}-{name}.png"
        self.page.screenshot(path=str(path))

    def text(self) -> str:
        return str(self.page.inner_text("main"))


@pytest.fixture
def alice(browser: Any, live_server: Any, transactional_db: None) -> Operator:
    workspace = access.ensure_default_workspace()
    people.person("alice", Role.OPERATOR, workspace)
    page = browser.new_context(viewport=WIDE).new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{live_server.url}/incidents/")
    page.fill("input[name=username]", "alice")
    page.fill("input[name=password]", people.PASSWORD)
    page.press("input[name=password]", "Enter")
    page.wait_for_selector("main h1")
    return Operator(page, live_server.url)


def ask_some(workspace: Any, count: int) -> int:
    answered = 0
    for _ in range(count):
        try:
            providers.generate(request=builders.request(workspace))
            answered += 1
        except PolarError:
            continue
    return answered


def look() -> None:
    for name in ("blackout", "usage"):
        services.watch(NAMED[name])


def test_blackout_from_outside_goes_from_alert_to_review(alice: Operator) -> None:
    workspace = access.ensure_default_workspace()
    builders.ready(workspace)
    with openai_server() as vendor:
        route = builders.route("brain", url=vendor.url, key="sk-1")
        assert ask_some(workspace, 2) == 2
        look()
        assert not Alert.objects.exists()

        vendor.mode = "500"
        assert ask_some(workspace, 8) == 0
        look()
        incident = the_alert_opens_an_incident(alice)
        the_checklist_is_done(alice, incident)
        the_vendor_comes_back(alice, incident, vendor, workspace, route)
        it_is_reviewed(alice, incident)
    the_bundle_tells_it_all(alice, incident)


def the_alert_opens_an_incident(alice: Operator) -> Incident:
    alice.open("/alerts/")
    assert "PROVIDER_BLACKOUT" in alice.text()
    alice.picture("alert")
    alice.open("/incidents/")
    incident = Incident.objects.get()
    assert incident.severity == "S2"
    alice.picture("opened")
    alice.page.locator(f'a[href="/incidents/{incident.id}/"]').first.click()
    alice.page.wait_for_selector("#checklist")
    return incident


def the_checklist_is_done(alice: Operator, incident: Incident) -> None:
    alice.page.fill("#owner", "alice")
    alice.click("Keep")
    alice.click("Mitigating")
    for step in (
        "Check workers and ingress",
        "Test every provider",
        "Check the configuration",
        "Make it a task",
    ):
        alice.click(step)
    results = incident.results.order_by("id").values_list("step", "ok")
    assert dict(results)["test_providers"] is False
    assert len(results) == 4
    alice.picture("checklist")


def the_vendor_comes_back(
    alice: Operator, incident: Incident, vendor: FakeOpenAI, workspace: Any, route: Any
) -> None:
    vendor.mode = "ok"
    providers.close_breaker(by=access.system_principal(), route=route)
    alice.click("Test every provider")
    assert incident.results.order_by("-id")[0].ok
    assert ask_some(workspace, 2) == 2
    with clock.frozen(clock.now() + timedelta(minutes=16)):
        look()
    assert not Alert.objects.standing().exists()
    alice.click("Monitoring")
    alice.click("Resolved")
    alice.picture("recovered")


def it_is_reviewed(alice: Operator, incident: Incident) -> None:
    for field, words in (
        ("impact", "Eight questions had no answer for four minutes."),
        ("cause", "The vendor answered 500; there was no local lane."),
        ("learned", "A local lane would have answered."),
        ("follow", "Run Ollama on this host; alice."),
    ):
        alice.page.fill(f"#r-{field}", words)
    alice.click("Close with this review")
    incident.refresh_from_db()
    assert incident.state == "reviewed"
    alice.picture("reviewed")


def the_bundle_tells_it_all(alice: Operator, incident: Incident) -> None:
    base = f"{alice.url}/incidents/{incident.id}/evidence"
    bundle = alice.page.request.get(f"{base}.json").json()
    ticket = alice.page.request.get(f"{base}.md").text()

    whole = str(bundle)
    for words in ("PROVIDER_BLACKOUT", "test_providers", "A local lane would have"):
        assert words in whole
        assert words in ticket or words == "test_providers"
    (Path(SCREENS) / "incident-bundle.md").write_text(ticket)
