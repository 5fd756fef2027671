"""`manage.py runs`: what the desk can do, the shell can do. And `manage.py worker`."""

import json
import os

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils.module_loading import import_string

from apps.common import clock
from apps.runs.models import Run, State


def said(capsys, *arguments: str):
    call_command("runs", *arguments, "--json")
    return json.loads(capsys.readouterr().out)


def test_act_goes_on_until_nothing_matches(enqueue, capsys):
    for reason in ("poison", "poison", "budget"):
        run = enqueue()
        Run.objects.filter(id=run.id).update(
            state=State.DEAD_LETTER, reason=reason, finished_at=clock.now()
        )

    found = said(capsys, "act", "dismiss", "--why", "poison", "--reason", "known")

    assert found == {"done": 2, "left": 0, "refused": []}
    assert Run.objects.filter(state=State.DEAD_LETTER).count() == 1


def test_replay_of_a_kind_without_a_journal_says_so(enqueue):
    with pytest.raises(CommandError, match="keep no journal"):
        call_command("runs", "replay", str(enqueue().id))


def test_effects_of_a_run_that_did_nothing_are_none(enqueue, capsys):
    assert said(capsys, "effects", str(enqueue().id)) == []


@pytest.mark.parametrize(
    ("vendor", "lowered"), [("postgresql", [True]), ("sqlite", [])]
)
def test_worker_lets_the_web_go_first(monkeypatch, vendor, lowered):
    done = []
    monkeypatch.setattr(connection, "vendor", vendor)
    app = import_string(settings.CELERY_APP)
    monkeypatch.setattr(os, "nice", lambda by: done.append(by > 0))
    monkeypatch.setattr(app, "worker_main", lambda words: done.append(words[1]))

    call_command("worker")

    assert done == [*lowered, "worker"]
