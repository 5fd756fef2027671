"""What reliability refuses.

PolarError
  Conflict
    EvidenceBroken     the evidence is not what was signed
    SnapshotBroken     the snapshot is not what its manifest says
  Unavailable
    DrillFailed        a drill could not be played; the install is untouched
    SnapshotFailed     it could not be taken or put into place; nothing changed
"""

from apps.common.errors import Conflict, Unavailable


class SnapshotBroken(Conflict):
    """The snapshot is not what its manifest says; do not restore it."""

    code = "POLAR_SNAPSHOT_BROKEN"


class SnapshotFailed(Unavailable):
    """The snapshot could not be taken or put into place."""

    code = "POLAR_SNAPSHOT_FAILED"


class DrillFailed(Unavailable):
    """The drill could not be played to its end; the install is untouched."""

    code = "POLAR_DRILL_FAILED"


class EvidenceBroken(Conflict):
    """The evidence is not what was signed, or says what its journal does not."""

    code = "POLAR_EVIDENCE_BROKEN"
