"""Has an operator stopped this?"""

from apps.common.errors import Halted
from apps.gateway.engine.decision import Decision
from apps.gateway.errors import RunHalted
from apps.gateway.models import Halt
from apps.gateway.ports import CallKind, CallRequest

#: What still works under a halt: hearing people, getting out of it, and stopping
#: more: a halt must never keep an operator from revoking an extension.
EXEMPT = frozenset(
    {
        "alert.deliver",
        "command.status",
        "command.halt",
        "command.resume",
        "extension.disable",
        "extension.quarantine",
        "extension.revoke",
    }
)


def check(decision: Decision) -> str:
    """Refuse what an active halt covers."""
    if decision.sight.halts:
        check_request(decision.request)
    return "clear"


def check_request(request: CallRequest) -> None:
    """The same question, asked again in the transaction that starts an effect.

    Raises: Halted, naming who stopped what and why.
    """
    if request.kind == CallKind.RECEIVE or request.capability in EXEMPT:
        return
    covering = Halt.objects.active().filter(scope__in=scopes_of(request))
    found = covering.order_by("created_at", "id").first()
    if found is not None:
        kind = RunHalted if found.scope.startswith("run:") else Halted
        raise kind(
            f"{found.set_by} stopped {found.scope}: {found.reason}",
            reason_code="halted",
            halt_id=str(found.id),
            scope=found.scope,
            waiting_on=f"halt:{found.id}",
        )


def scopes_of(request: CallRequest) -> list[str]:
    """Name every halt that would cover this call."""
    scopes = ["all", f"kind:{request.kind}"]
    if request.lane:
        scopes.append(f"lane:{request.lane}")
    if request.provider:
        scopes.append(f"provider:{request.provider}")
    if request.lineage.agent:
        scopes.append(f"agent:{request.lineage.agent}")
    if request.extension is not None:
        scopes.append(f"extension:{request.extension.extension_id}")
    if request.lineage.run_id is not None:
        scopes.append(f"run:{request.lineage.run_id}")
    return scopes
