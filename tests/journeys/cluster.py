"""A PostgreSQL cluster whose server a test stops, kills, backs up and puts back."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg

from tests import services


class Cluster:
    """One cluster on loopback that archives its WAL.

    Its server crashes and the machine does not, so nothing here waits for the disk.
    Others than its owner must be able to pass through the folders above `home`.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.data, self.archive = home, home / "data", home / "archive"
        self.port = services.free_port()
        self.url = f"postgres://polar@127.0.0.1:{self.port}/polar"
        self.server: subprocess.Popen[bytes] | None = None
        #: How often it was stopped without a word.
        self.crashes = 0
        self.archive.mkdir(parents=True)
        self.own(home)
        self._tool(
            "initdb", "-N", "-D", self.data, "-U", "polar", "-A", "trust", "-E", "UTF8"
        )
        self.start()
        services.create_database(str(services.find("createdb")), self.port)

    def start(self) -> None:
        command = [str(services.find("postgres")), "-D", str(self.data)]
        for setting in (
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            f"unix_socket_directories={self.home}",
            "max_connections=100",
            "fsync=off",
            "archive_mode=on",
            # What is archived stays: a copy that went back writes the same names.
            f"archive_command=test -f {self.archive}/%f || cp %p {self.archive}/%f",
            "log_min_messages=panic",
        ):
            command += ["-c", setting]
        with (self.home / "server.txt").open("ab") as out:
            self.server = subprocess.Popen(
                command, stdout=out, stderr=out, cwd=self.home, **_owner()
            )
        services.wait_for(self.port, self.server)
        for _ in range(300):
            try:
                psycopg.connect(self.url, dbname="postgres").close()
                return
            except psycopg.OperationalError:
                time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT is a fast stop, SIGQUIT an immediate one, like a crash."""
        if self.server is not None:
            self.crashes += how == signal.SIGQUIT
            self.server.send_signal(how)
            self.server.wait(timeout=30)
            self.server = None

    def keep(self, name: str) -> Path:
        """Copy the stopped cluster's files."""
        shutil.copytree(self.data, self.home / name)
        return self.home / name

    def put_back(self, kept: Path) -> None:
        """Let a copy be the cluster's files; it is stopped before and after."""
        self.stop()
        shutil.rmtree(self.data)
        shutil.copytree(kept, self.data)
        self.own(self.data)

    def back_up(self) -> Path:
        """A base backup, taken while it runs."""
        into = self.home / "base"
        self._client(
            "pg_basebackup", "-D", str(into), "-X", "stream", "-c", "fast", "-N"
        )
        return into

    def dump(self) -> Path:
        into = self.home / "older.dump"
        self._client("pg_dump", "-Fc", "--no-owner", "-f", str(into), "-d", "polar")
        return into

    def load(self, dump: Path) -> None:
        how = ("--clean", "--if-exists", "--single-transaction", "-d", "polar")
        self._client("pg_restore", *how, str(dump))

    def sql(self, *statements: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as db:
            for statement in statements:
                db.execute(statement)  # type: ignore[call-overload]

    def _client(self, program: str, *arguments: str) -> None:
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "polar"]
        done = subprocess.run(
            [str(services.find(program)), *where, *arguments],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    def _tool(self, program: str, *arguments: object) -> None:
        command = [
            str(services.find(program)),
            *map(str, arguments),
            "--locale=C.UTF-8",
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.home, **_owner()
        )
        assert done.returncode == 0, done.stderr

    def own(self, path: Path) -> None:
        name = services.cluster_owner()
        if name is None:
            return
        account = pwd.getpwnam(name)
        for each in (path, *path.rglob("*")):
            os.chown(each, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _owner() -> dict[str, object]:
    """PostgreSQL refuses to run as root."""
    name = services.cluster_owner()
    if name is None:
        return {}
    account = pwd.getpwnam(name)
    return {"user": name, "group": account.pw_gid, "extra_groups": []}
