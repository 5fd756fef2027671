"""What a long-lived process does once, when all that it will need is loaded.

Python's collector walks every object that lives, now and then, inside whichever
request happens to be asked: a third of a million objects, 0.2 s or more. What lives
from the start lives to the end, so it is put out of the collector's sight once.
Source: docs/decisions/0040-the-collector-leaves-start-up-alone.md
"""

import gc
from pathlib import Path
from typing import Any

from django.conf import settings
from django.template import engines
from django.template.utils import get_app_template_dirs
from django.urls import get_resolver


def load_pages() -> int:
    """Import every view and compile every template of ours; return how many of those.

    Otherwise the first to ask for a page waits for that, and it is allocated late.
    """
    assert get_resolver().url_patterns
    engine: Any = engines["django"]
    ours = map(Path, (*engine.engine.dirs, *get_app_template_dirs("templates")))
    names = [
        path.relative_to(folder).as_posix()
        for folder in ours
        if folder.is_relative_to(settings.BASE_DIR) and ".venv" not in folder.parts
        for path in folder.rglob("*.html")
    ]
    for name in names:
        engine.get_template(name)
    return len(names)


def freeze() -> int:
    """Let the collector leave alone all that lives now; return how many objects.

    Again: what came since is looked after as ever.
    """
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()
    return gc.get_freeze_count()
