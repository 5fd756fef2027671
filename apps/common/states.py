"""Lifecycles as tables: what is not in the table cannot happen.

Each table registers itself by name; the diagrams in docs/states are drawn from
the registry and compared by a test, so they cannot drift.
"""

from collections.abc import Iterable, Mapping

from .errors import InvalidTransition

REGISTRY: "dict[str, Transitions]" = {}


class Transitions:
    """The allowed moves of one lifecycle."""

    def __init__(
        self, name: str, *, initial: str, table: Mapping[str, Iterable[str]]
    ) -> None:
        self.name = name
        self.initial = str(initial)
        self.table = {
            str(source): frozenset(str(target) for target in targets)
            for source, targets in table.items()
        }
        for targets in list(self.table.values()):
            for target in targets:
                self.table.setdefault(target, frozenset())
        REGISTRY[name] = self

    @property
    def states(self) -> list[str]:
        return list(self.table)

    @property
    def terminal(self) -> frozenset[str]:
        """The states that nothing leaves."""
        return frozenset(state for state, to in self.table.items() if not to)

    def sources(self, target: str) -> list[str]:
        """The states from which `target` can be reached in one move."""
        return [state for state, to in self.table.items() if str(target) in to]

    def allows(self, source: str, target: str) -> bool:
        return str(target) in self.table.get(str(source), frozenset())

    def check(self, source: str, target: str) -> None:
        """Refuse a move that the table does not hold.

        Raises: InvalidTransition, naming the moves that are allowed.
        """
        if self.allows(source, target):
            return
        allowed = ", ".join(sorted(self.table.get(str(source), ()))) or "none"
        raise InvalidTransition(
            f"{self.name}: {source} cannot become {target}; allowed: {allowed}.",
            source=str(source),
            target=str(target),
        )

    def mermaid(self) -> str:
        """Draw the table as a Mermaid state diagram."""
        lines = ["stateDiagram-v2", f"    [*] --> {self.initial}"]
        for source in sorted(self.table):
            lines += [f"    {source} --> {to}" for to in sorted(self.table[source])]
        lines += [f"    {state} --> [*]" for state in sorted(self.terminal)]
        return "\n".join(lines) + "\n"
