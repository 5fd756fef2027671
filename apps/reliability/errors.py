"""What reliability refuses.

PolarError
  Conflict
    SnapshotBroken     the snapshot is not what its manifest says
  Unavailable
    SnapshotFailed     it could not be taken or put into place; nothing changed
"""

from apps.common.errors import Conflict, Unavailable


class SnapshotBroken(Conflict):
    """The snapshot is not what its manifest says; do not restore it."""

    code = "POLAR_SNAPSHOT_BROKEN"


class SnapshotFailed(Unavailable):
    """The snapshot could not be taken or put into place."""

    code = "POLAR_SNAPSHOT_FAILED"
