"""The tool with which an agent looks into its own conversation's past."""

from typing import Any

from apps.agents.models import Conversation, Turn
from apps.common.errors import FieldProblem
from apps.extensions.errors import ToolValidationError
from apps.extensions.ports import NativeTool, ToolContext
from apps.gateway.ports import UNTRUSTED

MOST_HITS = 10
#: How much of a message surrounds a hit. Units: characters.
EXCERPT = 240


def search(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    """Find messages and answers of this conversation that contain a text.

    Reads: turns of the calling conversation that the principal may see.
    """
    text = str(arguments.get("text", "")).strip()
    if not text:
        problem = FieldProblem("$.text", "empty", "words to look for")
        raise ToolValidationError("Say what to look for.", fields=(problem,))
    if not context.conversation_id:
        return {"hits": [], "more": False}
    found = list(_matches(text, context)[: MOST_HITS + 1])
    hits = [_hit(turn, text) for turn in found[:MOST_HITS]]
    return {"hits": hits, "more": len(found) > MOST_HITS}


def _matches(text: str, context: ToolContext) -> Any:
    theirs = Conversation.objects.filter(id=context.conversation_id)
    own = theirs.filter(principal=context.principal)
    seen = own | theirs.visible_to(context.principal)
    turns = Turn.objects.finished().filter(conversation__in=seen.values("id"))
    matching = turns.filter(message_text__icontains=text) | turns.filter(
        answer_text__icontains=text
    )
    return matching.order_by("-created_at", "-id")


def _hit(turn: Turn, text: str) -> dict[str, str]:
    asked = text.lower() in turn.message_text.lower()
    return {
        "at": turn.created_at.isoformat(timespec="seconds"),
        "by": "person" if asked else "agent",
        "text": _excerpt(turn.message_text if asked else turn.answer_text, text),
    }


def _excerpt(whole: str, text: str) -> str:
    at = max(whole.lower().find(text.lower()), 0)
    start = max(at - EXCERPT // 2, 0)
    cut = whole[start : start + EXCERPT]
    return f"{'…' if start else ''}{cut}{'…' if start + EXCERPT < len(whole) else ''}"


CONVERSATION_SEARCH = NativeTool(
    capability_id="conversation.search",
    title="Search this conversation",
    description="Find earlier messages and answers of this conversation by a text.",
    input_schema={
        "type": "object",
        "properties": {
            "text": {"type": "string", "minLength": 1, "maxLength": 200},
        },
        "required": ["text"],
        "additionalProperties": False,
    },
    output_schema={
        "type": "object",
        "properties": {
            "hits": {"type": "array", "items": {"type": "object"}},
            "more": {"type": "boolean"},
        },
        "required": ["hits", "more"],
    },
    fn=search,
    labels=frozenset({UNTRUSTED}),
)
