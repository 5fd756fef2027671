"""Opens an extension's own secrets at the time of use, and only its own.

A tool never receives a token that somebody presented to Polar: what is sent is
what an operator put into the vault for this extension.
"""

from contextlib import ExitStack

from apps.common.actor import SYSTEM
from apps.extensions.ports import Source, ToolContext
from apps.vault import services as vault


def open_all(
    held: ExitStack, source: Source, purpose: str, context: ToolContext | None
) -> dict[str, str]:
    """Lease every granted secret until `held` closes; each lease is recorded.

    Raises: VaultSealed, SecretUnreadable, NotFound.
    """
    by = context.principal.actor if context else SYSTEM
    run_id = context.run_id if context else None
    return {
        name: held.enter_context(
            vault.lease(
                secret_id, purpose=f"tool {purpose}"[:120], by=by, run_id=run_id
            )
        ).reveal()
        for name, secret_id in source.grants.secrets.items()
    }
