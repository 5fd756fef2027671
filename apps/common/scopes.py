"""Which scope an operation of the API asks for, and the door that asks for it.

An operation says it beside its address, so that a page and a client can read it. The
door compares it with the credential before anything of the body is read; the services
behind ask for the role again. Who is let in is decided above: it is plugged in.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from django.http import HttpRequest
from ninja.operation import Operation
from ninja.security.base import AuthBase
from ninja.utils import contribute_operation_callback

#: Shape: (request, scope, role) → who asks. Raises: what keeps them out.
Enter = Callable[[HttpRequest, str, str], Any]
View = TypeVar("View", bound=Callable[..., Any])

_enter: list[Enter] = []


class Bearer(AuthBase):
    """The door of one operation."""

    openapi_type = "http"
    openapi_scheme = "bearer"

    def __init__(self, scope: str, role: str) -> None:
        super().__init__()
        self.scope, self.role = scope, role

    def __call__(self, request: HttpRequest) -> Any:
        (enter,) = _enter
        return enter(request, self.scope, self.role)


def needs(scope: str, role: str = "") -> Callable[[View], View]:
    """Let an operation be entered only with a scope, such as "runs:read".

    `role`: the least role of a person, where the scope is wider than that.
    """

    def mark(view: View) -> View:
        contribute_operation_callback(view, partial(_guard, Bearer(scope, role)))
        return view

    return mark


def plug_enter(enter: Enter) -> None:
    """Say how one enters. Again: the last one counts."""
    _enter[:] = [enter]


def _guard(door: Bearer, operation: Operation) -> None:
    operation.auth_param = door
    operation.auth_callbacks = [door]
    said = {"x-scope": door.scope} | ({"x-role": door.role} if door.role else {})
    operation.openapi_extra = {**(operation.openapi_extra or {}), **said}
