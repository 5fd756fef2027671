"""The settings as one document."""

from typing import Any

from django.contrib import messages
from django.http import (
    HttpRequest,
    HttpResponse,
)
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST

from apps.access import queries as access
from apps.access.models import Role
from apps.access.policies import can_role
from apps.common.errors import PolarError
from apps.reliability import services
from apps.reliability.views.asking import principal_of


@require_GET
def config(request: HttpRequest) -> HttpResponse:
    """Show every setting as others would import it."""
    return render(request, "reliability/config.html", _config_context(request))


@require_GET
def export_config(request: HttpRequest) -> HttpResponse:
    document = services.export_config(by=principal_of(request))
    answer = HttpResponse(services.as_text(document), content_type="application/json")
    answer["Content-Disposition"] = 'attachment; filename="polar-config.json"'
    return answer


@require_POST
def import_config(request: HttpRequest) -> HttpResponse:
    """Compare a pasted or uploaded document, or import it."""
    by, text = principal_of(request), _document_text(request)
    context: dict[str, Any] = {"text": text}
    try:
        document = services.parse_document(text)
        if request.POST.get("do") == "import":
            found = services.import_config(by=by, document=document)
            messages.success(request, f"Imported: {len(found)} settings changed.")
        else:
            context["diff"] = services.diff_config(by=by, document=document)
            context["compared"] = True
        context["missing"] = services.secrets_to_enter(document)
        context["reviews"] = services.extensions_to_review(document)
    except PolarError as error:
        named = "; ".join(f"{each.path}: {each.problem}" for each in error.fields)
        messages.error(request, f"Nothing was changed: {error.detail} {named}")
    context |= _config_context(request)
    return render(request, "reliability/config.html", context)


def _document_text(request: HttpRequest) -> str:
    upload = request.FILES.get("file")
    if upload is None:
        return str(request.POST.get("document", ""))
    return upload.read().decode("utf-8", "replace")


def _config_context(request: HttpRequest) -> dict[str, Any]:
    by = principal_of(request)
    sections: dict[str, list[tuple[str, str, str]]] = {}
    for entry in services.list_configs(by=by):
        shown = (entry.key, entry.version, services.as_text(entry.value))
        sections.setdefault(entry.section, []).append(shown)
    may_import = can_role(by, Role.ADMIN, access.default_workspace())
    return {"sections": sections, "may_import": may_import}
