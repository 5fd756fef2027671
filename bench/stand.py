"""A throw-away installation to measure: its database, its keys, its one agent.

Import this before anything of Django: it sets the environment that settings read.
POLAR_BENCH_HOME names a folder to keep it in, so that a long fill is made once.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kept:
    """A folder that outlives the measurement, named as a temporary one is."""

    name: str


HOME: Kept | tempfile.TemporaryDirectory[str]
if os.environ.get("POLAR_BENCH_HOME"):
    HOME = Kept(os.environ["POLAR_BENCH_HOME"])
    Path(HOME.name).mkdir(parents=True, exist_ok=True)
else:
    HOME = tempfile.TemporaryDirectory(prefix="polar-bench-")
SETTINGS = "tests.settings"


@dataclass(frozen=True)
class Stand:
    """What the measurements act with."""

    backend: str
    workspace: Any
    principal: Any
    agent: Any


@contextlib.contextmanager
def database(backend: str, *, durable: bool = False) -> Iterator[str]:
    """Give a fresh database of this kind, as its URL."""
    if backend == "sqlite":
        yield f"sqlite:///{Path(HOME.name) / 'bench.db'}"
        return
    if os.environ.get("DATABASE_URL"):
        yield os.environ["DATABASE_URL"]
        return
    from tests import services

    home = Path(HOME.name) / "postgres"
    home.mkdir(exist_ok=True)
    Path(HOME.name).chmod(0o755)
    home.chmod(0o755)
    with services.postgres(home, durable=durable) as url:
        found = (home / "data" / "postmaster.pid").read_text().split()[0]
        os.environ["POLAR_BENCH_POSTMASTER"] = found
        yield url


@contextlib.contextmanager
def broker(wanted: bool) -> Iterator[None]:
    """A throw-away Redis for the workers, if it is wanted."""
    if not wanted:
        os.environ["REDIS_URL"] = ""
        yield
        return
    from tests import services

    home = Path(HOME.name) / "redis"
    home.mkdir()
    with services.redis(home) as url:
        os.environ["REDIS_URL"] = url
        yield


def build(
    backend: str, url: str, *, delay_seconds: float, has_tables: bool = False
) -> Stand:
    """Set Django up on the database and seed what a turn needs."""
    os.environ["DATABASE_URL"] = url
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    os.environ["LOG_LEVEL"] = "ERROR"
    import django

    django.setup()
    _point_files_home()
    if not has_tables:
        _make_tables()
    return _seed(backend, delay_seconds)


def again(url: str) -> None:
    """Set Django up on a kept database, brought to the tables of today."""
    os.environ["DATABASE_URL"] = url
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    os.environ["LOG_LEVEL"] = "ERROR"
    import django

    django.setup()
    _point_files_home()
    _make_tables()


def _point_files_home() -> None:
    from django.conf import settings

    settings.POLAR_WITNESS_DIR = Path(HOME.name) / "witness"
    settings.POLAR_WITNESS_DIR.mkdir(mode=0o700, exist_ok=True)
    settings.POLAR_SINK_FILE = ""


def _make_tables() -> None:
    """Migrate; an app without migrations gets its tables from its models."""
    from django.apps import apps
    from django.conf import settings
    from django.core.management import call_command

    bare = [
        config.label
        for config in apps.get_app_configs()
        if config.name.startswith("apps.")
        and list(config.get_models())
        and not list((Path(config.path) / "migrations").glob("0*.py"))
    ]
    if bare:
        settings.MIGRATION_MODULES = {c.label: None for c in apps.get_app_configs()}
    call_command("migrate", verbosity=0, run_syncdb=bool(bare))


def _seed(backend: str, delay_seconds: float) -> Stand:
    from apps.access import services as access
    from apps.agents import services as agents
    from apps.extensions import services as extensions
    from apps.gateway import services as gateway

    workspace = access.ensure_default_workspace()
    system = access.system_principal()
    agents.install_default_profiles(workspace=workspace, by=system)
    gateway.install_shipped_grants(by=system)
    extensions.sync_shipped_plugin(version="bench")
    _script_the_model(delay_seconds)
    agent = access.principal_for_agent(slug="bench", workspace=workspace)
    return Stand(backend, workspace, system, agent)


def _script_the_model(delay_seconds: float) -> None:
    """One provider that answers at once, or after a while when told "wait"."""
    from apps.providers.models import Lane, Model, Provider, Route

    rules = [{"match": "wait", "delay_seconds": delay_seconds, "reply": "I waited."}]
    provider, _ = Provider.objects.update_or_create(
        slug="scripted", defaults={"kind": "scripted", "settings": {"rules": rules}}
    )
    model, _ = Model.objects.get_or_create(provider=provider, name="scripted")
    for lane in Lane:
        if not Route.objects.filter(lane=lane).exists():
            Route.objects.create(lane=lane, position=0, model=model)


def worker_command(concurrency: int) -> list[str]:
    return [
        sys.executable,
        "manage.py",
        "worker",
        f"--concurrency={concurrency}",
        "--queues=default",
    ]
