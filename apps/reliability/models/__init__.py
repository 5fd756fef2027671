"""The tables of reliability."""

from apps.reliability.models.store import (
    ROLLBACK_LIFECYCLE as ROLLBACK_LIFECYCLE,
)
from apps.reliability.models.store import (
    Rollback as Rollback,
)
from apps.reliability.models.store import (
    RollbackState as RollbackState,
)
