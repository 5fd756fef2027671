"""The order of a plan, and what serving from each place means."""

import pytest

from apps.access.models import Workspace
from apps.providers import queries
from apps.providers.engine import plan
from apps.providers.engine.plan import Fallback, Wish
from tests.providers import builders

pytestmark = pytest.mark.django_db


def names(wish: Wish) -> list[str]:
    made = plan.build(wish, queries.plan_routes())
    return [step.name for step in made.steps]


@pytest.fixture
def lanes(workspace: Workspace) -> None:
    url = "http://127.0.0.1:9/v1"
    for lane, slug in (
        ("brain", "b1"),
        ("brain", "b2"),
        ("worker", "w1"),
        ("local", "l1"),
    ):
        builders.route(lane, slug, url, model="m")


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish("brain"), ["b1/m", "b2/m", "w1/m", "l1/m"]),
        (Wish("worker"), ["w1/m", "l1/m"]),
        (Wish("local"), ["l1/m"]),
        (
            Wish("brain", fallbacks=(Fallback("w1", "m"), Fallback("gone"))),
            ["b1/m", "w1/m", "gone", "b2/m", "l1/m"],
        ),
    ],
)
def test_the_plan_goes_down_and_never_twice(
    lanes: None, wish: Wish, expected: list[str]
) -> None:
    assert names(wish) == expected


def test_a_pin_comes_first(lanes: None) -> None:
    pinned = next(r for r in queries.plan_routes() if r.lane == "local")

    assert names(Wish("brain", pinned.model_id)) == ["l1/m", "b1/m", "b2/m", "w1/m"]


def test_the_scripted_model_joins_drills(lanes: None) -> None:
    builders.route("local", "scripted", model="scripted")

    assert "scripted/scripted" not in names(Wish("local"))
    assert "scripted/scripted" in names(Wish("local", origin="drill"))


def test_an_unstaffed_lane_is_planned_and_a_lost_one_is_a_fallback(
    workspace: Workspace,
) -> None:
    builders.route("local", "l1", "http://127.0.0.1:9/v1", model="m")
    unstaffed = plan.build(Wish("brain"), queries.plan_routes())
    builders.route("brain", "b1", "http://127.0.0.1:9/v1", model="m")
    staffed = plan.build(Wish("brain"), queries.plan_routes())

    assert unstaffed.lane_change(unstaffed.steps[0]) == "planned"
    assert staffed.lane_change(staffed.steps[-1]) == "fallback"
    assert staffed.is_degraded(staffed.steps[-1])
    assert not unstaffed.is_degraded(unstaffed.steps[0])
