"""What is deployed: unprivileged, pinned, watched, and starting what exists."""

import configparser
import re
from pathlib import Path

import pytest
import yaml
from django.core.management import get_commands, load_command_class

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
PINNED = re.compile(r"^[a-z]+:\d+\.\d+(\.\d+)?-[a-z]+$")


def manage_py_line(words):
    return words[words.index("manage.py") + 1 :] if "manage.py" in words else []


def check_command(words):
    line = manage_py_line(words)
    if line:
        command = load_command_class(get_commands()[line[0]], line[0])
        command.create_parser("manage.py", line[0]).parse_args(line[1:])


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_unit_is_unprivileged_and_starts_what_exists(path):
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(path)
    service = unit["Service"]

    assert service["User"] == "polar"
    assert service["NoNewPrivileges"] == "true"
    assert service["ProtectSystem"] == "strict"
    assert service["Restart"] == "always"
    check_command(service["ExecStart"].replace("%i", "1").split())


def test_target_wants_every_unit():
    target = (ROOT / "deploy" / "systemd" / "polar.target").read_text()

    assert all(path.name.split("@")[0].split(".")[0] in target for path in UNITS)


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_service_is_pinned_watched_and_not_root(name):
    service = COMPOSE["services"][name]

    if "build" not in service:
        assert PINNED.match(service["image"])
    elif name != "migrate":
        assert service["healthcheck"]["test"][0] == "CMD"
        check_command(service["healthcheck"]["test"])
    if name != "postgres":  # its image drops to its own user by itself
        assert not service["user"].startswith("0")
    check_command(service.get("command", []))


def test_image_is_pinned_and_not_root():
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)

    assert all(re.match(r"^python:\d+\.\d+\.\d+-slim-\w+$", base) for base in bases)
    assert "--require-hashes" in text
    assert text.index("USER polar") < text.index("CMD")
