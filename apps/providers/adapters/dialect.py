"""What servers that resemble OpenAI's do otherwise than OpenAI.

Hides: two habits of llama.cpp's Python server. It repeats a tool's whole name in
every piece of a streamed call, which the library joins to "clockclockclock"; and it
refuses an assistant message whose content is null, which a bare tool call has.
Source: https://github.com/abetlen/llama-cpp-python (llama_chat_format, llama_types)
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from openai.types import chat
from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.models.openai import OpenAIChatModel

from apps.providers.ports import Tool


class CompatibleChatModel(OpenAIChatModel):
    """Chat completions as every compatible server takes them."""

    @dataclass
    class _MapModelResponseContext(OpenAIChatModel._MapModelResponseContext):
        def _into_message_param(
            self,
        ) -> chat.ChatCompletionAssistantMessageParam | None:
            message = super()._into_message_param()
            if message is not None and message.get("content") is None:
                message["content"] = ""
            return message


def with_whole_names(response: ModelResponse, tools: Iterable[Tool]) -> ModelResponse:
    """Give each tool call the name that was offered, where it was only repeated."""
    offered = [tool.name for tool in tools]
    parts = [
        _named(part, offered) if isinstance(part, ToolCallPart) else part
        for part in response.parts
    ]
    return replace(response, parts=parts)


def _named(part: ToolCallPart, offered: list[str]) -> ToolCallPart:
    return replace(part, tool_name=_whole(part.tool_name, offered))


def _whole(said: str, offered: list[str]) -> str:
    """A name that was not offered and is nothing but an offered one, again and
    again, is that one; any other stays as the model said it."""
    if said in offered:
        return said
    for name in offered:
        times, rest = divmod(len(said), len(name))
        if times and not rest and said == name * times:
            return name
    return said
