"""The lines of the how-to of the API are run as they stand, against a server."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command

from apps.access import services
from apps.access.models import Role
from polar_site.api import api
from tests import people
from tests.journeys.install import BLOCK, PROMISE

PAGE = Path(settings.BASE_DIR) / "docs" / "how-to" / "api.md"


@pytest.mark.django_db(transaction=True)
def test_every_line_answers_what_it_promises(live_server, tmp_path):
    call_command("seed_demo")
    system = services.system_principal()
    _, raw = services.issue_token(
        by=system, principal=system, name="how-to", scopes=["*"], held=frozenset({"*"})
    )
    (tmp_path / "token.txt").write_text(raw)
    lines, promised = ["set -eu"], []
    for line in "".join(BLOCK.findall(PAGE.read_text())).splitlines():
        found = PROMISE.match(line)
        if found:
            promised.append(found["said"])
            line = f"{{ {found['line']}; }} | sed 's/^/answered: /'"
        lines.append(line)

    done = subprocess.run(
        ["/bin/sh", "-c", "\n".join(lines)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "POLAR": live_server.url},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert re.findall(r"^answered: (.*)$", done.stdout, re.MULTILINE) == promised


@pytest.fixture
def page(client, workspace):
    client.force_login(people.person("vera", Role.VIEWER, workspace))
    return client.get("/api/v1/docs")


@pytest.mark.django_db
def test_page_shows_every_operation(page):
    html = page.content.decode()
    wanted = [
        operation["operationId"]
        for methods in api.get_openapi_schema()["paths"].values()
        for operation in methods.values()
    ]

    assert [name for name in wanted if f">{name}<" not in html] == []


@pytest.mark.django_db
def test_page_brings_no_script_of_another_site(page):
    html = page.content.decode()

    assert re.findall(r'(?:src|href)="(?:https?:)?//', html) == []
    assert "<script>" not in html


@pytest.mark.django_db
def test_page_when_stranger_then_asks_to_sign_in(client):
    assert client.get("/api/v1/docs").headers["Location"].startswith("/login/")
    assert client.get("/api/v1/openapi.json").status_code == 401


@pytest.mark.django_db
def test_page_when_no_role_then_refused(client, workspace):
    client.force_login(people.stranger("nobody"))

    assert client.get("/api/v1/docs").status_code == 403
