"""The vault's pages: names and fingerprints. A value is nowhere to be seen."""

from django.contrib import admin
from django.utils.safestring import SafeString

from apps.common.admin import ReadOnlyAdmin, state_badge
from apps.vault.models import (
    Install,
    Key,
    Recovery,
    Rotation,
    SealState,
    Secret,
    Wrap,
)


@admin.register(Secret)
class SecretAdmin(ReadOnlyAdmin):
    list_display = ("name", "purpose", "fingerprint", "readable", "stored_at")
    list_filter = ("purpose",)
    search_fields = ("name", "purpose", "fingerprint")
    fields = ("name", "purpose", "fingerprint", "workspace_id", "readable", "stored_at")
    readonly_fields = fields

    @admin.display(description="State")
    def readable(self, secret: Secret) -> SafeString:
        return state_badge("unreadable" if secret.unreadable_since else "ok")


@admin.register(Wrap)
class WrapAdmin(ReadOnlyAdmin):
    list_display = ("secret", "recipient", "created_at")
    list_filter = ("recipient",)
    search_fields = ("secret__name", "recipient")
    fields = ("secret", "recipient", "created_at")


@admin.register(Key)
class KeyAdmin(ReadOnlyAdmin):
    list_display = ("kid", "encryptions", "first_seen", "retired_at", "lost_at")
    search_fields = ("kid",)
    fields = (*list_display, "backup_proved_at")


@admin.register(Install)
class InstallAdmin(ReadOnlyAdmin):
    list_display = ("install_id",)


@admin.register(SealState)
class SealStateAdmin(ReadOnlyAdmin):
    list_display = ("state", "reason", "seal_epoch", "changed_at")

    @admin.display(description="State")
    def state(self, row: SealState) -> SafeString:
        return state_badge("sealed" if row.sealed else "open")


@admin.register(Recovery)
class RecoveryAdmin(ReadOnlyAdmin):
    list_display = ("recipient", "form", "created_at", "proved_at", "dropped_at")
    search_fields = ("recipient",)
    fields = list_display


@admin.register(Rotation)
class RotationAdmin(ReadOnlyAdmin):
    list_display = ("kind", "total", "started_by", "created_at", "done_at")
    list_filter = ("kind",)
    search_fields = ("reason", "started_by")
    fields = (*list_display, "reason")
