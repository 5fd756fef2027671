"""Sealed secrets, the wraps of their keys, and what is known of the ring.

No column holds plaintext. `ciphertext` and `wrapped_dek` are opaque here; only the
engine reads them.
"""

from django.db import models
from django.db.models import Q

from apps.audit import ports as audit_ports
from apps.common import clock, ids
from apps.common.models import Row, SoleRow

audit_ports.declare(
    "vault.put",
    "vault.leased",
    "vault.deleted",
    "vault.unreadable",
    "vault.key_adopted",
    "vault.sealed",
    "vault.unsealed",
    "vault.rotation_started",
    "vault.rotation_batch",
    "vault.rotation_done",
    "vault.key_retired",
    "vault.loss_accepted",
    "vault.recovery_made",
    "vault.recovery_dropped",
    "vault.recovered",
    "vault.backup_verified",
    "vault.reentry_checked",
)


class Secret(Row):
    """One sealed value. Other apps hold a foreign key to it, never a copy."""

    name = models.CharField(max_length=160, unique=True)
    purpose = models.CharField(max_length=160)
    ciphertext = models.TextField(editable=False)
    fingerprint = models.CharField(max_length=16, editable=False)
    workspace_id = models.UUIDField(null=True, blank=True)
    stored_at = models.DateTimeField(default=clock.now, editable=False)
    unreadable_since = models.DateTimeField(null=True, blank=True, editable=False)
    data_key_at = models.DateTimeField(default=clock.now, editable=False)
    # what the checklist of a lost key remembers: lost, entered again, found good
    lost_at = models.DateTimeField(null=True, blank=True, editable=False)
    checked_at = models.DateTimeField(null=True, blank=True, editable=False)
    check_problem = models.CharField(max_length=300, blank=True, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(ciphertext__startswith="pv1."), name="secret_is_pv1"
            ),
            models.CheckConstraint(condition=~Q(name=""), name="secret_is_named"),
        ]
        indexes = [
            # what a re-encryption has still to do
            models.Index(fields=["data_key_at"], name="secret_by_data_key"),
            # the checklist, and the count of what does not open
            models.Index(
                fields=["name"],
                name="secret_to_enter_again",
                condition=Q(lost_at__isnull=False) | Q(unreadable_since__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Wrap(Row):
    """A secret's data key, wrapped for one recipient.

    A recipient is "key:<kid>" or "recovery:<id>". A wrap is never changed: its id is
    its version.
    """

    secret = models.ForeignKey(Secret, models.CASCADE, related_name="wraps")
    recipient = models.CharField(max_length=80)
    wrapped_dek = models.TextField(editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint("secret", "recipient", name="wrap_once"),
            models.CheckConstraint(
                condition=Q(wrapped_dek__startswith="pv1."), name="wrap_is_pv1"
            ),
        ]
        indexes = [
            # which kids still hold ciphertext (the check of the ring, rotation)
            models.Index(fields=["recipient"], name="wrap_by_recipient")
        ]

    def __str__(self) -> str:
        return f"{self.secret_id} for {self.recipient}"


class Key(models.Model):
    """What is remembered of a key-encryption key: enough to know it again."""

    kid = models.CharField(max_length=64, primary_key=True)
    kcv = models.CharField(max_length=64)
    encryptions = models.BigIntegerField(default=0)
    first_seen = models.DateTimeField(default=clock.now)
    retired_at = models.DateTimeField(null=True, blank=True)
    lost_at = models.DateTimeField(null=True, blank=True)
    backup_proved_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(encryptions__gte=0), name="key_encryptions_counted"
            )
        ]

    def __str__(self) -> str:
        return self.kid


class Install(SoleRow):
    """The identity that every ciphertext of this install is bound to."""

    install_id = models.UUIDField(default=ids.new_id, editable=False)

    def __str__(self) -> str:
        return str(self.install_id)


class SealState(SoleRow):
    """The operator's seal. Every lease reads it, so it holds in all processes."""

    sealed = models.BooleanField(default=False)
    seal_epoch = models.BigIntegerField(default=0)
    reason = models.CharField(max_length=300, blank=True)
    changed_at = models.DateTimeField(default=clock.now)

    def __str__(self) -> str:
        return "sealed" if self.sealed else "open"


class RecoveryForm(models.TextChoices):
    """How the private part of a recovery recipient is kept outside."""

    OFFLINE = "offline", "one offline key"
    SHARES = "shares", "3 of 5 shares"


class Recovery(Row):
    """A recovery recipient: every data key is wrapped for its public key too.

    The private part was shown once and is nowhere in the store.
    """

    recipient = models.CharField(max_length=80, unique=True)
    form = models.CharField(max_length=8, choices=RecoveryForm.choices)
    public_key = models.CharField(max_length=64)
    dropped_at = models.DateTimeField(null=True, blank=True)
    proved_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "recovery kits"
        constraints = [
            models.CheckConstraint(
                condition=Q(form__in=RecoveryForm.values), name="recovery_form"
            ),
        ]

    def __str__(self) -> str:
        return self.recipient


class RotationKind(models.TextChoices):
    """What a rotation does to every row."""

    REWRAP = "rewrap", "new key, same data keys"
    REENCRYPT = "reencrypt", "new data keys"
    ENROL = "enrol", "data keys for a new recovery recipient"


class Rotation(Row):
    """Work over every secret, in batches; what remains is read off the rows."""

    kind = models.CharField(max_length=12, choices=RotationKind.choices)
    reason = models.CharField(max_length=300, blank=True)
    started_by = models.CharField(max_length=160)
    total = models.PositiveIntegerField(default=0)
    done_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                models.Value(1), name="rotation_one_open", condition=Q(done_at=None)
            ),
            models.CheckConstraint(
                condition=Q(kind__in=RotationKind.values), name="rotation_kind"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"
