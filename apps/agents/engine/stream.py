"""Deltas: an answer on its way to whoever is looking, redacted as it flows.

Invariants: a row is written at most every 250 ms and only while the turn is
watched; text leaves after redaction, holding back the length of the longest
leased secret; what was not watched is kept until somebody looks.
"""

from datetime import datetime
from uuid import UUID

from django.db.models import Max

from apps.agents.engine.journal import storable
from apps.agents.models import Delta, DeltaKind, Turn
from apps.common import clock, redaction
from apps.gateway.ports import release_connection

FLUSH_EVERY_SECONDS = 0.25


class DeltaStream:
    """Writes one turn's deltas for one attempt."""

    def __init__(
        self, *, turn_id: UUID, attempt: int, watched_until: datetime | None = None
    ) -> None:
        self._turn_id = turn_id
        self._attempt = attempt
        self._held = ""
        self._clean = ""
        self._resets = False
        self._shown = False
        self._seq: int | None = None
        # Nobody looks yet: the first look at the row may wait as long as others.
        unwatched = watched_until is None or watched_until <= clock.now()
        self._flushed_at = clock.monotonic() if unwatched else None

    def write(self, text: str) -> None:
        """Take a piece of the answer; show what is due."""
        self._held = redaction.scrub(self._held + storable(text))
        hold = redaction.longest()
        cut = max(len(self._held) - hold, 0)
        self._clean += self._held[:cut]
        self._held = self._held[cut:]
        if self._is_due():
            self._flush()

    def reset(self) -> None:
        """Take back what was shown: another route starts the answer anew."""
        self._held = self._clean = ""
        self._resets = self._resets or self._shown

    def begin(self) -> None:
        """Start a model call: what an earlier one said is not the answer."""
        self.reset()

    def end(self) -> None:
        """Show the rest of what one model call said."""
        self._clean += self._held
        self._held = ""
        if self._clean and self._shown:
            self._flush()

    def _is_due(self) -> bool:
        if self._flushed_at is None:
            return True
        return clock.monotonic() - self._flushed_at >= FLUSH_EVERY_SECONDS

    def _flush(self) -> None:
        self._flushed_at = clock.monotonic()
        if self._is_watched():
            self._insert()
        # A vendor may be slow: no connection is held while waiting for it.
        release_connection()

    def _is_watched(self) -> bool:
        found = Turn.objects.open().filter(id=self._turn_id)
        until: datetime | None = found.values_list("watched_until", flat=True).first()
        return until is not None and until > clock.now()

    def _insert(self) -> None:
        if self._seq is None:
            found = Delta.objects.filter(turn_id=self._turn_id)
            self._seq = found.aggregate(last=Max("seq"))["last"] or 0
            # What an attempt that died has shown is taken back.
            self._resets = self._seq > 0
        rows = []
        if self._resets:
            rows.append(self._delta(DeltaKind.RESET, ""))
            self._resets = False
        if self._clean:
            rows.append(self._delta(DeltaKind.TEXT, self._clean))
            self._clean = ""
        Delta.objects.bulk_create(rows)
        self._shown = self._shown or bool(rows)

    def _delta(self, kind: str, text: str) -> Delta:
        self._seq = (self._seq or 0) + 1
        return Delta(
            turn_id=self._turn_id,
            attempt=self._attempt,
            seq=self._seq,
            kind=kind,
            text=text,
        )
