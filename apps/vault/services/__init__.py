"""The verbs of the vault.

`lease` is the secret gate: plaintext exists only inside its `with` block, is known
to the redactor meanwhile, and each lease leaves an event before it opens. Rotation,
recovery kits and the way back from a lost key are here too.
"""

from apps.vault.engine import store
from apps.vault.queries import get_secret
from apps.vault.services.reentry import (
    Entry,
    checklist,
    forget,
    reenter,
    retest,
    retest_entered,
    store_secret,
)
from apps.vault.services.rescuing import (
    Kit,
    accept_loss,
    drop_kit,
    make_kit,
    recover,
    verify_backup,
)
from apps.vault.services.rotation import (
    Preview,
    Progress,
    advance,
    finish,
    preview,
    progress,
    reencrypt,
    rotate,
    tick,
)
from apps.vault.services.secrets import (
    LONGEST_VALUE,
    delete,
    lease,
    put,
    seal,
    status,
    unseal,
)

__all__ = [
    "LONGEST_VALUE",
    "Entry",
    "Kit",
    "Preview",
    "Progress",
    "accept_loss",
    "advance",
    "checklist",
    "delete",
    "drop_kit",
    "finish",
    "forget",
    "get_secret",
    "lease",
    "make_kit",
    "preview",
    "progress",
    "put",
    "recover",
    "reencrypt",
    "reenter",
    "retest",
    "retest_entered",
    "rotate",
    "seal",
    "status",
    "store",
    "store_secret",
    "tick",
    "unseal",
    "verify_backup",
]
