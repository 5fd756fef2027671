"""Counts what a stream says, and tells when it says more than was asked for.

Hides: how output is counted without a tokenizer. Both counts are bounds from
below: no server streams less than a token in one piece, and text of more than
eight bytes to a token is longer than any that a model writes.
Source: docs/decisions/0027-a-stream-is-cut-at-its-cap.md
"""

from dataclasses import dataclass
from typing import Final

from pydantic_ai.messages import (
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)

BYTES_PER_TOKEN: Final = 4
#: A whole answer has fewer bytes to a token than this.
MOST_BYTES_PER_TOKEN: Final = 8


@dataclass(slots=True)
class Cap:
    """One call's cap and what was streamed under it. Units: tokens; bytes."""

    limit: int
    pieces: int = 0
    length: int = 0

    def saw(self, event: object) -> None:
        said = said_in(event)
        self.pieces += bool(said)
        self.length += len(said.encode("utf-8", "surrogatepass"))

    @property
    def is_passed(self) -> bool:
        return (
            self.pieces > self.limit or self.length > MOST_BYTES_PER_TOKEN * self.limit
        )

    @property
    def tokens(self) -> int:
        """Bound what was streamed; once the cap is passed, more than the cap."""
        counted = max(self.pieces, -(-self.length // BYTES_PER_TOKEN))
        return max(counted, self.limit + 1) if self.is_passed else counted


def said_in(event: object) -> str:
    """Return what one event of a stream adds: text, thinking, or arguments."""
    part: object = None
    if isinstance(event, PartStartEvent):
        part = event.part
    elif isinstance(event, PartDeltaEvent):
        part = event.delta
    if isinstance(part, TextPart | ThinkingPart):
        return part.content
    if isinstance(part, TextPartDelta | ThinkingPartDelta):
        return part.content_delta or ""
    if isinstance(part, ToolCallPart):
        return _as_text(part.args)
    return _as_text(part.args_delta) if isinstance(part, ToolCallPartDelta) else ""


def _as_text(arguments: object) -> str:
    return "" if arguments is None else str(arguments)
