"""The runbook of a lost key names only commands and page actions that exist."""

import re
import shlex
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import load_command_class

from apps.vault import views

RUNBOOK = Path(settings.BASE_DIR) / "docs" / "runbooks" / "lost-vault-key.md"
TEXT = RUNBOOK.read_text()
COMMANDS = sorted(set(re.findall(r"`\./polar vault ([^`<]+)", TEXT)))


@pytest.mark.parametrize("line", COMMANDS)
def test_command_of_the_runbook_is_understood(line):
    parser = load_command_class("apps.vault", "vault").create_parser("polar", "vault")

    assert parser.parse_args(shlex.split(line)).verb == shlex.split(line)[0]


@pytest.mark.parametrize(
    ("words", "action"),
    [
        ("Bring the secrets back", "recover"),
        ("Accept the loss", "accept-loss"),
        ("Finish", "finish"),
        ("Prove a backup", "verify"),
    ],
)
def test_button_of_the_runbook_is_on_the_page(words, action):
    page = Path(views.__file__).parent / "templates" / "vault" / "status.html"

    assert words in TEXT
    assert words in page.read_text()
    assert action in views.ACTIONS
