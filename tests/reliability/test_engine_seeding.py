"""A fresh install: made once, and left alone afterwards."""

import pytest
from django.core.management import call_command

from apps.access.models import User
from apps.agents.models import AgentProfile
from apps.boards.models import Task
from apps.reliability.engine import seeding
from apps.runs.models import Run, Schedule

pytestmark = pytest.mark.django_db


def counted():
    return [m.objects.count() for m in (User, AgentProfile, Task, Schedule)]


def test_seed_on_a_fresh_install_lets_the_operator_sign_in():
    seeded = seeding.seed()

    user = User.objects.get(username=seeded.username)
    assert user.check_password(seeded.password)


def test_seed_when_repeated_changes_nothing_and_makes_no_password():
    seeding.seed()
    before = counted()

    again = seeding.seed()

    assert again.password == ""
    assert counted() == before


def test_seed_makes_definitions_and_no_runs():
    seeding.seed()

    assert Schedule.objects.get().slug == seeding.SCHEDULE
    assert not Run.objects.exists()


def test_seed_demo_prints_the_password_once(capsys):
    call_command("seed_demo")
    first = capsys.readouterr().out

    call_command("seed_demo")

    assert "Password:" in first
    assert capsys.readouterr().out == ""
