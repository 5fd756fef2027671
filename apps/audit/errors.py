"""What audit refuses.

PolarError
  OutsideTransaction      500   a bug: an event needs the change's transaction
  NotFound: SealedNotFound 404  the event is unknown or not yet sealed
  Conflict: SinkRefused   409   the sink expects another sequence number
  Unavailable
    NoWitness             503   this host has no POLAR_WITNESS_DIR
    KeyMismatch           503   POLAR_AUDIT_KEY is not the witness's key
    StoreRolledBack       503   the database lacks what a witness has seen
"""

from apps.common.errors import Conflict, NotFound, PolarError, Unavailable


class OutsideTransaction(PolarError):
    """An event is recorded inside the transaction of the change it describes."""

    code = "POLAR_AUDIT_OUTSIDE_TRANSACTION"


class SealedNotFound(NotFound):
    """There is no sealed event with this number."""


class SinkRefused(Conflict):
    """The sink expects another sequence number."""

    code = "POLAR_AUDIT_SINK_REFUSED"


class NoWitness(Unavailable):
    """This host has no POLAR_WITNESS_DIR, so it does not seal."""

    code = "POLAR_AUDIT_NO_WITNESS"


class KeyMismatch(Unavailable):
    """POLAR_AUDIT_KEY is not the key that this witness directory knows."""

    code = "POLAR_AUDIT_KEY_MISMATCH"


class StoreRolledBack(Unavailable):
    """The database lacks events that a witness has seen."""

    code = "POLAR_STORE_ROLLED_BACK"
