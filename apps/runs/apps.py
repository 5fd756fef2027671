"""Plugs the run machinery in: the doorbell, the gateway's decisions, the clock."""

from functools import partial

from django.apps import AppConfig
from django.conf import settings


class RunsConfig(AppConfig):
    name = "apps.runs"
    label = "runs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Models exist only now, so these cannot be imported above.
        from apps.audit import ports as audit_ports
        from apps.audit import services as audit
        from apps.gateway import ports as gateway_ports
        from apps.gateway import services as gateway
        from apps.runs import ports, services
        from apps.vault import ports as vault_ports
        from apps.vault import services as vault

        gateway_ports.decided.plug("runs", services.wake_for_decision)
        gateway_ports.carried.plug("runs", services.carried)
        vault_ports.plug_unsealed(services.wake_for_unseal)
        ports.ticks.register("runs.slots", services.fire_due_slots, 1.0)
        ports.ticks.register("runs.tick", services.tick, 5.0)
        ports.ticks.register("gateway.approvals", gateway.sweep_approvals, 1.0)
        ports.ticks.register("gateway.budgets", gateway.sweep_reservations, 1.0)
        if audit.can_seal():
            ports.ticks.register("audit.seal", audit.seal, 0.2)
        used = [name for name, sink in audit_ports.sinks().items() if sink.is_on()]
        for name in used:
            push = partial(audit.push_sink, name)
            ports.ticks.register(f"audit.sinks.{name}", push, 1.0)
        ports.ticks.register("vault.rotation", vault.tick, 1.0)
        if settings.REDIS_URL:
            from apps.runs.adapters import doorbell

            ports.doorbell.plug(doorbell.ring)
            ports.broker.plug(doorbell.ask)
