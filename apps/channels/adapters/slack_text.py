"""What an agent wrote, as Slack's mrkdwn, cut where it makes sense.

Invariants: no text of a model or a person becomes a mention, a broadcast or a
masked link; a fence that is cut is closed and opened again; every piece fits.
Source: https://docs.slack.dev/messaging/formatting-message-text
"""

import re
from typing import Final
from urllib.parse import urlsplit

#: Slack cuts longer texts of `chat.update`. Units: characters after escaping.
LONGEST_TEXT: Final = 4000
#: What one piece aims at before escaping; leaves room for what escaping adds.
AIM: Final = 3000

_PARTS: Final = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)
_LINK: Final = re.compile(r"\[([^\[\]\n]{1,300})\]\(([^()\s]{1,1000})\)")
_BOLD: Final = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1")
_ITALIC: Final = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])")
_STRUCK: Final = re.compile(r"~~(?=\S)(.+?)(?<=\S)~~")
_HEADING: Final = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_BULLET: Final = re.compile(r"^([ \t]*)[-*+][ \t]+", re.MULTILINE)
_KEPT: Final = re.compile("\ue000(\\d+)\ue001")
_BREAKS: Final = ("\n\n", "\n", ". ", " ")


def escape(text: str) -> str:
    """Make a text that Slack shows as it stands: no mention, no broadcast."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unescape(text: str) -> str:
    """Undo Slack's escaping of what a person typed."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def render(markdown: str) -> str:
    """Turn Markdown into mrkdwn; code is escaped and otherwise left alone."""
    clean = markdown.replace("\ue000", "").replace("\ue001", "").replace("\0", "")
    pieces = _PARTS.split(clean)
    return "".join(
        _code(piece) if index % 2 else _prose(piece)
        for index, piece in enumerate(pieces)
    )


def cut(markdown: str) -> list[str]:
    """Cut a long answer into Markdown pieces that each fit once rendered."""
    return [piece for piece in _pieces(markdown.strip(), AIM) if piece.strip()]


def split(markdown: str) -> list[str]:
    """Cut a long answer into rendered pieces, each at most `LONGEST_TEXT` long."""
    texts = [render(piece) for piece in cut(markdown)]
    return [text for text in texts if text.strip()]


def chunks(rendered: str, most: int) -> list[str]:
    """Cut a rendered text at its lines, else anywhere but inside an entity."""
    found = []
    while len(rendered) > most:
        at = rendered.rfind("\n", most // 3, most)
        at = at if at > 0 else most
        entity = rendered.rfind("&", at - 5, at)
        at = entity if entity > 0 and ";" not in rendered[entity:at] else at
        found.append(rendered[:at])
        rendered = rendered[at:].lstrip("\n")
    return [*found, rendered] if rendered.strip() else found


def _pieces(text: str, aim: int) -> list[str]:
    found = []
    for piece in _cut(text, aim):
        if len(render(piece)) > LONGEST_TEXT and aim > 100:
            found += _pieces(piece, aim // 2)
        else:
            found.append(piece)
    return found


def _cut(text: str, aim: int) -> list[str]:
    pieces, fence = [], ""
    while len(text) + len(fence) > aim:
        room = aim - len(fence) - len("\n```")
        at = _break_at(text, room)
        piece, text = fence + text[:at].rstrip(), text[at:].lstrip("\n")
        fence = _open_fence(piece)
        pieces.append(piece + "\n```" if fence else piece)
    return [*pieces, fence + text] if text.strip() else pieces


def _break_at(text: str, room: int) -> int:
    """Where to cut: a paragraph, a line, a sentence, a word, or anywhere."""
    for mark in _BREAKS:
        at = text.rfind(mark, room // 3, room)
        if at > 0:
            return at + len(mark)
    return room


def _open_fence(piece: str) -> str:
    """The fence that a piece leaves open, to open again, or ""."""
    fences = [line for line in piece.split("\n") if line.lstrip().startswith("```")]
    return fences[-1].strip()[:40] + "\n" if len(fences) % 2 else ""


def _code(piece: str) -> str:
    if not piece.startswith("```"):
        return escape(piece)
    body = piece.removesuffix("```") if len(piece) > 5 else piece
    first, _, rest = body.removeprefix("```").partition("\n")
    # Slack shows a language name as the first line of the code.
    code = rest if re.fullmatch(r"[\w+#.-]*\s*", first) and rest else first + rest
    return f"```\n{escape(code.strip(chr(10)))}\n```"


def _prose(piece: str) -> str:
    links: list[str] = []

    def keep(found: re.Match[str]) -> str:
        links.append(_link(found[1], found[2]))
        return f"\ue000{len(links) - 1}\ue001"

    text = escape(_LINK.sub(keep, piece))
    text = _BULLET.sub(r"\1• ", text)
    text = _ITALIC.sub(r"_\1_", text)
    text = _HEADING.sub(lambda found: f"*{found[1].replace('**', '')}*", text)
    text = _BOLD.sub(r"*\2*", text)
    text = _STRUCK.sub(r"~\1~", text)
    return _KEPT.sub(lambda found: links[int(found[1])], text)


def _link(label: str, url: str) -> str:
    """A link that says where it leads, unless its label already does not lie."""
    parts = urlsplit(url)
    is_web = parts.scheme in ("http", "https") and parts.hostname
    if not is_web or re.search(r"[|<>\"\s]", url):
        return escape(f"{label} ({url})")
    label = label.replace("|", "¦")
    if "." in label and (parts.hostname or "") not in label:
        label = f"{label} ({parts.hostname})"
    return f"<{escape(url)}|{escape(label)}>"
