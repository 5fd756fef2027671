"""What every verb on an extension shares: who may, why, through the gateway, traced."""

from collections.abc import Callable

from apps.access.models import Principal, PrincipalKind, Role
from apps.access.policies import check_role
from apps.access.queries import default_workspace
from apps.audit import services as audit
from apps.common.errors import Conflict, Denied, FieldProblem, Invalid
from apps.extensions.engine import definition
from apps.extensions.models import Extension, Version
from apps.gateway import services as gateway
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    EffectClass,
    Json,
    Permit,
    Result,
    Risk,
)


def check_may(by: Principal, role: Role) -> None:
    """Refuse agents, and people below a role."""
    if by.kind in (PrincipalKind.AGENT, PrincipalKind.AUTOMATION):
        raise Denied("An agent never decides about extensions.")
    check_role(by, role, default_workspace())


def check_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > 300:
        raise Invalid(
            "Say why: the reason is kept.",
            fields=(
                FieldProblem("reason", "empty or too long", "1 to 300 characters"),
            ),
        )


def decide(
    by: Principal,
    verb: str,
    arguments: Json,
    do: Callable[[], Extension],
    *,
    waits: bool = False,
) -> Extension:
    """Make one lifecycle change through the gateway.

    `do` runs after the permit is spent, outside any transaction, so that it may
    ask a server; it writes in transactions of its own.
    """
    done: list[Extension] = []

    def perform(permit: Permit) -> Result:
        permit.spend(arguments, waits=waits)
        done.append(do())
        return Result({"extensionId": done[0].ext_id, "lifecycle": done[0].lifecycle})

    gateway.call(
        CallRequest(
            kind=CallKind.LIFECYCLE,
            capability=f"extension.{verb}",
            principal=by,
            workspace_id=default_workspace().id,
            arguments=arguments,
            perform=perform,
            risk=Risk("write", side_effects="internal"),
            effect_class=EffectClass.INTERNAL,
        )
    )
    row = done[0]
    row.refresh_from_db()
    return row


def move(row: Extension, **changes: object) -> None:
    """Change an extension if it is still as it was read. Raises: Conflict."""
    held = Extension.objects.filter(
        id=row.id,
        trust=row.trust,
        lifecycle=row.lifecycle,
        definition_hash=row.definition_hash,
    )
    if held.update(**changes) != 1:
        raise Conflict("Somebody else has just decided about this extension.")


def keep_version(row: Extension) -> str:
    """Hash the rows as they are and keep that form. Returns the hash."""
    manifest = definition.manifest_of(row)
    found = definition.hash_of(manifest)
    Version.objects.get_or_create(
        extension=row,
        definition_hash=found,
        defaults={
            "version": row.version,
            "definition": manifest,
            "source": row.source,
            "revision": row.revision,
        },
    )
    return found


def record(
    row: Extension, by: Principal, verb: str, *, data: Json, reason: str = ""
) -> None:
    audit.record(
        type=f"extension.{verb}",
        actor=by.actor,
        subject=("extension", str(row.id)),
        reason=reason[:300],
        data={"extension_id": row.ext_id, **data},
    )
