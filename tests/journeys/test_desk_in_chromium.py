"""Each page in a real browser: nothing to complain of, for eyes, ears or screens."""

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from tests.desk import browser, lived_in, pages
from tests.desk.browser import Desk

pytestmark = pytest.mark.journey

#: The admin draws its hundred lists with the same few templates: one of each kind
#: is looked at here, every one of them under `make chaos`.
EVERY_RECORD = os.environ.get("POLAR_EVERY_RECORD") == "1"
#: Where pictures of the pages go, when somebody wants them: `make screens`.
SCREENS = os.environ.get("POLAR_SCREENS", "")
SAMPLE = re.compile(r"^/admin/($|runs/run/|audit/event/$|access/user/)")


@pytest.fixture
def home(transactional_db: None, folders: None) -> lived_in.Home:
    return lived_in.furnish()


@pytest.fixture
def desk(
    home: lived_in.Home, live_server: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    pytest.importorskip("playwright.sync_api")
    if browser.CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    with browser.chromium() as opened:
        small = {"device_scale_factor": 0.5} if SCREENS else {}
        yield browser.sit_down(opened, live_server.url, home.ada, **small)


def look_at(desk: Desk, path: str) -> list[str]:
    """Everything wrong with one page, wide and dark, then narrow and light."""
    desk.said.clear()
    desk.go(path)
    desk.settle()
    wrong = [*desk.said]  # before axe adds complaints of its own
    wrong += [f"dark: {one}" for one in desk.serious()]
    shoot(desk, path)
    desk.page.emulate_media(color_scheme="light")
    desk.page.set_viewport_size(browser.PHONE)
    wrong += [f"light: {one}" for one in desk.serious()]
    if (wider := desk.too_wide()) > 0:
        wrong.append(f"{wider} px wider than a phone")
    desk.page.emulate_media(color_scheme="dark")
    desk.page.set_viewport_size(browser.WIDE)
    return [f"{path} {one}" for one in wrong]


def shoot(desk: Desk, path: str) -> None:
    """Keep four small pictures of the page: wide and phone, dark and light."""
    if not SCREENS:
        return
    name = pages.pattern(path).strip("/").replace("/", "-").replace("…", "one")
    for width, size in ((1280, browser.WIDE), (390, browser.PHONE)):
        desk.page.set_viewport_size(size)
        for theme in ("dark", "light"):
            desk.page.emulate_media(color_scheme=theme)
            kept = f"{SCREENS}/{name or 'home'}-{width}-{theme}.jpg"
            desk.page.screenshot(path=kept, type="jpeg", quality=60)


def test_no_page_has_a_serious_finding(
    desk: Desk, home: lived_in.Home, client: Client
) -> None:
    client.force_login(home.ada)
    wrong = []
    for path in pages.whole(client, pages.addresses()):
        wrong += look_at(desk, path)

    assert wrong == []


def test_no_record_of_the_admin_has_a_serious_finding(
    desk: Desk, home: lived_in.Home
) -> None:
    wrong = []
    for path in pages.admin_addresses():
        if EVERY_RECORD or SAMPLE.search(path):
            wrong += look_at(desk, path)

    assert wrong == []
