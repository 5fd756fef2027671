"""Conditions written so that SQLite takes the index that is meant.

It takes a partial index only where the statement repeats the index's condition word
for word, and a list of bound values repeats nothing: `field__among=[…]` is IN with its
words spelled out. And it has no statistics, so it believes that any index leads to few
rows: `Unindexed("workspace_id")` is a column of which it is told otherwise.
"""

import re
from typing import TYPE_CHECKING, Any

from django.db.models import Func, Lookup, UUIDField

if TYPE_CHECKING:
    _Lookup = Lookup[Any]
else:
    _Lookup = Lookup

_WORD = re.compile(r"[a-z][a-z0-9_]*")


class Among(_Lookup):
    """Words of a fixed choice only, in the order of the index's condition."""

    lookup_name = "among"
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        words = [str(word) for word in self.rhs]
        if not words or not all(_WORD.fullmatch(word) for word in words):
            raise ValueError(f"among takes words of a choice, not {words}")
        column, params = self.process_lhs(compiler, connection)
        spelled = ", ".join(f"'{word}'" for word in words)
        return f"{column} IN ({spelled})", params


class Unindexed(Func):
    """A column of ids whose index leads to most of the table."""

    arity = 1
    template = "%(expressions)s"
    output_field = UUIDField()

    def as_sqlite(
        self, compiler: Any, connection: Any, **extra_context: Any
    ) -> tuple[str, Any]:
        # https://sqlite.org/optoverview.html: a unary + keeps a term from an index
        return self.as_sql(compiler, connection, template="+%(expressions)s")
