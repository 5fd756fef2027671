"""`.env.example` and the settings name the same variables."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READ = re.compile(r"""(?:env(?:\.\w+)?|secret)\(\s*["']([A-Z][A-Z0-9_]+)["']""")


def read_by_settings() -> set[str]:
    return set(READ.findall((ROOT / "polar_site" / "settings.py").read_text()))


def explained() -> set[str]:
    text = (ROOT / ".env.example").read_text()
    return set(re.findall(r"^([A-Z][A-Z0-9_]+)=", text, re.MULTILINE))


def test_every_variable_read_is_explained():
    assert read_by_settings() - explained() == set()


def test_every_variable_explained_is_read():
    assert explained() - read_by_settings() == set()


def test_a_secret_has_no_value_in_the_example():
    text = (ROOT / ".env.example").read_text()

    filled = re.findall(r"^(\w*(?:KEY|KEYS|SECRET|TOKEN))=\S+", text, re.MULTILINE)

    assert filled == []
