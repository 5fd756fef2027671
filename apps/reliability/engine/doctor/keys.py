"""Checks of the keys: set, strong, right, backed up, not worn."""

import math
from collections import Counter
from datetime import timedelta

from django.conf import settings

from apps.access import queries as access
from apps.access.models import AccessPolicy, Membership, Role, User
from apps.audit import services as audit
from apps.audit.errors import KeyMismatch
from apps.common import clock
from apps.reliability.engine.doctor.check import (
    Found,
    check,
    fail,
    ok,
    once,
    unknown,
    unused,
    warn,
)
from apps.vault import ports as vault_ports
from apps.vault import queries as vault
from apps.vault.errors import BadKeyRing

#: How long a proved backup counts. Source: reliability.md, section 14
BACKUP_DAYS = 90
LEAST_BITS = 128


def bits_of(text: str) -> float:
    """Estimate how hard a text is to guess, from how its letters are spread."""
    if not text:
        return 0.0
    counts = Counter(text)
    size = len(text)
    each = -sum(n / size * math.log2(n / size) for n in counts.values())
    return each * size


def judge_secret(text: str) -> Found:
    bits = bits_of(text)
    said = f"{len(text)} characters, about {bits:.0f} bits"
    return ok(said) if bits >= LEAST_BITS else fail(said)


@check(
    "key-django",
    "Sessions cannot be forged by guessing",
    mend="Put a new SECRET_KEY into .env (everybody signs in again):"
    " python3 -c 'import secrets; print(secrets.token_urlsafe(48))'",
)
def django_key() -> Found:
    return judge_secret(settings.SECRET_KEY)


@check(
    "key-api-secret",
    "The API's shared secret cannot be guessed",
    mend="Put 32 random letters or more into POLAR_UI_API_SECRET and restart web.",
)
def api_secret() -> Found:
    if not settings.POLAR_UI_API_SECRET:
        return unused("none is set; tokens are made on their page")
    return judge_secret(settings.POLAR_UI_API_SECRET)


@check(
    "key-audit",
    "The log is signed by the key that the witness knows",
    mend="Put the former POLAR_AUDIT_KEY back into .env.",
)
def audit_key() -> Found:
    try:
        audit.check_claim()
    except KeyMismatch as error:
        return fail(error.detail)
    return ok(audit.public_key().split("+")[0])


@check(
    "key-vault-ring",
    "The vault's keys are keys",
    mend="Put back POLAR_VAULT_KEY from its backup; never make a new one while"
    " secrets are stored.",
)
def vault_ring() -> Found:
    try:
        ring = vault_ports.configured_ring()
    except BadKeyRing as error:
        return fail(error.detail)
    if not ring.keys:
        return fail("POLAR_VAULT_KEY is not set")
    return ok(f"{len(ring.keys)}, {ring.kids[0]} first")


@check(
    "key-vault-open",
    "Secrets can be opened",
    mend="./polar vault status says what helps; lost keys: docs/runbooks/"
    "lost-vault-key.md",
)
def vault_open() -> Found:
    found = once(vault.status)
    if found.state == "open":
        return ok(f"{found.secrets} secrets")
    return fail(f"{found.reason}: {found.detail}")


@check(
    "key-vault-readable",
    "No stored secret is unreadable",
    mend="Store the named ones again: page Vault, or ./polar vault recover",
)
def vault_readable() -> Found:
    count = once(vault.status).unreadable
    return fail(f"{count} do not open") if count else ok("all open")


@check(
    "key-vault-wear",
    "No key has encrypted more than half of what it may",
    mend="Rotate it: docs/runbooks/secret-rotation.md",
)
def vault_wear() -> Found:
    worn = [key.kid for key in once(vault.status).keys if key.worn]
    return warn(", ".join(worn)) if worn else ok("none is worn")


@check(
    "key-vault-rotation",
    "No secret hangs on an old key",
    mend="Run: ./polar vault rotate, then ./polar vault finish",
)
def vault_rotation() -> Found:
    old = [key.kid for key in once(vault.status).keys if key.in_ring and not key.first]
    rows = vault.wraps_by_recipient()
    left = {kid: rows[kid] for kid in old if rows.get(kid)}
    if left:
        return warn(", ".join(f"{count} on {kid}" for kid, count in left.items()))
    if old:
        return warn(f"{', '.join(old)} may leave the ring")
    return ok("one key holds all")


@check(
    "key-vault-backup",
    "The vault's key is backed up outside, proved in the last 90 days",
    mend="Run `./polar vault verify-backup` and give the backup's check code.",
)
def vault_backup() -> Found:
    first = next((key for key in once(vault.status).keys if key.first), None)
    if first is None:
        return unknown("there is no key")
    if first.backup_proved_at is None:
        return warn(f"no backup of {first.kid} was ever shown")
    age = clock.now() - first.backup_proved_at
    said = f"{first.kid}, {age.days} days ago"
    return ok(said) if age <= timedelta(days=BACKUP_DAYS) else warn(said)


@check(
    "key-vault-kit",
    "A lost key can be survived",
    mend="Make a recovery kit: ./polar vault export-recovery",
)
def vault_kit() -> Found:
    kits = vault.kits()
    return ok(f"{len(kits)} in use") if kits else warn("there is no recovery kit")


@check(
    "key-people",
    "Somebody can administrate, and more than one",
    mend="Make a second one: ./polar access --help",
)
def people() -> Found:
    admins = Membership.objects.filter(
        workspace=access.default_workspace(), role=Role.ADMIN, user__is_active=True
    ).count()
    if not admins:
        return fail("nobody can administrate")
    return ok(f"{admins} people") if admins > 1 else warn("one person; if they leave…")


@check(
    "key-second-factor",
    "Administrators and approvers show a second factor",
    mend="Page People: add one each, then demand it.",
)
def second_factor() -> Found:
    if AccessPolicy.objects.filter(second_factor_required=True).exists():
        return ok("demanded")
    strong = User.objects.filter(
        is_active=True, memberships__role__in=[Role.ADMIN, Role.APPROVER]
    ).distinct()
    without = sum(not access.has_second_factor(user) for user in strong[:50])
    return warn(f"{without} people have none") if without else ok("all have one")
