"""Roles are groups with permissions, and every page asks for one."""

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import resolve

from apps.access import services
from apps.access.models import Role, User, Workspace
from apps.access.services import groups
from apps.audit.models import Event
from apps.boards import services as boards
from polar_site import gate
from tests import people
from tests.access.test_page_walker import PATHS

pytestmark = pytest.mark.django_db

DESK = [path for path in PATHS if not path.startswith("/admin/")]
RECORDS = [path for path in PATHS if path.startswith("/admin/")]
#: The admin's own pages without a row of anybody's.
SHELL = {"/admin/", "/admin/jsi18n/", "/admin/password_change/done/"}
VERBS = ("view", "change", "add")
#: Nobody but an administrator meets these.
CLOSED = ("access", "vault", "audit", "auth")


@pytest.fixture
def signed_in(workspace):
    def enter(role: Role) -> Client:
        client = Client()
        client.raise_request_exception = False
        client.force_login(people.person(f"the-{role}", role, workspace))
        return client

    return enter


def name_of(path: str) -> str:
    return resolve(path).view_name


def test_every_permission_that_a_role_carries_exists():
    assert groups.missing_permissions() == set()


def test_groups_carry_more_from_role_to_role(workspace):
    held = [Group.objects.get(name=role).permissions.count() for role in groups.DESK]

    assert held == sorted(set(held))


def test_group_is_mended_by_the_next_migration(workspace):
    Group.objects.get(name="viewer").permissions.clear()

    groups.sync_groups()

    assert Group.objects.get(name="viewer").permissions.count() > 10


def test_right_given_to_a_person_alone_opens_nothing(alice):
    admins = Group.objects.get(name="admin")
    alice.user_permissions.set(admins.permissions.all())

    fresh = User.objects.get(id=alice.id)

    assert not fresh.has_perm(gate.ADMINISTER)
    assert fresh.has_perm(gate.ACT)


def test_new_role_holds_at_the_next_page(signed_in, workspace):
    client = signed_in(Role.OPERATOR)
    assert client.get("/users/").status_code == 403
    user = User.objects.get(username="the-operator")
    system = services.system_principal()

    services.set_role(by=system, user=user, role="admin", workspace=workspace)

    assert client.get("/users/").status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_page_when_no_role_then_403(client, workspace, method):
    client.force_login(people.stranger("nobody"))

    let_in = [
        (path, status)
        for path in DESK
        if name_of(path) not in gate.OWN
        and (status := client.generic(method, path).status_code) != 403
    ]

    assert let_in == []


def test_page_when_viewer_writes_then_403_and_no_trace(signed_in):
    client = signed_in(Role.VIEWER)
    free = gate.OWN | gate.LOOKERS_WRITE
    before = Event.objects.count()

    let_in = [
        (path, status)
        for path in DESK
        if name_of(path) not in free
        and (status := client.post(path).status_code) != 403
    ]

    assert let_in == []
    assert Event.objects.count() == before


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.APPROVER])
def test_page_of_administrators_when_lower_role_then_403(signed_in, role):
    client = signed_in(role)
    closed = [path for path in DESK if name_of(path) in gate.ADMINISTRATORS_WRITE]
    assert len(closed) >= len(gate.ADMINISTRATORS_WRITE) - 2

    let_in = [
        (path, status)
        for path in closed
        if (status := client.post(path).status_code) != 403
    ]

    assert let_in == []


def test_every_name_of_the_gate_is_a_page():
    named = gate.OWN | gate.LOOKERS_WRITE | gate.ADMINISTRATORS_WRITE

    assert named - {name_of(path) for path in PATHS} == set()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.APPROVER])
def test_records_when_not_carried_then_never_shown(signed_in, role):
    """A redirect shows nothing: it leads to an address that is walked itself."""
    client, user = signed_in(role), User.objects.get(username=f"the-{role}")
    opened = []
    for path in RECORDS:
        _, _, app, model, *_ = [*path.split("/"), "", ""]
        if path in SHELL:
            continue
        may = any(user.has_perm(f"{app}.{verb}_{model}") for verb in VERBS)
        assert not (may and app in CLOSED)
        if not may and client.get(path).status_code == 200:
            opened.append(path)

    assert opened == []


def test_records_when_viewer_then_listed_but_not_changed(signed_in):
    client = signed_in(Role.VIEWER)

    assert client.get("/admin/runs/run/").status_code == 200
    assert client.get("/admin/boards/task/add/").status_code == 403
    assert client.get("/admin/access/token/").status_code == 403


def test_records_when_other_workspace_then_hidden(signed_in, workspace):
    client = signed_in(Role.VIEWER)
    elsewhere = Workspace.objects.create(slug="elsewhere", name="Elsewhere")
    boards.ensure_board(
        by=services.system_principal(),
        workspace=elsewhere,
        slug="theirs",
        title="Theirs alone",
    )

    answer = client.get("/admin/boards/board/")

    assert answer.status_code == 200
    assert "Theirs alone" not in answer.content.decode()


def test_password_is_not_changed_behind_the_account_page(signed_in):
    client = signed_in(Role.OPERATOR)

    assert client.get("/admin/password_change/").headers["Location"] == "/account/"
