"""Signing in and out, one's own account, and the people and tokens of an install."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth import login, update_session_auth_hash
from django.contrib.auth import views as auth_views
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import mark_safe
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.access import queries, services
from apps.access.forms import SignInForm, address_of
from apps.access.models import ROLE_ORDER, AccessPolicy, Principal, Role, User
from apps.access.policies import can_role, check_role
from apps.access.services import factors, lockout
from apps.common import clock, pages
from apps.common.errors import Conflict, NotFound, PolarError
from apps.common.middleware import CHOSEN_ZONE, zone_of
from apps.common.units import whole_number

#: Half a sign-in: the password was right, the second factor is still to come.
HALF = "half_sign_in"
HALF_SECONDS = 300
ZONE_SECONDS = 365 * 24 * 3600
CODE_DOOR = "second factor"
BACKEND = "apps.access.policies.ByGroup"
#: What the sign-in page says of a sign-on that led back, by the word in its address.
SIGN_ON_PROBLEMS = {
    "away": "The identity provider does not answer. Try again, or use a password.",
    "refused": "That sign-on was not accepted here. An administrator of Polar finds "
    "the reason in the audit log.",
    "again": "That sign-on was too old or begun elsewhere: begin it again here.",
    "later": "Too many sign-ons from your address: try again in some minutes, or use "
    "a password.",
}
#: How long a token may live, in the words of the form. Units: days.
LIVES = ((7, "a week"), (30, "a month"), (90, "three months"), (365, "a year"))


@method_decorator([login_not_required, never_cache], name="dispatch")
class LoginView(auth_views.LoginView):
    template_name = "access/login.html"
    redirect_authenticated_user = True
    authentication_form = SignInForm

    def form_valid(self, form: Any) -> HttpResponse:
        """Sign in at once, or ask for the second factor, or have one set up."""
        return let_in(self.request, form.get_user(), self.get_success_url())

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """The button of the identity provider, and why it led back here."""
        told = SIGN_ON_PROBLEMS.get(self.request.GET.get("sign_on", ""), "")
        setup = queries.sign_on()
        more = {"sign_on": setup, "sign_on_problem": told if setup else ""}
        return super().get_context_data(**kwargs) | more


class LogoutView(auth_views.LogoutView):
    http_method_names = ["post", "options"]


def let_in(
    request: HttpRequest, user: User, following: str, how: str = "password"
) -> HttpResponse:
    """Sign somebody in who has shown who they are, or ask for the second factor, or
    have one set up: policy asks the same of everybody, however they came."""
    has_factor = queries.has_second_factor(user)
    if not has_factor and not queries.needs_second_factor(user):
        enter(request, user, how)
        return HttpResponseRedirect(following)
    request.session.cycle_key()
    request.session[HALF] = {
        "user": str(user.id),
        "until": clock.now().timestamp() + HALF_SECONDS,
        "password": user.get_session_auth_hash(),
        "next": following,
        "how": how,
    }
    step = "second_factor" if has_factor else "set_up_factor"
    return HttpResponseRedirect(reverse(f"access:{step}"))


def enter(request: HttpRequest, user: User, how: str = "password") -> None:
    """Begin a session under a new key and note it."""
    login(request, user, backend=BACKEND)
    services.principal_for_user(user=user)
    services.open_session(
        user=user,
        session_key=request.session.session_key or "",
        address=address_of(request),
        browser=request.headers.get("User-Agent", ""),
        how=how,
    )


@login_not_required
@never_cache
@require_http_methods(["GET", "POST"])
def second_factor(request: HttpRequest) -> HttpResponse:
    """Ask for the code of somebody whose password was right."""
    user = _half_signed_in(request)
    if user is None:
        return HttpResponseRedirect(reverse("access:login"))
    problem = ""
    if request.method == "POST":
        door = (CODE_DOOR, str(user.id), address_of(request))
        try:
            lockout.check_open(*door)
            _check_code(user, request.POST.get("code", ""), door)
        except PolarError as error:
            problem = error.detail
        else:
            half = request.session.pop(HALF)
            following = half["next"]
            enter(request, user, half.get("how", "password"))
            return HttpResponseRedirect(safe_url(request, following))
    return render(request, "access/code.html", {"problem": problem})


@login_not_required
@never_cache
@require_http_methods(["GET", "POST"])
def set_up_factor(request: HttpRequest) -> HttpResponse:
    """Set up an authenticator, from the account or on the way in."""
    signed_in = isinstance(request.user, User)
    user = request.user if isinstance(request.user, User) else _half_signed_in(request)
    if user is None:
        return HttpResponseRedirect(reverse("access:login"))
    codes: list[str] = []
    context: dict[str, Any] = {"signed_in": signed_in, "problem": ""}
    try:
        if request.method == "POST" and "code" in request.POST:
            door = (CODE_DOOR, str(user.id), address_of(request))
            lockout.check_open(*door)
            codes = _confirm(user, request.POST["code"], door)
        elif request.method == "POST":
            key = factors.begin(user=user)
            picture = factors.picture(user=user, key=key)
            # Drawn by the kept library from a URI that we made.
            context |= {"key": key, "picture": mark_safe(picture)}  # noqa: S308
    except PolarError as error:
        context["problem"] = error.detail
    if codes and not signed_in:
        half = request.session.pop(HALF)
        enter(request, user, half.get("how", "password"))
        context["next"] = safe_url(request, half["next"])
    context |= {"codes": codes, "has_factor": queries.has_second_factor(user)}
    return render(request, "access/factor.html", context)


@require_POST
def remove_factor(request: HttpRequest) -> HttpResponse:
    user = _user(request)
    door = (CODE_DOOR, str(user.id), address_of(request))
    try:
        lockout.check_open(*door)
        _check_code(user, request.POST.get("code", ""), door)
        if queries.needs_second_factor(user):
            raise Conflict("Policy demands a second factor of your role.")
        factors.remove(by=user.principal, user=user)
        messages.success(request, "The second factor is removed.")
    except PolarError as error:
        messages.error(request, f"Not removed: {error.detail}")
    return HttpResponseRedirect(reverse("access:account"))


@require_GET
def account(request: HttpRequest) -> HttpResponse:
    user = _user(request)
    context = {
        "sessions": queries.open_sessions(user)[: pages.PAGE_SIZE],
        "this_key": request.session.session_key,
        "has_factor": queries.has_second_factor(user),
        "needs_factor": queries.needs_second_factor(user),
        "chosen_zone": request.COOKIES.get(CHOSEN_ZONE, ""),
    }
    return render(request, "access/account.html", context)


@require_POST
def choose_zone(request: HttpRequest) -> HttpResponse:
    """Write the times of this browser's pages in a zone; in its own for no name."""
    name = request.POST.get("zone", "").strip()
    answer = HttpResponseRedirect(reverse("access:account"))
    if not name:
        answer.delete_cookie(CHOSEN_ZONE)
    elif zone_of(name) is None:
        messages.error(request, f"Not changed: {name[:64]!r} is no time zone.")
    else:
        answer.set_cookie(
            CHOSEN_ZONE,
            name,
            max_age=ZONE_SECONDS,
            secure=request.is_secure(),
            httponly=True,
            samesite="Lax",
        )
    return answer


@require_POST
def change_password(request: HttpRequest) -> HttpResponse:
    user = _user(request)
    door = ("old password", str(user.id), address_of(request))
    try:
        lockout.check_open(*door)
        if request.POST.get("new") != request.POST.get("again"):
            raise Conflict("The two new passwords differ.")
        if not user.check_password(request.POST.get("old", "")):
            lockout.note_failure(*door)
        services.change_password(
            user=user,
            old=request.POST.get("old", ""),
            new=request.POST.get("new", ""),
            session_key=request.session.session_key or "",
        )
        update_session_auth_hash(request, user)
        services.open_session(
            user=user,
            session_key=request.session.session_key or "",
            address=address_of(request),
            browser=request.headers.get("User-Agent", ""),
        )
        messages.success(request, "Changed. Your other sessions are ended.")
    except PolarError as error:
        _tell(request, "Not changed", error)
    return HttpResponseRedirect(reverse("access:account"))


@require_POST
def end_session(request: HttpRequest, sign_in_id: UUID) -> HttpResponse:
    services.end_session(user=_user(request), sign_in_id=sign_in_id)
    messages.success(request, "That session is ended.")
    return HttpResponseRedirect(reverse("access:account"))


@require_GET
def users(request: HttpRequest) -> HttpResponse:
    home = queries.default_workspace()
    check_role(_principal(request), Role.ADMIN, home)
    context = {
        "people": list(queries.people_of(home)[:200]),
        "roles": [str(role) for role in ROLE_ORDER],
        "policy": AccessPolicy.objects.first(),
    }
    return render(request, "access/users.html", context)


@require_POST
def add_user(request: HttpRequest) -> HttpResponse:
    home = queries.default_workspace()
    role = request.POST.get("role", "")
    try:
        if role not in Role.values:
            raise NotFound("There is no such role.")
        new = services.NewUser(
            request.POST.get("username", "").strip(),
            request.POST.get("password", ""),
            Role(role),
            home,
        )
        services.create_user(by=_principal(request), new=new)
        messages.success(request, f"{new.username} may sign in, as {role}.")
    except PolarError as error:
        _tell(request, "Nobody was let in", error)
    return HttpResponseRedirect(reverse("access:users"))


@require_POST
def change_user(request: HttpRequest, user_id: UUID) -> HttpResponse:
    """One form per change, told apart by the button's name."""
    by, home = _principal(request), queries.default_workspace()
    check_role(by, Role.ADMIN, home)
    user = User.objects.filter(id=user_id, memberships__workspace=home).first()
    if user is None:
        raise NotFound
    given, reason = request.POST, request.POST.get("reason", "")
    try:
        match given.get("change"):
            case "role":
                role = given.get("role", "")
                services.set_role(by=by, user=user, role=role, workspace=home)
            case "deactivate":
                services.deactivate_user(
                    by=by, user=user, workspace=home, reason=reason
                )
            case "activate":
                services.activate_user(by=by, user=user, workspace=home)
            case "password":
                password = given.get("password", "")
                services.reset_password(
                    by=by, user=user, password=password, workspace=home
                )
            case "factor":
                factors.remove(by=by, user=user, reason=reason)
            case _:
                raise NotFound("There is no such change.")
        messages.success(request, f"{user.username}: done.")
    except PolarError as error:
        _tell(request, "Not changed", error)
    return HttpResponseRedirect(reverse("access:users"))


@require_POST
def set_policy(request: HttpRequest) -> HttpResponse:
    required = request.POST.get("required") == "yes"
    factors.require_second_factor(by=_principal(request), required=required)
    messages.success(request, "The policy is set.")
    return HttpResponseRedirect(reverse("access:users"))


@require_GET
def tokens(request: HttpRequest) -> HttpResponse:
    return render(request, "access/tokens.html", _tokens_context(request))


@never_cache
@require_POST
def add_token(request: HttpRequest) -> HttpResponse:
    """Answers with the page itself: the value is shown once and never kept."""
    by, given = _principal(request), request.POST
    fresh = ""
    try:
        days = whole_number(given.get("days", "")) or 0
        _, fresh = services.issue_token(
            by=by,
            principal=by,
            name=given.get("name", ""),
            scopes=given.get("scopes", "").replace(",", " ").split(),
            held=queries.authenticated_user(_user(request)).scopes,
            expires_at=clock.now() + timedelta(days=min(days, 3650)) if days else None,
        )
    except PolarError as error:
        _tell(request, "No token was made", error)
    context = {**_tokens_context(request), "fresh": fresh}
    return render(request, "access/tokens.html", context)


@require_POST
def revoke_token(request: HttpRequest, token_id: UUID) -> HttpResponse:
    services.revoke_token(by=_principal(request), token_id=token_id)
    messages.success(request, "Revoked, everywhere and at once.")
    return HttpResponseRedirect(reverse("access:tokens"))


@require_POST
def limit_token(request: HttpRequest, token_id: UUID) -> HttpResponse:
    rate = whole_number(request.POST.get("rate", "")) or 0
    try:
        services.limit_token(
            by=_principal(request), token_id=token_id, rate_per_minute=rate
        )
        messages.success(request, f"At most {rate} requests a minute from now on.")
    except PolarError as error:
        _tell(request, "Not changed", error)
    return HttpResponseRedirect(reverse("access:tokens"))


def _tokens_context(request: HttpRequest) -> dict[str, Any]:
    by = _principal(request)
    return {
        "page": pages.keyset(queries.tokens_for(by), request.GET),
        "is_admin": can_role(by, Role.ADMIN, queries.default_workspace()),
        "held": sorted(queries.authenticated_user(_user(request)).scopes),
        "lives": LIVES,
    }


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _principal(request: HttpRequest) -> Principal:
    return services.principal_for_user(user=_user(request))


def _half_signed_in(request: HttpRequest) -> User | None:
    """Whose password was right a moment ago, and still is theirs."""
    half = request.session.get(HALF)
    if not half or half["until"] < clock.now().timestamp():
        return None
    user = User.objects.filter(id=half["user"], is_active=True).first()
    if user is None or user.get_session_auth_hash() != half["password"]:
        return None
    services.principal_for_user(user=user)
    return user


def _check_code(user: User, code: str, door: tuple[str, str, str]) -> None:
    try:
        factors.check(user=user, code=code)
    except PolarError:
        lockout.note_failure(*door)
        raise
    lockout.note_success(*door)


def _confirm(user: User, code: str, door: tuple[str, str, str]) -> list[str]:
    try:
        codes = factors.confirm(user=user, code="".join(code.split()))
    except PolarError:
        lockout.note_failure(*door)
        raise
    lockout.note_success(*door)
    return codes


def safe_url(request: HttpRequest, url: str) -> str:
    hosts = {request.get_host()}
    if url_has_allowed_host_and_scheme(url, hosts, request.is_secure()):
        return url
    return reverse("home")


def _tell(request: HttpRequest, what: str, error: PolarError) -> None:
    named = "; ".join(f"{each.path}: {each.problem}" for each in error.fields)
    messages.error(request, f"{what}: {error.detail} {named}".strip())
