"""Plugs the turn loop, its tick and the conversation search into their sockets."""

from django.apps import AppConfig


class AgentsConfig(AppConfig):
    name = "apps.agents"
    label = "agents"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Models exist only now, so these cannot be imported above.
        from apps.agents import queries, services
        from apps.agents.engine import (
            automation,
            heartbeat,
            loop,
            memory,
            recursion_hours,
            replay,
            search,
            sessions,
            summary,
            usage_hours,
        )
        from apps.extensions import ports as extensions
        from apps.runs import ports as runs_ports

        extensions.native_tools.register(search.CONVERSATION_SEARCH)
        extensions.native_tools.register(automation.PROPOSE)
        extensions.native_tools.register(memory.REMEMBER)
        extensions.native_tools.register(memory.RECALL)
        extensions.sessions.plug("agents", sessions.find_session)
        extensions.own_sessions.plug("agents", sessions.newest_session)
        extensions.dependents.plug("agents", sessions.dependents)
        runs_ports.handlers.register(
            summary.KIND, summary.carry, step_seconds=summary.STEP_SECONDS
        )
        runs_ports.handlers.register(automation.KIND, services.carry_automation)
        runs_ports.replayers.register(services.RUN_KIND, replay.replay)
        runs_ports.subjects.register(services.RUN_KIND, queries.about_runs)
        runs_ports.subjects.register(automation.KIND, queries.about_automations)
        runs_ports.handlers.register(heartbeat.KIND, services.carry_heartbeat)
        runs_ports.plannable.register(heartbeat.PLANNED)
        runs_ports.plannable.register(automation.PLANNED)
        runs_ports.handlers.register(
            services.RUN_KIND, loop.advance, step_seconds=loop.MODEL_STEP_SECONDS
        )
        runs_ports.ticks.register("agents.orphans", services.close_orphans, 5.0)
        runs_ports.ticks.register("agents.usage_hours", usage_hours.sum_up, 60.0)
        runs_ports.ticks.register(
            "agents.recursion_hours", recursion_hours.sum_up, 60.0
        )
