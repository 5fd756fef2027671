"""Chromium at the desk: sign in, look, and count what is wrong with a page.

Hides: the driver, the session cookie, axe and how findings are told apart.
"""

import importlib.resources
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.test import Client

from apps.access.models import User

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
SERIOUS = ("serious", "critical")
#: Runs axe on what is shown and gives what a person would be hurt by.
FINDINGS = """async () => {
  const found = await axe.run(document, {resultTypes: ["violations"], preload: false});
  return found.violations.map((one) => ({
    id: one.id, impact: one.impact,
    where: one.nodes.slice(0, 3).map((node) => node.target.join(" ")),
    why: (one.nodes[0].any[0] || one.nodes[0].all[0] || one.nodes[0].none[0] || {})
      .message || "",
  }));
}"""
#: The page and the parts that it asks for at once are there.
SETTLED = """() => document.readyState === "complete"
  && !document.querySelector(".htmx-request")"""
WIDER_THAN_SCREEN = """() => {
  const root = document.documentElement;
  return root.scrollWidth - root.clientWidth;
}"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A Chromium of one test's own. Raises: ImportError, or none is installed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@dataclass
class Desk:
    """One person's window, and all that went wrong in it."""

    page: Any
    base: str
    said: list[str] = field(default_factory=list)

    def go(self, path: str) -> int:
        answer = self.page.goto(self.base + path)
        return answer.status if answer else 0

    def settle(self) -> None:
        """Wait for the parts that a page asks for as soon as it opens."""
        self.page.wait_for_function(SETTLED)

    def serious(self) -> list[str]:
        """What axe finds serious.   Shape: "rule at selectors: why"."""
        if not self.page.evaluate("() => 'axe' in window"):
            self.page.evaluate(_axe())
        return [
            f"{one['id']} at {one['where']}: {one['why']}"
            for one in self.page.evaluate(FINDINGS)
            if one["impact"] in SERIOUS
        ]

    def too_wide(self) -> int:
        """By how many pixels the page is wider than its screen."""
        wider: int = self.page.evaluate(WIDER_THAN_SCREEN)
        return wider


def sit_down(browser: Any, base: str, user: User, **options: Any) -> Desk:
    """Give a signed-in window; what its console complains of is kept."""
    given = {
        "viewport": WIDE,
        "color_scheme": "dark",
        "reduced_motion": "reduce",
        **options,
    }
    context = browser.new_context(**given)
    client = Client()
    client.force_login(user)
    cookie = client.cookies[settings.SESSION_COOKIE_NAME].value
    context.add_cookies(
        [{"name": settings.SESSION_COOKIE_NAME, "value": cookie, "url": base}]
    )
    page = context.new_page()
    page.set_default_timeout(20_000)
    desk = Desk(page, base)
    page.on("console", lambda said: _keep(desk, said.type, said.text))
    page.on("pageerror", lambda error: _keep(desk, "error", str(error)))
    return desk


def _keep(desk: Desk, kind: str, text: str) -> None:
    if kind in ("error", "warning"):
        desk.said.append(f"{kind}: {text}")


@lru_cache(maxsize=1)
def _axe() -> str:
    source = importlib.resources.files("axe_playwright_python") / "axe.min.js"
    return source.read_text()
