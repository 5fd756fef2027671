"""What is drawn from the code is up to date, and every template compiles."""

from pathlib import Path

import pytest
from django.template import engines

from tests.house import generated

AGAIN = "run: python -m tests.house.regenerate"
ROOT = generated.ROOT
TEMPLATES = sorted(
    [
        *(ROOT / "templates").rglob("*.html"),
        *(ROOT / "apps").glob("*/templates/**/*.html"),
    ]
)


def test_state_diagrams_are_up_to_date():
    kept = {path.name: path.read_text() for path in generated.STATES.glob("*.md")}

    assert kept == generated.diagrams(), AGAIN


def test_openapi_snapshot_is_up_to_date():
    assert generated.OPENAPI.read_text() == generated.openapi(), AGAIN


@pytest.mark.parametrize(
    "path", TEMPLATES, ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_template_compiles(path: Path):
    engines["django"].from_string(path.read_text())
