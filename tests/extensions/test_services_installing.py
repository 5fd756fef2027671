"""Taking in packages and servers: quarantined until a person has read exactly that."""

import pytest

from apps.access.errors import RoleRequired
from apps.audit.models import Event
from apps.common.errors import Conflict, Denied, Invalid, NotTrusted
from apps.extensions import services
from apps.extensions.engine import comparing
from apps.extensions.errors import PackageRefused, ReviewMissing
from apps.extensions.models import Capability, Extension, Review, Version
from apps.extensions.queries import reviewed_form

from .conftest import HARMLESS, ORIGIN, SKILL, SKILL_MD, approve, enable

PLUGIN = {
    ".claude-plugin/plugin.json": b'{"name": "desk", "version": "2.0"}',
    "skills/invoices/SKILL.md": SKILL_MD.encode(),
    "skills/invoices/scripts/add.py": b"print(1)",
    "commands/go.md": b"go",
    "hooks/hooks.json": b"{}",
    ".mcp.json": b"""{"mcpServers": {"orders": {"command":
        "${CLAUDE_PLUGIN_ROOT}/bin/server", "args": ["--stdio"]}}}""",
}


def test_skill_waits_sandboxed_and_unreviewed(skill):
    assert (skill.lifecycle, skill.trust, skill.is_pinned) == (
        "installed",
        "sandboxed",
        False,
    )


def test_skill_keeps_its_provenance(skill):
    event = Event.objects.get(type="extension.installed")

    assert (skill.source, skill.revision) == (ORIGIN.source, "abc123")
    assert event.subject_id == str(skill.id)
    assert len(skill.package) == 64


def test_skill_offers_text_and_scripts_of_unknown_risk(skill):
    risks = dict(
        Capability.objects.filter(extension=skill).values_list(
            "capability_id", "risk_level"
        )
    )

    assert risks == {
        "instructions": "read",
        "read_file": "read",
        "scripts/add.py": "unknown",
    }


def test_same_package_again_changes_nothing(skill, alice):
    before = Event.objects.filter(type__startswith="extension.").count()

    again = services.install_skill(by=alice.principal, files=SKILL, origin=ORIGIN)

    assert again.definition_hash == skill.definition_hash
    assert Event.objects.filter(type__startswith="extension.").count() == before


def test_agent_installs_nothing(rob):
    with pytest.raises(Denied):
        services.install_skill(by=rob, files=SKILL, origin=ORIGIN)


def test_shipped_name_is_taken(plugin, alice):
    files = {**SKILL, "SKILL.md": SKILL_MD.replace("invoices", "polar").encode()}

    with pytest.raises(Conflict):
        services.install_skill(by=alice.principal, files=files, origin=ORIGIN)


def test_unreviewed_is_not_enabled(skill, bob):
    with pytest.raises(ReviewMissing):
        enable(skill, bob)


def test_reviewed_skill_is_read_by_a_model(skill, bob, call):
    enable(approve(skill, bob), bob)

    outcome = call("invoices__instructions")

    assert "Run scripts/add.py" in outcome.output["text"]


@pytest.mark.parametrize("path", ["../SKILL.md", "/etc/passwd", "scripts", "a\0b"])
def test_skill_reads_nothing_outside_its_package(skill, bob, call, path):
    enable(approve(skill, bob), bob)

    with pytest.raises(Invalid) as caught:
        call("invoices__read_file", {"path": path})
    assert caught.value.fields[0].path == "$.path"


def test_unknown_risk_cannot_run_until_an_operator_says_it(skill, bob, call, runtime):
    row = enable(approve(skill, bob), bob)
    with pytest.raises(Denied) as caught:
        call("invoices__scripts_add_py")
    assert caught.value.reason_code == "risk_unknown"

    approve(row, bob, risks={"scripts/add.py": HARMLESS})

    assert call("invoices__scripts_add_py").output == {"did": "scripts/add.py"}
    known = Capability.objects.get(capability_id="scripts/add.py")
    assert (known.risk_by, known.risk_reason) == ("bob", "adds numbers")


def test_risk_without_a_reason_is_refused(skill, alice):
    with pytest.raises(Invalid):
        services.supply_risk(
            by=alice.principal,
            extension_id=skill.id,
            capability_id="scripts/add.py",
            risk=HARMLESS,
            reason=" ",
        )


def test_risk_supplied_is_another_form(skill, alice):
    row = services.supply_risk(
        by=alice.principal,
        extension_id=skill.id,
        capability_id="scripts/add.py",
        risk={key: HARMLESS[key] for key in ("riskLevel", "sideEffects", "dataEgress")},
        reason="adds numbers",
    )

    assert row.definition_hash != skill.definition_hash
    assert Event.objects.filter(type="extension.risk_supplied").count() == 1


def test_review_of_another_form_is_refused(skill, bob):
    verdict = services.Verdict(definition_hash="0" * 64, approve=True, reason="fine")

    with pytest.raises(Conflict):
        services.review_extension(
            by=bob.principal, extension_id=skill.id, verdict=verdict
        )
    assert not Review.objects.exists()


def test_operator_may_not_review(skill, alice):
    with pytest.raises(RoleRequired):
        approve(skill, alice)


def test_rejected_is_blocked_and_says_by_whom(skill, bob):
    verdict = services.Verdict(
        definition_hash=skill.definition_hash, approve=False, reason="reads too much"
    )
    services.review_extension(by=bob.principal, extension_id=skill.id, verdict=verdict)

    with pytest.raises(NotTrusted, match="bob blocked invoices .*reads too much"):
        enable(skill, bob)


def test_upgrade_stops_until_reviewed_and_rolls_back_for_real(skill, alice, bob, call):
    first = enable(approve(skill, bob), bob)
    files = {**SKILL, "SKILL.md": SKILL_MD.replace("add them", "sum them").encode()}

    second = services.install_skill(by=alice.principal, files=files, origin=ORIGIN)
    assert (second.lifecycle, second.is_pinned) == ("disabled", False)

    back = services.rollback_extension(
        by=bob.principal, extension_id=skill.id, reason="worse"
    )
    assert back.definition_hash == first.definition_hash
    assert back.is_pinned
    enable(back, bob)
    assert "Run scripts/add.py" in call("invoices__instructions").output["text"]


def test_rollback_does_not_revive_what_was_revoked(skill, alice, bob):
    approve(skill, bob)
    services.revoke_extension(by=alice.principal, extension_id=skill.id, reason="bad")
    files = {**SKILL, "extra.txt": b"new"}
    second = services.install_skill(by=alice.principal, files=files, origin=ORIGIN)
    approve(second, bob)

    back = services.rollback_extension(
        by=bob.principal,
        extension_id=skill.id,
        definition_hash=skill.definition_hash,
        reason="back",
    )

    assert not back.is_pinned


def test_upgrade_shows_what_it_may_do_that_it_could_not(skill, alice, bob):
    approve(skill, bob)
    files = {
        **SKILL,
        "scripts/send.py": b"",
        "polar.json": b'{"grants": {"domains": ["mail.example.org"]}}',
    }
    services.install_skill(by=alice.principal, files=files, origin=ORIGIN)

    row = Extension.objects.get()
    newest = Version.objects.get(definition_hash=row.definition_hash)
    delta = comparing.delta(reviewed_form(row), newest.definition)

    assert delta.added == ["scripts/send.py"]
    assert delta.rights == ["reaches mail.example.org"]
    assert "scripts/send.py" in delta.unknown


def test_drafted_manifest_is_validated(alice):
    with pytest.raises(PackageRefused) as caught:
        services.install_skill(
            by=alice.principal,
            files=SKILL,
            origin=ORIGIN,
            draft={"capabilities": {"scripts/add.py": {"riskLevel": "harmless"}}},
        )
    assert caught.value.fields[0].path == "$.capabilities['scripts/add.py'].riskLevel"


def test_drafted_manifest_still_needs_a_person(alice, bob):
    said = {key: HARMLESS[key] for key in ("riskLevel", "sideEffects", "dataEgress")}
    row = services.install_skill(
        by=alice.principal,
        files=SKILL,
        origin=ORIGIN,
        draft={"capabilities": {"scripts/add.py": said}},
    )

    assert Capability.objects.get(capability_id="scripts/add.py").risk_by == "draft"
    with pytest.raises(ReviewMissing):
        enable(row, bob)


def test_plugin_brings_skills_and_servers_and_lists_what_is_not_run(ada, runtime):
    row = services.install_plugin(by=ada.principal, files=PLUGIN_OK, origin=ORIGIN)

    assert [part["name"] for part in row.parts] == [
        "invoices",
        "invoices.scripts",
        "orders",
    ]
    assert {left["name"] for left in row.not_run} == {"commands", "hooks"}

    row = services.sync_mcp_server(
        by=ada.principal, extension_id=row.id, reason="ask it"
    )
    names = row.capabilities.filter(is_current=True, part="orders")
    assert set(names.values_list("capability_id", flat=True)) == {
        "orders.find",
        "orders.cancel",
    }
    assert runtime.sources[0].folder is not None


PLUGIN_OK = {
    **PLUGIN,
    ".mcp.json": b"""{"mcpServers": {"orders": {"command": "node",
        "args": ["${CLAUDE_PLUGIN_ROOT}/server.js"]}}}""",
}


def test_plugin_with_a_command_needs_an_administrator(alice):
    with pytest.raises(RoleRequired):
        services.install_plugin(by=alice.principal, files=PLUGIN_OK, origin=ORIGIN)


@pytest.mark.parametrize(
    ("command", "url"),
    [
        (("bash", "-c", "id"), ""),
        (("/bin/sh", "-c", "id"), ""),
        (("/usr/bin/env", "node"), ""),
        (("curl",), ""),
        ((), ""),
        (("node",), "https://example.org/mcp"),
        ((), "http://example.org/mcp"),
        ((), "https://user:pass@example.org/mcp"),
        ((), "https://example.org/mcp?token=x"),
        ((), "file:///etc/passwd"),
    ],
)
def test_servers_that_are_never_taken_in(ada, runtime, command, url):
    new = services.NewServer(extension_id="orders", command=command, url=url)

    with pytest.raises(Invalid):
        services.sync_mcp_server(by=ada.principal, new=new, reason="x")
    assert not Extension.objects.exists()


def test_command_is_an_administrators_word(bob, runtime):
    new = services.NewServer(extension_id="orders", command=("node", "server.js"))

    with pytest.raises(RoleRequired):
        services.sync_mcp_server(by=bob.principal, new=new, reason="x")


def test_unreviewed_server_is_asked_without_network_or_secrets(ada, runtime):
    new = services.NewServer(
        extension_id="orders",
        command=("node",),
        grants={"domains": ["example.org"], "secrets": {"KEY": "orders-key"}},
    )

    services.sync_mcp_server(by=ada.principal, new=new, reason="x")

    assert runtime.sources[0].grants.domains == ()
    assert not runtime.sources[0].grants.secrets


def test_two_tools_of_one_name_are_refused(ada, runtime):
    offer = runtime.served.offers[0]
    runtime.serve(offer, offer)

    with pytest.raises(PackageRefused):
        services.sync_mcp_server(
            by=ada.principal,
            new=services.NewServer(extension_id="orders", command=("node",)),
            reason="x",
        )


def test_server_asked_again_stays_reviewed(orders, ada):
    row = services.sync_mcp_server(
        by=ada.principal, extension_id=orders.id, reason="again"
    )

    assert (row.lifecycle, row.is_pinned) == ("enabled", True)
