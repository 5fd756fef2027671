"""Every setting over the API: one by one, and as one document."""

from typing import Any

from django.http import HttpRequest
from ninja import Router

from apps.access.policies import caller
from apps.common.schemas import PROBLEMS
from apps.common.scopes import needs
from apps.reliability import services
from apps.reliability.schemas import (
    ConfigDocument,
    ConfigImportOut,
    ConfigIn,
    ConfigOut,
)

router = Router(tags=["settings"], by_alias=True)


@router.get(
    "/configs", response={200: list[ConfigOut]} | PROBLEMS, operation_id="listConfigs"
)
@needs("config:read")
def list_configs(request: HttpRequest, section: str = "") -> list[Any]:
    by = caller(request).principal
    return list(services.list_configs(by=by, section=section))


@router.get(
    "/configs/document",
    response={200: ConfigDocument} | PROBLEMS,
    operation_id="exportConfig",
)
@needs("config:read")
def export_config(request: HttpRequest) -> dict[str, Any]:
    """Return all settings as one document, without any secret."""
    return services.export_config(by=caller(request).principal)


@router.post(
    "/configs/document/diff",
    response={200: ConfigImportOut} | PROBLEMS,
    operation_id="diffConfig",
)
@needs("config:read")
def diff_config(request: HttpRequest, body: ConfigDocument) -> dict[str, Any]:
    by = caller(request).principal
    document = body.model_dump()
    changes = services.diff_config(by=by, document=document)
    return {
        "changes": changes,
        "secrets_to_enter": services.secrets_to_enter(document),
        "extensions_to_review": services.extensions_to_review(document),
    }


@router.put(
    "/configs/document",
    response={200: ConfigImportOut} | PROBLEMS,
    operation_id="importConfig",
)
@needs("config:write")
def import_config(request: HttpRequest, body: ConfigDocument) -> dict[str, Any]:
    """Make the settings say what the document says: all of it or nothing."""
    by = caller(request).principal
    document = body.model_dump()
    changes = services.import_config(by=by, document=document)
    return {
        "changes": changes,
        "secrets_to_enter": services.secrets_to_enter(document),
        "extensions_to_review": services.extensions_to_review(document),
    }


@router.get(
    "/configs/{section}/{key}",
    response={200: ConfigOut} | PROBLEMS,
    operation_id="getConfig",
)
@needs("config:read")
def get_config(request: HttpRequest, section: str, key: str) -> Any:
    by = caller(request).principal
    return services.get_config(by=by, section=section, key=key)


@router.put(
    "/configs/{section}/{key}",
    response={200: ConfigOut} | PROBLEMS,
    operation_id="upsertConfig",
)
@needs("config:write")
def upsert_config(request: HttpRequest, section: str, key: str, body: ConfigIn) -> Any:
    by = caller(request).principal
    return services.upsert_config(
        by=by,
        section=section,
        key=key,
        value=body.value,
        expected_version=body.expected_version,
    )
