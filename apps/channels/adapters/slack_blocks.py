"""Block Kit: the buttons of an approval, what became of it, and the home tab.

Invariants: what stands beside a button is the canonical call, escaped, never a
model's prose; a button's value is an id and nothing else.
Source: https://docs.slack.dev/reference/block-kit
"""

from collections.abc import Iterable
from typing import Any, Final

from apps.channels.adapters.slack_text import escape

#: Slack's own limits. Units: characters.
SECTION: Final = 3000
HEADER: Final = 150
BUTTON: Final = 75
#: The prefix of this app's button ids.
PREFIX: Final = "polar."
MOST_BLOCKS: Final = 48

Block = dict[str, Any]


def section(mrkdwn: str) -> Block:
    return {"type": "section", "text": {"type": "mrkdwn", "text": mrkdwn[:SECTION]}}


def note(mrkdwn: str) -> Block:
    return {
        "type": "context",
        "elements": [{"type": "mrkdwn", "text": mrkdwn[:SECTION]}],
    }


def header(text: str) -> Block:
    return {"type": "header", "text": {"type": "plain_text", "text": text[:HEADER]}}


def buttons(choices: Iterable[tuple[str, str, str]]) -> Block:
    """Draw buttons from (action, label, value).   Raises: ValueError, too long."""
    drawn = []
    for action, label, value in choices:
        if len(value) > 2000 or len(action) > 200:
            raise ValueError("a button's value or action is too long")
        button: Block = {
            "type": "button",
            "action_id": PREFIX + action,
            "text": {"type": "plain_text", "text": label[:BUTTON]},
            "value": value,
        }
        style = {"approve": "primary", "reject": "danger"}.get(action.split(":")[0])
        drawn.append(button | ({"style": style} if style else {}))
    return {"type": "actions", "elements": drawn[:25]}


def code(text: str) -> str:
    """A text in a box, escaped and cut so that the box still closes."""
    room = SECTION - len("```\n\n```") - len(" (cut)")
    shown = escape(text.replace("```", "'''"))
    return f"```\n{shown if len(shown) <= room else _cut(shown, room) + ' (cut)'}\n```"


def _cut(escaped: str, room: int) -> str:
    """Cut an escaped text, but not through an entity."""
    kept = escaped[:room]
    start = kept.rfind("&")
    return kept[:start] if start > room - 6 and ";" not in kept[start:] else kept


def home(title: str, lines: Iterable[tuple[str, str]]) -> Block:
    """Draw the home tab: a title, and pairs of a name and what to say of it."""
    rows = [section(f"*{escape(name)}*\n{escape(said)}") for name, said in lines]
    return {"type": "home", "blocks": [header(title), *rows[:MOST_BLOCKS]]}
