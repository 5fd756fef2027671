"""Extensions through the API."""

from typing import Any

from django.http import HttpRequest
from ninja import Router

from apps.access.policies import Authenticated, check_scope

from . import queries
from .models import Extension
from .schemas import ExtensionList

router = Router(tags=["extensions"], by_alias=True)


@router.get(
    "/extensions",
    response=ExtensionList,
    operation_id="listExtensionStates",
    url_name="list_extension_states",
)
def list_extension_states(request: HttpRequest) -> dict[str, Any]:
    """List every extension with its trust, its state and what it offers."""
    auth: Authenticated = request.auth  # type: ignore[attr-defined]
    check_scope(auth, "extensions:read")
    return {"items": [_shown(row) for row in queries.extensions()]}


def _shown(row: Extension) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "extensionId": row.ext_id,
        "extensionType": row.type,
        "title": row.title,
        "trustLevel": row.trust,
        "trustReason": row.trust_reason,
        "lifecycle": row.lifecycle,
        "version": row.version,
        "definitionHash": row.definition_hash,
        "reviewedHash": row.reviewed_hash,
        "capabilities": [
            {
                "capabilityId": capability.capability_id,
                "alias": capability.alias,
                "title": capability.title,
                "description": capability.description,
                "riskLevel": capability.risk_level,
                "sideEffects": capability.side_effects,
                "dataEgress": capability.data_egress,
            }
            for capability in row.capabilities.all()
            if capability.is_current
        ],
    }
