"""Starting turns, shaping and pinning profiles: allowed, refused, traced."""

from typing import Any

import pytest

from apps.access import services as access
from apps.access.errors import RoleRequired
from apps.access.models import Principal, Role, User, Workspace
from apps.agents import queries
from apps.agents import services as agents
from apps.agents.errors import PinBroken
from apps.agents.models import (
    AgentProfile,
    Conversation,
    ProfileVersion,
    Turn,
    TurnState,
)
from apps.audit.models import Event
from apps.common.errors import Conflict, Invalid, NotFound
from apps.runs import services as runs
from apps.runs.models import Run
from tests import people


@pytest.fixture
def system(workspace: Workspace) -> Principal:
    return access.system_principal()


@pytest.fixture
def stranger(charlie: User) -> Principal:
    return access.principal_for_user(user=charlie)


def other_profile(workspace: Workspace, slug: str = "writer") -> AgentProfile:
    return AgentProfile.objects.get(workspace=workspace, slug=slug)


def serving(conversation: Conversation, principal: Principal) -> tuple[str, str]:
    found = queries.resolve_profile(
        workspace=conversation.workspace,
        principal=principal,
        conversation=conversation,
    )
    return found.profile.slug, found.source


# --- turns


def test_started_turn_has_a_run_that_carries_it(turn: Turn) -> None:
    assert turn.run.kind == "agents.turn"
    assert turn.run.payload == {"turn_id": str(turn.id)}


def test_started_turn_leaves_an_event(turn: Turn) -> None:
    event = Event.objects.get(type="turn.started")

    assert (event.run_id, event.trace_id) == (turn.run_id, turn.trace_id)


def test_stranger_may_not_start_a_turn(
    conversation: Conversation, stranger: Principal
) -> None:
    with pytest.raises(NotFound):
        agents.start_turn(
            conversation=conversation, principal=stranger, text="hi", trigger="api"
        )

    assert not Turn.objects.exists()


def test_empty_message_is_refused(
    conversation: Conversation, operator: Principal
) -> None:
    with pytest.raises(Invalid):
        agents.start_turn(
            conversation=conversation, principal=operator, text="  ", trigger="api"
        )

    assert not Run.objects.exists()


def test_outside_thread_has_one_conversation(
    workspace: Workspace, operator: Principal
) -> None:
    first, second = (
        agents.ensure_conversation(
            workspace=workspace,
            principal=operator,
            channel="telegram",
            external_key="42",
        )
        for _ in range(2)
    )

    assert first == second


def test_turn_of_a_cancelled_run_is_closed(turn: Turn, operator: Principal) -> None:
    runs.cancel(by=operator, run_id=turn.run_id, reason="enough")

    closed = [agents.close_orphans(), agents.close_orphans()]

    turn.refresh_from_db()
    assert (turn.state, closed) == (TurnState.CANCELLED, [1, 0])
    assert Event.objects.filter(type="turn.cancelled").count() == 1


def test_turn_of_a_living_run_is_left_open(turn: Turn) -> None:
    assert agents.close_orphans() == 0


# --- profiles


def save(by: Principal, workspace: Workspace, version: int, **changes: Any) -> Any:
    return agents.save_profile(
        by=by,
        workspace=workspace,
        slug="primary",
        changes=changes,
        expected_version=version,
    )


def test_shipped_profiles_are_made_once(
    workspace: Workspace, system: Principal
) -> None:
    made = [
        len(agents.install_default_profiles(workspace=workspace, by=system))
        for _ in range(2)
    ]

    assert made == [4, 0]


def test_saved_profile_keeps_its_old_version(
    workspace: Workspace, primary: AgentProfile, operator: Principal
) -> None:
    save(operator, workspace, 1, lane="brain")

    kept = ProfileVersion.objects.filter(profile=primary).order_by("version")
    assert [each.body["lane"] for each in kept] == ["worker", "brain"]


def test_saved_profile_leaves_an_event(
    workspace: Workspace, primary: AgentProfile, operator: Principal
) -> None:
    save(operator, workspace, 1, lane="brain")

    event = Event.objects.filter(type="profile.saved").order_by("id").last()
    assert event is not None
    assert '"changed":["lane"]' in event.body


def test_unchanged_profile_makes_no_version(
    workspace: Workspace, primary: AgentProfile, operator: Principal
) -> None:
    assert save(operator, workspace, 1, lane="worker").version == 1


def test_second_writer_is_refused(
    workspace: Workspace, primary: AgentProfile, operator: Principal
) -> None:
    save(operator, workspace, 1, lane="brain")

    with pytest.raises(Conflict):
        save(operator, workspace, 1, lane="local")


@pytest.mark.parametrize(
    "changes",
    [
        {"lane": "warp"},
        {"nonsense": 1},
        {"allowed_capabilities": "polar/*"},
        {"fallbacks": ["openai"]},
        {"max_output_tokens": 60_000},
    ],
)
def test_invalid_profile_names_its_field(
    workspace: Workspace,
    primary: AgentProfile,
    operator: Principal,
    changes: dict[str, Any],
) -> None:
    with pytest.raises(Invalid) as refused:
        save(operator, workspace, 1, **changes)

    assert refused.value.fields


def test_viewer_may_not_shape_profiles(
    workspace: Workspace, primary: AgentProfile
) -> None:
    viewer = people.person("vera", Role.VIEWER, workspace)

    with pytest.raises(RoleRequired):
        save(access.principal_for_user(user=viewer), workspace, 1, lane="brain")


# --- pins


def test_narrowest_pin_serves(
    conversation: Conversation, operator: Principal, system: Principal
) -> None:
    workspace = conversation.workspace
    keys = {
        "global": "",
        "workspace": str(workspace.id),
        "user": str(operator.id),
        "session": str(conversation.id),
    }
    served = [serving(conversation, operator)]
    slugs = ["researcher", "writer", "coder", "primary"]

    for (scope, key), slug in zip(keys.items(), slugs, strict=True):
        profile = other_profile(workspace, slug)
        agents.pin(by=system, scope=scope, key=key, profile=profile)
        served.append(serving(conversation, operator))

    assert served == [
        ("primary", "default"),
        ("researcher", "global"),
        ("writer", "workspace"),
        ("coder", "user"),
        ("primary", "session"),
    ]


def test_pin_to_an_inactive_profile_is_an_error(
    conversation: Conversation, operator: Principal
) -> None:
    writer = other_profile(conversation.workspace)
    agents.pin(by=operator, scope="user", key=str(operator.id), profile=writer)
    AgentProfile.objects.filter(id=writer.id).update(is_active=False)

    with pytest.raises(PinBroken, match="@writer"):
        serving(conversation, operator)


def test_pin_to_a_removed_profile_names_it(
    conversation: Conversation, operator: Principal
) -> None:
    writer = other_profile(conversation.workspace)
    agents.pin(by=operator, scope="user", key=str(operator.id), profile=writer)
    writer.delete()

    with pytest.raises(PinBroken, match="@writer"):
        serving(conversation, operator)


def test_unpinned_scope_falls_back(
    conversation: Conversation, operator: Principal
) -> None:
    workspace, key = conversation.workspace, str(operator.id)
    writer = other_profile(workspace)
    agents.pin(by=operator, scope="user", key=key, profile=writer)

    agents.unpin(by=operator, scope="user", key=key, workspace=workspace)

    assert serving(conversation, operator) == ("primary", "default")
    assert Event.objects.filter(type="profile.unpinned").count() == 1


def test_operator_may_not_pin_for_everybody(
    conversation: Conversation, operator: Principal
) -> None:
    writer = other_profile(conversation.workspace)

    with pytest.raises(RoleRequired):
        agents.pin(by=operator, scope="global", key="", profile=writer)


def test_stranger_may_not_pin_a_session(
    conversation: Conversation, stranger: Principal
) -> None:
    writer = other_profile(conversation.workspace)

    with pytest.raises(RoleRequired):
        agents.pin(
            by=stranger, scope="session", key=str(conversation.id), profile=writer
        )
