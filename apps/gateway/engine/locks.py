"""Halt against start: on PostgreSQL the two take the same advisory locks.

Starting an effect takes them shared, setting a halt takes them exclusively, so
nothing starts after a halt has committed. On SQLite every write transaction is
exclusive already (BEGIN IMMEDIATE).
"""

import hashlib
from collections.abc import Iterable
from typing import Any

from django.db import connection


def share(scopes: Iterable[str]) -> None:
    """Take the scopes' locks shared until the transaction ends."""
    _take("pg_advisory_xact_lock_shared", scopes)


def exclude(scopes: Iterable[str]) -> None:
    """Take the scopes' locks exclusively until the transaction ends."""
    _take("pg_advisory_xact_lock", scopes)


def share_ahead(scopes: Iterable[str]) -> None:
    """Take the locks shared in front of the next statement, in its transaction."""
    if connection.vendor != "postgresql":
        return
    here: Any = connection  # a method of our own backends
    here.execute_later(*_statement("pg_advisory_xact_lock_shared", scopes))


def _take(function: str, scopes: Iterable[str]) -> None:
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute(*_statement(function, scopes))


def _statement(function: str, scopes: Iterable[str]) -> tuple[str, list[int]]:
    keys = sorted(_key(scope) for scope in scopes)
    calls = ", ".join(f"{function}(%s)" for _ in keys)
    return f"SELECT {calls}", keys  # noqa: S608 (a fixed function name)


def _key(scope: str) -> int:
    raw = hashlib.sha256(f"halt:{scope}".encode()).digest()[:8]
    return int.from_bytes(raw, "big", signed=True)
