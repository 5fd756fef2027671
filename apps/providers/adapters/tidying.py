"""Makes what a model said fit to be kept, and to be sent back to any vendor.

Hides: the nonsense that servers let through. Invariants: a tool call has an id that
no other call of its context has; a name that was not offered is never turned into
one that was; text holds no half character, since no database and no wire takes it.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from pydantic_ai.messages import (
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
)
from pydantic_ai.usage import RequestUsage

from apps.common import canonical
from apps.common.errors import Invalid
from apps.providers.ports import NOT_JSON, ModelCall, TokenUsage

#: What every vendor takes as the name of a tool.
LONGEST_NAME: Final = 64
_FORBIDDEN: Final = re.compile(r"[^a-zA-Z0-9_-]")
#: Vendors' own ids are far shorter.
LONGEST_ID: Final = 256
#: Deeper arguments are not even shown to the gateway, which would refuse them.
MOST_LEVELS: Final = 100
#: More tokens than this in one call are nobody's usage.
MOST_TOKENS: Final = 1_000_000_000


def whole(text: str) -> str:
    """Join the halves of characters that a server cut in two; a half that stands
    alone becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def tidy(response: ModelResponse, call: ModelCall) -> ModelResponse:
    """Return the response with whole text, plain names and ids of their own; what
    it took is read before."""
    offered = {tool.name for tool in call.tools}
    taken = {each.id for message in call.messages for each in message.tool_calls}
    parts: list[ModelResponsePart] = []
    for part in response.parts:
        if isinstance(part, ToolCallPart):
            part = _plain(part, offered, taken)
            taken.add(part.tool_call_id)
        elif isinstance(part, TextPart | ThinkingPart):
            part = replace(part, content=whole(part.content))
        parts.append(part)
    return replace(response, parts=parts, usage=RequestUsage())


def _plain(part: ToolCallPart, offered: set[str], taken: set[str]) -> ToolCallPart:
    if isinstance(part.args, str):
        part = replace(part, args=whole(part.args))
    arguments = arguments_of(part)
    args = arguments if NOT_JSON in arguments else part.args
    name = part.tool_name
    if name not in offered:
        name = _FORBIDDEN.sub("_", name)[:LONGEST_NAME] or "unnamed"
        name = f"{name[: LONGEST_NAME - 1]}_" if name in offered else name
    ident = whole(part.tool_call_id)
    if not ident or ident in taken or len(ident) > LONGEST_ID:
        ident = _free(taken)
    return replace(part, tool_name=name, args=args, tool_call_id=ident)


def arguments_of(part: ToolCallPart) -> dict[str, Any]:
    """Read a call's arguments. What is no JSON object stays visible, under NOT_JSON:
    it is refused, and the model is shown why."""
    arguments = part.args_as_dict(raise_if_invalid=False)
    try:
        canonical.arguments(arguments)
    except Invalid:  # NaN and Infinity are read, and are not JSON
        return {NOT_JSON: str(part.args)}
    if canonical.depth_of(arguments, MOST_LEVELS) > MOST_LEVELS:
        return {NOT_JSON: str(part.args)}
    return arguments


def _free(taken: Iterable[str]) -> str:
    known, number = set(taken), 1
    while f"call_{number}" in known:
        number += 1
    return f"call_{number}"


def usage_of(said: RequestUsage) -> TokenUsage | None:
    """Read what a server says it used; None where it says nothing, or nonsense."""
    given = (said.input_tokens, said.output_tokens, said.cache_read_tokens)
    if not all(isinstance(each, int) and 0 <= each <= MOST_TOKENS for each in given):
        return None
    tokens_in, tokens_out, cached = given
    if not tokens_in and not tokens_out:
        return None
    return TokenUsage(tokens_in, tokens_out, min(cached, tokens_in))
