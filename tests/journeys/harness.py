"""A Polar process that dies where a test wants it to.

    python -m tests.journeys.harness [--die run.claimed[:2]] worker --concurrency 4

Hides: the hook that kills this process with SIGKILL when the work reaches a named
failpoint for the given time, and the run kinds that journeys need. Production has
no way to arm this: it lives in the tests and arms only its own process.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import polar_site  # noqa: F401 (puts the fixed SQLite in place before Django)

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from tests.journeys import outside, rekeying, resident


def die_at(name: str, times: int) -> Any:
    """Make a hook that kills this process at the named failpoint."""
    left = times

    def hook(reached: str) -> None:
        nonlocal left
        if reached != name:
            return
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def plug_test_kinds() -> None:
    """Kinds that journeys use: one notes each attempt, one waits."""
    from apps.common import clock
    from apps.runs import ports

    def note(context: ports.RunContext) -> ports.Outcome:
        with open(os.environ["JOURNEY_LOG"], "a") as log:
            log.write(f"{context.run_id} {context.fence} {os.getpid()}\n")
        return ports.Finish({"pid": os.getpid()})

    def wait(context: ports.RunContext) -> ports.Outcome:
        connection.close()
        until = clock.monotonic() + float(context.payload["seconds"])
        while clock.monotonic() < until:
            if context.payload.get("polite") and context.stopping():
                return ports.Again()
            clock.sleep(0.02)
        return note(context)

    ports.handlers.register("journey.send", send_asked)
    ports.handlers.register("journey.note", note)
    ports.handlers.register("journey.wait", wait)


def send_asked(context: Any) -> Any:
    """Write to the outside, for which a person is asked; note that it was done."""
    from apps.access.models import Principal
    from apps.gateway import ports, services
    from apps.runs.ports import Finish

    arguments = {"to": "ann@example.org"}

    def perform(permit: ports.Permit) -> ports.Result:
        permit.spend(arguments)
        with open(os.environ["JOURNEY_LOG"], "a") as log:
            log.write(f"{context.run_id} {context.fence} {os.getpid()}\n")
        return ports.Result({})

    request = ports.CallRequest(
        kind=ports.CallKind.TOOL,
        capability="mail/send",
        principal=Principal.objects.get(id=context.principal_id),
        workspace_id=context.workspace_id,
        arguments=arguments,
        perform=perform,
        risk=ports.Risk("write", side_effects="external"),
        effect_class=ports.EffectClass.KEYED,
        lineage=ports.Lineage(run_id=context.run_id, seq="1", fence=context.fence),
        scope={"allowed": {"mail": ["*"]}},
    )
    services.call(request)
    return Finish({})


def approve(times: str = "1") -> None:
    """Be an approver who answers what is asked, as often as said."""
    from apps.access import services as access
    from apps.access.models import Role
    from apps.common.errors import Conflict
    from apps.gateway import services
    from apps.gateway.models import ApprovalRequest

    user = access.create_user(
        by=access.system_principal(),
        new=access.NewUser(
            username=f"bob{os.getpid()}",
            password="correct-horse-battery-staple",  # noqa: S106 (a journey's own)
            role=Role.APPROVER,
            workspace=access.ensure_default_workspace(),
        ),
    )
    asked = ApprovalRequest.objects.latest("id")
    for _ in range(int(times)):
        try:
            services.decide_approval(
                by=user.principal, approval_id=asked.id, approve=True
            )
        except Conflict as error:
            sys.stdout.write(f"{error.detail}\n")


def enqueue(kind: str, payload: str, count: str = "1") -> None:
    """Put runs into the queue, each in its own transaction."""
    from apps.access import services as access
    from apps.runs import services

    for _ in range(int(count)):
        services.enqueue(
            kind=kind,
            payload=json.loads(payload),
            principal=access.system_principal(),
            workspace=access.ensure_default_workspace(),
        )


def live(count: int) -> list[Any]:
    """Enqueue runs that have done something, and tell the witness."""
    from django.db import transaction

    from apps.access import services as access
    from apps.audit import services as audit
    from apps.runs import services

    system, started = access.system_principal(), []
    for _ in range(count):
        run = services.enqueue(
            kind="journey.note",
            payload={},
            principal=system,
            workspace=access.ensure_default_workspace(),
        )
        with transaction.atomic():
            audit.record(
                type="run.parked",
                actor=system.actor,
                run_id=run.id,
                workspace_id=run.workspace_id,
                data={"kind": run.kind},
            )
        started.append(run)
    audit.seal_all()
    return started


def ask(text: str) -> None:
    """Be a person who writes to an agent; prints the turn's id."""
    from apps.access import queries as access_queries
    from apps.access.models import Principal
    from apps.agents import services as agents

    principal = Principal.objects.get(user__username="operator")
    conversation = agents.start_conversation(
        workspace=access_queries.default_workspace(), principal=principal
    )
    agents.start_turn(
        conversation=conversation, principal=principal, text=text, trigger="message"
    )


def bots(told: str) -> None:
    """Open accounts on fake vendors, and let senders in as the operator.

    Shape: {"accounts": [{"kind", "token", "settings", "senders"}]}; prints the ids.
    """
    from apps.access import queries as access_queries
    from apps.access import services as access
    from apps.access.models import Principal
    from apps.channels import services
    from apps.channels.models import Account, ChannelIdentity

    principal = Principal.objects.get(user__username="operator")
    for each in json.loads(told)["accounts"]:
        account = services.save_bot(
            by=access.system_principal(),
            workspace=access_queries.default_workspace(),
            kind=each["kind"],
            slug=each["kind"],
            token=each["token"],
        )
        Account.objects.filter(id=account.id).update(
            settings=each["settings"], per_minute=600, **each.get("fields", {})
        )
        ChannelIdentity.objects.bulk_create(
            ChannelIdentity(
                account=account,
                external_user=sender,
                display=sender,
                principal=principal,
                tier="admin",
            )
            for sender in each["senders"]
        )


def storm() -> None:
    """Add what storms need to a demo: the tools outside, rules, and a token."""
    from apps.access import queries as access_queries
    from apps.access import services as access
    from apps.access.models import Principal, Token
    from apps.extensions import services as extensions
    from apps.providers.models import Provider
    from tests.journeys.storm import TOKEN

    extensions.sync_shipped_plugin()
    rules = [{"match": f"^{word}", "tool": word} for word in ("keyed", "once")]
    Provider.objects.filter(slug="scripted").update(settings={"rules": rules})
    token, _ = access.issue_token(
        by=access.system_principal(),
        principal=Principal.objects.get(user__username="operator"),
        name="storm",
        scopes=["*"],
        held=frozenset({"*"}),
    )
    digest = access_queries.token_digest(TOKEN)
    Token.objects.filter(id=token.id).update(digest=digest)


def purse(url: str, turns: str) -> None:
    """Let so many people ask a paid vendor at once, out of one budget of $1.00.

    A call may take 512 tokens of $40 a million: two cents, fifty calls.
    """
    from apps.access import services as access
    from apps.agents.models import AgentProfile
    from apps.gateway.models import Budget
    from apps.providers import services
    from apps.providers.models import Route

    system, workspace = access.system_principal(), access.ensure_default_workspace()
    vendor = services.ProviderEntry(slug="v", kind="openai_compatible", base_url=url)
    model = services.save_model(
        by=system,
        provider=services.save_provider(by=system, entry=vendor),
        entry=services.ModelEntry(name="m", input_micros=0, output_micros=40_000_000),
    )
    for lane in ("brain", "worker", "local"):
        services.save_route(by=system, lane=lane, model=model)
    Route.objects.update(first_byte_seconds=60)
    AgentProfile.objects.update(max_output_tokens=512)
    Budget.objects.create(
        workspace=workspace,
        scope="workspace",
        unit="micros",
        window="total",
        limit=1_000_000,
    )
    for number in range(int(turns)):
        ask(f"question {number}")


def serve(port: str) -> None:
    """Be the web process, with its static files as they lie in the tree."""
    from gunicorn.app.wsgiapp import run

    settings.STORAGES = resident.PLAIN
    options = ["-k", "asgi", "-b", f"127.0.0.1:{port}", "--graceful-timeout", "8"]
    quiet = ["--no-control-socket", "--log-level", "warning"]
    sys.argv = ["gunicorn", "polar_site.asgi:application", *options, *quiet]
    run()


def plug_mail() -> None:
    """A tool that writes to the outside, for which a person is asked; and a model
    that writes as slowly as one reads."""
    from apps.common import clock
    from apps.extensions.ports import NativeTool, native_tools
    from apps.gateway.ports import EffectClass, Risk
    from apps.providers.adapters.scripted import ScriptedAdapter

    def write(arguments: Any, context: Any) -> dict[str, str]:
        with open(os.environ["JOURNEY_LOG"], "a") as log:
            log.write(f"{context.run_id} {arguments['to']} {os.getpid()}\n")
        return {"said": "sent"}

    native_tools.register(
        NativeTool(
            capability_id="mail.send",
            title="Send",
            description="Send a mail.",
            input_schema={"type": "object", "properties": {"to": {"type": "string"}}},
            fn=write,
            risk=Risk("write", side_effects="external"),
            effect_class=EffectClass.NON_REPEATABLE,
        )
    )
    told = ScriptedAdapter.generate

    def drip(self: Any, permit: Any, call: Any, key: Any) -> Any:
        written = 0

        def show(piece: str) -> None:
            nonlocal written
            clock.sleep(0.5)
            call.on_delta(piece)
            before, written = written, written + len(piece)
            if before < LONG_ENOUGH <= written:
                until_seen(lambda: call.on_delta(""))

        shown = replace(call, on_delta=show if call.on_delta else None)
        return told(self, permit, shown, key)

    ScriptedAdapter.generate = drip  # type: ignore[method-assign]


#: So much of an answer makes a draft, which is then waited for; a part of it is held
#: back for fear of secrets. Units: characters.
LONG_ENOUGH = 144


def until_seen(show: Any) -> None:
    """Write no further until people see a draft of this answer, as they would while a
    model takes its time; a minute without one and the answer goes on."""
    from apps.agents.models import Turn
    from apps.channels.models import OutboxMessage
    from apps.common import clock, ids

    turns = Turn.objects.filter(trace_id=ids.current_trace_id())
    drafts = OutboxMessage.objects.filter(
        dedupe_key__startswith="draft:", state="sent", turn_id__in=turns.values("id")
    )
    until = clock.monotonic() + 60.0
    while clock.monotonic() < until and not drafts.exists():
        connection.close()
        clock.sleep(0.3)
        show()


def mail() -> None:
    """Let the demo's agent use the tool that `plug_mail` gave this process."""
    from apps.agents.models import AgentProfile
    from apps.extensions import services as extensions
    from apps.providers.models import Provider

    extensions.sync_shipped_plugin()
    AgentProfile.objects.filter(slug="primary").update(allowed_capabilities=["polar/*"])
    rule = {
        "match": "send a mail to (telegram|slack)",
        "tool": "polar__mail_send",
        "arguments": {"to": "x@y.example"},
    }
    Provider.objects.filter(slug="scripted").update(settings={"rules": [rule]})


def later(seconds: float) -> None:
    """Be a process that starts so much later."""
    from apps.common import clock

    measure = clock._measure
    clock._boot_wall += seconds
    clock._measure = lambda: measure() + seconds


def short_leases(seconds: float) -> None:
    """Let a journey see in seconds what takes half a minute."""
    from apps.runs.engine import claim, clock, leases, watch

    claim.LEASE_SECONDS = clock.LEASE_SECONDS = seconds
    clock.RENEW_SECONDS = seconds / 3
    leases.RENEW_SECONDS = seconds / 3
    watch.SWEEP_SECONDS = 1.0


def witness_here() -> None:
    """Give the process the journey's own witness directory."""
    settings.POLAR_WITNESS_DIR = Path(os.environ["JOURNEY_WITNESS"])
    settings.POLAR_SNAPSHOT_DIR = settings.POLAR_WITNESS_DIR.parent / "snapshots"
    settings.POLAR_VAULT_KEYS = os.environ.get("JOURNEY_VAULT_KEYS", "")
    settings.POLAR_UI_API_SECRET = os.environ.get("JOURNEY_UI_SECRET", "")
    if "JOURNEY_NO_OLD_KEY" in os.environ:
        settings.POLAR_VAULT_KEY = ""


def settle_in(env: dict[str, str]) -> None:
    """Point a process that was forked from a warm one at its own store."""
    url = env["DATABASE_URL"]
    assert env["REDIS_URL"] == settings.REDIS_URL, "the broker is decided at the start"
    name = url.removeprefix("sqlite:///") if "sqlite" in url else url.split("/")[-1]
    settings.DATABASES["default"]["NAME"] = name
    connection.settings_dict["NAME"] = name
    settings.DATABASE_URL = url
    settings.ENVIRONMENT = dict(env)


def prepare(arguments: list[str]) -> list[str]:
    """Arm and equip this process as its first words ask; return what is left."""
    from apps.common import failpoints
    from apps.runs.engine import carrier

    if arguments[:1] == ["--die"]:
        name, _, times = arguments[1].partition(":")
        failpoints.install(die_at(name, int(times or 1)))
        arguments = arguments[2:]
    if arguments[:1] == ["--later"]:
        later(float(arguments[1]))
        arguments = arguments[2:]
    if arguments[:1] == ["--patience"]:
        carrier.PATIENCE_SECONDS = float(arguments[1])
        arguments = arguments[2:]
    if arguments[:1] == ["--lease"]:
        short_leases(float(arguments[1]))
        arguments = arguments[2:]
    witness_here()
    plug_test_kinds()
    if "JOURNEY_MAIL" in os.environ:
        plug_mail()
    if "JOURNEY_RECEIVER" in os.environ:
        outside.plug()
        folder = Path(os.environ["JOURNEY_LOG"]).parent
        settings.POLAR_SINK_FILE = str(folder / "sink.jsonl")
    return arguments


def live_so_many(count: str) -> None:
    live(int(count))


#: What is not a management command.
OURS: dict[str, Any] = {
    "live": live_so_many,
    "resident": resident.serve,
    "enqueue": enqueue,
    "approve": approve,
    "ask": ask,
    "bots": bots,
    "purse": purse,
    "mail": mail,
    "storm": storm,
    "serve": serve,
    "fill": rekeying.fill,
    "rotate_killed": rekeying.rotate_killed,
    "open_all": rekeying.open_all,
}


def main(arguments: list[str]) -> None:
    """Be the process that is named."""
    django.setup()
    name, *words = prepare(arguments)
    if name in OURS:
        OURS[name](*words)
    else:
        call_command(name, *words)


if __name__ == "__main__":
    main(sys.argv[1:])
