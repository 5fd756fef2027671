"""Markdown as Telegram's HTML, cut where it makes sense.

Invariants: all text is escaped before any tag is made; links lead to http and https
alone; every piece fits a message; a fence that is cut is closed and opened again.
Source: https://core.telegram.org/bots/api#html-style
"""

import html
import re
from typing import Final

#: The vendor takes 4096 UTF-16 units; the rest is room for closing a fence.
LONGEST: Final = 3_900
_FENCE: Final = re.compile(r"```[^\n`]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_CODE: Final = re.compile("`([^`\n\ue000\ue001]+)`")
_LINK: Final = re.compile(r"\[([^\[\]\n]{1,300})\]\((https?://[^()\s\"<>]{1,1000})\)")
_BOLD: Final = re.compile(r"\*\*(?=\S)([^\n]+?)(?<=\S)\*\*")
_HEADING: Final = re.compile(r"^#{1,6}[ \t]+(.+)$", re.MULTILINE)
_KEPT: Final = re.compile("\ue000(\\d+)\ue001")
_BREAKS: Final = ("\n\n", "\n", ". ", " ")


def render(markdown: str) -> str:
    """Turn Markdown into HTML that Telegram takes; what is unclear stays text."""
    kept: list[str] = []

    def keep(tagged: str) -> str:
        kept.append(tagged)
        return f"\ue000{len(kept) - 1}\ue001"

    text = re.sub("[\ue000\ue001\0]", "", markdown)
    text = _FENCE.sub(
        lambda m: keep(f"<pre>{html.escape(m[1])}</pre>") if m[1].strip() else m[0],
        text,
    )
    text = _CODE.sub(lambda m: keep(f"<code>{html.escape(m[1])}</code>"), text)
    text = _LINK.sub(
        lambda m: keep(f'<a href="{html.escape(m[2])}">{html.escape(m[1])}</a>'), text
    )
    text = html.escape(text, quote=False)
    text = _HEADING.sub(lambda m: f"**{m[1].replace('**', '')}**", text)
    text = _BOLD.sub(r"<b>\1</b>", text)
    while _KEPT.search(text):
        text = _KEPT.sub(lambda m: kept[int(m[1])], text)
    return text


def is_seen(text: str) -> bool:
    """Has it a character that is shown? Telegram refuses what is empty to the eye."""
    return any(each.isprintable() and not each.isspace() for each in text)


def units(text: str) -> int:
    """How long Telegram takes a text to be. Units: UTF-16 code units."""
    return len(text.encode("utf-16-le")) // 2


def split(markdown: str) -> list[str]:
    """Cut a long text on paragraphs, lines, sentences, words, in this order."""
    rest, found = markdown.strip(), []
    while units(rest) > LONGEST:
        head = _head(rest)
        rest = rest[len(head) :].lstrip("\n")
        if head.count("```") % 2:
            head, rest = f"{head}\n```", f"```\n{rest}"
        found.append(head.strip())
    if rest.strip():
        found.append(rest)
    return found


def _head(text: str) -> str:
    room = LONGEST
    while units(text[:room]) > LONGEST:
        room -= max(1, (units(text[:room]) - LONGEST) // 2)
    for mark in _BREAKS:
        cut = text.rfind(mark, room // 3, room)
        if cut > 0:
            return text[: cut + len(mark)]
    return text[:room]
