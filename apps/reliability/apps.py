from functools import partial

from django.apps import AppConfig


class ReliabilityConfig(AppConfig):
    """Watches the install and rehearses its failures."""

    name = "apps.reliability"
    label = "reliability"

    def ready(self) -> None:
        from apps.channels import ports as channel_ports
        from apps.channels import services as channels
        from apps.reliability import ports, services
        from apps.reliability.adapters import programs, stage, webhook
        from apps.reliability.engine import alerts, slo_hours, starter
        from apps.runs import ports as runs
        from apps.vault import ports as vault

        vault.plug_places(services.place_of_webhook)
        runs.handlers.register(starter.KIND, starter.start_scheduled_turn)
        runs.ticks.register(
            "reliability.store", services.look_after_alarm, 2.0, in_doubt=True
        )
        ports.plug(programs.Programs())
        ports.plug_stage(stage.Stage())
        for kind, handler in (
            (services.SNAPSHOT_KIND, services.take_scheduled),
            (services.REHEARSAL_KIND, services.carry_rehearsal),
        ):
            runs.handlers.register(kind, handler, step_seconds=services.COPY_SECONDS)
        ports.plug_messenger(channels.tell_operators, channels.tells_operators)
        channel_ports.plugged_commands.register(services.INCIDENT_COMMAND)
        ports.plug_courier(webhook.Courier())
        runs.handlers.register(services.SYNTHETIC_KIND, services.carry_breach)
        runs.ticks.register("reliability.faults", services.take_back_faults, 2.0)
        runs.ticks.register("reliability.notices", services.send_due, 5.0)
        runs.ticks.register("reliability.slo_hours", slo_hours.sum_up, 60.0)
        for each in alerts.DETECTORS:
            runs.ticks.register(
                f"reliability.alerts.{each.name}",
                partial(services.watch, each),
                each.every_seconds,
                in_doubt=each.in_doubt,
            )
        runs.handlers.register(
            services.DRILL_KIND,
            services.carry_drill,
            step_seconds=services.STEP_SECONDS,
        )
        runs.handlers.register(services.DRILLS_DUE_KIND, services.carry_due_drill)
