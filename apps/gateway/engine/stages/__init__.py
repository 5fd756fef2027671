"""The stages, one file each; `DECIDE` is the order in which they are asked.

A stage takes the decision so far and returns a verdict for the record, or
raises its own typed refusal. Reading this tuple tells everything that happens
to a call before it may start.
"""

from collections.abc import Callable

from apps.gateway.engine.decision import Decision

from . import (
    approval,
    budget,
    capability,
    constraint,
    contract,
    credential,
    guardrail,
    halt,
    identify,
    loop_guard,
    trust,
)

Stage = Callable[[Decision], str]

DECIDE: tuple[tuple[str, Stage], ...] = (
    ("identify", identify.check),
    ("halt", halt.check),
    ("contract", contract.check),
    ("trust", trust.check),
    ("capability", capability.check),
    ("constraint", constraint.check),
    ("guardrail", guardrail.check),
    ("loop_guard", loop_guard.check),
    ("budget", budget.check),
    ("approval", approval.check),
    ("credential", credential.check),
)
