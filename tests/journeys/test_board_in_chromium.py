"""Two operators at one board in a real browser: drag, keyboard, phone, a lost feed.

POLAR_SCREENS names a folder in which each step leaves its picture.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.access import services as access
from apps.access.models import Role
from apps.boards import services
from apps.boards.models import Board, Task
from tests import people

pytestmark = pytest.mark.journey

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
SCREENS = os.environ.get("POLAR_SCREENS", "")


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Chromium of this test's own; its driver keeps a loop in our thread."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def board(transactional_db: None) -> Board:
    workspace = access.ensure_default_workspace()
    for name in ("alice", "bob"):
        people.person(name, Role.OPERATOR, workspace)
    return services.ensure_board(
        by=access.system_principal(), workspace=workspace, slug="default", title="Tasks"
    )


@pytest.fixture
def task(board: Board) -> Task:
    draft = services.TaskDraft(title="Water the plants")
    return services.upsert_task(by=access.system_principal(), board=board, draft=draft)


@pytest.fixture
def sit(browser: Any, live_server: Any, board: Board) -> Any:
    """Let somebody sit down at the board."""

    def sit_down(name: str, viewport: dict[str, int], **options: Any) -> Any:
        page = browser.new_context(viewport=viewport, **options).new_page()
        page.set_default_timeout(8000)
        page.goto(f"{live_server.url}/boards/{board.id}/")
        page.fill("input[name=username]", name)
        page.fill("input[name=password]", people.PASSWORD)
        page.press("input[name=password]", "Enter")
        page.wait_for_selector("#board-live")
        return page

    return sit_down


def picture(page: Any, name: str) -> None:
    if SCREENS:
        page.wait_for_timeout(400)
        page.screenshot(path=str(Path(SCREENS) / f"board-{name}.png"))


def hears_nothing(page: Any) -> None:
    """From now on the page's feed says that nothing changed."""
    page.route("**/live/**", lambda route: route.fulfill(status=204))


def test_two_operators_move_one_card_and_one_is_told_why_not(sit: Any, task: Task):
    alice, bob = sit("alice", WIDE), sit("bob", WIDE)
    hears_nothing(alice)

    card = f"#card-{task.id}"
    bob.drag_and_drop(card, '[data-status="blocked"]')
    bob.wait_for_selector(f'[data-status="blocked"] {card}')
    alice.drag_and_drop(card, '[data-status="done"]')
    told = alice.wait_for_selector("#board-said .toast")

    picture(alice, "told-why-not")
    assert "bob moved it from todo to blocked" in told.inner_text()
    assert alice.query_selector(f'[data-status="blocked"] {card}')
    task.refresh_from_db()
    assert (task.status, task.version) == ("blocked", 2)


def test_move_is_not_lost_behind_a_slow_look_at_the_board(sit: Any, task: Task):
    page = sit("alice", WIDE)
    waiting: list[Any] = []
    page.route("**/live/**", lambda route: waiting.append(route))
    with page.expect_request("**/live/**"):
        pass

    page.drag_and_drop(f"#card-{task.id}", '[data-status="blocked"]')
    page.wait_for_selector(f'[data-status="blocked"] #card-{task.id}')

    assert len(waiting) == 1
    task.refresh_from_db()
    assert (task.status, task.version) == ("blocked", 2)


def test_keyboard_moves_a_card_and_says_so(sit: Any, task: Task):
    page = sit("alice", WIDE)

    page.focus(f"#task-{task.id}")
    page.keyboard.press("m")
    picture(page, "keyboard")
    page.keyboard.press("2")
    page.wait_for_selector(f'[data-status="in_progress"] #card-{task.id}')

    said = page.locator("#board-said").inner_text()
    assert "Moved “Water the plants” to In progress." in said
    focused = page.evaluate("document.activeElement.id")
    assert focused == f"task-{task.id}"


def test_phone_moves_a_card_by_its_button(sit: Any, task: Task):
    page = sit("alice", PHONE, has_touch=True, color_scheme="dark")

    picture(page, "phone-dark")
    page.tap(f"#move-{task.id}")
    picture(page, "phone-dark-move")
    page.tap('#mover [data-to="done"]')
    page.wait_for_selector(f'[data-status="done"] #card-{task.id}')

    picture(page, "phone-dark-moved")
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")


def test_card_moved_elsewhere_appears_by_itself(sit: Any, task: Task):
    page = sit("alice", WIDE)

    services.transition_task(
        by=access.system_principal(),
        task_id=task.id,
        status="done",
        expected_version=1,
    )

    assert page.wait_for_selector(f'[data-status="done"] #card-{task.id}')


def test_move_without_an_answer_is_said_and_moves_nothing(sit: Any, task: Task):
    page = sit("alice", WIDE)
    page.route("**/move/**", lambda route: route.abort())

    page.focus(f"#task-{task.id}")
    page.keyboard.press("m")
    page.keyboard.press("4")
    page.locator("#board-said", has_text="did not answer").wait_for(state="attached")
    picture(page, "no-answer")

    assert page.query_selector(f'[data-status="todo"] #card-{task.id}')
