"""A long-lived process settles once what lives from its start to its end."""

import gc
from collections.abc import Iterator

import pytest
from django.conf import settings

from apps.common import settling


@pytest.fixture
def thawed() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_all_pages_are_compiled() -> None:
    there = [
        path
        for folder in ("templates", "apps")
        for path in (settings.BASE_DIR / folder).rglob("*.html")
    ]

    assert settling.load_pages() == len(there)


def test_what_lives_now_is_out_of_the_collectors_sight(thawed: None) -> None:
    lives = [[number] for number in range(1000)]

    frozen = settling.freeze()

    seen = {id(each) for each in gc.get_objects()}
    assert frozen > len(lives)
    assert not seen & {id(each) for each in lives}


def test_a_second_time_leaves_what_came_since_to_the_collector(thawed: None) -> None:
    frozen = settling.freeze()
    later = [[number] for number in range(1000)]

    assert settling.freeze() <= frozen
    assert id(later) in {id(each) for each in gc.get_objects()}
