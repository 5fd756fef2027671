"""What is remembered: written down, found again, corrected and forgotten.

Hides: the index of words, which is the same on both databases. Invariants: a recall
returns only what belongs to the asking person, conversation and workspace; what an
agent wrote down is untrusted for ever and comes back as a tool's result, never as
an instruction; no secret is stored; with a memory goes every word of its index.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Count, Q

from apps.access.models import Principal, Role, Workspace
from apps.access.policies import check_role
from apps.agents.engine.journal import storable
from apps.agents.models import Memory, MemoryScope, MemoryWord
from apps.audit import services as audit
from apps.common import canonical, clock, redaction
from apps.common.errors import FieldProblem, Invalid, NotFound
from apps.extensions.ports import NativeTool, ToolContext
from apps.gateway.ports import PRIVATE, UNTRUSTED, EffectClass, Risk

LONGEST = 4_000
MOST_WORDS = 400
LONGEST_WORD = 40
#: A recall brings back at most so many, and so much text in all.
MOST_HITS = 8
MOST_CHARACTERS = 6_000
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who wrote a memory down, and where in the tree of work."""

    by: Principal
    workspace_id: UUID
    agent: str = ""
    turn_id: UUID | None = None
    trace_id: str = ""
    #: It stands for older turns of its conversation.
    is_summary: bool = False


def words_of(text: str) -> list[str]:
    """Split a text into the words it is found by, each once, in order."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    found = dict.fromkeys(word[:LONGEST_WORD] for word in _WORD.findall(folded))
    return list(found)[:MOST_WORDS]


@transaction.atomic
def remember(*, origin: Origin, scope: str, key: str, text: str) -> Memory:
    """Keep a text. Again: the same text of a scope gives the same memory.

    Writes: Memory, MemoryWord, `memory.saved` (never the text itself).
    """
    text = _checked(text)
    digest = canonical.digest(text)
    memory, is_new = Memory.objects.get_or_create(
        workspace_id=origin.workspace_id,
        scope=scope,
        key=key,
        digest=digest,
        defaults={
            "text": text,
            "labels": [UNTRUSTED] if origin.agent else [],
            "agent": origin.agent,
            "by_label": origin.by.label,
            "turn_id": origin.turn_id,
            "trace_id": origin.trace_id,
            "is_summary": origin.is_summary,
        },
    )
    if is_new:
        _index(memory)
        _record(memory, origin.by, "memory.saved")
    return memory


def recall(
    *, principal: Principal, workspace_id: UUID, session_id: str, text: str
) -> list[Memory]:
    """Find what fits a text, best first: most of its words, then newest."""
    words = words_of(text)[:20]
    if not words:
        return []
    fits = Q()
    for word in words:
        fits |= Q(words__word__startswith=word)
    # An agent may ask only where its person may look.
    here = Memory.objects.visible_to(principal).filter(workspace_id=workspace_id)
    mine = here.within(principal, session_id).values("id")
    shared = Q(id__in=mine) | Q(scope=MemoryScope.GLOBAL)
    found = Memory.objects.filter(shared, fits, is_summary=False)
    ranked = found.annotate(hits=Count("words__word", distinct=True))
    return list(ranked.order_by("-hits", "-updated_at", "-id")[:MOST_HITS])


@transaction.atomic
def correct(*, by: Principal, memory_id: UUID, text: str) -> Memory:
    """Put a person's words in the place of what was remembered."""
    memory = _steered(by, memory_id)
    text = _checked(text)
    values = {
        "text": text,
        "digest": canonical.digest(text),
        "labels": [],
        "agent": "",
        "by_label": by.label,
        "updated_at": clock.now(),
    }
    same = Memory.objects.filter(
        workspace_id=memory.workspace_id,
        scope=memory.scope,
        key=memory.key,
        digest=values["digest"],
    )
    if same.exclude(id=memory.id).exists():
        raise Invalid("Exactly this is remembered already.")
    Memory.objects.filter(id=memory.id).update(**values)
    memory.refresh_from_db()
    MemoryWord.objects.filter(memory=memory).delete()
    _index(memory)
    _record(memory, by, "memory.corrected")
    return memory


@transaction.atomic
def forget(*, by: Principal, memory_id: UUID) -> None:
    """Delete a memory with its words. What was said in conversations stays there."""
    memory = _steered(by, memory_id)
    _record(memory, by, "memory.deleted")
    memory.delete()


def _steered(by: Principal, memory_id: UUID) -> Memory:
    """Return a memory that this person may change. Raises: NotFound, RoleRequired."""
    memory = Memory.objects.shown_to(by).filter(id=memory_id).first()
    if memory is None:
        raise NotFound("There is no such memory, or it is not yours to see.")
    check_shared(by, memory.scope, memory.workspace)
    return memory


def check_shared(by: Principal, scope: str, workspace: Workspace) -> None:
    """Refuse somebody who may not say what others are told. Raises: RoleRequired."""
    if scope == MemoryScope.WORKSPACE:
        check_role(by, Role.OPERATOR, workspace)
    if scope == MemoryScope.GLOBAL:
        check_role(by, Role.ADMIN, workspace)


def keep(*, by: Principal, workspace: Workspace, scope: str, text: str) -> Memory:
    """Write down what a person says: for oneself, the workspace, or everybody.

    Raises: Invalid, RoleRequired.   Again: the same text gives the same memory.
    """
    keys = {
        MemoryScope.USER: str(by.id),
        MemoryScope.WORKSPACE: str(workspace.id),
        MemoryScope.GLOBAL: "",
    }
    if scope not in keys:
        problem = FieldProblem("scope", "unknown", ", ".join(keys))
        raise Invalid("This cannot be remembered.", fields=(problem,))
    check_shared(by, scope, workspace)
    origin = Origin(by=by, workspace_id=workspace.id)
    return remember(origin=origin, scope=scope, key=keys[MemoryScope(scope)], text=text)


def _checked(text: str) -> str:
    text = str(storable(redaction.scrub(text))).strip()
    if not text or len(text) > LONGEST:
        expected = f"1 to {LONGEST} characters"
        problem = FieldProblem("text", f"has {len(text)} characters", expected)
        raise Invalid("This cannot be remembered.", fields=(problem,))
    return text


def _index(memory: Memory) -> None:
    MemoryWord.objects.bulk_create(
        MemoryWord(memory=memory, word=word) for word in words_of(memory.text)
    )


def _record(memory: Memory, by: Principal, event: str) -> None:
    audit.record(
        type=event,
        actor=by.actor,
        subject=("memory", str(memory.id)),
        workspace_id=memory.workspace_id,
        trace_id=memory.trace_id,
        data={
            "scope": memory.scope,
            "agent": memory.agent,
            "labels": memory.labels,
            "turn": str(memory.turn_id or ""),
        },
    )


# --- as tools


def _remember_tool(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    scope = str(arguments.get("scope", MemoryScope.SESSION))
    session = context.conversation_id
    keys = {MemoryScope.SESSION: session, MemoryScope.USER: str(context.principal.id)}
    key = keys.get(MemoryScope(scope), "")
    if not key:
        problem = FieldProblem("$.scope", "has nobody to belong to", "user")
        raise Invalid(
            "There is no conversation to remember this for.", fields=(problem,)
        )
    origin = Origin(
        by=context.principal,
        workspace_id=context.workspace_id,
        agent=context.lineage.agent or "agent",
        turn_id=context.turn_id,
        trace_id=context.lineage.trace_id,
    )
    memory = remember(origin=origin, scope=scope, key=key, text=str(arguments["text"]))
    return {"id": str(memory.id), "scope": memory.scope}


def _recall_tool(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    found = recall(
        principal=context.principal,
        workspace_id=context.workspace_id,
        session_id=context.conversation_id,
        text=str(arguments["text"]),
    )
    told, left = [], MOST_CHARACTERS
    for memory in found:
        left -= len(memory.text)
        if left < 0:
            break
        by = f"@{memory.agent}" if memory.agent else memory.by_label
        at = memory.updated_at.isoformat(timespec="seconds")
        told.append({"text": memory.text, "by": by, "at": at})
    return {"remembered": told, "more": len(told) < len(found)}


_TEXT = {"type": "string", "minLength": 1, "maxLength": LONGEST}

REMEMBER = NativeTool(
    capability_id="memory.remember",
    title="Remember",
    description=(
        "Keep a short fact for later: scope user for the person, session for this "
        "conversation. Never passwords or keys."
    ),
    input_schema={
        "type": "object",
        "properties": {"text": _TEXT, "scope": {"enum": ["session", "user"]}},
        "required": ["text"],
        "additionalProperties": False,
    },
    output_schema={
        "type": "object",
        "properties": {"id": {"type": "string"}, "scope": {"type": "string"}},
        "required": ["id", "scope"],
    },
    fn=_remember_tool,
    risk=Risk("write", side_effects="internal"),
    effect_class=EffectClass.INTERNAL,
)

RECALL = NativeTool(
    capability_id="memory.recall",
    title="Recall",
    description="Find what was remembered earlier by words that occur in it.",
    input_schema={
        "type": "object",
        "properties": {"text": _TEXT},
        "required": ["text"],
        "additionalProperties": False,
    },
    output_schema={
        "type": "object",
        "properties": {
            "remembered": {"type": "array", "items": {"type": "object"}},
            "more": {"type": "boolean"},
        },
        "required": ["remembered", "more"],
    },
    fn=_recall_tool,
    labels=frozenset({UNTRUSTED, PRIVATE}),
)
