"""Tools run through the gateway, and only as they were reviewed."""

from collections.abc import Iterator
from typing import Any

import pytest

from apps.audit.models import Event
from apps.common.errors import ApprovalRequired, Invalid, NotTrusted
from apps.extensions import ports, services
from apps.extensions.adapters import sandbox
from apps.extensions.engine import sources
from apps.extensions.errors import InternalContractBug, ToolUnavailable
from apps.extensions.models import Capability, Extension
from apps.gateway import services as gateway
from apps.gateway.errors import CapabilityDenied
from apps.gateway.models import ApprovalRequest, Call
from apps.gateway.ports import Permit

from .conftest import HARMLESS, ORIGIN, approve, enable

CALCULATOR, CLOCK = "polar__calculator_evaluate", "polar__clock_now"


@pytest.fixture
def broken() -> Iterator[ports.NativeTool]:
    """A tool of ours with a bug in it."""
    tool = ports.NativeTool(
        capability_id="broken.tool",
        title="Broken",
        description="Breaks.",
        input_schema={"type": "object"},
        fn=lambda arguments, context: {}["missing"],
    )
    ports.native_tools.register(tool)
    yield tool
    ports.native_tools.forget(tool.name)


def clock_target(plugin: Extension) -> ports.Target:
    source = ports.Source(
        extension_id=plugin.id, ext_id="polar", transport=ports.Transport.NATIVE
    )
    return ports.Target(source=source, name="clock.now", capability="polar/clock.now")


def test_tool_in_scope_runs(run):
    assert run(CALCULATOR, {"expression": "2+3"}).output == {"result": "5"}


def test_tool_run_leaves_its_call_and_event(run):
    outcome = run(CALCULATOR, {"expression": "2+3"})

    call = Call.objects.get(id=outcome.call_id)
    assert (call.state, call.capability) == ("succeeded", "polar/calculator.evaluate")
    assert Event.objects.filter(type="call.settled", subject_id=str(call.id)).exists()


def test_clock_tells_the_time_of_a_zone(run):
    assert "(Europe/Berlin)" in run(CLOCK, {"timezone": "Europe/Berlin"}).output["now"]


@pytest.mark.parametrize(
    "zone", ["Nowhere/At_All", "../../etc/passwd", "Europe", "a" * 64]
)
def test_clock_refuses_what_is_no_zone(run, zone):
    with pytest.raises(Invalid) as caught:
        run(CLOCK, {"timezone": zone})

    assert caught.value.fields[0].path == "$.timezone"


@pytest.mark.parametrize(
    "arguments",
    [{}, {"expression": 5}, {"expression": "1", "more": 1}, {"expression": "1" * 500}],
)
def test_arguments_off_the_schema_are_refused_by_field(run, arguments):
    with pytest.raises(Invalid) as caught:
        run(CALCULATOR, arguments)

    assert caught.value.fields[0].path.startswith("$")
    assert caught.value.fields[0].expected


def test_arguments_that_are_no_object_are_refused(run):
    with pytest.raises(Invalid):
        run(CALCULATOR, ["2+3"])


def test_tool_outside_the_scope_is_denied_and_leaves_a_row(run):
    with pytest.raises(CapabilityDenied):
        run(
            CALCULATOR, {"expression": "1"}, scope={"allowed": {"polar": ["clock.now"]}}
        )

    assert Call.objects.get().state == "denied"


def test_unknown_alias_is_unavailable(run):
    with pytest.raises(ToolUnavailable):
        run("polar__nothing", {})


def test_same_key_is_replayed_not_repeated(run):
    first = run(CLOCK, {}, idempotency_key="k")

    again = run(CLOCK, {}, idempotency_key="k")

    assert again.replayed
    assert again.output == first.output


def test_disabled_plugin_does_not_run(run, plugin, alice):
    services.disable_extension(
        by=alice.principal, extension_id=plugin.id, reason="noisy"
    )

    with pytest.raises(NotTrusted) as caught:
        run(CLOCK, {})
    assert caught.value.code == "POLAR_EXTENSION_NOT_ENABLED"


def test_revoked_plugin_does_not_run_and_says_why(run, plugin, alice):
    services.revoke_extension(by=alice.principal, extension_id=plugin.id, reason="bad")

    with pytest.raises(NotTrusted, match="bad"):
        run(CLOCK, {})


def test_code_that_was_not_reviewed_does_not_run(run, broken):
    with pytest.raises(NotTrusted) as caught:
        run(CLOCK, {})

    assert caught.value.reason_code == "definition_changed"


def test_bug_in_a_tool_is_a_contract_bug(run, broken):
    services.sync_shipped_plugin(version="2")

    with pytest.raises(InternalContractBug):
        run("polar__broken_tool", {})
    assert Call.objects.get().state == "failed"


def test_runner_refuses_without_a_permit(plugin):
    with pytest.raises(Exception, match="permit"):
        ports.find_runtime("native").execute(clock_target(plugin), {}, None, None)


def test_runner_refuses_a_spent_permit(plugin, db):
    permit = Permit(call_id=plugin.id, args_digest="", idempotency_key="", start=list)
    permit.is_spent = True

    with pytest.raises(Exception, match="spent"):
        ports.find_runtime("native").execute(clock_target(plugin), {}, permit, None)


def test_tools_for_lists_what_the_scope_names(plugin):
    specs = services.tools_for(scope={"allowed": {"polar": ["clock.now"]}})

    assert [(spec.alias, spec.capability) for spec in specs] == [
        (CLOCK, "polar/clock.now")
    ]


def test_tools_for_tells_no_more_than_a_model_should_read(plugin):
    Capability.objects.update(description="x" * 100_000)

    (spec, *_) = services.tools_for(scope={"allowed": {"polar": ["*"]}})

    assert len(spec.description) == 4_000


def test_tools_for_lists_nothing_without_a_scope(plugin):
    assert services.tools_for(scope={"allowed": {}}) == []


def test_tools_for_leaves_out_a_disabled_plugin(plugin):
    Extension.objects.update(lifecycle="disabled")

    assert services.tools_for(scope={"allowed": {"polar": ["*"]}}) == []


def test_tools_for_leaves_out_unknown_risk(plugin):
    Capability.objects.filter(alias=CLOCK).update(risk_level="unknown")

    specs = services.tools_for(scope={"allowed": {"polar": ["*"]}})
    assert CLOCK not in [spec.alias for spec in specs]


@pytest.mark.parametrize(
    ("grants", "trust", "private"),
    [
        ({}, "trusted", False),
        ({"domains": ["example.org"]}, "reviewed", False),
        ({"secrets": {"TOKEN": "mail"}}, "trusted", True),
        ({"secrets": {"TOKEN": "mail"}}, "reviewed", False),
        ({"readPaths": ["/srv/mail"]}, "reviewed", True),
        ({"local": ["10.0.0.5:80"]}, "reviewed", True),
    ],
)
def test_foreign_results_are_untrusted_and_private_where_they_come_from_the_inside(
    grants: Any, trust: str, private: bool
) -> None:
    row = Extension(
        ext_id="mail",
        parts=[{"name": "p", "transport": "stdio"}],
        grants=grants,
        trust=trust,
    )

    labels = sources.labels_of(Capability(extension=row, capability_id="read"))

    assert labels == {"untrusted", *(["private"] if private else [])}


DELETER = {
    "SKILL.md": b"---\nname: deleter\ndescription: Deletes.\n---\nDelete.\n",
    "scripts/delete.py": b"""import json, os, sys
word = "would delete" if os.environ.get("DRY_RUN") else "deleted"
print(json.dumps({word: sys.argv[1:]}))
""",
}


@pytest.mark.skipif(
    not sandbox.isolation().is_available, reason=sandbox.isolation().detail
)
def test_destructive_script_says_what_it_would_do_and_then_does_it(alice, bob, call):
    row = services.install_skill(by=alice.principal, files=DELETER, origin=ORIGIN)
    risk = {**HARMLESS, "riskLevel": "destructive"}
    enable(approve(row, bob, risks={"scripts/delete.py": risk}), bob)
    row.capabilities.update(effect_class="keyed")
    again = {"arguments": {"args": ["a"]}, "idempotency_key": "k" * 32}

    with pytest.raises(ApprovalRequired):
        call("deleter__scripts_delete_py", **again)
    asked = ApprovalRequest.objects.get()
    assert asked.mode == "dry_run_approval"
    assert asked.preview["would"] == {"said": {"would delete": ["a"]}}
    assert Call.objects.get(kind="tool").started_at is None
    gateway.decide_approval(by=bob.principal, approval_id=asked.id, approve=True)

    done = call("deleter__scripts_delete_py", **again)

    assert done.output == {"deleted": ["a"]}
