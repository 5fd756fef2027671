"""Who may stop, who may decide what somebody else asked for, and whether a value
matches a schema: a stranger's schema never fetches what it refers to."""

from functools import lru_cache
from typing import Any
from uuid import UUID

import jsonschema
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from apps.access.models import Membership, Principal, PrincipalKind, Role
from apps.access.policies import check_role
from apps.access.queries import default_workspace
from apps.common import canonical
from apps.common.errors import Denied, FieldProblem

from .models import ApprovalRequest


def check_operator(by: Principal) -> None:
    """Refuse who may not stop, resume or settle."""
    if by.kind == PrincipalKind.AGENT:
        raise Denied("An agent never stops, resumes or settles.")
    if by.kind == PrincipalKind.HUMAN:
        check_role(by, Role.OPERATOR, default_workspace())


def check_may_decide(by: Principal, asked: ApprovalRequest) -> bool:
    """Refuse who may not decide; asked at the click and again at use.

    Returns whether somebody decides alone what they asked for themselves.
    """
    if by.kind in (PrincipalKind.AGENT, PrincipalKind.AUTOMATION):
        raise Denied("Agents never approve.")
    if not by.is_active or (by.user is not None and not by.user.is_active):
        raise Denied(f"{by.label} is not active.")
    check_role(by, Role.APPROVER, asked.workspace)
    alone = count_approvers(asked.workspace_id) < 2
    own = by.id == asked.requester_id or (
        by.user_id is not None and asked.requester.user_id == by.user_id
    )
    destructive = "destructive" in asked.call.facts.get("asks", [])
    if own and destructive and not alone:
        raise Denied("Somebody else decides what you asked to destroy.")
    return alone and own


def can_decide(by: Principal, asked: ApprovalRequest) -> str:
    """Return why not, in the words of the rule, or ""."""
    try:
        check_may_decide(by, asked)
    except Denied as error:
        return error.detail
    return ""


def count_approvers(workspace_id: UUID) -> int:
    """Count who could answer a question in a workspace."""
    return Membership.objects.filter(
        workspace_id=workspace_id,
        role__in=[Role.APPROVER, Role.ADMIN],
        user__is_active=True,
    ).count()


def problems_of(value: Any, schema: dict[str, Any]) -> list[FieldProblem]:
    """List every place where a value breaks a JSON schema."""
    validator = _validator(canonical.arguments(schema))
    try:
        errors = sorted(validator.iter_errors(value), key=lambda error: error.json_path)
    except Unresolvable as error:
        return [FieldProblem("$schema", f"an unknown reference: {error}"[:300])]
    return [
        FieldProblem(error.json_path, error.message[:300], _expected(error))
        for error in errors
    ]


def schema_problem(schema: Any) -> str:
    """Say what is wrong with a schema itself; "" when nothing is."""
    if not isinstance(schema, dict):
        return "a schema is an object"
    kind = validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except (jsonschema.SchemaError, RecursionError) as error:
        return str(getattr(error, "message", error))[:300]
    return ""


@lru_cache(maxsize=1024)
def _validator(schema_text: str) -> Validator:
    schema = canonical.loads(schema_text)
    kind = validator_for(schema, default=jsonschema.Draft202012Validator)
    # A schema comes from a stranger: what it refers to outside is never fetched.
    return kind(schema, registry=Registry())


def _expected(error: jsonschema.ValidationError) -> str:
    return f"{error.validator}: {error.validator_value}"[:200]
