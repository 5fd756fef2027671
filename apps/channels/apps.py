"""Plugs the vendors and the runs of channels into their sockets."""

from django.apps import AppConfig


class ChannelsConfig(AppConfig):
    name = "apps.channels"
    label = "channels"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Models exist only now, so these cannot be imported above.
        from apps.channels import ports, services
        from apps.runs import ports as runs_ports
        from apps.vault import ports as vault_ports

        telegram = "apps.channels.adapters.telegram.TelegramTransport"
        ports.transports.register("telegram", telegram)
        ports.hooks.register("telegram", telegram)
        slack = "apps.channels.adapters.slack.SlackTransport"
        ports.transports.register("slack", slack)
        ports.hooks.register("slack", slack)
        vault_ports.plug_places(services.place_of_token)
        runs_ports.handlers.register(services.HEAR_KIND, services.carry_heard)
        runs_ports.handlers.register(
            services.LISTEN_KIND,
            services.listen,
            queue=services.LISTEN_QUEUE,
            step_seconds=services.LISTEN_SECONDS + 60.0,
        )
        runs_ports.handlers.register(services.HOME_KIND, services.carry_home)
        runs_ports.handlers.register(services.CANARY_KIND, services.carry_canary)
        runs_ports.handlers.register(services.SEND_KIND, services.carry_send)
        runs_ports.handlers.register(services.FOLLOW_KIND, services.carry_follow)
        runs_ports.handlers.register(services.DELIVER_KIND, services.deliver)
        runs_ports.warm_ups.register("channels", services.warm_up)
        runs_ports.ticks.register("channels.listeners", services.keep_listening, 5.0)
        runs_ports.ticks.register("channels.canaries", services.sing, 5.0)
        runs_ports.ticks.register("channels.forgotten", services.ring_forgotten, 15.0)
        runs_ports.ticks.register("channels.approvals", services.route_approvals, 3.0)
