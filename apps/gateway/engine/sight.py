"""What every decision has to know, read in one statement.

Most calls meet no halt, no budget and no earlier try of themselves. One plain
statement says so, and the stages ask the tables only where there is something.
"""

from collections.abc import Callable
from dataclasses import dataclass

from django.db import connection

from apps.access import queries as access
from apps.audit.queries import EPOCH
from apps.gateway.models import Call, Setting
from apps.gateway.ports import CallRequest

from . import trees
from .standing import Stamp

_SEE = f"""
    SELECT strictness, max_depth, max_turns_per_root, max_fan_out, max_same_edge,
           max_same_call, max_root_seconds, max_root_micros,
           (SELECT count(*) FROM gateway_halt WHERE lifted_at IS NULL),
           (SELECT count(*) FROM gateway_budget WHERE is_active),
           (SELECT count(*) FROM gateway_call WHERE idempotency_key = %s),
           grants_version,
           (SELECT count(*) FROM gateway_grant WHERE revoked_at IS NULL),
           (SELECT id FROM gateway_grant WHERE revoked_at IS NULL
             ORDER BY id DESC LIMIT 1),
           {EPOCH}
      FROM gateway_setting WHERE id = 1
"""  # noqa: S608 (a constant of the log's)
_HALTS = "SELECT count(*) FROM gateway_halt WHERE lifted_at IS NULL"


@dataclass(frozen=True, slots=True)
class Sight:
    """The rules in force, and whether there is anything to look at more closely."""

    setting: Setting
    halts: int
    budgets: int
    earlier: int
    #: Tells whether who asks is active, and belongs to the workspace.
    standing: Callable[[], tuple[bool, bool]]
    #: Sums up the calls of this one's root; None where nobody will ask.
    tree: Callable[[], trees.Tree] | None
    #: Changes whenever a grant is made or revoked.
    grants: Stamp = (0, 0, "")
    #: The store's epoch; empty before its log has begun.
    epoch: str = ""


def see(request: CallRequest, call: Call) -> Sight:
    """Read the rules and count what concerns a call with this key."""
    standing = access.standing(request.principal, request.workspace_id)
    tree = trees.ask_ahead(request, call)
    with connection.cursor() as cursor:
        cursor.execute(_SEE, [call.idempotency_key])
        row = cursor.fetchone()
    if row is None:
        Setting.load()
        return see(request, call)
    stamp = (int(row[11]), int(row[12]), str(row[13] or ""))
    halts, budgets, earlier = row[8:11]
    setting, epoch = Setting(1, *row[:8]), row[14] or ""
    return Sight(setting, halts, budgets, earlier, standing, tree, stamp, epoch)


def count_halts() -> int:
    """Count what is stopped now."""
    with connection.cursor() as cursor:
        cursor.execute(_HALTS)
        return int(cursor.fetchone()[0])
