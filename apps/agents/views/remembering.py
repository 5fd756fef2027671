"""What agents remember, and how a person corrects it."""

from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from apps.agents.engine import memory
from apps.agents.models import Memory
from apps.agents.views.asking import principal_of
from apps.common import pages
from apps.common.errors import PolarError


@require_GET
def memory_list(request: HttpRequest) -> HttpResponse:
    asked = request.GET.get("q", "").strip()[:200]
    rows = Memory.objects.shown_to(principal_of(request))
    for word in memory.words_of(asked)[:20]:
        rows = rows.filter(words__word__startswith=word)
    page = pages.keyset(rows.distinct(), request.GET, size=25)
    return render(request, "agents/memory.html", {"page": page, "q": asked})


@require_POST
def memory_change(request: HttpRequest, memory_id: UUID) -> HttpResponse:
    """Correct or forget one memory."""
    by = principal_of(request)
    try:
        if request.POST.get("do") == "forget":
            memory.forget(by=by, memory_id=memory_id)
            messages.success(request, "Forgotten. Conversations keep what was said.")
        else:
            text = request.POST.get("text", "")
            memory.correct(by=by, memory_id=memory_id, text=text)
            messages.success(request, "Corrected; agents recall your words now.")
    except PolarError as error:
        messages.error(request, f"Not changed: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("agents:memory"))
