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

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(ciphertext__startswith="pv1."), name="secret_is_pv1"
            ),
            models.CheckConstraint(condition=~Q(name=""), name="secret_is_named"),
        ]

    def __str__(self) -> str:
        return self.name


class Wrap(Row):
    """A secret's data key, wrapped for one recipient ("key:<kid>")."""

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
