"""The log over the API shows a caller only what the caller may see."""

import pytest
from django.db import transaction

from apps.access import services as access
from apps.access.models import Workspace
from apps.audit import services as audit

pytestmark = pytest.mark.django_db


@pytest.fixture
def elsewhere(db) -> Workspace:
    return Workspace.objects.create(slug="elsewhere", name="Elsewhere")


def note(workspace: Workspace) -> None:
    with transaction.atomic():
        audit.record(
            type="user.created",
            actor=access.system_principal().actor,
            workspace_id=workspace.id,
            reason=workspace.slug,
        )


def seen(client, headers) -> set[str]:
    answer = client.get("/api/v1/audit/events?limit=500", headers=headers)
    assert answer.status_code == 200, answer.content
    return {item["reason"] for item in answer.json()["items"]}


def bearer(principal, *scopes: str) -> dict[str, str]:
    _, raw = access.issue_token(
        by=access.system_principal(),
        principal=principal,
        name="t",
        scopes=scopes,
        held=frozenset({"*"}),
    )
    return {"Authorization": f"Bearer {raw}"}


def test_events_when_operator_then_only_own_workspaces(
    client, alice, workspace, elsewhere
):
    note(workspace)
    note(elsewhere)

    found = seen(client, bearer(alice.principal, "audit:read"))

    assert "default" in found
    assert "elsewhere" not in found


def test_events_when_agent_then_only_its_workspace(client, rob, workspace, elsewhere):
    note(elsewhere)

    assert "elsewhere" not in seen(client, bearer(rob, "audit:read"))


def test_events_when_everything_is_covered_then_all(client, workspace, elsewhere):
    note(elsewhere)

    assert "elsewhere" in seen(client, bearer(access.system_principal(), "*"))


def test_events_when_scope_missing_then_403(client, alice):
    headers = bearer(alice.principal, "runs:read")

    assert client.get("/api/v1/audit/events", headers=headers).status_code == 403
