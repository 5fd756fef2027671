"""The plugin `polar`: its rows say what this version of the code offers."""

from django.db import transaction

from apps.access import services as access
from apps.access.models import Principal
from apps.common import clock
from apps.extensions import ports
from apps.extensions.engine import definition
from apps.extensions.models import (
    LIFECYCLE_TRANSITIONS,
    TRUST_TRANSITIONS,
    Capability,
    Extension,
    ExtensionType,
    Lifecycle,
    Review,
    Trust,
    Version,
)

from .guarded import record


@transaction.atomic
def sync_shipped_plugin(*, version: str = "") -> Extension:
    """Make the rows of plugin `polar` say what this version of the code offers.

    Writes: Extension, Capability, Version, Review; install, review and upgrade
    events by the system.   Again: without a difference nothing is written. A
    disabled plugin stays disabled and a revoked one blocked: code is no review of
    what an operator decided.
    """
    system = access.system_principal()
    row, is_new = Extension.objects.get_or_create(
        ext_id=ports.SHIPPED,
        defaults={
            "type": ExtensionType.PLUGIN,
            "title": "Polar",
            "description": "The tools that ship with Polar.",
        },
    )
    described = definition.describe(ports.SHIPPED, ports.native_tools.of(ports.SHIPPED))
    new_hash = definition.hash_of(described)
    is_told = not row.capabilities.filter(is_current=True, risk_by="").exists()
    if row.definition_hash == row.reviewed_hash == new_hash and is_told:
        return row
    before = row.definition_hash
    _write_capabilities(row)
    Version.objects.get_or_create(
        extension=row,
        definition_hash=new_hash,
        defaults={"version": version, "definition": described},
    )
    row.definition_hash = row.reviewed_hash = new_hash
    row.version = version
    if is_new:
        _settle_in(row, system)
    row.save()
    facts = {"before": before, "after": new_hash, "version": version}
    record(row, system, "installed" if is_new else "upgraded", data=facts)
    _approve_shipped(row, system)
    return row


def _write_capabilities(row: Extension) -> None:
    tools = ports.native_tools.of(row.ext_id)
    for tool in tools:
        Capability.objects.update_or_create(
            extension=row,
            capability_id=tool.capability_id,
            defaults={
                "alias": definition.alias_of(row.ext_id, tool.capability_id),
                "title": tool.title,
                "description": tool.description,
                "input_schema": tool.input_schema,
                "output_schema": tool.output_schema,
                "risk_level": tool.risk.level,
                "side_effects": tool.risk.side_effects,
                "data_egress": tool.risk.data_egress,
                "risk_by": "code",
                "effect_class": tool.effect_class,
                "target": tool.capability_id,
                "is_current": True,
            },
        )
    kept = [tool.capability_id for tool in tools]
    row.capabilities.exclude(capability_id__in=kept).update(is_current=False)


def _settle_in(row: Extension, system: Principal) -> None:
    """Walk a new plugin through its lifecycle, as an operator would."""
    for target in (Lifecycle.INSTALLED, Lifecycle.ENABLED):
        LIFECYCLE_TRANSITIONS.check(row.lifecycle, target)
        row.lifecycle = target
    TRUST_TRANSITIONS.check(row.trust, Trust.TRUSTED)
    row.trust, row.trust_reason = Trust.TRUSTED, "ships with Polar"
    row.trust_by, row.trust_at = system.label, clock.now()


def _approve_shipped(row: Extension, system: Principal) -> None:
    Review.objects.create(
        extension=row,
        definition_hash=row.definition_hash,
        is_approved=True,
        trust=row.trust,
        reason="ships with Polar",
        reviewer=system.label,
    )
    record(row, system, "reviewed", data={"definition_hash": row.definition_hash})
