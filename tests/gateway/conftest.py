"""A witness of its own for every test, forgotten afterwards."""

from collections.abc import Iterator

import pytest

from apps.audit.engine import memory


@pytest.fixture(autouse=True)
def witness(settings, tmp_path) -> Iterator[None]:
    settings.POLAR_WITNESS_DIR = tmp_path / "witness"
    settings.POLAR_WITNESS_DIR.mkdir()
    memory.forget()
    yield
    memory.forget()
