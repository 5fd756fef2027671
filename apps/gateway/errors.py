"""What the pipeline refuses.

Denied
  CapabilityDenied   scope or risk does not allow it (reasonCode says which)
  LoopGuardTripped   the call tree has gone round too often
  PermitRefused      an adapter has no permit, or it is spent
Invalid
  ContractBroken     the request or the answer does not match its contract
Halted
  RunHalted          exactly this run was stopped; it does not wait
UpstreamError
  OutcomeUnknown     it may have happened; an operator settles it
  EffectLeftUndone   it did not happen, and an operator wants no repeat
Conflict
  KeyReused          one idempotency key, two sets of arguments
"""

from apps.common.errors import (
    Conflict,
    Denied,
    Halted,
    Invalid,
    NotGranted,
    UpstreamError,
)


class CapabilityDenied(NotGranted):
    """The scope, the risk or a rule does not allow this capability."""


class LoopGuardTripped(NotGranted):
    """The call tree has gone round too often."""


class PermitRefused(Denied):
    """An effect needs an unspent permit for exactly these arguments."""


class RunHalted(Halted):
    """An operator stopped exactly this run, so it ends."""

    waits_as = ""


class ContractBroken(Invalid):
    """The request or the answer does not match its contract."""


class OutputBroken(UpstreamError):
    """The answer does not match its contract."""


class OutcomeUnknown(UpstreamError):
    """It may have happened; an operator settles it."""

    code = "POLAR_OUTCOME_UNKNOWN"
    waits_as = "waiting_operator"


class EffectLeftUndone(UpstreamError):
    """It did not happen, and an operator decided that it is not repeated."""

    code = "POLAR_EFFECT_LEFT_UNDONE"


class KeyReused(Conflict):
    """This idempotency key was used with other arguments."""
