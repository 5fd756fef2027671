"""Which permission each page asks for, before its view is entered.

The outer wall of the desk: who has no role sees nothing but their own account, who
may only look changes nothing, and what belongs to the install is its
administrators'. The services behind ask for the role again.
"""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse

from apps.access.errors import RoleRequired
from apps.access.policies import ACT, ADMINISTER, LOOK
from apps.common.middleware import SAFE_METHODS, error_page

#: One's own affairs: whoever has signed in.
OWN = frozenset(
    {
        "access:logout",
        "access:account",
        "access:password",
        "access:factor",
        "access:remove_factor",
        "access:end",
        "access:zone",
    }
)
#: Written by people who may only look: their own tokens reach no further than they.
LOOKERS_WRITE = frozenset({"access:add_token", "access:revoke_token"})
#: Also to look at, an administrator's.
ADMINISTRATORS_SEE = frozenset({"access:users", "extensions:connected"})
#: To write, an administrator's: pages by name, or all of an app.
ADMINISTRATORS_WRITE = frozenset(
    {
        "access:users",
        "access:add_user",
        "access:change_user",
        "access:policy",
        "access:limit_token",
        "extensions:connect",
        "extensions:disconnect",
        "providers:add",
        "providers:change",
        "providers:key",
        "providers:route",
        "reliability:import_config",
        "vault:act",
        "vault:make_kit",
    }
)
WORDS = {LOOK: "viewer", ACT: "operator", ADMINISTER: "admin"}


def needed(name: str, method: str) -> str:
    """Name the permission that a page asks for, or "" where none is."""
    if name in OWN:
        return ""
    if method in SAFE_METHODS:
        return ADMINISTER if name in ADMINISTRATORS_SEE else LOOK
    if name in ADMINISTRATORS_WRITE:
        return ADMINISTER
    return LOOK if name in LOOKERS_WRITE else ACT


class RoleGate:
    """Refuses a signed-in person whose groups do not carry what the page asks for."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Any, args: Any, kwargs: Any
    ) -> HttpResponse | None:
        match = request.resolver_match
        if match is None or not request.user.is_authenticated:
            return None
        # What needs no login carries its own check; so does the admin site.
        if not getattr(view, "login_required", True) or "admin" in match.app_names:
            return None
        permission = needed(match.view_name, request.method or "")
        if not permission or request.user.has_perm(permission):
            return None
        role = WORDS[permission]
        return error_page(
            request, RoleRequired(f"This page needs the role {role}.", needed=role)
        )
