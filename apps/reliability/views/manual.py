"""The manual: runbooks and how-tos, beside the thing they are about."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from apps.reliability.engine import manual as leaves


@require_GET
def manual(request: HttpRequest, slug: str = leaves.INDEX) -> HttpResponse:
    """Show one page of the manual."""
    others = [name for name in leaves.contents() if name != leaves.INDEX]
    context = {"leaf": leaves.read(slug), "others": others}
    return render(request, "reliability/manual.html", context)
