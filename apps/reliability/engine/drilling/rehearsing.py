"""One rehearsal from the inside: make the clone ready, start it, play, export.

Called by `manage.py rehearse` in a process of the clone's own, never elsewhere.
"""

import json
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command

from apps.access import queries as access
from apps.access import services as access_services
from apps.agents import services as agents
from apps.agents.models import AgentProfile
from apps.audit import services as audit
from apps.common.errors import Conflict, PolarError
from apps.providers import services as providers
from apps.providers.models import Provider
from apps.reliability import ports
from apps.reliability.engine import cloning, seeding, shelf
from apps.reliability.engine.drilling import casting
from apps.reliability.engine.drilling.asking import (
    CONCURRENCY,
    LANES,
    LOOPERS,
    SLOW,
    give_rules,
    rules_of,
)
from apps.reliability.engine.drilling.notebook import notebook


def rehearse(slug: str, *, control: bool) -> dict[str, Any]:
    """Play one drill in this clone; leave journal, export and facts in its folder.

    Raises: Conflict outside a clone.
    """
    if not settings.POLAR_CLONE:
        raise Conflict("A rehearsal is played in a clone: ./polar drill run")
    drill, cast = shelf.get(slug), casting.of(slug)
    notebook.kept["control"] = control
    stage = ports.stage()
    troupe = notebook.kept["troupe"] = {}
    try:
        _make_ready()
        if cast.prepare is not None:
            cast.prepare()
        if control:
            cast.remove_protection()
        audit.seal_all()
        troupe["worker"] = stage.spawn("worker", "--concurrency", CONCURRENCY)
        troupe["clock"] = stage.spawn("clock")
        notebook.tell("ok", "The clone is ready; its worker and clock start")
        journal = stage.play(drill.experiment)
    finally:
        for each in troupe.values():
            each.end()
    if cast.tidy is not None:
        cast.tidy()
    (notebook.folder / cloning.JOURNAL).write_text(json.dumps(journal, sort_keys=True))
    _leave(notebook.folder)
    return journal


def _make_ready() -> None:
    notebook.tell("running", "Making the clone ready")
    cloning.move_in(notebook.folder)
    call_command("migrate", verbosity=0)
    seeding.seed()
    system = access_services.system_principal()
    workspace = access.default_workspace()
    for row in Provider.objects.all():
        providers.remove_provider(by=system, slug=row.slug)
    for lane in LANES:
        entry = providers.ProviderEntry(slug=f"drill-{lane}", kind="scripted")
        providers.add_provider(by=system, entry=entry, model=f"model-{lane}", lane=lane)
        give_rules(lane, rules_of(lane))
    for slug, changes in _profiles().items():
        agents.save_profile(
            by=system,
            workspace=workspace,
            slug=slug,
            changes=changes,
            expected_version=_version(slug),
        )
    audit.seal_all()


def _version(slug: str) -> int:
    found = AgentProfile.objects.filter(slug=slug).first()
    return found.version if found else 0


def _profiles() -> dict[str, dict[str, Any]]:
    parent, child = LOOPERS
    return {
        "primary": {"lane": "brain"},
        SLOW: {"title": "Slow", "lane": "worker"},
        parent: {
            "title": "Parent",
            "lane": "brain",
            "allowed_handoff_targets": [child],
            "max_depth": 1000,
        },
        child: {
            "title": "Child",
            "lane": "worker",
            "allowed_handoff_targets": [parent],
            "max_depth": 1000,
        },
    }


def _leave(folder: Path) -> None:
    """Export the log and write down under what it was played."""
    system = access_services.system_principal()
    with suppress(PolarError):  # a control may have rolled the log back
        audit.checkpoint()
    audit.export(folder / cloning.EXPORT, by=system.actor)
    (folder / cloning.FACTS).write_text(json.dumps(facts(), sort_keys=True))


def facts() -> dict[str, Any]:
    """Under what it was played, and what was seen under the fault."""
    return {
        "python": sys.version.split()[0],
        "sqlite": sqlite3.sqlite_version,
        "platform": sys.platform,
        "observed": {
            name: {"held": held, "found": found}
            for name, (held, found) in notebook.seen.items()
        },
    }
