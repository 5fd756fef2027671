"""llama.cpp's own OpenAI-compatible server, its sampling held to a grammar.

    PYTHON tests/reference/llama.py MODEL.gguf PORT

Needs a Python that has `llama-cpp-python[server]`; nothing of Polar is imported.
Server, wire, tokens and their counts are llama.cpp's. A model with random weights
names no tool by itself, so a grammar does: before the first tool result the
model can only write a call of `handoff`, where that is offered, or else of the first
tool; afterwards it answers in free text. What stands in a call's free text is the
model's. (The stock server refuses to choose a tool while it streams.)
"""

import sys
from typing import Any

import uvicorn  # type: ignore[import-not-found,unused-ignore]
from llama_cpp import (  # type: ignore[import-not-found,unused-ignore]
    LlamaGrammar,
    llama_chat_format,
)
from llama_cpp.server.app import (  # type: ignore[import-not-found,unused-ignore]
    create_app,
)
from llama_cpp.server.settings import (  # type: ignore[import-not-found,unused-ignore]
    ModelSettings,
    ServerSettings,
)

FORMAT = "held-to-a-grammar"
#: An answer of random weights would end by its length alone.
ANSWER = 'root ::= "I say: " [a-z ]{20,60} "."'


def schema_of(tool: dict[str, Any]) -> dict[str, Any]:
    """Narrow a tool's schema to what is certain to end: short words, each needed."""
    given: dict[str, Any] = tool["parameters"]
    if tool["name"] == "handoff":
        part = given["properties"]["parts"]["items"]["properties"]
        wanted = [_part(name) for name in part["agent"]["enum"] if name != "coder"]
        return _object(
            mode={"const": "fanout-fanin"},
            parts={"type": "array", "prefixItems": wanted},
        )
    needed = given.get("required") or []
    return _object(**{name: _short(given["properties"][name]) for name in needed})


def _part(agent: str) -> dict[str, Any]:
    task = {"type": "string", "pattern": "^[a-z ]{8,24}$"}
    return _object(agent={"const": agent}, task=task)


def _short(schema: dict[str, Any]) -> dict[str, Any]:
    word = {"type": "string", "pattern": "^[a-z]{3,12}$"}
    return word if schema.get("type") == "string" else schema


def _object(**properties: Any) -> dict[str, Any]:
    needed = list(properties)
    return {"type": "object", "properties": properties, "required": needed}


def needs(offered: dict[str, Any]) -> Any:
    """Order tools by how much they need to be told."""
    return lambda name: len(offered[name]["parameters"].get("required") or [])


def answer(*, messages: list[Any], tools: Any = None, **more: Any) -> Any:
    """Force a call where one is due, then let the stock handler do its work."""
    is_told = any(message["role"] == "tool" for message in messages)
    plain = [each | {"content": each.get("content") or ""} for each in messages]
    more.update(functions=None, function_call=None, tool_choice=None)
    handler = llama_chat_format.chatml_function_calling
    if not tools or is_told:
        more["grammar"] = LlamaGrammar.from_string(ANSWER, verbose=False)
        return handler(messages=plain, tools=None, **more)
    offered = {tool["function"]["name"]: tool["function"] for tool in tools}
    name = "handoff" if "handoff" in offered else min(offered, key=needs(offered))
    chosen = offered[name] | {"parameters": schema_of(offered[name])}
    more["tool_choice"] = {"type": "function", "function": {"name": name}}
    only = [{"type": "function", "function": chosen}]
    return handler(messages=plain, tools=only, **more)


def main(model: str, port: str) -> None:
    """Serve until stopped."""
    llama_chat_format.register_chat_completion_handler(FORMAT)(answer)
    settings = ModelSettings(
        model=model, chat_format=FORMAT, n_ctx=8192, seed=7, verbose=False, n_threads=1
    )
    # Two who ask at once are served in turn; the stock setting drops the first.
    server = ServerSettings(interrupt_requests=False)
    app = create_app(server_settings=server, model_settings=[settings])
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
