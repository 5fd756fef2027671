"""IN with its words spelled out."""

import pytest
from django.db import connection

from apps.gateway.models import Call, CallState


def test_among_when_on_sqlite_then_the_partial_index_serves(db: None) -> None:
    wanted = Call.objects.unfinished(CallState.EXECUTING).order_by("-id")

    plan = wanted.explain()

    if connection.vendor == "sqlite":
        assert "call_unfinished" in plan


def test_among_when_a_word_is_no_choice_then_refused(db: None) -> None:
    with pytest.raises(ValueError, match="words of a choice"):
        Call.objects.filter(state__among=["x' OR 1=1 --"]).exists()
