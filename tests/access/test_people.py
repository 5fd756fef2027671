"""People: roles, leaving, passwords, lockout, second factors, sessions."""

from datetime import timedelta

import pyotp
import pytest
from django.urls import reverse

from apps.access import queries, services
from apps.access.models import RecoveryCode, Role, SecondFactor, SignIn
from apps.access.services import factors, lockout
from apps.audit.models import Event
from apps.common import clock
from apps.common.actor import SYSTEM
from apps.common.errors import Conflict, Denied, Invalid, RateLimited, Unauthenticated
from apps.vault import services as vault
from tests import people

pytestmark = pytest.mark.django_db


@pytest.fixture
def system(workspace):
    return services.system_principal()


@pytest.fixture
def ada(workspace):
    return people.person("ada", Role.ADMIN, workspace)


def sign_in(client, name="alice", password=people.PASSWORD, **options):
    return client.post(
        reverse("access:login"), {"username": name, "password": password}, **options
    )


def set_up(user) -> tuple[str, list[str]]:
    key = factors.begin(user=user)
    return key, factors.confirm(user=user, code=pyotp.TOTP(key).at(clock.now()))


def test_factor_whose_key_was_lost_is_set_up_anew_not_typed(alice):
    set_up(alice)

    (entry,) = vault.checklist(everything=True)

    assert entry.used_by == "the second factor of alice"
    assert entry.command == "./polar access users drop-factor alice"
    with pytest.raises(Conflict, match="is not typed"):
        vault.reenter(by=SYSTEM, secret_id=entry.id, value="JBSWY3DPEHPK3PXP")


def test_role_when_set_then_group_and_scopes_follow(system, alice, workspace):
    services.set_role(by=system, user=alice, role="viewer", workspace=workspace)

    assert list(alice.groups.values_list("name", flat=True)) == ["viewer"]
    assert "runs:*" not in queries.authenticated_user(alice).scopes
    assert Event.objects.filter(type="user.role_set").count() == 1


def test_role_when_not_admin_then_refused(alice, bob, workspace):
    with pytest.raises(Denied):
        services.set_role(
            by=bob.principal, user=alice, role="admin", workspace=workspace
        )


@pytest.mark.parametrize("leave", ["role", "deactivate"])
def test_last_admin_when_leaving_then_refused(system, ada, workspace, leave):
    with pytest.raises(Conflict, match="last administrator"):
        if leave == "role":
            services.set_role(by=system, user=ada, role="viewer", workspace=workspace)
        else:
            services.deactivate_user(by=system, user=ada, workspace=workspace)


def test_token_when_owner_demoted_then_narrowed(system, bob, workspace):
    _, raw = services.issue_token(
        by=system,
        principal=bob.principal,
        name="t",
        scopes=["approvals:*", "runs:read"],
        held=frozenset({"*"}),
    )

    services.set_role(by=system, user=bob, role="viewer", workspace=workspace)

    assert queries.authenticate(raw).scopes == {"approvals:read", "runs:read"}


def test_deactivate_when_done_then_session_and_token_end(
    client, system, alice, workspace
):
    sign_in(client)
    _, raw = services.issue_token(
        by=alice.principal,
        principal=alice.principal,
        name="t",
        scopes=["runs:read"],
        held=frozenset({"runs:*"}),
    )

    services.deactivate_user(by=system, user=alice, workspace=workspace)

    assert client.get(reverse("home")).status_code == 302
    with pytest.raises(Unauthenticated):
        queries.authenticate(raw)
    services.activate_user(by=system, user=alice, workspace=workspace)
    with pytest.raises(Unauthenticated):
        queries.authenticate(raw)


def test_token_when_for_another_then_only_by_admin(alice, bob):
    with pytest.raises(Denied):
        services.issue_token(
            by=alice.principal,
            principal=bob.principal,
            name="t",
            scopes=["runs:read"],
            held=frozenset({"runs:*"}),
        )


@pytest.mark.parametrize("scope", ["runs", "runs:", "a b:c", "runs:read\0", "", "**"])
def test_token_when_scope_is_none_then_invalid(system, scope):
    with pytest.raises(Invalid):
        services.issue_token(
            by=system,
            principal=system,
            name="t",
            scopes=[scope],
            held=frozenset({"*"}),
        )


@pytest.mark.parametrize("name", ["alice", "nobody"])
def test_login_when_ten_wrong_then_closed_for_known_and_unknown(client, alice, name):
    answers = [sign_in(client, name, "wrong") for _ in range(10)]

    after = sign_in(client, name)

    assert b"Too many wrong answers" in after.content
    assert all(b"correct user" in a.content for a in answers)
    assert Event.objects.filter(type="access.locked").count() == 1


def test_login_when_closed_then_other_addresses_and_times_pass(client, alice):
    for _ in range(10):
        sign_in(client, password="wrong")

    assert sign_in(client, REMOTE_ADDR="10.1.1.1").status_code == 302
    client.logout()
    with clock.frozen(clock.now() + timedelta(minutes=6)):
        assert sign_in(client).status_code == 302


def test_lockout_when_wrong_are_spread_then_open(workspace):
    start = clock.now()
    for minute in range(12):
        with clock.frozen(start + timedelta(seconds=61 * minute)):
            lockout.note_failure("password", "alice", "127.0.0.1")
            lockout.check_open("password", "alice", "127.0.0.1")


def test_lockout_when_one_door_closed_then_success_elsewhere_keeps_it(workspace):
    for _ in range(10):
        lockout.note_failure("password", "alice", "127.0.0.1")

    lockout.note_success("second factor", "alice", "127.0.0.1")

    with pytest.raises(RateLimited):
        lockout.check_open("password", "alice", "127.0.0.1")


def test_factor_when_confirmed_then_login_asks_for_the_code(client, alice):
    key, _ = set_up(alice)

    answer = sign_in(client)

    assert answer["Location"] == reverse("access:second_factor")
    assert client.get(reverse("home")).status_code == 302
    with clock.frozen(clock.now() + timedelta(seconds=60)):
        code = pyotp.TOTP(key).at(clock.now())
        client.post(answer["Location"], {"code": code})
        assert client.get(reverse("access:account")).status_code == 200


def test_factor_when_code_used_then_not_again(alice):
    key, _ = set_up(alice)
    with clock.frozen(clock.now() + timedelta(seconds=60)):
        code = pyotp.TOTP(key).at(clock.now())
        factors.check(user=alice, code=code)

        with pytest.raises(Denied, match="used already"):
            factors.check(user=alice, code=code)


def test_factor_when_lost_then_recovery_code_works_once(alice):
    _, codes = set_up(alice)

    factors.check(user=alice, code=codes[0].upper())

    with pytest.raises(Denied):
        factors.check(user=alice, code=codes[0])
    stored = str(list(RecoveryCode.objects.values()))
    assert not any(code in stored for code in codes)
    assert Event.objects.filter(type="second_factor.recovery_used").count() == 1


@pytest.mark.parametrize("code", ["", "000000", "é" * 6, "0" * 20, "\0"])
def test_factor_when_code_wrong_then_refused(alice, code):
    set_up(alice)

    with pytest.raises(Denied):
        factors.check(user=alice, code=code)


def test_factor_when_confirmed_then_password_alone_makes_no_new_one(client, alice):
    set_up(alice)
    sign_in(client)

    client.post(reverse("access:set_up_factor"))

    assert SecondFactor.objects.get(user=alice).confirmed_at is not None


def test_factor_when_required_then_admin_sets_one_up_on_the_way_in(client, ada):
    sign_in(client, "ada")
    factors.require_second_factor(by=ada.principal, required=True)
    assert client.get(reverse("home")).status_code == 302

    answer = sign_in(client, "ada")

    assert answer["Location"] == reverse("access:set_up_factor")
    shown = client.post(answer["Location"])
    code = pyotp.TOTP(shown.context["key"]).at(clock.now())
    done = client.post(answer["Location"], {"code": code})
    assert len(done.context["codes"]) == 10
    assert client.get(reverse("access:users")).status_code == 200


def test_factor_when_required_then_operators_enter_as_before(client, ada, alice):
    factors.require_second_factor(by=ada.principal, required=True)

    assert sign_in(client)["Location"] == reverse("home")


def test_sessions_when_one_ended_then_it_is_over(client, alice):
    sign_in(client)
    other = type(client)()
    sign_in(other)
    mine = SignIn.objects.order_by("id").first()

    other.post(reverse("access:end", args=[mine.id]))

    assert client.get(reverse("home")).status_code == 302
    assert Event.objects.filter(type="access.session_ended").count() == 1


def test_session_when_of_another_then_not_found(client, alice, bob):
    sign_in(client, "bob")
    theirs = SignIn.objects.get(user=bob)
    client.force_login(alice)

    assert client.post(reverse("access:end", args=[theirs.id])).status_code == 404


def test_password_when_changed_then_other_sessions_end(client, alice):
    other = type(client)()
    sign_in(other)
    sign_in(client)
    body = {
        "old": people.PASSWORD,
        "new": "a-whole-new-phrase",
        "again": "a-whole-new-phrase",
    }

    client.post(reverse("access:password"), body)

    assert client.get(reverse("access:account")).status_code == 200
    assert other.get(reverse("access:account")).status_code == 302


def test_password_costs_what_the_product_says(settings, workspace):
    settings.PASSWORD_HASHERS = settings.PRODUCT_PASSWORD_HASHERS
    stored = people.person("dora", Role.VIEWER, workspace).password
    algorithm, work, _, block, lanes, _ = stored.split("$")
    assert algorithm == "scrypt"
    assert int(work) * int(block) * int(lanes) >= 2**14 * 8 * 5


def test_password_when_old_one_wrong_then_kept(client, alice):
    sign_in(client)

    client.post(
        reverse("access:password"),
        {"old": "x", "new": "a-whole-new-phrase", "again": "a-whole-new-phrase"},
    )

    alice.refresh_from_db()
    assert alice.check_password(people.PASSWORD)


@pytest.mark.parametrize("page", ["users", "tokens", "account"])
def test_pages_when_admin_then_shown_within_few_queries(
    client, ada, alice, page, django_assert_max_num_queries
):
    client.force_login(ada)

    with django_assert_max_num_queries(40):
        assert client.get(reverse(f"access:{page}")).status_code == 200


def test_users_page_when_operator_then_403(client, alice):
    client.force_login(alice)

    assert client.get(reverse("access:users")).status_code == 403


def test_tokens_page_when_made_then_shown_once(client, alice):
    client.force_login(alice)
    body = {"name": "report", "scopes": "runs:read", "days": "7"}

    made = client.post(reverse("access:add_token"), body)

    raw = made.context["fresh"]
    assert raw.encode() in made.content
    assert raw.encode() not in client.get(reverse("access:tokens")).content
    assert queries.authenticate(raw).scopes == {"runs:read"}


class TestPolicyOverTheApi:
    def put(self, client, user):
        client.force_login(user)
        body = {"secondFactorRequired": True, "reason": "auditors asked"}
        return client.put("/api/v1/access/policy", body, "application/json")

    def test_an_administrator_demands_a_second_factor(self, client, ada):
        answer = self.put(client, ada)

        assert (answer.status_code, queries.needs_second_factor(ada)) == (200, True)

    def test_an_operator_may_not(self, client, ada, alice):
        assert self.put(client, alice).status_code == 403
        assert not queries.needs_second_factor(ada)
