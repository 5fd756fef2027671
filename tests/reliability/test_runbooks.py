"""The runbooks' commands are run as they are written; none may go stale."""

import re
import shlex
from pathlib import Path

import pytest
from django.core.management import call_command

from apps.access import services as access
from apps.agents import services as agents
from apps.providers import services as providers

BOOKS = Path(__file__).resolve().parents[2] / "docs" / "runbooks"
FOLLOWED = (
    "provider-failover",
    "vault-recovery",
    "extension-kill-switch",
    "deploy",
    "secret-rotation",
    "invalid-execute-request",
)
COMMAND = re.compile(r"`\./polar ([^`]+)`")


def commands(book):
    return COMMAND.findall((BOOKS / f"{book}.md").read_text())


@pytest.fixture
def install(workspace):
    system = access.system_principal()
    agents.install_default_profiles(by=system, workspace=workspace)
    providers.sync_from_env()


@pytest.mark.parametrize("book", FOLLOWED)
def test_every_command_of_a_runbook_runs(book, install, capsys):
    found = commands(book)
    assert found

    for line in found:
        try:
            call_command(*shlex.split(line))
        except SystemExit as left:
            assert left.code in (0, None), line  # noqa: PT017 (--help leaves so)


@pytest.mark.parametrize("book", FOLLOWED)
def test_every_link_of_a_runbook_leads_somewhere(book, client, alice):
    client.force_login(alice)
    text = (BOOKS / f"{book}.md").read_text()
    inside = re.findall(r"\]\((/[^)]*)\)", text)
    beside = re.findall(r"\]\(([a-z-]+\.md)\)", text)

    assert [path for path in inside if client.get(path).status_code != 200] == []
    assert [name for name in beside if not (BOOKS / name).exists()] == []


def test_every_page_of_a_runbook_stands_in_the_table():
    table = (BOOKS / "README.md").read_text()

    assert [book for book in (*FOLLOWED, "run-locally") if book not in table] == []
