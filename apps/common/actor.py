"""Who did it, as the lowest floors need to know it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """A human, agent, automation or the system, named for the record."""

    kind: str
    id: str
    label: str


#: Polar itself, for what nobody in particular asked for.
SYSTEM = Actor("system", "system", "polar")
