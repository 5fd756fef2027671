"""Bearer tokens: guesses close the door, an end holds at once, each has a rate."""

import pytest

from apps.access import services
from apps.access.models import Lockout, Token
from apps.access.services import bearers, lockout, pace
from apps.audit.models import Event
from apps.common import clock
from apps.common.errors import Denied, Invalid, NotFound

pytestmark = pytest.mark.django_db

RUNS = "/api/v1/runs"
SECRET = "first-secret-of-the-environment-01"


def ask(client, raw, **more):
    return client.get(RUNS, headers={"Authorization": f"Bearer {raw}"}, **more)


@pytest.fixture
def token(workspace) -> tuple[Token, str]:
    system = services.system_principal()
    return services.issue_token(
        by=system, principal=system, name="t", scopes=["*"], held=frozenset({"*"})
    )


def test_guessing_when_ten_in_a_minute_then_429_and_recorded(client, token):
    answers = [ask(client, f"guess-{n}").status_code for n in range(12)]

    assert answers == [401] * 10 + [429] * 2
    assert Event.objects.filter(type="access.locked").count() == 1


def test_guessing_when_closed_then_says_when_to_come_back(client, token):
    for number in range(10):
        ask(client, f"guess-{number}")

    answer = ask(client, "guess")

    assert answer.json()["code"] == "POLAR_RATE_LIMITED"
    assert 290 <= int(answer["Retry-After"]) <= 300


def test_guessing_when_five_minutes_later_then_open_again(client, token):
    now = clock.now()
    with clock.frozen(now):
        for number in range(11):
            ask(client, f"guess-{number}")

    with clock.frozen(now + lockout.CLOSED_FOR + lockout.WINDOW):
        assert ask(client, "guess").status_code == 401


def test_guessing_when_spread_over_minutes_then_never_closed(client, token):
    now = clock.now()
    for number in range(24):
        with clock.frozen(now + number * lockout.WINDOW / 8):
            assert ask(client, f"guess-{number}").status_code == 401


def test_door_when_closed_then_a_right_token_still_enters(client, token):
    for number in range(11):
        ask(client, f"guess-{number}")

    assert ask(client, token[1]).status_code == 200
    assert ask(client, "guess", REMOTE_ADDR="10.1.1.1").status_code == 401


def test_ended_token_is_no_guess_and_always_401(client, token):
    row, raw = token
    services.revoke_token(by=services.system_principal(), token_id=row.id)

    assert {ask(client, raw).status_code for _ in range(12)} == {401}
    assert not Lockout.objects.exists()


def test_rate_when_exceeded_then_429_until_its_turn(client, token, monkeypatch):
    row, raw = token
    services.limit_token(
        by=services.system_principal(), token_id=row.id, rate_per_minute=12
    )
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now)

    assert [ask(client, raw).status_code for _ in range(3)] == [200, 200, 429]
    assert ask(client, raw)["Retry-After"] == "6"
    monkeypatch.setattr(clock, "monotonic", lambda: now + 6)
    assert ask(client, raw).status_code == 200


def test_rate_of_one_token_is_none_of_another_s(client, token, monkeypatch):
    system = services.system_principal()
    services.limit_token(by=system, token_id=token[0].id, rate_per_minute=1)
    _, other = services.issue_token(
        by=system, principal=system, name="o", scopes=["*"], held=frozenset({"*"})
    )

    assert [ask(client, token[1]).status_code for _ in range(2)] == [200, 429]
    assert ask(client, other).status_code == 200


@pytest.mark.parametrize("rate", [1, 2, 5, 6])
def test_first_request_is_never_early_whatever_the_clock_shows(monkeypatch, rate):
    """Sums of seconds are rounded: 0.1 + 60 - 0.1 is a little more than 60."""
    for moment in (0.1, 1.7, 65_432.1, 9_876_543.21, *(n / 7 for n in range(1000))):
        monkeypatch.setattr(clock, "monotonic", lambda now=moment: now)
        assert pace.Pace().seconds_early("somebody", rate) == 0


def test_rates_that_are_over_are_forgotten(client, token, monkeypatch):
    monkeypatch.setattr(pace, "REMEMBERED", 2)
    monkeypatch.setattr(bearers.pace, "due", {"a": 0.0, "b": 0.0, "c": 0.0})

    ask(client, token[1])

    assert set(bearers.pace.due) == {token[0].id}


def test_rate_when_not_admin_then_refused(alice, token):
    with pytest.raises(Denied):
        services.limit_token(
            by=alice.principal, token_id=token[0].id, rate_per_minute=60
        )


@pytest.mark.parametrize("rate", [0, -1, 600_001])
def test_rate_when_no_rate_then_named(token, rate):
    with pytest.raises(Invalid, match="cannot have this rate"):
        services.limit_token(
            by=services.system_principal(), token_id=token[0].id, rate_per_minute=rate
        )


def test_rate_when_set_then_recorded_once(client, token):
    row, raw = token
    for _ in range(2):
        answer = client.patch(
            f"/api/v1/tokens/{row.id}",
            '{"ratePerMinute": 60}',
            content_type="application/json",
            headers={"Authorization": f"Bearer {raw}"},
        )

    assert (answer.status_code, answer.json()["ratePerMinute"]) == (200, 60)
    assert Event.objects.filter(type="token.limited").count() == 1


def test_rate_when_no_such_token_then_not_found(workspace):
    system = services.system_principal()

    with pytest.raises(NotFound):
        services.limit_token(by=system, token_id=system.id, rate_per_minute=60)


def test_ui_secret_when_new_then_the_old_ends_in_the_same_commit(client, workspace):
    services.sync_ui_secret(secret=SECRET)
    assert ask(client, SECRET).status_code == 200

    services.sync_ui_secret(secret=SECRET + "-new")

    assert ask(client, SECRET).status_code == 401
    assert ask(client, SECRET + "-new").status_code == 200


def test_ui_secret_when_an_old_one_comes_back_then_it_enters_again(client, workspace):
    for secret in (SECRET, SECRET + "-new", SECRET):
        services.sync_ui_secret(secret=secret)

    assert ask(client, SECRET).status_code == 200
    assert ask(client, SECRET + "-new").status_code == 401
