"""What audit refuses.

PolarError
  OutsideTransaction      500   a bug: an event needs the change's transaction
  NotFound: SealedNotFound 404  the event is unknown or not yet sealed
  Conflict
    SinkRefused           409   the sink expects another sequence number
    StoreDamaged          409   the store contradicts itself: it cannot be accepted
  Unavailable
    NoWitness             503   this host has no POLAR_WITNESS_DIR
    WitnessBusy           503   another process keeps the witness to itself
    KeyMismatch           503   POLAR_AUDIT_KEY is not the witness's key
    StoreInDoubt          503   an alarm stands, or the store cannot be trusted
      StoreRolledBack     503   the database lacks what a witness has seen
      StoreExchanged      503   another file bears the database's name
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


class StoreDamaged(Conflict):
    """The store contradicts itself, so that its history cannot be accepted."""

    code = "POLAR_STORE_DAMAGED"


class NoWitness(Unavailable):
    """This host has no POLAR_WITNESS_DIR, so it does not seal."""

    code = "POLAR_AUDIT_NO_WITNESS"


class WitnessBusy(Unavailable):
    """Another process keeps the witness to itself; it or its disk stands still."""

    code = "POLAR_AUDIT_WITNESS_BUSY"


class KeyMismatch(Unavailable):
    """POLAR_AUDIT_KEY is not the key that this witness directory knows."""

    code = "POLAR_AUDIT_KEY_MISMATCH"


class StoreInDoubt(Unavailable):
    """The store is in doubt: nothing is claimed until an operator has decided."""

    code = "POLAR_STORE_IN_DOUBT"


class StoreRolledBack(StoreInDoubt):
    """The database lacks events that a witness has seen."""

    code = "POLAR_STORE_ROLLED_BACK"


class StoreExchanged(StoreInDoubt):
    """Another file bears the name of the database that was open; look again."""

    code = "POLAR_STORE_EXCHANGED"
