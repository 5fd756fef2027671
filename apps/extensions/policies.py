"""May this extension be enabled? `check_` raises with the reason."""

from apps.common.errors import NotTrusted

from .errors import ReviewMissing
from .models import Extension, Trust


def check_may_enable(extension: Extension) -> None:
    """Refuse a blocked extension, and one whose present form was not reviewed."""
    if extension.trust == Trust.BLOCKED:
        raise NotTrusted(
            f"{extension.trust_by or 'Polar'} blocked {extension.ext_id}: "
            f"{extension.trust_reason}",
            extension_id=extension.ext_id,
        )
    if not extension.is_pinned:
        raise ReviewMissing(
            f"{extension.ext_id} {extension.version} is not what was reviewed.",
            reviewed_hash=extension.reviewed_hash,
            definition_hash=extension.definition_hash,
        )
