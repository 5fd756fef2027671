"""What the stages know of one call while they decide it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

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

    @property
    def setting(self) -> Setting:
        return self.sight.setting

    def note(self, stage: str, verdict: str) -> None:
        """Remember what a stage said, for the explain page."""
        self.facts.setdefault("stages", {})[stage] = verdict
