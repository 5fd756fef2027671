"""Data of a clone, changed as no service would: for faults and negative controls.

Invariant: opens the clone's own file, and refuses where this is no clone.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing

from django.conf import settings
from django.db import connection

from apps.common.errors import Conflict


def alter(statement: str, values: Sequence[object] = ()) -> int:
    """Run one statement against the clone's store. Returns how many rows it met.

    Raises: Conflict outside a clone.
    """
    if not settings.POLAR_CLONE:
        raise Conflict("Only a clone's store is altered.")
    connection.close()
    store = connection.settings_dict["NAME"]
    with closing(sqlite3.connect(store, timeout=20)) as db:
        db.execute("PRAGMA foreign_keys=OFF")
        changed = db.execute(statement, tuple(values))
        db.commit()
    return changed.rowcount
