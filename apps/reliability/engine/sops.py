"""The checklists: what is done first, by class, and what each step really does.

A step looks or acts through the same services as the desk; its result is data.
None of them is unsafe to repeat.
Source: the first user's page on incidents, sections 1 and 2.
"""

from dataclasses import dataclass

from apps.reliability.models import Severity


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a checklist. `page` is where one looks further."""

    slug: str
    title: str
    does: str
    page: str = ""
    #: What must be typed before it is done; "" for a plain click.
    confirm: str = ""
    #: Who may: operators, or administrators alone.
    role: str = "operator"


HALT = Step(
    "halt_everything",
    "Stop everything",
    "Sets a halt over everything: no effect starts from here on.",
    "gateway:halts",
    "HALT",
)
AUDIT = Step(
    "verify_audit",
    "Audit the integrity of the data",
    "Recomputes the whole log and compares it with the witness.",
    "audit:list",
)
SNAPSHOT = Step(
    "verify_snapshot",
    "Prove the newest snapshot",
    "Opens a copy of the newest snapshot and recomputes its log.",
    "reliability:store",
)
ROLLBACK = Step(
    "restore_snapshot",
    "Emergency rollback to a proved snapshot",
    "Puts the newest proved snapshot into the store's place, announced and signed;"
    " what came after it is classified, nothing of it is done twice.",
    "reliability:store",
    "RESTORE",
    "admin",
)
WORKERS = Step(
    "check_workers",
    "Check workers and ingress",
    "Counts live workers, the queue, open accounts and given-up channel runs.",
    "runs:list",
)
PROVIDERS = Step(
    "test_providers",
    "Test every provider",
    "Asks each enabled provider for its models and one of them for a word.",
    "providers:list",
)
CONFIG = Step(
    "check_config",
    "Check the configuration",
    "Looks at the store, the vault, the routes, the agents and the migrations.",
    "reliability:store",
)
USAGE = Step(
    "review_usage",
    "Review the usage",
    "Counts calls, failures and fallbacks of the last hour, by provider and lane.",
    "agents:usage",
)
LANES = Step(
    "check_lanes",
    "Check the lanes",
    "Names each lane's routes, their breakers and their last errors.",
    "providers:list",
)
TIMEOUTS = Step(
    "check_timeouts",
    "Check the time-outs",
    "Compares each route's time-outs with how long its lane really takes.",
    "providers:list",
)
TASK = Step(
    "make_task",
    "Make it a task",
    "Puts a card on the board Operations, linked to this incident.",
    "boards:list",
)

CHECKLISTS: dict[str, tuple[Step, ...]] = {
    Severity.S1: (HALT, AUDIT, SNAPSHOT, ROLLBACK, TASK),
    Severity.S2: (WORKERS, PROVIDERS, CONFIG, TASK),
    Severity.S3: (USAGE, LANES, TIMEOUTS, TASK),
    Severity.S4: (TASK,),
}
STEPS = {step.slug: step for steps in CHECKLISTS.values() for step in steps}


def of(severity: str) -> tuple[Step, ...]:
    """Return the checklist of a class."""
    return CHECKLISTS[severity]
