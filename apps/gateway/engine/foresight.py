"""Looks ahead: would this call ask a person, and may one answer cover it?"""

from apps.common import clock
from apps.gateway.ports import CallRequest

from . import ledger
from .decision import Decision
from .sight import see
from .stages import approval, guardrail


def asks_in_a_plan(request: CallRequest) -> bool:
    """Ask the stages that would ask a person. Writes nothing; nothing is decided."""
    call = ledger.new_row(request)
    decision = Decision(request, call, clock.now(), see(request, call))
    guardrail.check(decision)
    return approval.may_be_planned(decision)
