"""What an event is about, in a few words for a list.

Hides: which member of an event's data names its subject best. Only names are told,
never a value of a payload; the whole is on the event's own page.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from apps.audit.models import Event
from apps.common import canonical

#: The first of these that an event's data has, says what it is about.
NAMES = (
    "capability",
    "capability_id",
    "extension_id",
    "model",
    "provider",
    "name",
    "title",
    "slug",
    "agent",
    "drill",
    "scope",
    "kind",
    "username",
    "code",
)
#: Facts that say more, with how each is said.
FACTS = {
    "servedBy": "by {}",
    "source": "from {}",
    "target": "to {}",
    "lane": "lane {}",
    "severity": "{}",
    "duration_ms": "{} ms",
    "durationMs": "{} ms",
    "waiting_on": "waits on {}",
    "to": "to {}",
}
LONGEST, MOST_FACTS = 60, 2


@dataclass(frozen=True, slots=True)
class Told:
    """One event and its words."""

    event: Event
    about: str
    facts: str


def told(events: Iterable[Event]) -> list[Told]:
    return [_told(event) for event in events]


def _told(event: Event) -> Told:
    data = canonical.loads(event.body).get("data") or {}
    named = next((name for name in NAMES if _is_word(data.get(name))), "")
    about = str(data[named]) if named else event.subject_kind
    facts = [
        said.format(str(data[key])[:LONGEST])
        for key, said in FACTS.items()
        if key != named and _is_word(data.get(key))
    ]
    return Told(event, about[:LONGEST], ", ".join(facts[:MOST_FACTS]))


def _is_word(value: object) -> bool:
    return isinstance(value, str | int) and value != "" and value is not False
