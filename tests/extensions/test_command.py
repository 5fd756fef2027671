"""`./polar extensions`: the desk from a shell, through the same services."""

import io
import json
import zipfile

import pytest
from django.core.management import CommandError, call_command

from apps.extensions.models import Extension

from .conftest import SKILL


def polar(*words: str):
    out = io.StringIO()
    call_command("extensions", *words, "--json", stdout=out)
    return json.loads(out.getvalue())


@pytest.fixture
def folder(tmp_path, workspace):
    for name, data in SKILL.items():
        path = tmp_path / "invoices" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "invoices"


def test_install_review_enable_stop(folder):
    taken = polar("install", str(folder), "--source", "https://example.org")
    assert taken["lifecycle"] == "installed"

    form = taken["definitionHash"]
    polar("review", "invoices", "--hash", form, "--approve", "--reason", "read it")
    assert polar("enable", "invoices", "--reason", "ready")["lifecycle"] == "enabled"

    stopped = polar("revoke", "invoices", "--reason", "loops")
    assert stopped["trust"] == "blocked"
    assert stopped["certificate"]["unconfirmed"] == 0


def test_list_and_inspect(folder):
    polar("install", str(folder))

    assert [each["extensionId"] for each in polar("list")] == ["invoices"]
    assert polar("inspect", "invoices")["definition"]["package"]


def test_unknown_name_is_an_error(workspace):
    with pytest.raises(CommandError, match="POLAR_NOT_FOUND"):
        polar("inspect", "nothing")


def test_link_in_a_folder_is_refused(folder):
    (folder / "passwd").symlink_to("/etc/passwd")

    with pytest.raises(CommandError, match="a link or device"):
        polar("install", str(folder))
    assert not Extension.objects.exists()


@pytest.mark.parametrize(
    "name", ["../evil.py", "/etc/evil", "a\\b", "a/../../evil", "C:evil", "a\x01b"]
)
def test_zip_that_leaves_its_folder_is_refused(tmp_path, workspace, name):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("SKILL.md", SKILL["SKILL.md"])
        archive.writestr(name, "x")

    with pytest.raises(CommandError, match="refused"):
        polar("install", str(path))


def test_zip_with_a_link_is_refused(tmp_path, workspace):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("SKILL.md", SKILL["SKILL.md"])
        link = zipfile.ZipInfo("passwd")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")

    with pytest.raises(CommandError, match="a link or device"):
        polar("install", str(path))


def test_zip_bomb_is_refused(tmp_path, workspace):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("SKILL.md", SKILL["SKILL.md"])
        archive.writestr("big", b"\0" * 7_000_000)

    with pytest.raises(CommandError, match="unpacks to far more"):
        polar("install", str(path))
