"""Can the needed secret be opened?"""

from apps.gateway.engine.decision import Decision
from apps.vault import services as vault
from apps.vault.errors import VaultSealed


def check(decision: Decision) -> str:
    """Refuse early, before anything is spent, when the vault is sealed."""
    if not decision.request.needs_secret:
        return "none needed"
    status = vault.status()
    if status.state != "open":
        raise VaultSealed(f"The vault is sealed: {status.reason}")
    return "open"
