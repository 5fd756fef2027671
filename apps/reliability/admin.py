"""Admin pages of reliability: everything is read-only here."""

from django.contrib import admin

from apps.common.admin import ReadOnlyAdmin
from apps.reliability.models import Rollback


@admin.register(Rollback)
class RollbackAdmin(ReadOnlyAdmin):
    list_display = (
        "detected_at",
        "state",
        "problem",
        "events_lost",
        "conflicted",
        "lost",
        "stale",
        "decided_by",
    )
    list_filter = ("state",)
    search_fields = ("alarm_id__exact",)
    ordering = ("-id",)
