"""Reads a text as Telegram reads it, and says what Telegram would refuse.

Source: https://core.telegram.org/bots/api#html-style
"""

import re
from typing import Final

#: Units: UTF-16 code units, after the tags are gone.
LONGEST: Final = 4096
TAGS: Final = frozenset(
    {"b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "a", "code", "pre"}
    | {"span", "tg-spoiler", "tg-emoji", "blockquote"}
)
_TAG: Final = re.compile(r"<(/?)([a-z-]+)((?:\s+[a-z-]+(?:=\"[^\"<>]*\")?)*)\s*>")
_NAMED: Final = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
_ENTITY: Final = re.compile(r"&(?:#(\d+)|#x([0-9a-fA-F]+)|([a-z]+));")


def problem_of(text: str, parse_mode: str) -> str:
    """Return Telegram's refusal of a text, or ""."""
    shown = text
    if parse_mode == "HTML":
        problem, shown = _read(text)
        if problem:
            return f"can't parse entities: {problem}"
    if not shown.strip():
        return "message text is empty"
    if len(shown.encode("utf-16-le")) // 2 > LONGEST:
        return "message is too long"
    return ""


def _read(text: str) -> tuple[str, str]:
    """Return what is wrong with it, and what is left when its tags are gone."""
    shown, open_tags, at = [], list[str](), 0
    while at < len(text):
        if text[at] != "<":
            end = text.find("<", at)
            end = len(text) if end < 0 else end
            shown.append(_ENTITY.sub(_entity, text[at:end]))
            at = end
            continue
        tag = _TAG.match(text, at)
        if tag is None or tag[2] not in TAGS:
            return f"unsupported start tag at byte offset {at}", ""
        if tag[1]:
            if not open_tags or open_tags.pop() != tag[2]:
                return f"unmatched end tag at byte offset {at}", ""
        else:
            if open_tags and open_tags[-1] in ("code", "pre") and tag[2] != "code":
                return f"nested entity at byte offset {at}", ""
            open_tags.append(tag[2])
        at = tag.end()
    if open_tags:
        return "can't find end tag", ""
    return "", "".join(shown)


def _entity(found: re.Match[str]) -> str:
    if found[1] or found[2]:
        return chr(int(found[1] or found[2], 10 if found[1] else 16))
    return _NAMED.get(found[3], found[0])
