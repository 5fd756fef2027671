"""Two ways to work at the desk: with the mouse, or with nothing but the keyboard.

The keyboard goes where a keyboard can: the palette ("/") to any page, Tab from one
thing to the next. What Tab does not reach does not exist for it.
"""

from typing import Any, Protocol
from urllib.parse import quote

from tests.desk.browser import Desk

#: More presses of Tab than any page may need to get anywhere.
FAR = 250
IS_FOCUSED = "element => element === document.activeElement"


class Hand(Protocol):
    """What an operator does on a page; every target is a CSS selector."""

    def open(self, name: str) -> None: ...
    def find(self, words: str) -> None: ...
    def press(self, target: str) -> None: ...
    def write(self, target: str, text: str) -> None: ...
    def choose(self, target: str, label: str) -> None: ...


class Mouse:
    """Points and clicks."""

    def __init__(self, desk: Desk) -> None:
        self.page: Any = desk.page

    def open(self, name: str) -> None:
        with self.page.expect_navigation():
            self.page.click(f'#nav a:text-is("{name}")')

    def find(self, words: str) -> None:
        asked = f"q={quote(words)}"
        with self.page.expect_response(lambda answer: asked in answer.url):
            self.page.fill("#q", words)
        self.page.wait_for_selector("#hits.htmx-settling", state="detached")
        with self.page.expect_navigation():
            self.page.click("#hits a")

    def press(self, target: str) -> None:
        self.page.click(target)
        self.page.wait_for_load_state("load")

    def write(self, target: str, text: str) -> None:
        self.page.fill(target, text)

    def choose(self, target: str, label: str) -> None:
        self.page.select_option(target, label=label)


class Keyboard:
    """Never touches the mouse."""

    def __init__(self, desk: Desk) -> None:
        self.page: Any = desk.page
        self.keys: Any = desk.page.keyboard

    def open(self, name: str) -> None:
        self.find(name)

    def find(self, words: str) -> None:
        self.keys.press("/")
        self.keys.type(words)
        with self.page.expect_navigation():
            self.keys.press("Enter")

    def press(self, target: str) -> None:
        self._reach(target)
        self.keys.press("Enter")
        self.page.wait_for_load_state("load")

    def write(self, target: str, text: str) -> None:
        self._reach(target)
        self.keys.press("Control+A")
        self.keys.type(text)

    def choose(self, target: str, label: str) -> None:
        self._reach(target)
        self.keys.type(label)

    def _reach(self, target: str) -> None:
        wanted = self.page.wait_for_selector(target, state="attached")
        for _ in range(FAR):
            if wanted.evaluate(IS_FOCUSED):
                return
            self.keys.press("Tab")
        raise AssertionError(f"Tab never reaches {target}")
