"""Starting an effect in one trip: as careful as the long way, and yields to it."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.access import services as access
from apps.access.models import Principal
from apps.audit.errors import NoWitness, WitnessBusy
from apps.audit.models import Event
from apps.common import clock, ids
from apps.common.errors import ApprovalRequired, Conflict, Fenced, Halted
from apps.gateway import services
from apps.gateway.engine import ledger
from apps.gateway.errors import PermitRefused
from apps.gateway.models import Budget, Call, CallState
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    Estimate,
    Lineage,
    Permit,
    Result,
    Risk,
)

pytestmark = pytest.mark.django_db(transaction=True)

ARGUMENTS = {"text": "hello"}


@pytest.fixture
def system() -> Principal:
    return access.system_principal()


@pytest.fixture
def asked(workspace, rob) -> Callable[..., CallRequest]:
    def make(before: Callable[[Permit], object] = lambda permit: None) -> CallRequest:
        def perform(permit: Permit) -> Result:
            before(permit)
            permit.spend(ARGUMENTS, waits=False)
            return Result({"ok": True})

        run_id = ids.new_id()
        return CallRequest(
            kind=CallKind.TOOL,
            capability="polar/echo",
            principal=rob,
            workspace_id=workspace.id,
            arguments=ARGUMENTS,
            perform=perform,
            risk=Risk("read"),
            lineage=Lineage(run_id=run_id, root_id=run_id, agent="rob", seq="1"),
            scope={"allowed": {"polar": ["echo"]}},
        )

    return make


def test_start_when_nothing_is_halted_then_one_trip(asked) -> None:
    services.call(asked())
    with CaptureQueriesContext(connection) as sent:
        outcome = services.call(asked())

    starts = [each["sql"] for each in sent if "NOT EXISTS" in each["sql"]]
    assert len(starts) == 1
    assert len(sent) <= 14
    row = Call.objects.get(id=outcome.call_id)
    assert (row.state, row.started_at is not None) == (CallState.SUCCEEDED, True)


def test_start_when_another_thing_is_halted_then_the_long_way_lets_it(
    asked, system
) -> None:
    services.halt(by=system, scope="agent:somebody", reason="a look")

    outcome = services.call(asked())

    assert outcome.state == CallState.SUCCEEDED


def test_start_when_halted_after_the_decision_then_nothing_starts(
    asked, system
) -> None:
    def halt(permit: Permit) -> None:
        services.halt(by=system, scope="agent:rob", reason="stop")

    with pytest.raises(Halted, match="stop"):
        services.call(asked(halt))

    row = Call.objects.get()
    assert (row.state, row.started_at) == (CallState.FAILED, None)


def test_start_when_withdrawn_after_the_decision_then_refused(asked) -> None:
    def withdraw(permit: Permit) -> None:
        Call.objects.filter(id=permit.call_id).update(state=CallState.FAILED)

    with pytest.raises(PermitRefused):
        services.call(asked(withdraw))


def test_start_when_the_effect_is_being_done_then_one_only(asked) -> None:
    def meanwhile(permit: Permit) -> None:
        [mine] = Call.objects.filter(id=permit.call_id)
        mine.pk, mine.state = ids.new_id(), CallState.EXECUTING
        mine._state.adding = True
        mine.save()

    with pytest.raises(Conflict, match="being done"):  # its run comes again
        services.call(asked(meanwhile))

    assert Call.objects.filter(state=CallState.EXECUTING).count() == 1


def test_decide_when_refused_after_a_reservation_then_it_is_taken_back(
    asked, workspace
) -> None:
    budget = Budget.objects.create(
        scope="workspace", workspace=workspace, limit=1_000, unit="micros"
    )
    wanted = replace(
        asked(), risk=Risk("write", side_effects="external"), estimate=Estimate(50)
    )

    with pytest.raises(ApprovalRequired):
        services.call(wanted)

    budget.refresh_from_db()
    assert (budget.reserved, budget.spent) == (0, 0)


def under(request: CallRequest, fence: int, run_id: UUID) -> CallRequest:
    lineage = replace(request.lineage, run_id=run_id, root_id=run_id, fence=fence)
    return replace(request, lineage=lineage)


def test_worker_that_woke_late_judges_no_effect_of_its_successor(asked) -> None:
    run_id = ids.new_id()

    def wake_meanwhile(permit: Permit) -> None:
        permit.spend(ARGUMENTS, waits=False)
        with pytest.raises(Fenced):
            services.call(under(asked(), 1, run_id))

    def perform(permit: Permit) -> Result:
        wake_meanwhile(permit)
        return Result({"ok": True})

    newer = replace(under(asked(), 2, run_id), perform=perform)
    outcome = services.call(newer)

    [row] = Call.objects.filter(run_id=run_id)
    assert (row.id, row.state, row.fence) == (outcome.call_id, "succeeded", 2)


def test_key_that_a_lost_worker_holds_is_taken_over_though_it_is_not_the_newest(
    asked,
) -> None:
    run_id = ids.new_id()
    first = services.call(under(asked(), 1, run_id))
    Call.objects.filter(id=first.call_id).update(state=CallState.EXECUTING)
    [newer] = Call.objects.filter(id=first.call_id)
    newer.pk, newer.state, newer.fence = ids.new_id(), CallState.FAILED, 2
    newer._state.adding = True
    newer.save()

    outcome = services.call(under(asked(), 3, run_id))

    states = dict(Call.objects.filter(run_id=run_id).values_list("id", "state"))
    assert states[first.call_id] == CallState.FAILED
    assert states[outcome.call_id] == CallState.SUCCEEDED


def test_worker_that_woke_late_writes_nothing_of_what_it_did(asked) -> None:
    run_id = ids.new_id()
    other = replace(asked(), arguments={**ARGUMENTS, "text": "other"})

    def succeed_meanwhile(permit: Permit) -> None:
        answer = replace(under(other, 2, run_id), perform=answering(other.arguments))
        services.call(answer)

    with pytest.raises(Fenced):
        services.call(under(asked(succeed_meanwhile), 1, run_id))

    events = Event.objects.of_run(run_id).filter(type="call.settled")
    assert [json.loads(body)["data"]["fence"] for body in bodies(events)] == [2]


def answering(arguments: dict[str, str]) -> Callable[[Permit], Result]:
    def perform(permit: Permit) -> Result:
        permit.spend(arguments, waits=False)
        return Result({"ok": True})

    return perform


def bodies(events: Any) -> list[str]:
    return list(events.values_list("body", flat=True))


def soon() -> float:
    return clock.monotonic() + 5


class TestRounds:
    """What nobody may repeat is witnessed first; one round does for all who wait."""

    def test_round_that_began_before_does_not_count(self, monkeypatch):
        sealed = []
        monkeypatch.setattr(ledger.audit, "seal_all", lambda: sealed.append(1))
        rounds = ledger.Rounds()

        assert rounds.seal(rounds.begun, soon())
        late = rounds.begun
        assert rounds.seal(late, soon())

        assert len(sealed) == 2

    def test_who_waited_for_a_later_round_begins_none(self, monkeypatch):
        sealed = []
        monkeypatch.setattr(ledger.audit, "seal_all", lambda: sealed.append(1))
        rounds = ledger.Rounds()
        asked = [rounds.begun for _ in range(5)]

        assert all(rounds.seal(each, soon()) for each in asked)

        assert len(sealed) == 1

    def test_round_that_failed_counts_for_nobody(self, monkeypatch):
        def broken():
            raise NoWitness

        rounds = ledger.Rounds()
        asked = rounds.begun
        with monkeypatch.context() as patch:
            patch.setattr(ledger.audit, "seal_all", broken)
            assert not rounds.seal(asked, soon())
        sealed = []
        monkeypatch.setattr(ledger.audit, "seal_all", lambda: sealed.append(1))

        assert rounds.seal(asked, soon())
        assert sealed == [1]

    def test_witness_that_another_keeps_counts_as_none(self, monkeypatch):
        def kept():
            raise WitnessBusy

        monkeypatch.setattr(ledger.audit, "seal_all", kept)
        rounds = ledger.Rounds()

        assert not rounds.seal(rounds.begun, soon())

    def test_round_that_stands_still_keeps_nobody_longer_than_they_said(self):
        rounds = ledger.Rounds()

        with rounds._lock:
            assert not rounds.seal(rounds.begun, clock.monotonic() + 0.05)

    def test_threads_that_start_at_once_share_rounds_and_each_is_witnessed(
        self, monkeypatch
    ):
        begun, numbered, threads = threading.Barrier(8), [0], []
        known = [0]
        monkeypatch.setattr(
            ledger.audit,
            "seal_all",
            lambda: (time.sleep(0.02), known.append(numbered[0])),
        )
        rounds, short = ledger.Rounds(), []

        def start():
            begun.wait()
            numbered[0] += 1  # an event is committed …
            mine = numbered[0]
            rounds.seal(rounds.begun, soon())  # … and a round that began later seals it
            if known[-1] < mine:
                short.append(mine)

        threads = [threading.Thread(target=start) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

        assert short == []
        assert len(known) - 1 < 8
