"""Tokens end at once, reach no further than their maker, and leave a trace."""

from datetime import timedelta

import pytest

from apps.access import queries, services
from apps.access.models import Principal, Role, Token
from apps.access.policies import check_role, covers
from apps.audit.models import Event
from apps.common import clock
from apps.common.errors import Denied, Invalid, Unauthenticated
from tests import people

pytestmark = pytest.mark.django_db

SECRET = "a-long-enough-secret-for-the-dashboard"


@pytest.fixture
def system(workspace) -> Principal:
    return services.system_principal()


def issue(system, **options):
    options = {"scopes": ["runs:read"], "held": frozenset({"*"})} | options
    return services.issue_token(by=system, principal=system, name="t", **options)


def test_token_when_live_then_known(system):
    _, raw = issue(system)

    assert queries.authenticate(raw).scopes == {"runs:read"}


def test_token_when_stored_then_only_its_hash(system):
    token, raw = issue(system)

    assert raw not in str(Token.objects.filter(id=token.id).values().get())


@pytest.mark.parametrize("raw", ["", "x", "garbage" * 10])
def test_token_when_unknown_then_unauthenticated(system, raw):
    with pytest.raises(Unauthenticated):
        queries.authenticate(raw)


def test_token_when_revoked_then_refused_at_once(system):
    token, raw = issue(system)

    services.revoke_token(by=system, token_id=token.id)

    with pytest.raises(Unauthenticated):
        queries.authenticate(raw)
    assert Event.objects.filter(type="token.revoked").count() == 1


def test_token_when_expired_then_refused(system):
    _, raw = issue(system, expires_at=clock.now() + timedelta(minutes=1))

    with (
        clock.frozen(clock.now() + timedelta(minutes=2)),
        pytest.raises(Unauthenticated),
    ):
        queries.authenticate(raw)


def test_token_when_owner_switched_off_then_refused(system):
    _, raw = issue(system)

    Principal.objects.filter(id=system.id).update(is_active=False)

    with pytest.raises(Unauthenticated):
        queries.authenticate(raw)


def test_token_when_wider_than_its_maker_then_denied(system):
    with pytest.raises(Denied):
        issue(system, scopes=["agents:write"], held=frozenset({"runs:*"}))


@pytest.mark.parametrize(
    ("held", "wanted", "reaches"),
    [
        ({"*"}, {"a:b"}, True),
        ({"a:*"}, {"a:b"}, True),
        ({"a:b"}, {"a:*"}, False),
        ({"a:b"}, {"*"}, False),
        ({"a:*"}, {"a:b", "c:d"}, False),
        (set(), {"a:b"}, False),
    ],
)
def test_scopes_when_compared_then_only_subsets_pass(held, wanted, reaches):
    assert covers(frozenset(held), frozenset(wanted)) is reaches


def test_ui_secret_when_changed_then_old_one_ends(system):
    services.sync_ui_secret(secret=SECRET)
    services.sync_ui_secret(secret=SECRET + "-new")

    assert queries.authenticate(SECRET + "-new").scopes == {"*"}
    with pytest.raises(Unauthenticated):
        queries.authenticate(SECRET)


def test_ui_secret_when_removed_then_ended(system):
    services.sync_ui_secret(secret=SECRET)
    services.sync_ui_secret(secret="")

    with pytest.raises(Unauthenticated):
        queries.authenticate(SECRET)


def test_ui_secret_when_short_then_refused(system):
    with pytest.raises(Invalid):
        services.sync_ui_secret(secret="short")


@pytest.mark.parametrize(
    ("held", "needed", "passes"),
    [
        (Role.VIEWER, Role.VIEWER, True),
        (Role.VIEWER, Role.OPERATOR, False),
        (Role.APPROVER, Role.OPERATOR, True),
        (Role.APPROVER, Role.ADMIN, False),
        (Role.ADMIN, Role.ADMIN, True),
    ],
)
def test_role_when_checked_then_order_decides(system, workspace, held, needed, passes):
    new = services.NewUser("dora", "correct-horse-battery", held, workspace)
    dora = services.create_user(by=system, new=new)

    try:
        check_role(dora.principal, needed, workspace)
    except Denied:
        assert not passes
    else:
        assert passes


def test_create_user_when_not_admin_then_denied(alice, workspace):
    new = services.NewUser("eve", "correct-horse-battery", Role.ADMIN, workspace)

    with pytest.raises(Denied):
        services.create_user(by=alice.principal, new=new)


def test_create_user_when_name_taken_then_names_field(system, alice, workspace):
    new = services.NewUser("alice", "correct-horse-battery", Role.VIEWER, workspace)

    with pytest.raises(Invalid) as caught:
        services.create_user(by=system, new=new)
    assert caught.value.fields[0].path == "username"


def test_workspaces_when_stranger_then_none(workspace):
    assert list(queries.workspaces_of(people.stranger("nobody").principal)) == []
