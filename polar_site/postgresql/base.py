"""PostgreSQL for a process of many threads: few trips, and a restart is met once.

Hides: what waits to be sent. A BEGIN, and a statement of `execute_later`, travel with
the next statement or with the COMMIT; a turn makes half the trips. A statement that is
sent often is prepared, per connection.
Also: after a restart of the server every connection that waits in the pool is dead;
the pool's own check finds one for each try and waits 1, 2, 4 … s in between, so the
first thread that meets a dead one has all of them looked at.
Invariants: statements reach the server in the order in which they were given; one
that fails is told by the statement or COMMIT that it travelled with, before anything
is committed; what waits is dropped when its transaction or savepoint is undone.
Source: docs/decisions/0038-few-trips-to-postgresql.md
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from django.db.backends.postgresql import base
from django.db.backends.utils import debug_transaction
from psycopg import Error
from psycopg._pipeline import Pipeline
from psycopg.generators import fetch_many
from psycopg.pq import ConnStatus
from psycopg.waiting import WAIT_W
from psycopg_pool import ConnectionPool

from apps.common import clock

#: A connection that was used so lately is taken as alive, until one is found dead.
TRUSTED_SECONDS = 1.0

BEGIN, COMMIT = "BEGIN", "COMMIT"
#: The stubs know nothing of psycopg's cursor below Django's.
PlainCursor: Any = base.ServerBindingCursor


@dataclass(slots=True)
class Statement:
    """What is to be sent, the cursor that takes the answer, and what to raise when
    it did not meet exactly one row."""

    cursor: Any
    query: Any
    #: The query and its values as the driver sends them.
    asked: Any
    otherwise: Exception | None = None


Waiting = list[Statement]
#: Yields what it waits for at the socket.
Exchange = Generator[Any, Any, Any]


def ready(
    cursor: Any, query: Any, params: Any = None, otherwise: Exception | None = None
) -> Statement:
    """Make a statement of a query. Values that the driver cannot send are refused
    here, before anything else is: what waits is neither lost nor half sent."""
    raw = cursor.connection
    with raw.lock:
        raw.wait(cursor._start_query(query))
    return Statement(cursor, query, cursor._convert_query(query, params), otherwise)


class Cursor(PlainCursor):  # type: ignore[misc]
    """A cursor that takes along what waits."""

    def __init__(self, connection: Any, ahead: Waiting) -> None:
        super().__init__(connection)
        self.ahead = ahead

    def execute(self, query: Any, params: Any = None, **options: Any) -> "Cursor":
        if self.ahead:
            own = ready(self, query, params)
            send_together(self.connection, [*taken(self.ahead), own])
        else:
            super().execute(query, params, **options)
        return self

    def executemany(self, *args: Any, **options: Any) -> None:
        self.send_ahead()
        super().executemany(*args, **options)

    def copy(self, *args: Any, **options: Any) -> Any:
        self.send_ahead()
        return super().copy(*args, **options)

    def stream(self, *args: Any, **options: Any) -> Any:
        self.send_ahead()
        return super().stream(*args, **options)

    def send_ahead(self) -> None:
        if self.ahead:
            send_together(self.connection, taken(self.ahead))


class LaterCursor(Cursor):
    """A cursor whose statement waits for the next; asked for its answer, it goes."""

    def __init__(
        self, connection: Any, ahead: Waiting, otherwise: Exception | None
    ) -> None:
        super().__init__(connection, ahead)
        self._otherwise = otherwise

    def execute(self, query: Any, params: Any = None, **_: Any) -> "LaterCursor":
        self.ahead.append(ready(self, query, params, self._otherwise))
        return self

    def fetchone(self) -> Any:
        if any(each.cursor is self for each in self.ahead):
            self.send_ahead()
        return super().fetchone()


def taken(ahead: Waiting) -> Waiting:
    """Empty the list that everybody shares, and return what was in it."""
    waiting, ahead[:] = [*ahead], []
    return waiting


def send_together(raw: Any, statements: Waiting) -> None:
    """Send statements in one trip.

    Raises: what a statement promised that met another number of rows than one; what
    the first that failed says (the server did none after it). Sent one by one, the
    former would have been told before the latter was sent, and so it is told here.
    """
    try:
        with raw.lock:
            raw.wait(_exchange(raw, statements))
    except Error as failure:
        if (promised := _broken_promise(statements)) is not None:
            raise promised from failure
        raise
    if (promised := _broken_promise(statements)) is not None:
        raise promised


def _broken_promise(statements: Waiting) -> Exception | None:
    for each in statements:
        answered = each.cursor.pgresult is not None
        if answered and each.otherwise is not None and each.cursor.rowcount != 1:
            return each.otherwise
    return None


def _exchange(raw: Any, statements: Waiting) -> Exchange:
    """Queue, send, wait once, and give each answer to its cursor.

    psycopg's own `pipeline()` looks at the socket for each statement, and each look
    gives the interpreter's lock away: with many threads that costs more than it saves.
    """
    pipeline, server = Pipeline(raw), raw.pgconn
    server.enter_pipeline_mode()
    raw._pipeline = pipeline
    try:
        for each in statements:
            often = False if each.query in (BEGIN, COMMIT) else None
            yield from each.cursor._maybe_prepare_gen(each.asked, prepare=often)
        pipeline._enqueue_sync()
        for command in pipeline.command_queue:
            command()
        while server.flush():
            yield WAIT_W
        failure = yield from _answers(pipeline)
    finally:
        raw._pipeline = None
        if server.status != ConnStatus.BAD:
            server.exit_pipeline_mode()
    if failure is not None:
        raise failure
    yield from raw._prepared.maintain_gen(raw)


def _answers(pipeline: Any) -> Exchange:
    """Read every answer; return the first failure."""
    failure = None
    while pipeline.result_queue:
        results = yield from fetch_many(pipeline.pgconn)
        try:
            pipeline._process_results(pipeline.result_queue.popleft(), results)
        except Error as error:
            failure = failure or error
    return failure


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's backend; psycopg is left in autocommit and told BEGIN by this class."""

    #: When a connection of this process was last found dead.
    broken_at = float("-inf")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ahead: Waiting = []

    # --- connections

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        raw = super().get_new_connection(conn_params)
        if self.pool is None or self._was_just_used(raw):
            return raw
        try:
            ConnectionPool.check_connection(raw)
        except Error:
            self.pool.putconn(raw)
            self.pool.check()
            return super().get_new_connection(conn_params)
        return raw

    def _configure_connection(self, raw: Any) -> Any:
        raw.put_back_at = clock.monotonic()  # just opened is alive too
        return super()._configure_connection(raw)  # type: ignore[misc]

    def _was_just_used(self, raw: Any) -> bool:
        put_back_at = getattr(raw, "put_back_at", None)
        if put_back_at is None:
            return False
        now, since = clock.monotonic(), DatabaseWrapper.broken_at
        return bool(since < put_back_at and now - put_back_at < TRUSTED_SECONDS)

    def _close(self) -> None:
        self.ahead.clear()
        if self.pool and self.connection is not None:
            if self.connection.closed:
                DatabaseWrapper.broken_at = clock.monotonic()
            elif not self.errors_occurred:
                self.connection.put_back_at = clock.monotonic()
        super()._close()  # type: ignore[misc]

    # --- cursors

    def create_cursor(self, name: str | None = None) -> Any:
        if name is None:
            return Cursor(self.connection, self.ahead)
        Cursor(self.connection, self.ahead).send_ahead()
        return self.connection.cursor(
            name, scrollable=False, withhold=not self.in_atomic_block
        )

    def execute_later(
        self, sql: str, params: Any, otherwise: Exception | None = None
    ) -> Callable[[], Any]:
        """Send a statement with the next, or with the COMMIT; return its first row's
        reader. Its failure is told there, and `otherwise` when it did not meet one
        row. Outside a transaction the two are a transaction of their own."""
        self.ensure_connection()
        later = LaterCursor(self.connection, self.ahead, otherwise)
        wrapped: Any = self._prepare_cursor(later)  # type: ignore[attr-defined]
        wrapped.execute(sql, params)
        return self.wrap_database_errors(later.fetchone)

    # --- transactions

    def _start_transaction_under_autocommit(self) -> None:
        self.ahead.append(self._command(BEGIN))

    def _commit(self) -> None:
        if not self.ahead or self.connection is None:
            super()._commit()  # type: ignore[misc]
            return
        waiting = taken(self.ahead)
        if [each.query for each in waiting] == [BEGIN]:
            return  # nothing was done
        with debug_transaction(self, COMMIT), self.wrap_database_errors:
            if any(each.otherwise for each in waiting):
                send_together(self.connection, waiting)
                waiting = []
            send_together(self.connection, [*waiting, self._command(COMMIT)])

    def _command(self, text: str) -> Statement:
        return ready(PlainCursor(self.connection), text)

    def _rollback(self) -> None:
        self.ahead.clear()
        super()._rollback()  # type: ignore[misc]

    def _savepoint_rollback(self, sid: str) -> None:
        self.ahead.clear()  # the savepoint itself was sent
        super()._savepoint_rollback(sid)  # type: ignore[misc]
