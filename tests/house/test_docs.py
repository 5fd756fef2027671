"""The documents point at things that exist."""

import re
from pathlib import Path

import pytest
from django.apps import apps

ROOT = Path(__file__).resolve().parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OURS = [model for model in apps.get_models() if model.__module__.startswith("apps.")]


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_glossary_explains_every_table(model):
    text = (ROOT / "docs" / "glossary.md").read_text()

    assert f"| `{model.__name__}` ({model._meta.app_label}) |" in text


def test_glossary_names_no_table_that_is_gone():
    text = (ROOT / "docs" / "glossary.md").read_text()
    named = set(re.findall(r"^\| `(\w+)` \((\w+)\) \|", text, re.MULTILINE))

    assert named == {(model.__name__, model._meta.app_label) for model in OURS}


def test_decision_numbers_are_unique_and_without_gap():
    names = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("*.md"))

    numbers = [int(name[:4]) for name in names]

    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_test_that_a_document_names_exists(path):
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", path.read_text())

    for file, test in named:
        source = (ROOT / file).read_text()
        assert not test or f"def {test}(" in source, f"{file}::{test}"


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_link_of_a_document_leads_somewhere(path):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())

    assert [link for link in links if not (path.parent / link).exists()] == []
