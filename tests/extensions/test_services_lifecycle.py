"""Trust and lifecycle: what ships, what operators decide, and its trace."""

from itertools import product

import pytest

from apps.access.errors import RoleRequired
from apps.audit.models import Event
from apps.common.errors import Denied, Invalid, InvalidTransition, NotTrusted
from apps.extensions import ports, services
from apps.extensions.engine.definition import alias_of
from apps.extensions.models import (
    LIFECYCLE_TRANSITIONS,
    TRUST_TRANSITIONS,
    Capability,
    Extension,
    Lifecycle,
    Review,
    Trust,
    Version,
)

LIFECYCLE_MOVES = {
    ("pending_install", "installed"),
    ("pending_install", "removed"),
    ("installed", "enabled"),
    ("installed", "removed"),
    ("enabled", "disabled"),
    ("disabled", "enabled"),
    ("disabled", "removed"),
    ("removed", "pending_install"),
}


@pytest.mark.parametrize(("source", "target"), list(product(Lifecycle, repeat=2)))
def test_lifecycle_pair(source, target):
    allowed = (source.value, target.value) in LIFECYCLE_MOVES
    assert LIFECYCLE_TRANSITIONS.allows(source, target) == allowed


@pytest.mark.parametrize(("source", "target"), list(product(Trust, repeat=2)))
def test_trust_pair(source, target):
    assert TRUST_TRANSITIONS.allows(source, target) == (source != target)


def test_sync_installs_the_shipped_plugin_trusted_and_pinned(plugin):
    assert (plugin.trust, plugin.lifecycle) == ("trusted", "enabled")
    assert plugin.is_pinned


def test_sync_records_install_and_review(plugin):
    types = Event.objects.filter(subject_id=str(plugin.id)).order_by("id")

    assert [event.type for event in types] == [
        "extension.installed",
        "extension.reviewed",
    ]
    assert Review.objects.get().definition_hash == plugin.definition_hash


def test_sync_again_writes_nothing(plugin):
    before = Event.objects.count()

    services.sync_shipped_plugin(version="1")

    assert Event.objects.count() == before


def test_sync_of_changed_code_is_an_audited_upgrade(plugin, monkeypatch):
    monkeypatch.setattr(
        ports.native_tools, "of", lambda _: [ports.native_tools.find("polar/clock.now")]
    )

    row = services.sync_shipped_plugin(version="2")

    assert row.definition_hash != plugin.definition_hash
    assert Event.objects.filter(type="extension.upgraded").count() == 1
    assert Version.objects.count() == 2
    assert not Capability.objects.get(capability_id="calculator.evaluate").is_current


def test_sync_leaves_a_revoked_plugin_blocked(plugin, alice):
    services.revoke_extension(by=alice.principal, extension_id=plugin.id, reason="bad")

    services.sync_shipped_plugin(version="2")

    assert Extension.objects.get().trust == "blocked"


def test_alias_is_safe_and_unique(plugin):
    taken = alias_of("polar", "clock_now")

    assert taken != alias_of("polar", "clock.now")
    assert len(alias_of("x" * 80, "é" * 80)) == 64


def test_operator_disables_and_approver_enables(plugin, alice, bob):
    services.disable_extension(by=alice.principal, extension_id=plugin.id, reason="a")

    row = services.enable_extension(
        by=bob.principal, extension_id=plugin.id, reason="b"
    )

    assert row.lifecycle == "enabled"
    assert Event.objects.get(type="extension.enabled").reason == "b"


def test_operator_may_not_enable(plugin, alice):
    with pytest.raises(RoleRequired):
        services.enable_extension(
            by=alice.principal, extension_id=plugin.id, reason="please"
        )


def test_agent_decides_nothing(plugin, rob):
    with pytest.raises(Denied):
        services.revoke_extension(by=rob, extension_id=plugin.id, reason="mine")


def test_enabling_what_is_enabled_is_refused(plugin, bob):
    with pytest.raises(InvalidTransition):
        services.enable_extension(by=bob.principal, extension_id=plugin.id, reason="x")


def test_enabling_what_is_blocked_is_refused(plugin, alice, bob):
    services.disable_extension(by=alice.principal, extension_id=plugin.id, reason="a")
    services.revoke_extension(by=alice.principal, extension_id=plugin.id, reason="bad")

    with pytest.raises(NotTrusted, match="alice blocked polar at .* UTC: bad"):
        services.enable_extension(by=bob.principal, extension_id=plugin.id, reason="x")


def test_revoking_needs_a_reason(plugin, alice):
    with pytest.raises(Invalid):
        services.revoke_extension(
            by=alice.principal, extension_id=plugin.id, reason=" "
        )
