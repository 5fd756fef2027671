"""The real tree keeps every rule."""

from pathlib import Path

import pytest

from tests.house import lists, rules

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", rules.RULES)
def test_tree_keeps_the_rule(name):
    violations = rules.RULES[name](ROOT)

    assert violations == []


def test_every_floor_is_inhabited():
    apps = {path.parent.name for path in (ROOT / "apps").glob("*/__init__.py")}

    assert apps == set(lists.FLOOR_OF)


def test_every_exemption_is_still_needed():
    stale = [path for path in lists.OUTWARD_EXEMPT if not (ROOT / path).exists()]

    assert stale == []
