"""People and tokens over the API."""

from datetime import UTC
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Status

from apps.access import queries, services
from apps.access.models import Membership, Principal, Role, Token, User
from apps.access.policies import caller, check_role
from apps.access.schemas import (
    AccessPolicyIn,
    AccessPolicyOut,
    NewTokenOut,
    TokenIn,
    TokenLimitIn,
    TokenOut,
    TokenPage,
    UserChangeIn,
    UserIn,
    UserOut,
)
from apps.access.services import factors
from apps.common.errors import Invalid, NotFound
from apps.common.schemas import PROBLEMS, Cursor, cut, keep_nowhere
from apps.common.scopes import needs

router = Router(tags=["access"], by_alias=True)


@router.get(
    "/users", response={200: list[UserOut]} | PROBLEMS, operation_id="listUsers"
)
@needs("access:read")
def list_users(request: HttpRequest) -> list[dict[str, Any]]:
    auth = caller(request)
    home = queries.default_workspace()
    check_role(auth.principal, Role.ADMIN, home)
    return [user_facts(row) for row in queries.people_of(home)]


@router.post("/users", response={201: UserOut} | PROBLEMS, operation_id="createUser")
@needs("access:write")
def create_user(request: HttpRequest, body: UserIn) -> Status[dict[str, Any]]:
    auth = caller(request)
    home = queries.default_workspace()
    new = services.NewUser(body.username, body.password, body.role, home)
    services.create_user(by=auth.principal, new=new)
    return Status(201, _facts_of(body.username))


@router.patch(
    "/users/{username}",
    response={200: UserOut} | PROBLEMS,
    operation_id="updateUser",
)
@needs("access:write")
def update_user(
    request: HttpRequest, username: str, body: UserChangeIn
) -> dict[str, Any]:
    auth = caller(request)
    change_user(by=auth.principal, username=username, body=body)
    return _facts_of(username)


@router.put(
    "/access/policy",
    response={200: AccessPolicyOut} | PROBLEMS,
    operation_id="setAccessPolicy",
)
@needs("access:write")
def set_access_policy(request: HttpRequest, body: AccessPolicyIn) -> AccessPolicyIn:
    """Demand a second factor of approvers and administrators, or no longer."""
    auth = caller(request)
    factors.require_second_factor(
        by=auth.principal, required=body.second_factor_required, reason=body.reason
    )
    return body


@router.get("/tokens", response={200: TokenPage} | PROBLEMS, operation_id="listTokens")
@needs("tokens:read")
def list_tokens(request: HttpRequest, cursor: Query[Cursor]) -> dict[str, Any]:
    auth = caller(request)
    page, following = cut(queries.tokens_for(auth.principal), cursor)
    return {"items": page, "next_cursor": following}


@router.post(
    "/tokens", response={201: NewTokenOut} | PROBLEMS, operation_id="createToken"
)
@needs("tokens:write")
def create_token(
    request: HttpRequest, body: TokenIn, response: HttpResponse
) -> Status[dict[str, Any]]:
    auth = caller(request)
    owner = token_owner(auth.principal, body.username)
    ends = body.expires_at
    if ends is not None and ends.tzinfo is None:
        ends = ends.replace(tzinfo=UTC)
    row, raw = services.issue_token(
        by=auth.principal,
        principal=owner,
        name=body.name,
        scopes=body.scopes,
        held=auth.scopes,
        expires_at=ends,
    )
    keep_nowhere(response)
    shown = TokenOut.from_orm(row).model_dump()
    return Status(201, {**shown, "token": raw})


@router.patch(
    "/tokens/{token_id}",
    response={200: TokenOut} | PROBLEMS,
    operation_id="limitToken",
)
@needs("tokens:write", "admin")
def limit_token(request: HttpRequest, token_id: UUID, body: TokenLimitIn) -> Token:
    """Say how many requests a minute a token may send; past that it meets 429."""
    auth = caller(request)
    return services.limit_token(
        by=auth.principal, token_id=token_id, rate_per_minute=body.rate_per_minute
    )


@router.delete(
    "/tokens/{token_id}",
    response={204: None} | PROBLEMS,
    operation_id="revokeToken",
)
@needs("tokens:write")
def revoke_token(request: HttpRequest, token_id: UUID) -> Status[None]:
    auth = caller(request)
    services.revoke_token(by=auth.principal, token_id=token_id)
    return Status(204, None)


def change_user(*, by: Principal, username: str, body: UserChangeIn) -> None:
    """Change what the body names, each through its own service."""
    home = queries.default_workspace()
    check_role(by, Role.ADMIN, home)
    user = _get_user(username)
    if body.second_factor:
        raise Invalid("A second factor is set up by its owner alone.")
    if body.role is not None:
        services.set_role(by=by, user=user, role=body.role, workspace=home)
    if body.password is not None:
        services.reset_password(
            by=by, user=user, password=body.password, workspace=home
        )
    if body.active is True:
        services.activate_user(by=by, user=user, workspace=home)
    if body.active is False:
        services.deactivate_user(by=by, user=user, workspace=home, reason=body.reason)
    if body.second_factor is False:
        factors.remove(by=by, user=user, reason=body.reason)


def token_owner(asker: Principal, username: str) -> Principal:
    """Whose token it will be: the asker's, or of somebody the asker names."""
    if not username:
        return asker
    return services.principal_for_user(user=_get_user(username))


def user_facts(row: Membership) -> dict[str, Any]:
    factor = getattr(row.user, "second_factor", None)
    return {
        "username": row.user.username,
        "role": row.role,
        "active": row.user.is_active,
        "second_factor": factor is not None and factor.confirmed_at is not None,
        "last_login": row.user.last_login,
    }


def _facts_of(username: str) -> dict[str, Any]:
    rows = queries.people_of(queries.default_workspace())
    return user_facts(rows.get(user__username=username))


def _get_user(username: str) -> User:
    user = queries.find_user(username, queries.default_workspace())
    if user is None:
        raise NotFound(f"There is nobody called {username[:150]!r} here.")
    return user
