"""The web chat: conversations, messages, and answers as they are written."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from apps.access import policies
from apps.access import queries as access_queries
from apps.access import services as access
from apps.access.models import Principal, Role, User, Workspace
from apps.agents import queries as agents_queries
from apps.agents import services as agents
from apps.agents.models import AgentProfile, Conversation, DeltaKind, Turn, TurnState
from apps.channels import services
from apps.channels.engine import door
from apps.channels.engine import stream as streams
from apps.common import clock, ids, pages
from apps.common.errors import NotFound, PolarError
from apps.common.units import whole_number

#: How many conversations the side list shows, and turns one page shows.
LISTED = 40
TURNS_SHOWN = 60
#: How often an open stream tells the agents that somebody is watching.
WATCH_SECONDS = 10.0


def principal_of(request: HttpRequest) -> Principal:
    assert isinstance(request.user, User)
    return access.principal_for_user(user=request.user)


@require_GET
def conversation_list(request: HttpRequest) -> HttpResponse:
    chosen = request.GET.get("agent", "primary")
    context = _side(principal_of(request)) | {"chosen": chosen}
    return render(request, "channels/chat.html", context)


@require_GET
def conversation(request: HttpRequest, conversation_id: UUID) -> HttpResponse:
    principal = principal_of(request)
    found = agents_queries.get_conversation(
        conversation_id=conversation_id, principal=principal
    )
    return render(request, "channels/chat.html", _page(principal, found))


@require_POST
def start(request: HttpRequest) -> HttpResponse:
    """Begin a conversation with its first message."""
    principal = principal_of(request)
    text = request.POST.get("text", "")
    try:
        workspace = _workspace_of(principal)
        profile = agents_queries.get_profile(
            workspace=workspace, slug=request.POST.get("agent", "primary")
        )
        taken = services.begin(
            by=principal, profile=profile, text=text, once=_once(request)
        )
    except PolarError as error:
        context = _side(principal) | {"error": error, "text": text}
        return render(request, "channels/chat.html", context, status=error.http_status)
    return _go_on(request, taken, _url_of(taken.conversation))


@require_POST
def send(request: HttpRequest, conversation_id: UUID) -> HttpResponse:
    """Send a message. With HTMX the new turn is appended; without, the page reloads."""
    principal = principal_of(request)
    found = agents_queries.get_conversation(
        conversation_id=conversation_id, principal=principal
    )
    text = request.POST.get("text", "")
    partial = pages.is_partial(request)
    try:
        taken = services.take_message(
            by=principal, conversation=found, text=text, once=_once(request)
        )
    except PolarError as error:
        context = _page(principal, found) | {"error": error, "text": text}
        if partial:
            refused = render(request, "channels/_refused.html", context)
            refused["X-Polar-Kept"] = "text"
            return refused
        return render(request, "channels/chat.html", context, status=error.http_status)
    if not partial:
        return _go_on(request, taken, _url_of(found) + "#end")
    if taken.turn is None:
        return _told(request, taken, text)
    context = {"turn": taken.turn, "profile": taken.turn.profile, **_fresh()}
    return render(request, "channels/_exchange.html", context)


def _go_on(request: HttpRequest, taken: services.Taken, url: str) -> HttpResponse:
    """Show the conversation again; what a command said stands above it."""
    if taken.renews:
        return HttpResponseRedirect(reverse("channels:list"))
    if taken.said:
        messages.info(request, taken.said)
    return HttpResponseRedirect(url)


def _told(request: HttpRequest, taken: services.Taken, text: str) -> HttpResponse:
    """Put what a command said into the thread; it is no part of the conversation."""
    if taken.renews:
        answer = HttpResponse()
        answer["HX-Redirect"] = reverse("channels:list")
        return answer
    context = {"said": taken.said, "asked": text.strip(), **_fresh()}
    return render(request, "channels/_said.html", context)


def _once(request: HttpRequest) -> str:
    """What a form carries so that it counts once, however often it is sent."""
    return request.POST.get("once", "")[:40]


def _fresh() -> dict[str, str]:
    return {"once": str(ids.new_id())}


@require_GET
def answer(request: HttpRequest, turn_id: UUID) -> HttpResponse:
    """The answer of one turn, as it stands."""
    turn = agents_queries.get_turn(turn_id=turn_id, principal=principal_of(request))
    return render(request, "channels/_answer.html", {"turn": turn})


async def stream(request: HttpRequest, turn_id: UUID) -> HttpResponseBase:
    """Server-sent events of one turn; Last-Event-ID resumes."""
    turn = await sync_to_async(_turn_for)(request, turn_id)
    seq = whole_number(request.headers.get("Last-Event-ID", "")) or 0
    response = StreamingHttpResponse(
        _events(turn, seq), content_type="text/event-stream"
    )
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


@csrf_exempt
@login_not_required
@require_POST
def hook(request: HttpRequest, kind: str, account_id: UUID) -> HttpResponse:
    """What a vendor sends by HTTP. It proves itself by its signature alone."""
    try:
        door.check_browserless(request)
        said = services.take_webhook(
            account_id=account_id,
            kind=kind,
            headers=request.headers,
            body=door.read_raw(request),
        )
    except PolarError as error:
        # Whoever knocks without a proof learns a code and nothing about us.
        return JsonResponse({"code": error.code}, status=error.http_status)
    return JsonResponse(said) if said else HttpResponse()


def _turn_for(request: HttpRequest, turn_id: UUID) -> Turn:
    return agents_queries.get_turn(turn_id=turn_id, principal=principal_of(request))


async def _events(turn: Turn, seq: int) -> AsyncIterator[str]:
    waiting = ""
    watch_again = 0.0
    async for news in streams.follow(turn.id, seq):
        if clock.monotonic() >= watch_again:
            await sync_to_async(agents.watch_turn)(turn_id=turn.id)
            watch_again = clock.monotonic() + WATCH_SECONDS
        for piece in news.pieces:
            name = "reset" if piece.kind == DeltaKind.RESET else "delta"
            yield _event(name, {"text": piece.text}, piece.seq)
        if news.waiting != waiting:
            waiting = news.waiting
            yield _event("state", {"label": waiting.replace("_", " ")})
        if news.is_over:
            yield _event("done", {"state": news.state})


def _event(name: str, data: dict[str, str], seq: int | None = None) -> str:
    head = f"id: {seq}\n" if seq is not None else ""
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n"


def _url_of(conversation: Conversation) -> str:
    return reverse("channels:conversation", args=[conversation.id])


def _workspace_of(principal: Principal) -> Workspace:
    workspace = access_queries.workspaces_of(principal).first()
    if workspace is None:
        raise NotFound("You belong to no workspace yet; an administrator adds you.")
    return workspace


def _side(principal: Principal) -> dict[str, Any]:
    """The list of conversations and of agents to talk to."""
    threads = agents_queries.conversations(visible_to=principal)
    profiles = AgentProfile.objects.visible_to(principal).active().order_by("slug")
    return {
        "threads": threads.select_related("principal", "profile")[:LISTED],
        "profiles": profiles,
        "may_write": _may_write(principal),
        **_fresh(),
    }


def _may_write(principal: Principal) -> bool:
    workspace = access_queries.workspaces_of(principal).first()
    return workspace is not None and policies.can_role(
        principal, Role.OPERATOR, workspace
    )


def _page(principal: Principal, found: Conversation) -> dict[str, Any]:
    turns = list(agents_queries.transcript(found).reverse()[:TURNS_SHOWN])[::-1]
    return _side(principal) | {
        "conversation": found,
        "agent": turns[-1].profile if turns else None,
        "turns": turns,
        "is_cut": len(turns) == TURNS_SHOWN,
        "open_state": TurnState.OPEN,
    }
