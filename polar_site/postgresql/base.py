"""PostgreSQL for a process of many threads, which a restart of the server spares.

Hides: after a restart every connection that waits in the pool is dead. The pool's
own check finds one dead connection for each try and waits 1, 2, 4 … s in between,
so that a busy process was without a store for minutes; here the first thread that
meets one has all of them looked at.
"""

from typing import Any

from django.db.backends.postgresql import base
from psycopg import Error
from psycopg_pool import ConnectionPool


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's backend; it checks what it takes from the pool, and the pool with it."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        raw = super().get_new_connection(conn_params)
        if self.pool is None:
            return raw
        try:
            ConnectionPool.check_connection(raw)
        except Error:
            self.pool.putconn(raw)
            self.pool.check()
            return super().get_new_connection(conn_params)
        return raw
