"""The home tab of a vendor that has one: how things stand, for who opened it.

Only who was let in sees anything; it is drawn anew each time that it is opened.
"""

from uuid import UUID

from apps.access import services as access
from apps.channels.engine import commands, outbox
from apps.channels.models import Account, ChannelIdentity, IdentityState
from apps.channels.ports import HomeTab, check_hold, transports
from apps.common import canonical
from apps.common.errors import UpstreamError
from apps.gateway import queries as gateway_queries
from apps.gateway import services as gateway
from apps.gateway.models import Halt
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    EffectClass,
    Lineage,
    Permit,
    Result,
)
from apps.runs import services as runs
from apps.runs.ports import Again, Finish, Outcome, RunContext

HOME_KIND = "channels.home"
TITLE = "Polar"


def ask(identity: ChannelIdentity) -> None:
    """Let a home tab be drawn, in the caller's transaction."""
    runs.enqueue(
        kind=HOME_KIND,
        payload={"identity_id": str(identity.id)},
        principal=access.system_principal(),
        workspace=identity.account.workspace,
        serial_key=f"home:{identity.id}",
    )


def carry(ctx: RunContext) -> Outcome:
    """Draw one home tab: the handler of `channels.home`."""
    identity = (
        ChannelIdentity.objects.select_related("principal", "account__workspace")
        .filter(id=UUID(ctx.payload["identity_id"]), state=IdentityState.ACTIVE)
        .first()
    )
    if identity is None:
        return Finish({"drawn": False})
    account = identity.account
    transport = transports.get(account.kind)
    if not isinstance(transport, HomeTab):
        return Finish({"drawn": False})
    said = {"user": identity.external_user, "lines": lines_for(identity)}

    def perform(permit: Permit) -> Result:
        with outbox.line_of(account, "draw a home tab") as line:
            check_hold(line)
            transport.home(line, permit, TITLE, said)
        return Result({})

    request = CallRequest(
        kind=CallKind.MESSAGE,
        capability=f"reply:{account.kind}.home",
        principal=access.system_principal(),
        workspace_id=account.workspace_id,
        arguments=said,
        perform=perform,
        effect_class=EffectClass.KEYED,
        risk=outbox.SAYS,
        needs_secret=True,
        lineage=Lineage(run_id=ctx.run_id, fence=ctx.fence, trace_id=ctx.trace_id),
        idempotency_key=canonical.digest([str(ctx.run_id), "home"]),
    )
    return _drawn(account, request)


def _drawn(account: Account, request: CallRequest) -> Outcome:
    try:
        gateway.call(request)
    except UpstreamError as error:
        if error.retry_after is None:
            raise
        outbox.hold(account, error.retry_after)
        return Again(error.retry_after)
    return Finish({"drawn": True})


def lines_for(identity: ChannelIdentity) -> list[list[str]]:
    """Shape: pairs of a name and what to say of it."""
    workspace = identity.account.workspace
    halts = [f"{each.scope}: {each.reason}" for each in Halt.objects.active()[:5]]
    asked = gateway_queries.open_approvals().filter(workspace=workspace)
    return [
        ["State", "Stopped. " + "; ".join(halts) if halts else "Running."],
        ["Approvals waiting", str(asked.count())],
        ["You are", f"{identity.principal.label}, {identity.tier}"],
        ["Commands", commands.help_for(identity)],
    ]
