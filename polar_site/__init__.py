"""Composition: settings, URLs, the API, the admin, Celery. Nobody imports it.

The SQLite library that ships with many Pythons has the WAL-reset bug (3.7.0 to
3.51.2); a fixed build takes its place before Django imports `sqlite3`.
"""

import importlib.util
import sys

if importlib.util.find_spec("pysqlite3") is not None:
    import pysqlite3

    sys.modules["sqlite3"] = pysqlite3
    sys.modules["sqlite3.dbapi2"] = pysqlite3.dbapi2
