"""Single sign-on: who is let in by which signed words, who stays out, and the trace.

The provider is another process's worth of real protocol on loopback: real signatures,
codes that work once, keys that change (tests/fakes/oidc_provider.py).
"""

import base64
import json
import time
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import jwt
import pyotp
import pytest
from django.core.checks import run_checks
from django.urls import reverse

from apps.access import ports, queries, services
from apps.access.adapters.oidc import OpenIdConnect, challenge
from apps.access.models import ExternalIdentity, Membership, Role, SignIn, Token, User
from apps.access.services import factors, lockout, single_sign_on
from apps.audit.models import Event
from apps.common import clock
from apps.common.errors import Conflict
from tests import people
from tests.fakes.oidc_provider import CLIENT_ID, CLIENT_SECRET, Key, identity_provider

pytestmark = pytest.mark.django_db

ADA = {
    "sub": "248289761001",
    "preferred_username": "ada",
    "email": "ada@example.org",
    "email_verified": True,
    "groups": ["staff", "polar-operators"],
}


@pytest.fixture(scope="module")
def running():
    with identity_provider() as provider:
        yield provider


@pytest.fixture
def provider(running, settings, workspace, monkeypatch):
    """A provider that is set up here, with nothing kept of the test before."""
    url = running.url
    running.__init__()
    running.url, running.person = url, dict(ADA)
    settings.POLAR_OIDC_ISSUER = url
    settings.POLAR_OIDC_CLIENT_ID = CLIENT_ID
    settings.POLAR_OIDC_CLIENT_SECRET = CLIENT_SECRET
    settings.POLAR_OIDC_LABEL = "Sign in with Example"
    settings.POLAR_OIDC_LOCAL = [urlsplit(url).netloc]
    roles = ("viewer", "operator", "approver", "admin")
    settings.POLAR_OIDC_ROLES = json.dumps({f"polar-{each}s": each for each in roles})
    monkeypatch.setattr(ports, "_issuer", [OpenIdConnect()])
    monkeypatch.setattr(single_sign_on._pace, "due", {})
    return running


def begin(client, **query) -> str:
    answer = client.get(reverse("access:sign_on"), query)
    assert answer.status_code == 302
    return answer["Location"]


def come_back(client, answer):
    return client.get(reverse("access:sign_on_return"), answer)


def sign_on(client, provider, **query):
    return come_back(client, provider.authorize(begin(client, **query)))


def told(answer) -> str:
    """The word in the address of the sign-in page that a refusal leads to."""
    parts = urlsplit(answer["Location"])
    assert parts.path == reverse("access:login")
    return parse_qs(parts.query)["sign_on"][0]


def reasons() -> list[str]:
    rows = Event.objects.filter(type="access.refused").order_by("id")
    return list(rows.values_list("reason", flat=True))


def said(event) -> dict:
    return json.loads(event.body)["data"]


def signed_in(client) -> bool:
    return "_auth_user_id" in client.session


# --- who comes in


def test_stranger_with_a_mapped_group_is_made_and_let_in(client, provider):
    answer = sign_on(client, provider, next=reverse("access:account"))

    assert answer["Location"] == reverse("access:account")
    assert client.get(reverse("access:account")).status_code == 200
    ada = User.objects.get()
    assert (ada.username, ada.has_usable_password()) == ("ada", False)
    assert list(ada.memberships.values_list("role", flat=True)) == ["operator"]
    assert not ada.is_superuser
    made = Event.objects.get(type="user.created")
    assert said(made)["subject"] == ADA["sub"]
    assert said(made)["role"] == "operator"
    assert said(Event.objects.get(type="access.signed_in"))["how"] == "single sign-on"


def test_same_subject_is_the_same_person_under_another_name(client, provider):
    sign_on(client, provider)
    provider.person |= {"preferred_username": "lovelace", "email": "l@example.org"}

    sign_on(client.__class__(), provider)

    assert User.objects.get().username == "ada"
    assert ExternalIdentity.objects.count() == 1
    assert SignIn.objects.count() == 2


def test_another_subject_with_the_same_address_is_another_person(client, provider):
    sign_on(client, provider)
    provider.person["sub"] = "7"

    sign_on(client.__class__(), provider)

    assert User.objects.count() == 2
    names = set(User.objects.values_list("username", flat=True))
    assert "ada" in names
    assert any(name.startswith("ada-") for name in names)


def test_local_account_of_that_name_is_never_taken_over(client, provider, workspace):
    local = people.person("Ada", Role.ADMIN, workspace)
    User.objects.filter(id=local.id).update(email=ADA["email"])

    sign_on(client, provider)

    entered = User.objects.get(id=client.session["_auth_user_id"])
    assert entered.id != local.id
    assert entered.username.startswith("ada-")
    assert queries.authenticated_user(entered).scopes != frozenset({"*"})


@pytest.mark.parametrize("name", ["аda", "a\u202eda", "x" * 200, "", 7, None])
def test_name_that_misleads_is_not_taken(client, provider, name):
    provider.person |= {"preferred_username": name, "email_verified": False}

    sign_on(client, provider)

    assert User.objects.get().username.startswith("sign-on-")


# --- roles


@pytest.mark.parametrize(
    "groups",
    [
        None,
        [],
        ["staff"],
        "polar-admins polar-viewers",
        ["Polar-Admins"],
        ["polar-admins "],
        [["polar-admins"]],
        [{"polar-admins": True}],
        {"polar-admins": True},
        True,
        ["admin"],
    ],
)
def test_who_has_no_mapped_group_stays_out_and_nobody_is_made(client, provider, groups):
    provider.person["groups"] = groups

    answer = sign_on(client, provider)

    assert told(answer) == "refused"
    assert not signed_in(client)
    assert User.objects.count() == 0
    assert reasons() == ["the mapping gives no role"]
    assert b"was not accepted" in client.get(answer["Location"]).content


def test_admin_comes_of_the_mapping_alone(client, provider):
    provider.person["groups"] = ["polar-viewers", "polar-admins"]

    sign_on(client, provider)

    assert queries.authenticated_user(User.objects.get()).scopes == {"*"}


@pytest.mark.parametrize(
    ("claim", "claims", "role"),
    [
        (
            "realm_access.roles",
            {"realm_access": {"roles": ["polar-viewers"]}},
            "viewer",
        ),
        ("https://a.example/r", {"https://a.example/r": "polar-viewers"}, "viewer"),
        ("hd", {"hd": "polar-viewers"}, "viewer"),
        ("hd.x", {"hd": "polar-viewers"}, ""),
        ("email", {"email": "polar-viewers", "email_verified": True}, "viewer"),
        ("email", {"email": "polar-viewers", "email_verified": False}, ""),
        ("email", {"email": "polar-viewers"}, ""),
    ],
)
def test_claim_is_found_by_name_or_path(provider, settings, claim, claims, role):
    settings.POLAR_OIDC_ROLE_CLAIM = claim

    assert single_sign_on.role_of_claims(queries.sign_on(), claims) == role


def test_role_follows_the_provider_at_every_sign_on(client, provider, workspace):
    people.person("root", Role.ADMIN, workspace)
    provider.person["groups"] = ["polar-admins"]
    sign_on(client, provider)
    provider.person["groups"] = ["polar-viewers"]

    sign_on(client.__class__(), provider)

    ada = User.objects.get(username="ada")
    assert ada.memberships.get().role == "viewer"
    assert not ada.is_superuser
    last = Event.objects.filter(type="user.role_set").latest("id")
    assert (said(last)["before"], said(last)["after"]) == ("admin", "viewer")
    assert last.reason == "single sign-on"


def test_who_is_given_nothing_any_more_loses_all_of_it(client, provider):
    sign_on(client, provider)
    ada = User.objects.get()
    token, raw = services.issue_token(
        by=ada.principal,
        principal=ada.principal,
        name="t",
        scopes=["runs:read"],
        held=queries.authenticated_user(ada).scopes,
    )
    provider.person["groups"] = []

    assert told(sign_on(client.__class__(), provider)) == "refused"

    assert not Membership.objects.exists()
    assert Token.objects.get(id=token.id).revoked_at is not None
    assert client.get(reverse("access:account")).status_code == 302
    refused = Event.objects.get(type="access.refused")
    assert refused.subject_id == str(ada.id)
    # Given again, they come in as the same person.
    provider.person["groups"] = ["polar-viewers"]
    sign_on(client, provider)
    assert Membership.objects.get(user=ada).role == "viewer"


def test_last_administrator_who_is_given_less_stays_out(client, provider):
    provider.person["groups"] = ["polar-admins"]
    sign_on(client, provider)
    provider.person["groups"] = ["polar-viewers"]

    assert told(sign_on(client.__class__(), provider)) == "refused"

    assert client.get(reverse("access:account")).status_code == 302
    assert Membership.objects.get().role == "admin"
    assert reasons() == ["the last administrator is given less"]


def test_who_was_sent_away_stays_out(client, provider, workspace):
    sign_on(client, provider)
    ada, system = User.objects.get(), services.system_principal()
    services.deactivate_user(by=system, user=ada, workspace=workspace)
    provider.person["groups"] = ["polar-approvers"]

    assert told(sign_on(client.__class__(), provider)) == "refused"

    assert Membership.objects.get().role == "operator"
    assert reasons() == ["the person was sent away"]


def test_role_and_password_are_the_provider_s_to_decide(
    client, provider, settings, workspace
):
    sign_on(client, provider)
    ada, system = User.objects.get(), services.system_principal()
    given = {"by": system, "user": ada, "workspace": workspace}

    with pytest.raises(Conflict, match="identity provider"):
        services.set_role(role="admin", **given)
    with pytest.raises(Conflict, match="identity provider"):
        services.reset_password(password=people.PASSWORD, **given)

    settings.POLAR_OIDC_ISSUER = ""
    services.set_role(role="viewer", **given)
    assert Membership.objects.get().role == "viewer"


def test_password_of_before_does_not_pass_the_provider(
    client, provider, settings, workspace
):
    sign_on(client, provider)
    ada = User.objects.get()
    given = {"username": "ada", "password": people.PASSWORD}
    settings.POLAR_OIDC_ISSUER = ""
    services.reset_password(
        by=services.system_principal(),
        user=ada,
        password=people.PASSWORD,
        workspace=workspace,
    )
    settings.POLAR_OIDC_ISSUER = provider.url

    refused = client.__class__()
    refused.post(reverse("access:login"), given)

    assert not signed_in(refused)
    settings.POLAR_OIDC_ISSUER = ""
    refused.post(reverse("access:login"), given)
    assert signed_in(refused)


@pytest.mark.parametrize(
    ("email", "verified", "enters"),
    [
        ("ada@example.org", True, True),
        ("ada@EXAMPLE.org", True, True),
        ("ada@example.org", False, False),
        ("ada@example.org", "true", False),
        ("ada@example.org", None, False),
        ("ada@sub.example.org", True, False),
        ("ada@example.org@evil.test", True, False),
        ("example.org", True, False),
        (None, True, False),
    ],
)
def test_only_verified_addresses_of_the_domains(
    client, provider, settings, email, verified, enters
):
    settings.POLAR_OIDC_DOMAINS = ["Example.org"]
    provider.person |= {"email": email, "email_verified": verified}

    sign_on(client, provider)

    assert signed_in(client) is enters
    assert bool(reasons()) is not enters


# --- the protocol


def test_challenge_is_that_of_the_standard():
    """RFC 7636, appendix B."""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

    assert challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_state_of_nobody_is_refused_and_asks_nobody(client, provider):
    answer = provider.authorize(begin(client))

    assert told(come_back(client, answer | {"state": "x" * 43})) == "again"
    assert told(come_back(client.__class__(), answer)) == "again"

    assert provider.asked["/token"] == 0
    assert reasons() == ["no such sign-on was begun in this browser"] * 2
    # The browser that began it still comes in: nobody ends another's sign-on.
    come_back(client, answer)
    assert signed_in(client)


def test_answer_that_comes_twice_is_refused(client, provider):
    answer = provider.authorize(begin(client))
    come_back(client, answer)
    client.logout()

    assert told(come_back(client, answer)) == "again"
    assert not signed_in(client)


def test_code_of_another_sign_on_is_refused_by_the_provider(client, provider):
    """The verifier is not this browser's: a code that was caught opens nothing."""
    caught = provider.authorize(begin(client.__class__()))
    mine = provider.authorize(begin(client))

    answer = come_back(client, mine | {"code": caught["code"]})

    assert told(answer) == "refused"
    assert reasons() == ["the issuer refused the code: invalid_grant"]


def test_code_that_was_used_is_refused_by_the_provider(client, provider):
    first = provider.authorize(begin(client))
    come_back(client, first)
    other = client.__class__()

    answer = come_back(
        other, provider.authorize(begin(other)) | {"code": first["code"]}
    )

    assert told(answer) == "refused"
    assert reasons() == ["the issuer refused the code: invalid_grant"]


def test_sign_on_that_took_too_long_is_refused(client, provider):
    now = clock.now()
    with clock.frozen(now):
        answer = provider.authorize(begin(client))
    with clock.frozen(now + timedelta(minutes=11)):
        assert told(come_back(client, answer)) == "again"


@pytest.mark.parametrize("issuer", ["", "https://evil.test"])
def test_answer_of_another_issuer_is_refused(client, provider, issuer):
    answer = provider.authorize(begin(client)) | {"iss": issuer}

    assert told(come_back(client, answer)) == "refused"
    assert provider.asked["/token"] == 0
    assert reasons() == ["the answer names another issuer"]


def test_denial_at_the_provider_is_told(client, provider):
    state = provider.authorize(begin(client))["state"]

    assert told(come_back(client, {"error": "access_denied", "state": state})) == (
        "refused"
    )
    assert reasons() == ["the issuer sent no code"]


HOUR = 3600


@pytest.mark.parametrize(
    ("spoiled", "reason"),
    [
        ({"nonce": "of-another-trip"}, "the token is of another sign-on"),
        ({"nonce": None}, "MissingRequiredClaimError"),
        ({"aud": "somebody-else"}, "InvalidAudienceError"),
        ({"aud": [CLIENT_ID, "else"]}, "made for another party"),
        ({"aud": [CLIENT_ID, "else"], "azp": "else"}, "made for another party"),
        ({"azp": "else"}, "made for another party"),
        ({"aud": None}, "MissingRequiredClaimError"),
        ({"iss": "https://evil.test"}, "InvalidIssuerError"),
        ({"exp": time.time() - HOUR}, "ExpiredSignatureError"),
        ({"exp": None}, "MissingRequiredClaimError"),
        ({"exp": float("inf")}, "the token is not good"),
        ({"iat": time.time() + HOUR}, "ImmatureSignatureError"),
        ({"nbf": time.time() + HOUR}, "ImmatureSignatureError"),
        ({"sub": None}, "MissingRequiredClaimError"),
        ({"sub": ["248289761001"]}, "InvalidSubjectError"),
        ({"sub": "x" * 256}, "subject cannot be one"),
        ({"sub": "a\0b"}, "subject cannot be one"),
        ({"sub": ""}, "subject cannot be one"),
    ],
)
def test_token_that_says_otherwise_is_refused(client, provider, spoiled, reason):
    provider.spoil = spoiled

    assert told(sign_on(client, provider)) == "refused"
    assert not User.objects.exists()
    assert reason in reasons()[0]


def unsigned(claims) -> str:
    return jwt.encode(claims, None, algorithm="none")


def signed_with_what_is_public(claims) -> str:
    return jwt.encode(claims, CLIENT_SECRET * 2, algorithm="HS256")


def signed_by_a_stranger(claims) -> str:
    key = Key("first")
    return jwt.encode(claims, key.private, algorithm="ES256", headers={"kid": "first"})


def with_its_own_key(claims) -> str:
    key = Key("mine")
    more = {"jwk": key.public(), "kid": "mine", "jku": "https://evil.test/keys"}
    return jwt.encode(claims, key.private, algorithm="ES256", headers=more)


def with_an_odd_algorithm(claims) -> str:
    parts = [json.dumps({"alg": ["none"]}), json.dumps(claims), ""]
    return ".".join(
        base64.urlsafe_b64encode(each.encode()).rstrip(b"=").decode() for each in parts
    )


@pytest.mark.parametrize(
    "sign",
    [
        unsigned,
        signed_with_what_is_public,
        signed_by_a_stranger,
        with_its_own_key,
        with_an_odd_algorithm,
        lambda claims: "not.a.token",
        lambda claims: "",
    ],
)
def test_token_that_the_issuer_did_not_sign_is_refused(client, provider, sign):
    provider.sign = sign

    assert told(sign_on(client, provider)) == "refused"
    assert not User.objects.exists()
    assert len(reasons()) == 1


def test_token_that_was_changed_is_refused(client, provider):
    def changed(claims):
        head, _, mark = provider.signed(claims).split(".")
        claims["groups"] = ["polar-admins"]
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
        return f"{head}.{body.decode()}.{mark}"

    provider.sign = changed

    assert told(sign_on(client, provider)) == "refused"
    assert "InvalidSignatureError" in reasons()[0]


def test_new_key_of_the_issuer_is_asked_for_once(client, provider):
    sign_on(client, provider)
    assert provider.asked["/keys"] == 1
    provider.rotate("second")

    sign_on(client.__class__(), provider)

    assert SignIn.objects.count() == 2
    assert provider.asked["/keys"] == 2
    assert provider.asked["/.well-known/openid-configuration"] == 1


def test_key_that_nobody_publishes_is_asked_for_once_and_refused(client, provider):
    sign_on(client, provider)
    provider.key = Key("never published")

    assert told(sign_on(client.__class__(), provider)) == "refused"

    assert provider.asked["/keys"] == 2
    assert reasons() == ["the token names no key of the issuer"]


# --- outages, doors, set-up


def test_provider_that_is_away_leaves_the_password(client, provider, workspace):
    people.person("root", Role.ADMIN, workspace)
    provider.is_down = True

    answer = client.get(reverse("access:sign_on"))

    assert told(answer) == "away"
    page = client.get(answer["Location"]).content.decode()
    assert "does not answer" in page
    assert 'name="password"' in page
    entered = client.post(
        reverse("access:login"), {"username": "root", "password": people.PASSWORD}
    )
    assert entered.status_code == 302
    assert signed_in(client)


def test_provider_that_goes_away_on_the_way_back(client, provider):
    answer = provider.authorize(begin(client))
    provider.is_down = True

    assert told(come_back(client, answer)) == "away"
    # Its failure is no guess of ours: nothing is counted, no door closes.
    assert reasons() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "https://evil.test"},
        {"token_endpoint": "http://evil.test/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": None},
    ],
)
def test_provider_that_says_strange_things_of_itself_is_not_used(
    client, provider, wrong
):
    provider.metadata = wrong

    assert told(client.get(reverse("access:sign_on"))) == "away"


def test_provider_inside_is_reached_only_by_its_exact_address(
    client, provider, settings
):
    settings.POLAR_OIDC_LOCAL = []
    assert queries.sign_on() is None

    settings.POLAR_OIDC_ISSUER = provider.url.replace("http:", "https:")
    assert told(client.get(reverse("access:sign_on"))) == "away"


def test_ten_false_answers_close_the_door_for_false_ones_only(client, provider):
    for _ in range(lockout.MOST_FAILURES):
        come_back(client, {"code": "x", "state": "y"})

    assert told(come_back(client, {"code": "x", "state": "y"})) == "later"
    assert len(reasons()) == lockout.MOST_FAILURES
    assert Event.objects.filter(type="access.locked").count() == 1
    sign_on(client, provider)
    assert signed_in(client)


def test_address_that_begins_too_many_waits(client, provider):
    for _ in range(20):
        last = client.get(reverse("access:sign_on"))

    assert told(last) == "later"


def test_second_factor_is_asked_of_those_who_have_one(client, provider):
    sign_on(client, provider)
    ada = User.objects.get()
    key = factors.begin(user=ada)
    factors.confirm(
        user=ada, code=pyotp.TOTP(key).at(clock.now() - timedelta(seconds=30))
    )
    other = client.__class__()

    answer = sign_on(other, provider)

    assert answer["Location"] == reverse("access:second_factor")
    assert not signed_in(other)
    other.post(answer["Location"], {"code": pyotp.TOTP(key).at(clock.now())})
    assert signed_in(other)
    last = Event.objects.filter(type="access.signed_in").latest("id")
    assert said(last)["how"] == "single sign-on"


def test_second_factor_when_policy_demands_it_then_set_up_first(client, provider):
    """The provider's word is taken for who somebody is, never for a second factor."""
    system = services.system_principal()
    factors.require_second_factor(by=system, required=True)
    provider.person |= {"groups": ["polar-admins"], "amr": ["pwd", "mfa"]}

    answer = sign_on(client, provider)

    assert answer["Location"] == reverse("access:set_up_factor")
    assert not signed_in(client)


def test_button_stands_there_only_when_set_up(client, provider, settings):
    page = client.get(reverse("access:login"), {"next": "/runs/"}).content.decode()
    assert "Sign in with Example" in page
    assert f'{reverse("access:sign_on")}?next=/runs/"' in page

    settings.POLAR_OIDC_ISSUER = ""
    page = client.get(reverse("access:login"), {"sign_on": "away"}).content.decode()
    assert "Sign in with" not in page
    assert "identity provider" not in page
    for name in ("sign_on", "sign_on_return"):
        assert client.get(reverse(f"access:{name}")).status_code == 404


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("ISSUER", "http://login.example.org"),
        ("ISSUER", "login.example.org"),
        ("CLIENT_ID", ""),
        ("SCOPES", "profile"),
        ("ROLE_CLAIM", ""),
        ("ROLES", ""),
        ("ROLES", "polar-admins=admin"),
        ("ROLES", "[]"),
        ("ROLES", '{"polar-admins": "root"}'),
        ("ROLES", '{"polar-admins": ["admin"]}'),
    ],
)
def test_half_a_set_up_is_none_and_is_named(client, provider, settings, setting, value):
    setattr(settings, f"POLAR_OIDC_{setting}", value)

    assert queries.sign_on() is None
    assert client.get(reverse("access:sign_on")).status_code == 404
    assert any(f"POLAR_OIDC_{setting}" in str(each) for each in run_checks())


def test_next_leads_nowhere_else(client, provider):
    answer = sign_on(client, provider, next="https://evil.test/")

    assert answer["Location"] == reverse("home")


def test_who_has_signed_in_is_not_sent_away(client, provider, workspace):
    client.force_login(people.person("root", Role.ADMIN, workspace))

    assert client.get(reverse("access:sign_on"))["Location"] == reverse("home")


def test_secrets_of_a_sign_on_are_kept_nowhere(client, provider, caplog):
    answer = provider.authorize(begin(client))
    come_back(client, answer)

    events = json.dumps(list(Event.objects.values()), default=str)
    for secret in (CLIENT_SECRET, answer["code"], answer["state"]):
        assert secret not in events
        assert secret not in caplog.text
        assert secret not in str(dict(client.session.items()))
    assert CLIENT_SECRET not in repr(queries.sign_on())
    assert "code_verifier" in provider.bodies[0]
