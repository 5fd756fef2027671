"""A run's events arrive as they happen, once each, and end when the credential does."""

import json

import pytest
from asgiref.sync import async_to_sync

from apps.access import queries as access_queries
from apps.access import services as access
from apps.access.models import Token
from apps.access.policies import Authenticated
from apps.runs import services
from apps.runs.engine import follow as following
from apps.runs.models import Run

pytestmark = pytest.mark.django_db(transaction=True)  # it closes its connection


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(following, "POLL_SECONDS", 0)


@pytest.fixture
def run(workspace) -> Run:
    system = access.system_principal()
    return services.enqueue(
        kind="test.work", payload={}, principal=system, workspace=workspace
    )


def told(run: Run, after: int = 0, may_read=lambda: True, most: int = 50) -> list[dict]:
    async def collect() -> list[str]:
        stream = following.follow(run_id=run.id, after=after, may_read=may_read)
        said = []
        async for piece in stream:
            said.append(piece)
            if len(said) >= most:
                break
        return said

    return [parsed(piece) for piece in async_to_sync(collect)()]


def parsed(piece: str) -> dict:
    fields = dict(line.split(": ", 1) for line in piece.strip().splitlines())
    return {**json.loads(fields["data"]), "#": fields["event"], "id": fields.get("id")}


def test_stream_when_run_ends_then_events_state_and_done(run):
    services.cancel(by=access.system_principal(), run_id=run.id, reason="enough")

    pieces = told(run)

    assert [piece["#"] for piece in pieces][-2:] == ["state", "done"]
    assert "run.cancelled" in [piece.get("type") for piece in pieces]
    assert pieces[-1]["state"] == "cancelled"


def test_stream_when_resumed_then_only_what_came_after(run):
    services.cancel(by=access.system_principal(), run_id=run.id, reason="enough")
    first = [piece for piece in told(run) if piece["#"] == "event"]

    again = [piece for piece in told(run, after=1) if piece["#"] == "event"]

    assert again == first[1:]


def test_stream_when_token_revoked_then_closed_at_the_next_look(run, workspace):
    system = access.system_principal()
    token, _ = access.issue_token(
        by=system, principal=system, name="t", scopes=["*"], held=frozenset({"*"})
    )
    auth = Authenticated(system, frozenset({"*"}), token)
    looked = []

    def may_read() -> bool:
        looked.append(1)
        if len(looked) == 3:
            access.revoke_token(by=system, token_id=token.id)
        return access_queries.still_enters(auth)

    pieces = told(run, may_read=may_read)

    assert pieces[-1]["#"] == "closed"
    assert len(looked) == 3
    assert not Token.objects.get(id=token.id).is_live


def test_stream_of_another_workspace_is_not_found(client, charlie, run):
    client.force_login(charlie)

    assert client.get(f"/api/v1/runs/{run.id}/events").status_code == 404


def test_stream_is_not_kept_by_anybody_between(client, alice, run):
    client.force_login(alice)

    answer = client.get(f"/api/v1/runs/{run.id}/events")

    assert answer["Content-Type"] == "text/event-stream"
    assert answer["Cache-Control"] == "no-store"
    assert answer.is_async
