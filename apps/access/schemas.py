"""What the API says of people and tokens, and what it takes."""

from datetime import datetime
from uuid import UUID

from pydantic import Field

from apps.access.models import Role, Token
from apps.common.schemas import In, Out


class UserIn(In):
    username: str = Field(max_length=150)
    password: str = Field(max_length=1024, repr=False)
    role: Role


class AccessPolicyIn(In):
    second_factor_required: bool
    reason: str = Field("", max_length=300)


class AccessPolicyOut(Out):
    second_factor_required: bool


class UserChangeIn(In):
    """Only what is given is changed."""

    role: Role | None = None
    active: bool | None = None
    password: str | None = Field(None, max_length=1024, repr=False)
    second_factor: bool | None = None
    reason: str = Field("", max_length=300)


class UserOut(Out):
    username: str
    role: str
    active: bool
    second_factor: bool
    last_login: datetime | None


class TokenIn(In):
    name: str = Field(max_length=120)
    scopes: list[str] = Field(max_length=50)
    expires_at: datetime | None = None
    #: Whose token it is; only an administrator names somebody else.
    username: str = Field("", max_length=150)


class TokenLimitIn(In):
    rate_per_minute: int = Field(ge=1, le=600_000)


class TokenOut(Out):
    id: UUID
    name: str
    owner: str
    scopes: list[str]
    source: str
    rate_per_minute: int
    is_live: bool
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    @staticmethod
    def resolve_owner(row: Token | dict[str, str]) -> str:
        return row["owner"] if isinstance(row, dict) else row.principal.label


class NewTokenOut(TokenOut):
    #: Shown in this answer and never again.
    token: str


class TokenPage(Out):
    items: list[TokenOut]
    next_cursor: str
