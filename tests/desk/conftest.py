"""A store that has been lived in."""

import pytest

from tests.desk import lived_in


@pytest.fixture
def home(db: None, folders: None) -> lived_in.Home:
    return lived_in.furnish()
