"""Asks every app what it has under some words."""

from apps.access.models import Principal
from apps.agents import queries as agents
from apps.boards import queries as boards
from apps.common.search import SHORTEST, Hit, Words
from apps.extensions import queries as extensions
from apps.providers import queries as providers
from apps.runs import queries as runs

#: In this order the kinds are listed, behind the exact hits.
FINDERS = (agents.find, runs.find, boards.find, extensions.find, providers.find)


def find(typed: str, principal: Principal) -> list[Hit]:
    """Return what the words hit, exact hits first; nothing below two letters."""
    words = Words.of(typed)
    if len(words.text) < SHORTEST:
        return []
    hits = [hit for find in FINDERS for hit in find(words, principal)]
    return sorted(hits, key=lambda hit: not hit.is_exact)


def jump(hits: list[Hit]) -> Hit | None:
    """Return where Enter goes: to the only exact hit, or to the only hit."""
    exact = [hit for hit in hits if hit.is_exact]
    return (exact or hits)[0] if len(exact) == 1 or len(hits) == 1 else None
