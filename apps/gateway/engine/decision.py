"""What the stages know of one call while they decide it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction

from apps.gateway.models import Call, Setting
from apps.gateway.ports import CallRequest

from .sight import Sight


@dataclass(slots=True)
class Decision:
    """One call on its way through the stages; `facts` is kept on its row."""

    request: CallRequest
    call: Call
    now: datetime
    sight: Sight
    facts: dict[str, Any] = field(default_factory=dict)
    #: Reasons that only a person's approval (or a grant) can answer.
    asks: list[str] = field(default_factory=list)
    #: Set by the budget stage: (budget id, amount) that was set aside.
    reserved: list[tuple[Any, int]] = field(default_factory=list)
    _mark: str | None = None

    @property
    def setting(self) -> Setting:
        return self.sight.setting

    def before_writing(self) -> None:
        """Mark where a refusal goes back to. Every stage that writes asks it first;
        most decisions write nothing and need no mark. Again: keeps the first."""
        if self._mark is None:
            self._mark = transaction.savepoint()

    def undo(self) -> None:
        """Take back what the stages wrote."""
        if self._mark is not None:
            transaction.savepoint_rollback(self._mark)

    def keep(self) -> None:
        """Let what the stages wrote stand."""
        if self._mark is not None:
            transaction.savepoint_commit(self._mark)

    def note(self, stage: str, verdict: str) -> None:
        """Remember what a stage said, for the explain page."""
        self.facts.setdefault("stages", {})[stage] = verdict
