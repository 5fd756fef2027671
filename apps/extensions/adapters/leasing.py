"""Opens an extension's own secrets at the time of use, and only its own.

A tool never receives a token that somebody presented to Polar: what is sent is
what an operator put into the vault for this extension, or what its authorization
server issued for it alone.
"""

from contextlib import ExitStack

from apps.common.actor import SYSTEM
from apps.extensions.ports import Source, ToolContext
from apps.vault import services as vault


def open_all(
    held: ExitStack, source: Source, purpose: str, context: ToolContext | None
) -> dict[str, str]:
    """Lease every granted secret until `held` closes; each lease is recorded.

    The token of a connection goes into the header that is its own.
    Raises: VaultSealed, SecretUnreadable, NotFound, AuthorizationWanted.
    """
    by = context.principal.actor if context else SYSTEM
    run_id = context.run_id if context else None
    opened = {
        name: held.enter_context(
            vault.lease(
                secret_id, purpose=f"tool {purpose}"[:120], by=by, run_id=run_id
            )
        ).reveal()
        for name, secret_id in source.grants.secrets.items()
        if source.bearer is None or name.lower() != "authorization"
    }
    if source.bearer is not None:
        token = source.bearer.lease(held, purpose, context)
        opened["Authorization"] = f"Bearer {token}"
    return opened
