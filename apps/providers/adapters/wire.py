"""Speaks to OpenAI, OpenAI-compatible, Anthropic and Gemini servers.

Hides: pydantic-ai and the vendors' SDKs. All calls of a process run on one
background event loop, because the library's models must not be shared across
threads; the calling thread waits, hands out deltas and may cancel. Built models
are kept per (provider, revision, model); keys are never in them.
"""

import asyncio
import os
import queue
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any

import httpx2
from anthropic import AsyncAnthropic
from google.genai.types import HttpRetryOptions
from openai import AsyncOpenAI
from pydantic_ai import direct
from pydantic_ai.exceptions import AgentRunError, UserError
from pydantic_ai.messages import (
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.models.openai import (
    OpenAIChatModel,
    OpenAIResponsesModel,
    OpenAIResponsesModelSettings,
)
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.settings import ModelSettings

from apps.common import clock, failpoints
from apps.common.redaction import SecretStr
from apps.providers.adapters import faults, translate
from apps.providers.adapters.cap import Cap
from apps.providers.adapters.dialect import CompatibleChatModel
from apps.providers.adapters.watch import CURRENT, Watch, WatchedTransport, base_url
from apps.providers.errors import CallCancelled, ModelCallFailed
from apps.providers.ports import (
    CUT,
    Answer,
    ModelCall,
    Spendable,
    Target,
    arguments_of,
)

#: Stands where an SDK demands a key; the transport puts in the leased one.
NO_KEY = "leased-per-call"
#: How often a waiting caller looks whether it should stop. Units: seconds.
LOOK_SECONDS = 0.25
#: Grace for the loop beyond a call's own deadline. Units: seconds.
GRACE_SECONDS = 5.0
#: Built models kept; a desk edits providers rarely.
MOST_MODELS = 64
#: How long an evicted model's connections stay open. Units: seconds.
RETIRE_SECONDS = 600.0
#: The loop itself holds running tasks only weakly.
_CLOSING: set[asyncio.Future[None]] = set()


class WireAdapter:
    """The adapter of every kind that speaks HTTP."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[tuple[str, ...], _Built] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def generate(
        self, permit: Spendable, call: ModelCall, key: SecretStr | None
    ) -> Answer:
        """Ask one model, streaming.   Raises: ModelCallFailed, CallCancelled."""
        model = self._model(call.target, call.model).model
        watch = Watch(call.deadlines, key)
        deltas: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        failpoints.reach("model.before_spend")
        permit.spend(arguments_of(call))
        future = self._start(_ask(model, call, watch, deltas))
        future.add_done_callback(lambda _: deltas.put(None))
        failpoints.reach("model.in_flight")
        answer = _wait(future, deltas, call)
        failpoints.reach("model.answered")
        return answer

    def _model(self, target: Target, name: str) -> "_Built":
        revision = f"{target.revision}:{target.kind}:{target.base_url}"
        wanted = (target.provider_id, revision, name)
        with self._lock:
            found = self._models.get(wanted)
            if found is None:
                while len(self._models) >= MOST_MODELS:
                    self._retire(self._models.pop(next(iter(self._models))))
                found = self._models[wanted] = _build(target, name)
            return found

    def _retire(self, built: "_Built") -> None:
        """Close a model's connections once no call can still be using them."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(
                self._loop.call_later, RETIRE_SECONDS, _close, built.client
            )

    def _start(self, work: Coroutine[Any, Any, Answer]) -> "Future[Answer]":
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                threading.Thread(
                    target=self._loop.run_forever, name="providers-wire", daemon=True
                ).start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)


@dataclass(frozen=True, slots=True)
class _Built:
    """A library's model and the connections below it."""

    model: Model[Any]
    client: httpx2.AsyncClient


def _close(client: httpx2.AsyncClient) -> None:
    closing = asyncio.ensure_future(client.aclose())
    _CLOSING.add(closing)
    closing.add_done_callback(_CLOSING.discard)


def _wait(
    future: "Future[Answer]", deltas: "queue.SimpleQueue[str | None]", call: ModelCall
) -> Answer:
    """Hand out deltas in the caller's thread until the answer is there."""
    give_up = clock.monotonic() + call.deadlines.wall + GRACE_SECONDS
    try:
        while True:
            try:
                delta = deltas.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                _check_going_on(call, give_up)
                continue
            if delta is None:
                return future.result()
            if call.on_delta is not None:
                call.on_delta(delta)
    except CancelledError as error:
        raise CallCancelled() from error
    finally:
        future.cancel()


def _check_going_on(call: ModelCall, give_up: float) -> None:
    if call.stopping is not None and call.stopping():
        raise CallCancelled()
    if clock.monotonic() > give_up:
        raise ModelCallFailed("timeout_deadline", "the event loop did not answer")


async def _ask(
    model: Model[Any],
    call: ModelCall,
    watch: Watch,
    deltas: "queue.SimpleQueue[str | None]",
) -> Answer:
    """Send, stream, and read the answer; every failure leaves classified."""
    CURRENT.set(watch)
    try:
        async with asyncio.timeout(call.deadlines.wall):
            answer = await _stream(model, call, watch, deltas)
    except TimeoutError as error:
        wall = call.deadlines.wall
        watch.trip("timeout_deadline", f"no whole answer in {wall:g} s")
        raise faults.classify(error, watch) from error
    except (AgentRunError, UserError, httpx2.HTTPError, *faults.GARBAGE) as error:
        raise faults.classify(error, watch) from error
    _check_whole(answer, watch)
    return answer


async def _stream(
    model: Model[Any],
    call: ModelCall,
    watch: Watch,
    deltas: "queue.SimpleQueue[str | None]",
) -> Answer:
    started, ttft_ms = clock.monotonic(), 0
    cap = Cap(call.max_output_tokens)
    settings = ModelSettings(max_tokens=call.max_output_tokens)
    async with direct.model_request_stream(
        model,
        translate.history(call.messages),
        model_settings=settings,
        model_request_parameters=translate.parameters(call.tools),
        instrument=False,
    ) as stream:
        async for event in stream:
            ttft_ms = ttft_ms or int((clock.monotonic() - started) * 1000) or 1
            text = _text_of(event)
            if text and call.on_delta is not None:
                deltas.put(text)
            cap.saw(event)
            if cap.is_passed:
                # Leaving the block closes the connection; nothing more is read.
                return translate.cut(stream.get(), call, cap.tokens, ttft_ms)
        response = stream.get()
    if not _is_whole(model, response, watch):
        raise ValueError("the stream ended before the answer did")
    return translate.answer(response, call, ttft_ms, cap.tokens)


def _is_whole(model: Model[Any], response: ModelResponse, watch: Watch) -> bool:
    """Tell a finished answer from half of one.

    For chat completions the library reports "stop" even when no chunk said so;
    the server's own word is in the details.
    """
    if isinstance(model, OpenAIChatModel):
        said = "finish_reason" in (response.provider_details or {})
        return said or b"[DONE]" in watch.tail
    return response.finish_reason is not None


def _text_of(event: object) -> str:
    if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
        return event.part.content
    if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
        return event.delta.content_delta
    return ""


def _check_whole(answer: Answer, watch: Watch) -> None:
    if answer.finish == "content_filter":
        raise ModelCallFailed("content_refused", faults.tidy(answer.text))
    if answer.finish == "error":
        raise ModelCallFailed("server_error", faults.tidy(answer.text))
    if not answer.text and not answer.tool_calls and answer.finish != CUT:
        seen = bytes(watch.head[:200]).decode(errors="replace")
        raise ModelCallFailed("bad_response", faults.tidy(f"an empty answer: {seen}"))


def _build(target: Target, name: str) -> _Built:
    """Build the library's model over our own transport, without retries."""
    client = httpx2.AsyncClient(
        transport=WatchedTransport(target),
        follow_redirects=False,
        trust_env=False,
        timeout=httpx2.Timeout(600.0),
    )
    return _Built(_library_model(target, name, client), client)


def _library_model(target: Target, name: str, client: httpx2.AsyncClient) -> Model[Any]:
    url = base_url(target)
    if target.kind == "anthropic":
        anthropic = AsyncAnthropic(
            api_key=NO_KEY, base_url=url, http_client=client, max_retries=0
        )
        return AnthropicModel(
            name, provider=AnthropicProvider(anthropic_client=anthropic)
        )
    if target.kind == "gemini":
        google = GoogleProvider(
            api_key=NO_KEY,
            base_url=url,
            http_client=client,
            retry_options=HttpRetryOptions(attempts=1),
        )
        return GoogleModel(name, provider=google)
    openai = AsyncOpenAI(
        api_key=NO_KEY, base_url=url, http_client=client, max_retries=0
    )
    return _openai_model(target, name, openai)


def _openai_model(target: Target, name: str, openai: AsyncOpenAI) -> Model[Any]:
    if target.kind == "openai":
        provider = OpenAIProvider(openai_client=openai)
        # Other servers of this kind know chat completions; the vendor's own both.
        usual = "chat" if target.base_url else "responses"
        if target.settings.get("api", usual) == "chat":
            return OpenAIChatModel(name, provider=provider)
        return OpenAIResponsesModel(
            name,
            provider=provider,
            settings=OpenAIResponsesModelSettings(openai_store=False),
        )
    # Local servers often ignore `max_completion_tokens`; they know `max_tokens`.
    profile = OpenAIModelProfile(openai_chat_supports_max_completion_tokens=False)
    compatible = OpenAICompatibleProvider(
        target.slug, openai_client=openai, profile=profile
    )
    return CompatibleChatModel(name, provider=compatible)
