"""Plugs the way back from a turn to its task into the run machinery."""

from django.apps import AppConfig


class BoardsConfig(AppConfig):
    """Shows what is to be done, and what became of it."""

    name = "apps.boards"
    label = "boards"

    def ready(self) -> None:
        # Models exist only now, so these cannot be imported above.
        from uuid import UUID

        from apps.boards import services
        from apps.runs import ports as runs_ports

        def turn_ended(context: runs_ports.RunContext) -> runs_ports.Outcome:
            moved = services.settle_turn(turn_id=UUID(context.payload["turn_id"]))
            return runs_ports.Finish({"moved": moved})

        runs_ports.handlers.register(services.RUN_KIND, turn_ended)
        runs_ports.ticks.register("boards.awaited", services.settle_awaited, 5.0)
