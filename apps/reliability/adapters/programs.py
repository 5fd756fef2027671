"""pg_dump, pg_restore, and Polar itself, as programs of their own.

Passwords travel in the environment of the child, never in its arguments.
"""

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.conf import settings

from apps.common import ids
from apps.reliability.errors import SnapshotFailed

LONGEST_SECONDS = 3600
#: Django's settings of one database.
Store = dict[str, Any]


class Programs:
    """Runs them and says in words what they refuse."""

    def dump(self, store: Store, into: Path) -> None:
        """Write the store into one file in pg_dump's own format."""
        dump = [_find("pg_dump"), "--format=custom", "--no-owner", f"--file={into}"]
        self._run(store, dump)

    def load(self, store: Store, path: Path) -> None:
        """Replace the store in one transaction."""
        self._run(
            store,
            [
                _find("pg_restore"),
                "--clean",
                "--if-exists",
                "--no-owner",
                "--single-transaction",
                f"--dbname={store['NAME']}",
                str(path),
            ],
        )

    def verify(self, store: Store, path: Path) -> dict[str, Any]:
        """Recompute the log of a copy; no witness is asked."""
        if "sqlite" in store["ENGINE"]:
            return self._verify(f"sqlite:///{path}")
        scratch = f"polar_check_{ids.new_id().hex[-12:]}"
        self._run(store, [_find("createdb"), scratch])
        try:
            self._run(
                store,
                [
                    _find("pg_restore"),
                    "--no-owner",
                    "--exit-on-error",
                    f"--dbname={scratch}",
                    str(path),
                ],
            )
            return self._verify(_url(store, scratch))
        finally:
            self._run(store, [_find("dropdb"), "--if-exists", scratch])

    def _verify(self, url: str) -> dict[str, Any]:
        env = {**settings.ENVIRONMENT, "DATABASE_URL": url, "POLAR_WITNESS_DIR": ""}
        manage = settings.BASE_DIR / "manage.py"
        command = [sys.executable, str(manage), "audit", "verify", "--json"]
        done = self._call(command, env)
        with suppress(ValueError):
            found = json.loads(done.stdout)
            if isinstance(found, dict):
                return found
        raise SnapshotFailed(f"It cannot be opened: {_last(done.stderr)}")

    def _run(self, store: Store, command: list[str]) -> None:
        done = self._call(command, {**settings.ENVIRONMENT, **_address(store)})
        if done.returncode:
            program = Path(command[0]).name
            raise SnapshotFailed(f"{program}: {_last(done.stderr)}")

    def _call(
        self, command: list[str], env: dict[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run(  # noqa: S603 (argv of ours, no shell)
                command,
                env=env,
                cwd=settings.BASE_DIR,
                capture_output=True,
                text=True,
                timeout=LONGEST_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SnapshotFailed(f"{command[0]}: {error}") from error


def _find(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        homes = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
        found = str(homes[-1]) if homes else None
    if found is None:
        raise SnapshotFailed(
            f"{program} is not installed; install PostgreSQL's client programs."
        )
    return found


def _address(store: Store) -> dict[str, str]:
    found = {
        "PGHOST": store["HOST"],
        "PGPORT": store["PORT"],
        "PGUSER": store["USER"],
        "PGPASSWORD": store["PASSWORD"],
        "PGDATABASE": store["NAME"],
    }
    return {name: str(value) for name, value in found.items() if value}


def _url(store: Store, name: str) -> str:
    user, password = quote(str(store["USER"])), quote(str(store["PASSWORD"]))
    secret = f":{password}" if password else ""
    port = f":{store['PORT']}" if store["PORT"] else ""
    return f"postgres://{user}{secret}@{store['HOST']}{port}/{name}"


def _last(text: str) -> str:
    lines = text.strip().splitlines() or ["no reason given"]
    return lines[-1][:300]
