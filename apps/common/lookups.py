"""`field__among=[…]`: IN with its words spelled out in the statement.

SQLite takes a partial index only where the statement repeats the index's condition
word for word, and a list of bound values repeats nothing.
"""

import re
from typing import TYPE_CHECKING, Any

from django.db.models import Lookup

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
