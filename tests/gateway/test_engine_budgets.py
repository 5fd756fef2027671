"""Money, tokens, calls and turns cannot be overspent, and nothing set aside leaks."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from apps.access import services as access
from apps.audit.models import Event
from apps.common import clock, ids
from apps.common.errors import BudgetExceeded, Conflict, Invalid, UpstreamError
from apps.gateway import ports, services
from apps.gateway.engine import windows
from apps.gateway.models import Budget, BudgetSlice, Call, CallState, Reservation
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    Estimate,
    Lineage,
    Permit,
    Result,
    Risk,
    Usage,
)
from tests.gateway import storm

#: Turns that ask at once for one budget; the small version of the storm.
STORM = int(os.environ.get("POLAR_STORM_TURNS", "40"))


def budget(workspace, **fields) -> Budget:
    given = {"scope": "workspace", "unit": "micros", "window": "day"} | fields
    return Budget.objects.create(workspace=workspace, **{"limit": 1_000_000} | given)


def model_call(
    rob, workspace, *, micros: int = 10_000, takes: int | None = None, **fields
) -> CallRequest:
    """One model call that may cost `micros` and takes `takes` of it."""
    spent = micros if takes is None else takes

    def perform(permit: Permit) -> Result:
        permit.spend({"n": 1})
        return Result({"text": "hi"}, Usage(spent, 3, 4))

    run_id = ids.new_id()
    given = {
        "lineage": Lineage(run_id=run_id, turn_id=run_id, agent="rob", seq="1"),
        "estimate": Estimate(micros, 100),
    } | fields
    return CallRequest(
        kind=CallKind.MODEL,
        capability="provider:x/y",
        principal=rob,
        workspace_id=workspace.id,
        arguments={"n": 1},
        perform=perform,
        risk=Risk("read"),
        **given,
    )


def figures(row: Budget) -> tuple[int, int]:
    row.refresh_from_db()
    return row.spent, row.reserved


@pytest.mark.postgres
@pytest.mark.skipif(connection.vendor != "postgresql", reason="needs PostgreSQL")
@pytest.mark.django_db(transaction=True)
def test_many_turns_at_once_never_overspend_on_postgresql(rob, workspace):
    check_storm(storm.run(rob, workspace, STORM), STORM)


def test_many_turns_at_once_never_overspend_on_a_file(tmp_path):
    """Threads of one process of its own, as an embedded install has them."""
    words = [sys.executable, "-m", "tests.gateway.storm", str(tmp_path), str(STORM)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr[-2000:]
    check_storm(json.loads(done.stdout.splitlines()[-1]), STORM)


def check_storm(said: dict[str, int], turns: int) -> None:
    assert said["spent"] <= storm.LIMIT and said["reserved"] == 0
    assert said["spent"] == said["served"] * storm.TAKES and said["served"] >= 1
    assert said["served"] + said["refused"] == turns


@pytest.mark.django_db
class TestRefusal:
    def test_names_rule_limit_spend_and_reset(self, rob, workspace):
        budget(workspace, scope="profile", scope_key="rob", timezone="Asia/Tokyo")
        services.call(model_call(rob, workspace, micros=900_000))

        with pytest.raises(BudgetExceeded) as caught:
            services.call(model_call(rob, workspace, micros=200_000))

        said, facts = caught.value.detail, caught.value.facts
        for word in ("profile budget rob", "$1.00", "$0.90 is spent", "$0.20", "JST"):
            assert word in said
        assert (facts["limit"], facts["spent"], facts["needed"]) == (
            1_000_000,
            900_000,
            200_000,
        )
        assert facts["resets_at"].endswith("+09:00")

    @pytest.mark.parametrize(
        ("fields", "covered"),
        [
            ({"scope": "global", "workspace": None}, True),
            ({"scope": "provider", "scope_key": "x"}, True),
            ({"scope": "provider", "scope_key": "other"}, False),
            ({"scope": "profile", "scope_key": "rob"}, True),
            ({"scope": "profile", "scope_key": "boss"}, True),
            ({"scope": "session", "scope_key": "s1"}, True),
            ({"scope": "session", "scope_key": "s2"}, False),
            ({"scope": "user", "scope_key": "u1"}, False),
            ({"scope": "automation", "scope_key": "nobody"}, False),
        ],
    )
    def test_scopes_reach_the_whole_tree(self, rob, workspace, fields, covered):
        where = fields.pop("workspace", workspace)
        budget(where, **fields, limit=5)
        handed_down = Lineage(
            run_id=ids.new_id(),
            agent="rob",
            session_id="s1",
            ancestors=("boss",),
        )
        asked = model_call(rob, workspace, provider="x", lineage=handed_down)

        if covered:
            with pytest.raises(BudgetExceeded):
                services.call(asked)
        else:
            services.call(asked)

    def test_of_one_budget_gives_the_others_back(self, rob, workspace):
        wide = budget(workspace, limit=10**9)
        budget(workspace, limit=1)

        with pytest.raises(BudgetExceeded):
            services.call(model_call(rob, workspace))

        assert figures(wide) == (0, 0) and not Reservation.objects.exists()


@pytest.mark.django_db
class TestUnits:
    def test_tokens_are_settled_with_what_was_used(self, rob, workspace):
        one = budget(workspace, unit="tokens", limit=150)
        services.call(model_call(rob, workspace))

        assert figures(one) == (7, 0)

    def test_a_turn_counts_once_whatever_it_calls(self, rob, workspace):
        one = budget(workspace, unit="turns", limit=1)
        first = model_call(rob, workspace)
        services.call(first)
        services.call(replace(first, lineage=replace(first.lineage, seq="2")))

        assert figures(one) == (1, 0)
        with pytest.raises(BudgetExceeded, match="1 turns"):
            services.call(model_call(rob, workspace))

    def test_calls_count_every_call(self, rob, workspace):
        one = budget(workspace, unit="calls", limit=2)
        for _ in range(2):
            services.call(model_call(rob, workspace))
        with pytest.raises(BudgetExceeded):
            services.call(model_call(rob, workspace))
        assert figures(one) == (2, 0)


@pytest.mark.django_db
class TestExceeding:
    def test_warn_lets_pass_and_counts(self, rob, workspace):
        one = budget(workspace, on_exceed="warn", limit=1)
        services.call(model_call(rob, workspace))

        assert figures(one) == (10_000, 0)
        assert Event.objects.filter(type="budget.near_limit").count() == 1

    def test_downgrade_refuses_upper_lanes_and_counts_the_lowest(self, rob, workspace):
        one = budget(workspace, on_exceed="downgrade_lane", limit=1)
        for lane in ("brain", "worker"):
            with pytest.raises(BudgetExceeded):
                services.call(model_call(rob, workspace, lane=lane))

        services.call(model_call(rob, workspace, lane="local"))
        assert figures(one) == (10_000, 0)

    def test_the_warning_comes_once_per_window(self, rob, workspace):
        budget(workspace, limit=100_000)
        seen = []
        for _ in range(10):
            services.call(model_call(rob, workspace))
            seen.append(Event.objects.filter(type="budget.near_limit").count())

        assert seen == [0] * 7 + [1] * 3
        with clock.frozen(clock.now() + timedelta(days=1)):
            for _ in range(8):
                services.call(model_call(rob, workspace))
        assert Event.objects.filter(type="budget.near_limit").count() == 2

    def test_an_overrun_is_booked_in_full_blocks_and_is_told(self, rob, workspace, bob):
        one = budget(workspace)
        services.call(model_call(rob, workspace, micros=10_000, takes=70_000))

        assert figures(one) == (70_000, 0) and one.overrun == 60_000
        assert Event.objects.filter(type="budget.overrun").count() == 1
        with pytest.raises(BudgetExceeded, match="blocked"):
            services.call(model_call(rob, workspace))
        services.unblock_budget(
            by=access.principal_for_user(user=bob),
            budget_id=one.id,
            reason="the provider was told",
        )
        services.call(model_call(rob, workspace))
        assert figures(one) == (80_000, 0)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.django_db
class TestWindows:
    def test_a_calendar_window_follows_its_own_midnight(self, rob, workspace):
        one = budget(workspace, timezone="Europe/Zurich", limit=10_000)
        with clock.frozen(at("2026-11-22T22:30:00+00:00")):
            services.call(model_call(rob, workspace))
            with pytest.raises(BudgetExceeded):
                services.call(model_call(rob, workspace))
        with clock.frozen(at("2026-11-22T23:30:00+00:00")):
            services.call(model_call(rob, workspace))
        assert figures(one) == (10_000, 0)

    @pytest.mark.parametrize("zone", ["America/Havana", "Atlantic/Azores"])
    def test_a_day_whose_midnight_comes_twice_is_one_day(self, rob, workspace, zone):
        """The clock goes from 01:00 back to 00:00, and 00:30 is there twice."""
        one = budget(workspace, timezone=zone, limit=10_000)
        day, hour = {
            "America/Havana": ("2026-11-01", 4),
            "Atlantic/Azores": ("2026-10-25", 0),
        }[zone]
        first = at(f"{day}T{hour:02}:30:00+00:00")
        with clock.frozen(first):
            services.call(model_call(rob, workspace))
        with clock.frozen(first + timedelta(hours=1)), pytest.raises(BudgetExceeded):
            services.call(model_call(rob, workspace))
        assert figures(one) == (10_000, 0)

    @pytest.mark.parametrize("zone", ["Europe/Zurich", "Africa/Cairo", "Asia/Beirut"])
    @pytest.mark.parametrize("window", ["hour", "day", "week", "month"])
    def test_a_window_begins_once_and_ends_after_now(self, zone, window):
        one = Budget(timezone=zone, window=window)
        moment, begun = at("2026-03-20T00:00:00+00:00"), []
        while moment.year < 2027:
            start = windows.window_start(one, moment)
            assert start <= moment <= windows.resets_at(one, moment)
            begun.append(start.astimezone(UTC))
            moment += timedelta(minutes=50)
        assert begun == sorted(begun)

    def test_a_rolling_window_frees_by_and_by(self, rob, workspace):
        one = budget(workspace, is_rolling=True, window="hour", limit=20_000)
        for minute in ("00:00", "30:00"):
            with clock.frozen(at(f"2026-11-22T10:{minute}+00:00")):
                services.call(model_call(rob, workspace))
        short = pytest.raises(BudgetExceeded, match="rolling hour")
        with clock.frozen(at("2026-11-22T10:59:00+00:00")), short:
            services.call(model_call(rob, workspace))
        with clock.frozen(at("2026-11-22T11:02:00+00:00")):
            services.call(model_call(rob, workspace))

        assert figures(one) == (20_000, 0)
        assert sum(BudgetSlice.objects.values_list("amount", flat=True)) == 20_000

    def test_a_call_across_midnight_counts_in_the_new_window(self, rob, workspace):
        one = budget(workspace)
        asked = model_call(rob, workspace, takes=7_000)

        def perform(permit: Permit) -> Result:
            clock_after.__enter__()
            return asked.perform(permit)

        clock_after = clock.frozen(at("2026-11-23T00:00:01+00:00"))
        with clock.frozen(at("2026-11-22T23:59:59+00:00")):
            services.call(replace(asked, perform=perform))
            clock_after.__exit__(None, None, None)
        assert figures(one) == (7_000, 0)
        assert one.window_started_at == at("2026-11-23T00:00:00+00:00")


def killed(request: CallRequest, *, sent: bool) -> Call:
    """Leave a call as a worker does that is killed before or after it sends."""

    def perform(permit: Permit) -> Result:
        if sent:
            permit.spend(request.arguments)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        services.call(replace(request, perform=perform))
    return Call.objects.get()


@pytest.fixture
def nobody_carries(monkeypatch):
    monkeypatch.setattr(ports.carried, "_plugged", {"test": lambda ids: set()})


@pytest.mark.django_db
class TestKilled:
    @pytest.mark.parametrize(("sent", "booked"), [(False, 0), (True, 10_000)])
    def test_nothing_stays_set_aside(
        self, rob, workspace, nobody_carries, sent, booked
    ):
        one = budget(workspace)
        killed(model_call(rob, workspace), sent=sent)
        assert figures(one) == (0, 10_000)
        assert services.sweep_reservations() == 0  # too young to be abandoned

        with clock.frozen(clock.now() + timedelta(seconds=30)):
            assert services.sweep_reservations() == 1
            assert services.sweep_reservations() == 0
        assert figures(one) == (booked, 0)
        assert Call.objects.get().state == CallState.FAILED

    def test_what_a_worker_still_carries_is_left_alone(
        self, rob, workspace, monkeypatch
    ):
        one = budget(workspace)
        killed(model_call(rob, workspace), sent=True)
        monkeypatch.setattr(ports.carried, "_plugged", {"test": lambda ids: ids})

        with clock.frozen(clock.now() + timedelta(hours=1)):
            assert services.sweep_reservations() == 0
        assert figures(one) == (0, 10_000)

    def test_a_failed_call_books_what_its_error_says_was_used(self, rob, workspace):
        one = budget(workspace)
        asked = model_call(rob, workspace)

        def perform(permit: Permit) -> Result:
            permit.spend({"n": 1})
            raise UpstreamError("cut", usage=Usage(4_000, 1, 2))

        with pytest.raises(UpstreamError):
            services.call(replace(asked, perform=perform))
        assert figures(one) == (4_000, 0)


@pytest.mark.django_db
class TestDesk:
    def wanted(self, **fields) -> services.BudgetWanted:
        return services.BudgetWanted(**{"scope": "workspace", "limit": 9} | fields)

    def test_made_changed_and_archived_each_with_its_event(self, rob, bob, workspace):
        by = access.principal_for_user(user=bob)
        made = services.save_budget(by=by, wanted=self.wanted())
        changed = services.save_budget(
            by=by, wanted=self.wanted(limit=20), budget_id=made.id, expected_version=1
        )
        services.archive_budget(by=by, budget_id=made.id, expected_version=2)

        assert (changed.limit, changed.version) == (20, 2)
        assert Event.objects.filter(type__startswith="budget.").count() == 3
        services.call(model_call(rob, workspace))

    def test_the_second_of_two_editors_is_told(self, bob):
        by = access.principal_for_user(user=bob)
        made = services.save_budget(by=by, wanted=self.wanted())
        for limit in (10, 11):
            change = {"wanted": self.wanted(limit=limit), "budget_id": made.id}
            if limit == 10:
                services.save_budget(by=by, expected_version=1, **change)
                continue
            with pytest.raises(Conflict, match="version 2"):
                services.save_budget(by=by, expected_version=1, **change)

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"scope": "house"}, "scope"),
            ({"limit": -1}, "limit"),
            ({"timezone": "Mars/North"}, "timezone"),
            ({"window": "total", "is_rolling": True}, "isRolling"),
            ({"scope": "profile"}, "key"),
            ({"scope": "user", "key": "nobody"}, "key"),
            ({"key": "x"}, "key"),
        ],
    )
    def test_what_makes_no_sense_is_named(self, bob, fields, named):
        with pytest.raises(Invalid) as caught:
            services.save_budget(
                by=access.principal_for_user(user=bob), wanted=self.wanted(**fields)
            )
        assert [each.path for each in caught.value.fields] == [named]
