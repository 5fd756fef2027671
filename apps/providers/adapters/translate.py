"""Polar's neutral messages to pydantic-ai's and back.

Hides: the library's part classes. A vendor's own blocks go into `parts` as JSON
and are replayed from `Message.native`; the library drops what another vendor made.
"""

from collections.abc import Iterator
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition

from apps.providers.adapters import dialect, tidying
from apps.providers.ports import (
    CUT,
    Answer,
    Message,
    ModelCall,
    TokenUsage,
    Tool,
    ToolCall,
)

_NO_ARGUMENTS = {"type": "object", "properties": {}}


def history(messages: tuple[Message, ...]) -> list[ModelMessage]:
    """Write the conversation as the library wants it: requests and responses."""
    tool_names = {
        call.id: call.name for message in messages for call in message.tool_calls
    }
    found: list[ModelMessage] = []
    asked: list[ModelRequestPart] = []
    for message in messages:
        if message.role == "assistant":
            if asked:
                found.append(ModelRequest(parts=asked))
                asked = []
            found.append(_response(message))
        else:
            asked.append(_request_part(message, tool_names))
    if asked:
        found.append(ModelRequest(parts=asked))
    return found


def _request_part(message: Message, tool_names: dict[str, str]) -> ModelRequestPart:
    if message.role == "system":
        return SystemPromptPart(content=message.text)
    if message.role == "tool":
        return ToolReturnPart(
            tool_name=tool_names.get(message.tool_call_id, "tool"),
            content=message.text,
            tool_call_id=message.tool_call_id,
        )
    return UserPromptPart(content=message.text)


def _response(message: Message) -> ModelResponse:
    if isinstance(message.native, dict) and message.native.get("kind") == "response":
        (native,) = ModelMessagesTypeAdapter.validate_python([message.native])
        if isinstance(native, ModelResponse):
            return native
    parts: list[Any] = [TextPart(content=message.text)] if message.text else []
    parts += [
        ToolCallPart(tool_name=call.name, args=call.arguments, tool_call_id=call.id)
        for call in message.tool_calls
    ]
    return ModelResponse(parts=parts)


def parameters(tools: tuple[Tool, ...]) -> ModelRequestParameters:
    """Describe the tools a model may ask for."""
    return ModelRequestParameters(
        function_tools=[
            ToolDefinition(
                name=tool.name,
                description=tool.description,
                parameters_json_schema=dict(tool.schema) or _NO_ARGUMENTS,
                strict=False,
            )
            for tool in tools
        ],
        allow_text_output=True,
    )


def answer(
    response: ModelResponse, call: ModelCall, ttft_ms: int, tokens_out: int
) -> Answer:
    """Read the library's response; `tokens_out` stands in for missing usage."""
    usage = tidying.usage_of(response.usage)
    response = tidying.tidy(dialect.with_whole_names(response, call.tools), call)
    text = "".join(p.content for p in response.parts if isinstance(p, TextPart))
    calls = tuple(_tool_calls(response))
    if usage is None:
        sent = counted(call, text).tokens_in
        usage = TokenUsage(sent, max(tokens_out, 1), counted=True)
    (parts,) = ModelMessagesTypeAdapter.dump_python([response], mode="json")
    return Answer(
        text=text,
        tool_calls=calls,
        usage=usage,
        finish=response.finish_reason or "stop",
        parts=parts,
        ttft_ms=ttft_ms,
    )


def cut(
    response: ModelResponse, call: ModelCall, tokens_out: int, ttft_ms: int
) -> Answer:
    """Read an answer that was cut at its cap, which the server did not keep.

    Nobody reported what it took: the output is what was counted, and a tool call
    of which half is missing is left out.
    """
    said = "".join(p.content for p in response.parts if isinstance(p, TextPart))
    text = tidying.whole(said)
    usage = counted(call, text)
    return Answer(
        text=text,
        usage=TokenUsage(usage.tokens_in, tokens_out, counted=True),
        finish=CUT,
        ttft_ms=ttft_ms,
    )


def counted(call: ModelCall, text: str) -> TokenUsage:
    """Estimate usage where the server reports none: four bytes to a token."""
    sent = sum(len(message.text.encode()) for message in call.messages)
    return TokenUsage(sent // 4 + 1, len(text.encode()) // 4 + 1, counted=True)


def _tool_calls(response: ModelResponse) -> Iterator[ToolCall]:
    for part in response.parts:
        if isinstance(part, ToolCallPart):
            arguments = tidying.arguments_of(part)
            yield ToolCall(part.tool_call_id, part.tool_name, arguments)
