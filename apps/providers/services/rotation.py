"""A provider's key is changed while it serves: staged, tested, tried, promoted.

Stage stores the new key beside the one in use. Test asks the small questions with
it. Shadow lets it serve real calls; a refusal ends the trial and the same call is
asked again with the key in use. Promote swaps the two; revoke deletes the old one
here, after which it should be deleted at the vendor's too. Drop gives up.

Invariant: until promotion the key in use is untouched, and every step is one
conditional UPDATE with its event.
"""

from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.db.models import F

from apps.access.models import Principal
from apps.audit import services as audit
from apps.common.errors import Conflict, FieldProblem, Invalid
from apps.providers import queries
from apps.providers.models import KEY_STAGE, KeyStage, KeyState, Provider
from apps.providers.policies import check_manage
from apps.providers.services import keys, questions
from apps.providers.services.questions import TestReport
from apps.vault import services as vault


def change_key(
    *, by: Principal, slug: str, action: str, key: str = ""
) -> TestReport | None:
    """Take one step of a change by its name; a test returns its report.

    Raises: Invalid for an unknown step; what the step itself raises.
    """
    if action == "stage":
        stage_key(by=by, slug=slug, key=key)
        return None
    if action == "test":
        return test_key(by=by, slug=slug)
    step = _STEPS.get(action)
    if step is None:
        expected = ", ".join(("stage", "test", *_STEPS))
        problem = FieldProblem("action", f"unknown: {action!r}", expected)
        raise Invalid("There is no such step of a key change.", fields=(problem,))
    step(by=by, slug=slug)
    return None


@transaction.atomic
def stage_key(*, by: Principal, slug: str, key: str) -> Provider:
    """Store a new key beside the one in use.

    Raises: RoleRequired; Invalid; Conflict when a change is under way or the key
    is the one in use; VaultSealed.
    """
    check_manage(by)
    row = queries.get_provider(slug)
    if not key.strip():
        problem = FieldProblem("key", "empty", "the new key, from the vendor's page")
        raise Invalid("There is no key to stage.", fields=(problem,))
    secret = vault.put(
        by=by.actor,
        name=_other_name(row),
        purpose=keys.purpose_of(row),
        value=key.strip(),
    )
    if row.secret is not None and row.secret.fingerprint == secret.fingerprint:
        raise Conflict(f"That is the key {slug} uses already.")
    _move(by, row, KeyStage.STAGED, "provider.key_staged", other_secret=secret)
    return row


def test_key(*, by: Principal, slug: str) -> TestReport:
    """List models and ask one word with the staged key.

    Raises: RoleRequired; Conflict when there is no staged key.
    """
    check_manage(by)
    row = queries.get_provider(slug)
    KEY_STAGE.check(row.key_stage, KeyStage.TESTED)
    report, failure = questions.try_out(by=by, provider=row, coming=True)
    if report.ok:
        with transaction.atomic():
            _move(by, row, KeyStage.TESTED, "provider.key_tested")
    elif failure is not None and failure.error_class == "auth":
        keys.refuse_coming(row, failure.detail)
    return report


@transaction.atomic
def shadow_key(*, by: Principal, slug: str) -> Provider:
    """Let the tested key serve real calls, with the one in use behind it."""
    check_manage(by)
    row = queries.get_provider(slug)
    _move(by, row, KeyStage.SHADOW, "provider.key_shadowed", shadow_answers=0)
    return row


@transaction.atomic
def promote_key(*, by: Principal, slug: str) -> Provider:
    """Put the tried key in the place of the one in use, which is kept."""
    check_manage(by)
    row = queries.get_provider(slug)
    _move(
        by,
        row,
        KeyStage.PROMOTED,
        "provider.key_promoted",
        secret_id=row.other_secret_id,
        other_secret_id=row.secret_id,
        state=KeyState.OK,
        state_detail="",
        quiet_until=None,
        revision=F("revision") + 1,
    )
    return row


@transaction.atomic
def revoke_old_key(*, by: Principal, slug: str) -> Provider:
    """Delete the replaced key from the vault; the change is over."""
    check_manage(by)
    row = queries.get_provider(slug)
    if row.key_stage != KeyStage.PROMOTED:
        raise Conflict(f"{slug} has no replaced key to revoke.")
    return _settle(by, row, "provider.key_revoked")


@transaction.atomic
def drop_new_key(*, by: Principal, slug: str) -> Provider:
    """Give the change up; the key in use stays."""
    check_manage(by)
    row = queries.get_provider(slug)
    if row.key_stage in (KeyStage.SETTLED, KeyStage.PROMOTED):
        raise Conflict(f"{slug} has no new key to drop.")
    return _settle(by, row, "provider.key_dropped")


_STEPS: dict[str, Callable[..., Provider]] = {
    "shadow": shadow_key,
    "promote": promote_key,
    "revoke": revoke_old_key,
    "drop": drop_new_key,
}


def _settle(by: Principal, row: Provider, event: str) -> Provider:
    gone = row.other_secret_id
    _move(by, row, KeyStage.SETTLED, event, other_secret=None, shadow_answers=0)
    if gone is not None:
        vault.delete(by=by.actor, secret_id=gone, reason=event)
    return row


def _move(
    by: Principal, row: Provider, to: KeyStage, event: str, **changes: Any
) -> None:
    """Take one step of the change, if nobody else took one meanwhile."""
    KEY_STAGE.check(row.key_stage, to)
    mine = Provider.objects.filter(
        pk=row.pk, key_stage=row.key_stage, other_secret_id=row.other_secret_id
    )
    if not mine.update(key_stage=to, key_detail="", **changes):
        raise Conflict(f"The key of {row.slug} was changed meanwhile: look again.")
    answered = row.shadow_answers
    row.refresh_from_db()
    audit.record(
        type=event,
        actor=by.actor,
        subject=("provider", str(row.pk)),
        data={
            "provider": row.slug,
            "stage": to,
            "fingerprint": row.secret.fingerprint if row.secret else "",
            "other": row.other_secret.fingerprint if row.other_secret else "",
            "shadow_answers": answered,
        },
    )


def _other_name(row: Provider) -> str:
    """Return the name that the key in use does not have; there are two."""
    first = keys.name_of(row.slug)
    taken = row.secret.name if row.secret is not None else ""
    return f"{first}.next" if taken == first else first
