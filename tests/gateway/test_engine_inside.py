"""An effect that is rows of this store happens in the deciding transaction."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.access import services as access
from apps.access.models import Principal, Workspace
from apps.audit.models import Event
from apps.common import failpoints, ids
from apps.common.errors import ApprovalRequired, Conflict, Fenced, Halted, Invalid
from apps.gateway import services
from apps.gateway.errors import OutputBroken
from apps.gateway.models import ApprovalRequest, Budget, Call, CallState
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    EffectClass,
    Estimate,
    Lineage,
    Permit,
    Result,
    Risk,
    TrustFacts,
    Usage,
)

pytestmark = pytest.mark.django_db(transaction=True)

ARGUMENTS = {"name": "north"}


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def system() -> Principal:
    return access.system_principal()


@pytest.fixture
def asked(workspace, rob) -> Callable[..., CallRequest]:
    """A call that opens a workspace, then does what the test says."""

    def make(after: Callable[[Permit], Any] = lambda permit: None) -> CallRequest:
        def perform(permit: Permit) -> Result:
            permit.spend(ARGUMENTS, waits=False)
            Workspace.objects.create(slug="north", name="North")
            after(permit)
            return Result({"ok": True}, Usage(micros=7))

        run_id = ids.new_id()
        return CallRequest(
            kind=CallKind.TOOL,
            capability="polar/open",
            principal=rob,
            workspace_id=workspace.id,
            arguments=ARGUMENTS,
            perform=perform,
            effect_class=EffectClass.INTERNAL,
            is_inside=True,
            risk=Risk("write", side_effects="internal"),
            lineage=Lineage(run_id=run_id, root_id=run_id, agent="rob", seq="1"),
            scope={"allowed": {"polar": ["open"]}},
        )

    return make


def opened() -> int:
    return Workspace.objects.filter(slug="north").count()


def raising(error: BaseException) -> Callable[[Permit], Any]:
    def fail(permit: Permit) -> None:
        raise error

    return fail


def test_done_and_settled_in_one_commit(asked) -> None:
    services.call(asked())
    Workspace.objects.filter(slug="north").delete()
    with CaptureQueriesContext(connection) as sent:
        outcome = services.call(asked())

    row = Call.objects.get(id=outcome.call_id)
    assert (row.state, row.micros, opened()) == (CallState.SUCCEEDED, 7, 1)
    assert row.started_at is not None and row.finished_at is not None
    of_the_call = [each["sql"] for each in sent if '"gateway_call"' in each["sql"]]
    assert [sql.split()[0] for sql in of_the_call] == ["INSERT"]
    event = Event.objects.get(subject_id=str(row.id))
    assert (event.type, event.decision) == ("call.settled", "succeeded")


def test_repeat_is_answered_from_the_record(asked) -> None:
    wanted = asked()
    first = services.call(wanted)

    again = services.call(wanted)

    assert (again.call_id, again.replayed, opened()) == (first.call_id, True, 1)


@pytest.mark.parametrize(
    "error", [Invalid("no such place"), OutputBroken("nonsense", permanent=True)]
)
def test_what_fails_is_undone_and_written_down(asked, error) -> None:
    with pytest.raises(type(error)) as refused:
        services.call(asked(raising(error)))

    row = Call.objects.get()
    assert (row.state, row.error_code, opened()) == (CallState.FAILED, error.code, 0)
    assert refused.value.facts["call_id"] == str(row.id)
    assert Event.objects.get(subject_id=str(row.id)).decision == "failed"


def test_failed_one_may_be_tried_again_under_its_key(asked) -> None:
    troubles = [Invalid("not now")]
    wanted = asked(lambda permit: troubles and raising(troubles.pop())(permit))
    with pytest.raises(Invalid):
        services.call(wanted)

    outcome = services.call(wanted)

    assert (outcome.state, opened()) == (CallState.SUCCEEDED, 1)
    assert set(Call.objects.values_list("state", flat=True)) == {
        CallState.FAILED,
        CallState.SUCCEEDED,
    }


@pytest.mark.parametrize("error", [Fenced(), RuntimeError("a bug"), Killed()])
def test_lost_worker_bug_or_death_leaves_nothing(asked, error) -> None:
    with pytest.raises(type(error)):
        services.call(asked(raising(error)))

    assert (Call.objects.count(), Event.objects.count(), opened()) == (0, 0, 0)


def test_death_just_before_the_commit_leaves_nothing_and_the_next_does_it_once(
    asked, monkeypatch
) -> None:
    def die(point: str) -> None:
        if point == "call.settle.before_commit":
            raise Killed

    wanted = asked()
    with monkeypatch.context() as patched:
        patched.setattr(failpoints, "reach", die)
        with pytest.raises(Killed):
            services.call(wanted)
    assert (Call.objects.count(), opened()) == (0, 0)

    services.call(wanted)

    assert (Call.objects.get().state, opened()) == (CallState.SUCCEEDED, 1)


def test_halted_one_is_denied_and_leaves_its_row(asked, system) -> None:
    services.halt(by=system, scope="agent:rob", reason="a look")

    with pytest.raises(Halted, match="a look"):
        services.call(asked())

    row = Call.objects.get()
    assert (row.state, row.reason_code, opened()) == (CallState.DENIED, "halted", 0)


def test_trust_lost_since_it_was_read_is_seen_in_the_transaction(asked) -> None:
    stands = TrustFacts("polar", "plugin", "trusted", "enabled")
    gone = replace(stands, trust="blocked", reason="it lies")
    wanted = replace(asked(), extension=stands, standing=lambda: gone)

    with pytest.raises(Exception, match="it lies"):
        services.call(wanted)

    assert (Call.objects.get().state, opened()) == (CallState.FAILED, 0)


def test_one_that_needs_a_person_waits_and_then_happens_once(asked, bob) -> None:
    wanted = replace(asked(), risk=Risk("destructive", side_effects="internal"))
    with pytest.raises(ApprovalRequired):
        services.call(wanted)
    assert opened() == 0
    services.decide_approval(
        by=bob.principal, approval_id=ApprovalRequest.objects.get().id, approve=True
    )

    outcome = services.call(wanted)

    row = Call.objects.get()
    assert (row.id, row.state, opened()) == (outcome.call_id, "succeeded", 1)


def test_what_it_set_aside_is_settled_or_given_back(asked, workspace) -> None:
    budget = Budget.objects.create(
        scope="workspace", workspace=workspace, limit=1_000, unit="micros"
    )
    services.call(replace(asked(), estimate=Estimate(50)))
    budget.refresh_from_db()
    assert (budget.reserved, budget.spent) == (0, 7)
    Workspace.objects.filter(slug="north").delete()

    with pytest.raises(Invalid):
        failing = asked(raising(Invalid("no")))
        services.call(replace(failing, estimate=Estimate(50)))

    budget.refresh_from_db()
    assert (budget.reserved, budget.spent) == (0, 7)


def test_it_may_not_wait_for_anybody_outside(asked) -> None:
    def perform(permit: Permit) -> Result:
        permit.spend(ARGUMENTS, waits=True)
        return Result({})

    with pytest.raises(RuntimeError, match="inside a transaction"):
        services.call(replace(asked(), perform=perform))


def test_permit_that_was_not_spent_is_a_breach(asked) -> None:
    with pytest.raises(OutputBroken, match="permit"):
        services.call(replace(asked(), perform=lambda permit: Result({})))

    assert Call.objects.get().state == CallState.FAILED


def test_same_effect_at_the_same_moment_is_a_conflict(asked) -> None:
    def meanwhile(permit: Permit) -> None:
        [theirs] = [Call.objects.get(id=first.call_id)]
        theirs.pk, theirs.state = ids.new_id(), CallState.EXECUTING
        theirs.idempotency_key = permit.idempotency_key
        theirs._state.adding = True
        theirs.save()

    first = services.call(asked())
    Workspace.objects.filter(slug="north").delete()

    with pytest.raises(Conflict, match="being done"):
        services.call(asked(meanwhile))
    assert opened() == 0
